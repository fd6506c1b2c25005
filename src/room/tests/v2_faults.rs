//! Faults of v2 that a room alone can repeat, by the numbers of the v2 wire reference.

use super::scene::{Scene, fitting, pin_hash, v2, v3};
use crate::room::{Control, PinProof, Reject};

#[test]
fn fault_01_a_join_refused_for_its_pin_binds_nothing() {
    let mut scene = Scene::new();
    scene.at(0).send(v2("ann").join_with_pin(PinProof::Fresh(pin_hash("4711")))).taken();
    scene.at(1).send(v2("ann").guests(true)).taken();
    let eve = v2("eve");
    scene.at(2).send(eve.join()).refused(Reject::PinRequired);
    let wrong = PinProof::Checked { against: pin_hash("4711"), fits: false };
    scene.at(3).send(eve.join_with_pin(wrong)).refused(Reject::PinWrong);
    scene.at(4).send(eve.play(1.0)).refused(Reject::NotMember);
    scene.at(5).send(eve.say("hello")).refused(Reject::NotMember);
    scene.at(6).send(eve.drop_out()).nothing();
}

#[test]
fn fault_04_a_pin_ends_with_its_room() {
    let ann = v2("ann");
    let mut scene = Scene::new();
    scene.at(0).send(ann.join_with_pin(PinProof::Fresh(pin_hash("4711")))).taken();
    scene.at(1).send(ann.leave()).expect(&["left ann left", "ended"]);
    scene.at(2).send(v2("bob").join()).expect(&["created by bob"]);
    scene.at(3).send(v2("cat").join()).expect(&["joined cat #2"]);
}

#[test]
fn fault_04_a_pin_checked_against_the_room_before_is_checked_again() {
    let ann = v2("ann");
    let mut scene = Scene::new();
    scene.at(0).send(ann.join_with_pin(PinProof::Fresh(pin_hash("4711")))).taken();
    scene.at(1).send(ann.leave()).taken();
    scene.at(2).send(v2("bob").join_with_pin(fitting("4711"))).refused(Reject::PinStale);
    let fresh = PinProof::Fresh(pin_hash("4711 again"));
    scene.at(3).send(v2("bob").join_with_pin(fresh)).expect(&["created by bob, pin"]);
}

#[test]
fn fault_05_nobody_acts_as_the_host_by_naming_it() {
    let (ann, eve) = (v2("ann"), v2("eve"));
    let mut scene = Scene::of(&[&ann, &eve]);
    let eve_as_ann = ann.on(b'e'.into());
    scene.at(1).send(eve_as_ann.play(1.0)).refused(Reject::NotMember);
    scene.at(2).send(eve_as_ann.leave()).refused(Reject::NotMember);
    scene.at(3).send(eve_as_ann.drop_out()).nothing();
    scene.at(4).send(eve_as_ann.join()).refused(Reject::ProbeFirst(ann.session()));
    scene.at(5).send(eve.correct(99.0, true, 4)).nothing();
}

