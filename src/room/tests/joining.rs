use super::scene::{Scene, fitting, ms, pin_hash, token, user, v2, v3};
use crate::domain::{Head, Username};
use crate::room::{Join, MemberConnection, PinProof, Reject};

#[test]
fn the_first_join_founds_the_room_with_its_pin_and_makes_the_joiner_host() {
    let mut scene = Scene::new();
    let join = v3("ann").join_with_pin(PinProof::Fresh(pin_hash("4711")));
    scene.at(0).send(join).expect(&["created by ann, pin"]);
    assert_eq!(scene.room.head, Head { epoch: ms(0).as_millis() as u64, seq: 1 });
    assert_eq!(scene.host(), "ann");
    assert_eq!(scene.slot("ann"), 1);
    assert_eq!(scene.room.playback.seq, 1);
    assert_eq!(scene.room.members[&user("ann")].name, Username::guest());
}

#[test]
fn a_room_that_comes_back_within_the_same_millisecond_is_a_later_epoch() {
    let ann = v3("ann");
    let mut scene = Scene::without_players(&[&ann]);
    let first = scene.room.head.epoch;
    scene.at(0).send(ann.leave()).expect(&["left ann left", "ended"]);
    assert_eq!(scene.room.head, Head { epoch: first, seq: 3 });
    scene.at(0).send(ann.join()).expect(&["created by ann"]);
    assert_eq!(scene.room.head, Head { epoch: first + 1, seq: 1 });
}

#[test]
fn a_clock_before_1970_still_gives_a_later_epoch() {
    let mut scene = Scene::new();
    scene.at(-4_000_000_000_000).send(v3("ann").join()).expect(&["created by ann"]);
    assert_eq!(scene.room.head.epoch, 1);
}

#[test]
fn a_second_person_enters_with_the_next_slot() {
    let mut scene = Scene::of(&[&v3("ann")]);
    scene.at(10).send(v3("bob").join()).expect(&["joined bob #2"]);
    scene.at(20).send(v3("bob").leave()).expect(&["left bob left"]);
    scene.at(30).send(v3("bob").join()).expect(&["joined bob #3"]);
}

#[test]
fn a_join_over_the_session_that_the_member_has_changes_nothing() {
    for ann in [v2("ann"), v3("ann")] {
        let mut scene = Scene::of(&[&ann]);
        scene.at(10).send(ann.join()).nothing();
    }
}

#[test]
fn the_token_takes_over_a_live_member_and_a_lost_one() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(10).send(ann.on(7).join_with(b'a')).expect(&["resumed ann on 7, proved"]);
    scene.at(11).send(ann.say("from the old tab")).refused(Reject::NotMember);
    scene.at(20).send(ann.on(7).drop_out()).expect(&["lost ann until 30020"]);
    scene.at(30).send(ann.on(8).join_with(7)).expect(&["resumed ann on 8, proved"]);
    assert_eq!((scene.host(), scene.slot("ann")), ("ann", 1));
}

#[test]
fn the_token_proves_more_than_the_pin() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1).send(ann.set_pin(Some("4711"))).expect(&["pin true"]);
    scene.at(2).send(ann.on(7).join_with(b'a')).expect(&["resumed ann on 7, proved"]);
}

#[test]
fn a_wrong_token_is_refused_for_a_member_and_ignored_for_somebody_new() {
    let mut scene = Scene::of(&[&v3("ann")]);
    scene.at(1).send(v3("ann").on(7).join_with(99)).refused(Reject::TokenInvalid);
    scene.at(2).send(v2("ann").on(7).join_with(99)).refused(Reject::TokenInvalid);
    scene.at(3).send(v3("bob").join_with(99)).expect(&["joined bob #2"]);
}

