use super::scene::{Scene, ms, v2, v3};
use crate::domain::RoomTime;
use crate::room::Reject;

#[test]
fn only_the_members_own_session_acts_for_it() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann, &v3("bob")]);
    for command in [ann.on(7).leave(), ann.on(7).play(1.0), ann.on(7).kick("bob"), v3("cat").say("hello")] {
        scene.at(1).send(command).refused(Reject::NotMember);
    }
    scene.at(2).send(ann.drop_out()).taken();
    scene.at(3).send(ann.play(1.0)).refused(Reject::NotMember);
}

#[test]
fn the_host_who_leaves_hands_over_to_the_longest_joined() {
    let mut scene = Scene::of(&[&v3("zoe"), &v3("bob"), &v3("ann")]);
    scene.at(1).send(v3("zoe").leave()).expect(&["left zoe left", "host bob"]);
    scene.at(2).send(v3("ann").leave()).expect(&["left ann left"]);
}

#[test]
fn election_prefers_who_is_there() {
    let mut scene = Scene::of(&[&v3("ann"), &v3("bob"), &v3("cat")]);
    scene.at(1).send(v3("bob").drop_out()).taken();
    scene.at(2).send(v3("ann").leave()).expect(&["left ann left", "host cat"]);
    scene.at(3).send(v3("cat").leave()).expect(&["left cat left", "host bob"]);
    assert_eq!(scene.room.next_deadline(), Some(ms(30_001)));
}

#[test]
fn a_lost_host_stays_host_until_its_grace_time_ends() {
    let mut scene = Scene::of(&[&v3("ann"), &v3("bob")]);
    scene.at(1).send(v3("ann").drop_out()).expect(&["lost ann until 30001"]);
    assert_eq!(scene.host(), "ann");
    assert_eq!(scene.room.next_deadline(), Some(ms(30_001)));
    scene.at(30_000).deadline().nothing();
    scene.at(30_001).deadline().expect(&["left ann Lost", "host bob"]);
    assert_eq!(scene.room.next_deadline(), None);
}

#[test]
fn grace_times_that_end_together_are_one_decision_in_slot_order() {
    let mut scene = Scene::of(&[&v3("zoe"), &v3("bob"), &v3("ann"), &v3("cat")]);
    for person in ["ann", "zoe", "bob"] {
        scene.at(1).send(v3(person).drop_out()).taken();
    }
    scene.at(40_000).deadline().expect(&["left zoe Lost", "host cat", "left bob Lost", "left ann Lost"]);
}

#[test]
fn a_room_of_lost_members_lives_until_the_last_grace_time_ends() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.drop_out()).taken();
    scene.at(5_000).send(bob.drop_out()).expect(&["lost bob until 35000"]);
    // Without a live member no grace time ends before the others.
    scene.at(30_000).deadline().nothing();
    scene.at(31_000).send(v3("cat").join()).expect(&["joined cat #3"]);
    scene.at(31_000).deadline().expect(&["left ann Lost", "host cat"]);
    scene.at(35_000).deadline().expect(&["left bob Lost"]);
}

#[test]
fn without_grace_a_lost_connection_is_a_leave() {
    let mut scene = Scene::of(&[&v3("ann"), &v3("bob")]);
    scene.limits.grace_secs = 0;
    scene.limits.room_keep_minutes = 0;
    scene.at(1).send(v3("ann").drop_out()).expect(&["left ann Lost", "host bob"]);
    scene.at(2).send(v3("bob").drop_out()).expect(&["left bob Lost", "ended"]);
    scene.at(3).send(v3("bob").drop_out()).nothing();
    scene.at(4).deadline().nothing();
}

#[test]
fn only_the_host_does_what_hosts_do() {
    let mut scene = Scene::of(&[&v3("ann"), &v3("bob")]);
    scene.at(0).send(v3("ann").guests(true)).taken();
    let bob = v3("bob");
    let commands = [
        bob.guests(false),
        bob.hand_over("bob"),
        bob.kick("ann"),
        bob.ban("ann"),
        bob.unban("ann"),
        bob.set_pin(Some("mine")),
    ];
    for command in commands {
        scene.at(1).send(command).refused(Reject::NotHost);
    }
}