#[test]
fn fault_06_guest_control_is_the_room_s_to_check() {
    let (ann, bob) = (v2("ann"), v2("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(1).send(bob.play(1.0)).refused(Reject::NotInControl);
    scene.at(2).send(bob.guests(true)).refused(Reject::NotHost);
    scene.at(3).send(ann.guests(true)).taken();
    scene.at(4).send(bob.play(1.0)).expect(&["bob play 1 @104"]);
}

#[test]
fn fault_14_a_play_repeated_after_a_pause_does_not_play_again() {
    let (ann, bob) = (v2("ann"), v2("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.guests(true)).taken();
    let play = ann.control(Control::Play, Some(5.0), Some(-20));
    let pause = ann.control(Control::Pause, Some(6.0), Some(990));
    scene.at(0).send(play.clone()).expect(&["ann play 5.12 @100"]);
    scene.at(1_000).send(pause.clone()).expect(&["ann pause 6 @1000"]);
    scene.at(3_000).send(play).nothing();
    scene.at(3_500).send(bob.play(6.0)).taken();
    scene.at(4_000).send(pause).nothing();
    assert!(scene.room.playback().playing);
}

#[test]
fn fault_14_a_seek_repeated_after_a_play_does_not_seek_again() {
    let ann = v2("ann");
    let mut scene = Scene::of(&[&ann]);
    let seek = ann.seek_at(50.0, true, Some(0));
    scene.at(0).send(seek.clone()).expect(&["ann seek 50 @0", "server play 50 @100"]);
    scene.at(3_000).send(seek).nothing();
}

#[test]
fn fault_15_a_lost_host_is_replaced_by_the_longest_joined() {
    let mut scene = Scene::of(&[&v2("zoe"), &v2("mia"), &v2("ann")]);
    scene.at(0).send(v2("zoe").drop_out()).expect(&["lost zoe until 30000"]);
    scene.at(30_000).deadline().expect(&["left zoe Lost", "host mia"]);
}

#[test]
fn fault_16_the_close_of_a_replaced_connection_removes_nobody() {
    for (old, join) in [(v3("ann"), v3("ann").on(7).join_with(b'a')), (v2("old"), v2("old").on(7).join_with(b'o'))] {
        let mut scene = Scene::of(&[&old]);
        scene.at(1).send(join).taken();
        scene.at(2).send(old.drop_out()).nothing();
        scene.at(3).send(old.on(7).say("still here")).taken();
    }
}

#[test]
fn fault_17_a_second_join_of_a_session_leaves_no_ghost() {
    let ann = v2("ann");
    let mut scene = Scene::of(&[&ann, &v2("bob")]);
    scene.at(1).send(ann.join()).nothing();
    scene.at(2).send(v2("cat").on(b'a'.into()).join()).expect(&["left ann left", "host bob", "joined cat #3"]);
    assert_eq!(scene.room.members().len(), 2);
}

#[test]
fn fault_18_two_people_do_not_wait_for_the_deadline() {
    let (ann, bob) = (v2("ann"), v2("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.seek(60.0)).taken();
    scene.at(150).send(bob.ready(None, Some(60.0))).expect(&["ready bob for 1", "server play 60 @250"]);
}

#[test]
fn fault_18_a_pause_cancels_the_gate() {
    let (ann, bob) = (v2("ann"), v2("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.seek(60.0)).taken();
    scene.at(100).send(ann.pause(60.0)).expect(&["ann pause 60 @100"]);
    scene.at(150).send(bob.ready(None, Some(60.0))).refused(Reject::NoGate);
    scene.at(7_000).deadline().nothing();
    assert!(!scene.room.playback().playing);
}

#[test]
fn fault_18_a_stale_ready_does_not_open_a_newer_gate() {
    let (ann, bob, cat) = (v2("ann"), v2("bob"), v3("cat"));
    let mut scene = Scene::of(&[&ann, &bob, &cat]);
    scene.at(0).send(ann.seek(60.0)).taken();
    scene.at(100).send(ann.seek(300.0)).expect(&["ann seek 300 @100 gate 2 [bob cat]"]);
    scene.at(150).send(bob.ready(None, Some(60.0))).refused(Reject::NoGate);
    scene.at(150).send(cat.ready(Some(1), Some(300.0))).refused(Reject::NoGate);
    assert_eq!(scene.gate().ready.len(), 0);
}

#[test]
fn fault_18_leavers_are_not_counted() {
    let (ann, bob, cat) = (v2("ann"), v2("bob"), v2("cat"));
    let mut scene = Scene::of(&[&ann, &bob, &cat]);
    scene.at(0).send(ann.seek(60.0)).taken();
    scene.at(100).send(cat.leave()).expect(&["left cat left"]);
    scene.at(150).send(bob.ready(None, Some(60.0))).expect(&["ready bob for 1", "server play 60 @250"]);
}

#[test]
fn fault_18_the_gate_is_part_of_the_room_and_goes_where_it_goes() {
    let (ann, bob) = (v2("ann"), v2("bob"));
    let mut here = Scene::of(&[&ann, &bob]);
    here.at(0).send(ann.seek(60.0)).taken();
    let mut there = Scene::new();
    there.room = serde_json::from_str(&serde_json::to_string(&here.room).unwrap()).unwrap();
    there.at(150).send(bob.ready(None, Some(60.0))).expect(&["ready bob for 1", "server play 60 @250"]);
}

#[test]
fn fault_20_a_room_comes_back_with_nothing_of_its_earlier_life() {
    let ann = v2("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1).send(ann.show("https://example.org/film", 0.0)).taken();
    scene.at(2).send(ann.play(1234.0)).taken();
    scene.at(3).send(ann.leave()).taken();
    let first = scene.room.head();
    scene.at(4).send(ann.join()).expect(&["created by ann"]);
    assert_eq!(scene.position(9_000), 0.0);
    assert_eq!(scene.room.url, None);
    assert!(!scene.room.playback().playing);
    assert!(scene.room.head() > first);
}

#[test]
fn fault_21_a_late_joiner_finds_the_position_of_now() {
    let ann = v2("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.play(10.0)).taken();
    scene.at(3_100).send(v2("bob").join()).taken();
    assert_eq!(scene.position(3_100), 13.0);
}
