//! Rooms whose members were all lost.

use super::scene::{LEAD, Scene, fitting, ms, v2, v3};
use crate::room::{Command, PinProof, Reject};

const HOURS: i64 = 240 * 60_000;

#[test]
fn when_everybody_is_away_the_room_stands_where_the_last_one_was_and_waits() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.guests(true)).taken();
    scene.at(0).send(ann.show("https://example.org/film", 0.0)).taken();
    scene.at(0).send(ann.rate(1.25)).taken();
    scene.at(0).send(ann.play(4200.0)).taken();
    scene.at(10_000).send(bob.drop_out()).taken();
    scene.at(20_100).send(ann.drop_out()).taken();
    // Bob's grace time doesn't end while no member is live: all are away alike.
    assert_eq!(scene.room.next_deadline(), Some(ms(50_100)));
    scene.at(40_000).deadline().nothing();
    scene.at(50_100).deadline().expect(&[&format!("kept until {} 4225 @50100", 50_100 + HOURS)]);
    assert_eq!(scene.room.next_deadline(), Some(ms(50_100 + HOURS)));
    scene.at(3_600_000).deadline().nothing();
    // An hour later the token is valid, and everything is as it was.
    scene.at(3_600_001).send(ann.on(7).join_with(b'a')).expect(&["resumed ann on 7, proved", "lost bob until 3630001"]);
    assert_eq!((scene.host(), scene.position(9_999_999)), ("ann", 4225.0));
    assert_eq!(scene.room.url.as_ref().unwrap().as_str(), "https://example.org/film");
    assert!(scene.room.guest_control && scene.room.playback.rate.factor() == 1.25);
    scene.at(3_600_500).send(bob.on(8).join_with(b'b')).expect(&["resumed bob on 8, proved"]);
    assert_eq!(scene.room.next_deadline(), None);
}

#[test]
fn a_room_is_kept_for_a_while_and_not_for_ever() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.drop_out()).taken();
    scene.at(30_000).deadline().taken();
    scene.at(30_000 + HOURS - 1).deadline().nothing();
    scene.at(30_000 + HOURS).deadline().expect(&["left ann Lost", "ended"]);
}

#[test]
fn a_room_that_its_last_member_left_is_over() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(bob.leave()).taken();
    scene.at(1).send(ann.leave()).expect(&["left ann left", "ended"]);
}

#[test]
fn one_who_was_lost_keeps_the_room_that_the_others_left() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(bob.drop_out()).taken();
    scene.at(1).send(ann.leave()).expect(&["left ann left", "host bob"]);
    scene.at(30_000).deadline().expect(&[&format!("kept until {} 0 @30000", 30_000 + HOURS)]);
}

#[test]
fn where_it_may_not_be_kept_the_room_ends_with_the_grace_time() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.drop_out()).taken();
    scene.at(30_000).send(Command::Deadline { lead: LEAD, may_keep: false }).expect(&["left ann Lost", "ended"]);
    let mut scene = Scene::of(&[&ann]);
    scene.limits.room_keep_minutes = 0;
    scene.at(0).send(ann.drop_out()).taken();
    scene.at(30_000).deadline().expect(&["left ann Lost", "ended"]);
}

#[test]
fn without_a_grace_time_a_room_is_kept_at_once() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.limits.grace_secs = 0;
    scene.at(0).send(ann.play(10.0)).taken();
    scene.at(5_100).send(ann.drop_out()).expect(&["lost ann until 5100"]);
    scene.at(5_100).deadline().expect(&[&format!("kept until {} 15 @5100", 5_100 + HOURS)]);
}

#[test]
fn a_member_whose_time_was_over_meanwhile_comes_back_with_its_token_and_needs_no_pin() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.set_pin(Some("hash"))).taken();
    scene.at(1).send(bob.drop_out()).taken();
    scene.at(30_001).deadline().expect(&["left bob Lost"]);
    scene.at(40_000).send(bob.on(7).join_with(b'x')).refused(Reject::PinRequired);
    scene.at(40_000).send(bob.on(7).join_with(b'b')).expect(&["joined bob #3"]);
    // A member that left deliberately gave the room up.
    scene.at(40_001).send(bob.on(7).leave()).taken();
    scene.at(40_002).send(bob.on(8).join_with(7)).refused(Reject::PinRequired);
}

#[test]
fn a_newcomer_to_a_room_that_waits_wakes_it() {
    let (ann, bob) = (v3("ann"), v2("bob"));
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.set_pin(Some("hash"))).taken();
    scene.at(0).send(ann.drop_out()).taken();
    scene.at(30_000).deadline().taken();
    scene.at(60_000).send(bob.join_with_pin(PinProof::None)).refused(Reject::PinRequired);
    scene.at(60_000).send(bob.join_with_pin(fitting("hash"))).expect(&["joined bob #2", "lost ann until 90000"]);
    assert!(scene.room.kept.is_none());
    scene.at(90_000).deadline().expect(&["left ann Lost", "host bob"]);
}

#[test]
fn a_film_that_ends_while_nobody_is_there_stands_at_its_end() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.measures(90.0)).taken();
    scene.at(0).send(ann.play(80.0)).taken();
    scene.at(1_000).send(ann.drop_out()).taken();
    scene.at(10_100).deadline().expect(&["server end 90 @10100"]);
    scene.at(31_000).deadline().expect(&[&format!("kept until {} 90 @31000", 31_000 + HOURS)]);
}