#[test]
fn the_old_token_is_valid_until_the_new_one_is_used() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1).send(ann.on(7).join_with(b'a')).taken();
    // The answer with token 7 was lost: the first token is still valid, and replaces 7.
    scene.at(2).send(ann.on(8).join_with(b'a')).expect(&["resumed ann on 8, proved"]);
    scene.at(3).send(ann.on(9).join_with(7)).refused(Reject::TokenInvalid);
    // Token 8 was used: the first one is no longer valid.
    scene.at(4).send(ann.on(9).join_with(8)).taken();
    scene.at(5).send(ann.on(10).join_with(b'a')).refused(Reject::TokenInvalid);
    let member = &scene.room.members[&user("ann")];
    assert_eq!((member.token, member.previous_token), (token(9), Some(token(8))));
}

#[test]
fn without_a_token_a_live_v3_member_is_never_replaced() {
    let mut scene = Scene::of(&[&v3("ann"), &v2("old")]);
    scene.at(1).send(v3("ann").on(7).join()).refused(Reject::UserIdTaken);
    scene.at(1).send(v2("ann").on(7).join()).refused(Reject::UserIdTaken);
    scene.at(1).send(v3("old").on(7).join()).refused(Reject::UserIdTaken);
    scene.at(2).send(v3("ann").drop_out()).taken();
    scene.at(3).send(v2("ann").on(7).join()).refused(Reject::UserIdTaken);
    scene.at(3).send(v3("ann").on(7).join()).refused(Reject::UserIdTaken);
    scene.at(4).send(v2("old").drop_out()).taken();
    scene.at(5).send(v3("old").on(7).join()).refused(Reject::UserIdTaken);
}

#[test]
fn a_v2_client_replaces_its_own_lost_member_and_has_a_live_one_probed() {
    let old = v2("old");
    let mut scene = Scene::of(&[&v3("ann"), &old]);
    scene.at(1).send(old.on(7).join()).refused(Reject::ProbeFirst(old.session()));
    scene.at(2).send(old.drop_out()).expect(&["lost old until 30002"]);
    scene.at(3).send(old.on(7).join()).expect(&["resumed old on 7"]);
    assert_eq!(scene.slot("old"), 2);
}

#[test]
fn a_v2_client_needs_the_pin_to_replace_its_lost_member_or_to_have_it_probed() {
    let (ann, old) = (v3("ann"), v2("old"));
    let mut scene = Scene::of(&[&ann, &old]);
    scene.at(1).send(ann.set_pin(Some("4711"))).taken();
    scene.at(2).send(old.on(7).join()).refused(Reject::PinRequired);
    scene.at(3).send(old.drop_out()).taken();
    scene.at(4).send(old.on(7).join()).refused(Reject::PinRequired);
    scene.at(5).send(old.on(7).join_with_pin(fitting("4711"))).expect(&["resumed old on 7"]);
}

#[test]
fn a_returning_member_may_bring_another_name() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    let name = Username::parse("Ann", &scene.limits).unwrap();
    let join = Join { name: Some(name), ..ann.on(7).join_with(b'a') };
    scene.at(1).send(join).expect(&["resumed ann on 7, proved", "renamed ann Ann"]);
    scene.at(2).send(ann.on(8).join_with(7)).expect(&["resumed ann on 8, proved"]);
    assert_eq!(scene.room.members[&user("ann")].name.as_str(), "Ann");
}

#[test]
fn the_pin_is_compared_with_the_room_as_it_is_now() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann]);
    scene.at(1).send(bob.join_with_pin(PinProof::Fresh(pin_hash("none asked")))).expect(&["joined bob #2"]);
    scene.at(2).send(bob.leave()).taken();
    scene.at(3).send(ann.set_pin(Some("one"))).taken();
    scene.at(4).send(bob.join()).refused(Reject::PinRequired);
    scene.at(4).send(bob.join_with_pin(PinProof::Fresh(pin_hash("two")))).refused(Reject::PinStale);
    scene.at(4).send(bob.join_with_pin(fitting("two"))).refused(Reject::PinStale);
    let wrong = PinProof::Checked { against: pin_hash("one"), fits: false };
    scene.at(4).send(bob.join_with_pin(wrong.clone())).refused(Reject::PinWrong);
    scene.at(5).send(bob.join_with_pin(fitting("one"))).expect(&["joined bob #3"]);
    scene.at(6).send(bob.leave()).taken();
    scene.at(7).send(ann.set_pin(None)).expect(&["pin false"]);
    scene.at(8).send(bob.join_with_pin(wrong)).expect(&["joined bob #4"]);
}