#[test]
fn the_host_is_handed_over_to_somebody_who_is_there() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob, &v3("cat")]);
    scene.at(1).send(v3("cat").drop_out()).taken();
    scene.at(2).send(ann.hand_over("cat")).refused(Reject::TargetGone);
    scene.at(3).send(ann.hand_over("dan")).refused(Reject::TargetGone);
    scene.at(4).send(ann.hand_over("ann")).nothing();
    scene.at(5).send(ann.hand_over("bob")).expect(&["host bob"]);
    scene.at(6).send(ann.kick("bob")).refused(Reject::NotHost);
    scene.at(7).send(bob.kick("ann")).expect(&["left ann Kicked"]);
}

#[test]
fn a_kick_takes_members_only_and_lets_them_return_after_a_while() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann, &v3("bob")]);
    scene.at(1).send(ann.kick("ann")).refused(Reject::TargetGone);
    scene.at(2).send(ann.kick("cat")).refused(Reject::TargetGone);
    scene.at(3).send(v3("bob").drop_out()).taken();
    scene.at(4).send(ann.kick("bob")).expect(&["left bob Kicked"]);
    // The token of a membership that is over proves nothing, and does no harm.
    scene.at(60_004).send(v3("bob").join_with(b'b')).expect(&["joined bob #3"]);
}

#[test]
fn a_ban_may_come_late_and_is_said_once() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    for guest in ["bob", "cat", "dan"].map(v3) {
        scene.at(0).send(guest.join()).taken();
        scene.at(0).send(guest.leave()).taken();
    }
    scene.limits.room_bans = 2;
    scene.at(1).send(ann.ban("ann")).refused(Reject::TargetGone);
    scene.at(2).send(ann.ban("bob")).expect(&["banned bob"]);
    scene.at(3).send(ann.ban("bob")).nothing();
    scene.at(4).send(ann.ban("cat")).expect(&["banned cat"]);
    scene.at(5).send(ann.ban("dan")).refused(Reject::BansFull);
    scene.at(6).send(ann.unban("dan")).nothing();
    scene.at(7).send(ann.unban("cat")).expect(&["unbanned cat"]);
    scene.at(8).send(ann.ban("dan")).expect(&["banned dan"]);
}

#[test]
fn a_full_list_of_bans_does_not_let_the_target_be_removed_halfway() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann, &v3("bob")]);
    scene.limits.room_bans = 0;
    scene.at(1).send(ann.ban("bob")).refused(Reject::BansFull);
}

#[test]
fn what_is_so_already_is_not_said_again() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1).send(ann.rename("Ann")).expect(&["renamed ann Ann"]);
    scene.at(2).send(ann.rename("Ann")).nothing();
    scene.at(3).send(ann.guests(false)).nothing();
    scene.at(4).send(ann.guests(true)).expect(&["guests true"]);
    scene.at(5).send(ann.guests(true)).nothing();
    scene.at(6).send(ann.set_pin(None)).nothing();
    scene.at(7).send(ann.set_pin(Some("one"))).expect(&["pin true"]);
    scene.at(8).send(ann.set_pin(Some("one"))).nothing();
    scene.at(9).send(ann.rate(1.0)).nothing();
}

#[test]
fn when_the_last_one_leaves_everything_is_forgotten_but_the_head() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann, &v2("old")]);
    scene.at(1).send(v3("cat").join()).taken();
    scene.at(1).send(ann.set_pin(Some("secret"))).taken();
    scene.at(1).send(ann.guests(true)).taken();
    scene.at(1).send(ann.ban("cat")).taken();
    scene.at(1).send(ann.show("https://example.org/film", 3.0)).taken();
    scene.at(1).send(ann.seek(60.0)).taken();
    scene.at(2).send(ann.leave()).taken();
    scene.at(3).send(v2("old").leave()).expect(&["left old left", "ended"]);
    assert_eq!(scene.room, crate::room::Room::vacant(scene.room.id.clone(), scene.room.head));
    assert_eq!(scene.room.created_at, RoomTime::default());
}