#[test]
fn a_full_room_refuses_newcomers_but_not_its_own() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.limits.room_members = 2;
    scene.at(1).send(v3("cat").join()).refused(Reject::Full);
    scene.at(2).send(bob.drop_out()).taken();
    scene.at(3).send(v3("cat").join()).refused(Reject::Full);
    scene.at(4).send(bob.on(7).join_with(b'b')).taken();
}

#[test]
fn a_session_that_joins_as_somebody_else_leaves_first() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    let zoe = v3("zoe").on(b'a'.into());
    scene.at(1).send(zoe.join()).expect(&["left ann left", "host bob", "joined zoe #3"]);
    scene.at(2).send(ann.say("still me?")).refused(Reject::NotMember);
    scene.at(3).send(zoe.say("it is me now")).expect(&["zoe: it is me now"]);
}

#[test]
fn a_session_that_changes_its_name_alone_keeps_the_room_alive() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.limits.room_members = 1;
    scene.at(1).send(ann.seek_at(50.0, false, None)).taken();
    scene.at(2).send(v3("zoe").on(b'a'.into()).join()).expect(&["left ann left", "joined zoe #2", "host zoe"]);
    assert_eq!(scene.position(3), 50.0);
}

#[test]
fn a_session_may_switch_to_a_membership_that_it_has_the_token_of() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(1).send(ann.drop_out()).taken();
    let ann_on_bobs = ann.on(b'b'.into());
    scene.at(2).send(ann_on_bobs.join_with(b'a')).expect(&["left bob left", "resumed ann on 98, proved"]);
    assert!(matches!(scene.room.members[&user("ann")].connection, MemberConnection::Live(_)));
}

#[test]
fn who_is_banned_stays_out_whatever_it_presents() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann, &v3("bob")]);
    scene.at(1).send(ann.ban("bob")).expect(&["left bob Banned", "banned bob"]);
    scene.at(2).send(v3("bob").on(7).join_with(b'b')).refused(Reject::Banned);
    scene.at(3).send(v2("bob").on(7).join()).refused(Reject::Banned);
    scene.at(4).send(ann.unban("bob")).expect(&["unbanned bob"]);
    scene.at(5).send(v3("bob").join()).expect(&["joined bob #3"]);
}

#[test]
fn a_live_member_that_moves_to_another_session_keeps_its_player_and_its_place_at_the_gate() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.seek(60.0)).taken();
    scene.at(1).send(bob.on(7).move_with(b'b')).expect(&["moved bob to 7"]);
    assert!(scene.gate().awaiting.contains(&bob.actor.user));
    assert!(scene.room.member(&bob.actor.user).unwrap().player.is_ready());
    // The old session acts for nobody any more, and the new token is the member's.
    scene.at(2).send(bob.ready(Some(1), None)).refused(Reject::NotMember);
    scene.at(3).send(bob.on(8).move_with(7)).expect(&["moved bob to 8"]);
    scene.at(4).send(ann.ready(Some(1), None)).taken();
    scene.at(5).send(bob.on(8).ready(Some(1), None)).expect(&["ready bob for 1", "server play 60 @105"]);
}

#[test]
fn a_move_without_a_live_session_or_its_token_is_an_ordinary_join() {
    let (ann, bob, old) = (v3("ann"), v3("bob"), v2("old"));
    let mut scene = Scene::of(&[&ann, &bob, &old]);
    scene.at(1).send(bob.on(7).move_with(b'a')).refused(Reject::TokenInvalid);
    scene.at(2).send(Join { moves: true, ..bob.on(7).join() }).refused(Reject::UserIdTaken);
    scene.at(3).send(bob.drop_out()).taken();
    scene.at(4).send(bob.on(7).move_with(b'b')).expect(&["resumed bob on 7, proved"]);
    scene.at(5).send(old.on(9).move_with(b'o')).expect(&["resumed old on 9, proved"]);
    scene.at(6).send(Join { moves: true, ..v3("new").join() }).expect(&["joined new #4"]);
}
