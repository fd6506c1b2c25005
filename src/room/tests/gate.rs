use super::scene::{Scene, ms, v2, v3};
use crate::room::{Control, Reject};

#[test]
fn a_seek_stands_at_its_target_until_everybody_is_ready() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.seek(60.0)).expect(&["ann seek 60 @0 gate 1 [ann bob]"]);
    assert!(!scene.room.playback.playing);
    scene.at(300).send(ann.ready(Some(1), None)).expect(&["ready ann for 1"]);
    scene.at(350).send(ann.ready(Some(1), None)).nothing();
    scene.at(400).send(bob.ready(Some(1), None)).expect(&["ready bob for 1", "server play 60 @500"]);
    assert_eq!(scene.room.gate, None);
    assert_eq!(scene.room.playback.seq, scene.room.head.seq);
    assert_eq!(scene.position(1_500), 61.0);
}

#[test]
fn a_v2_seeker_never_answers_and_is_not_awaited() {
    let (ann, bob) = (v2("ann"), v2("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.seek(60.0)).expect(&["ann seek 60 @0 gate 1 [bob]"]);
    scene.at(200).send(bob.ready(None, Some(60.4))).expect(&["ready bob for 1", "server play 60 @300"]);
}

#[test]
fn with_nobody_to_wait_for_the_film_plays_at_once() {
    let ann = v2("ann");
    let mut scene = Scene::of(&[&ann, &v3("bob")]);
    scene.at(0).send(v3("bob").drop_out()).taken();
    scene.at(1).send(ann.seek(60.0)).expect(&["ann seek 60 @1", "server play 60 @101"]);
    assert_eq!(scene.room.playback.seq, scene.room.head.seq);
}

#[test]
fn a_seek_that_does_not_resume_opens_no_gate() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.play(5.0)).taken();
    scene.at(1_000).send(ann.seek_at(60.0, false, None)).expect(&["ann seek 60 @1000"]);
    scene.at(1_001).send(ann.ready(None, None)).refused(Reject::NoGate);
    assert_eq!(scene.position(9_000), 60.0);
}

#[test]
fn a_ready_names_the_gate_or_its_target() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.seek(60.0)).taken();
    scene.at(1).send(ann.ready(Some(2), Some(60.0))).refused(Reject::NoGate);
    scene.at(1).send(ann.ready(None, Some(61.01))).refused(Reject::NoGate);
    scene.at(1).send(ann.ready(None, Some(58.99))).refused(Reject::NoGate);
    scene.at(2).send(ann.ready(None, Some(59.0))).expect(&["ready ann for 1"]);
    scene.at(3).send(bob.ready(None, None)).expect(&["ready bob for 1", "server play 60 @103"]);
}

#[test]
fn after_the_quorum_time_two_thirds_are_enough() {
    let people = ["ann", "bob", "cat"].map(v3);
    let mut scene = Scene::of(&people.iter().collect::<Vec<_>>());
    scene.at(0).send(people[0].seek(60.0)).taken();
    assert_eq!(scene.room.next_deadline(), Some(ms(7_000)));
    scene.at(100).send(people[0].ready(Some(1), None)).taken();
    assert_eq!(scene.room.next_deadline(), Some(ms(7_000)));
    scene.at(200).send(people[1].ready(Some(1), None)).expect(&["ready bob for 1"]);
    assert_eq!(scene.room.next_deadline(), Some(ms(3_000)));
    scene.at(2_999).deadline().nothing();
    scene.at(3_000).deadline().expect(&["server play 60 @3100"]);
}

#[test]
fn a_quorum_that_comes_late_releases_at_once() {
    let people = ["ann", "bob", "cat"].map(v3);
    let mut scene = Scene::of(&people.iter().collect::<Vec<_>>());
    scene.at(0).send(people[0].seek(60.0)).taken();
    scene.at(100).send(people[0].ready(Some(1), None)).taken();
    scene.at(4_000).send(people[1].ready(Some(1), None)).expect(&["ready bob for 1", "server play 60 @4100"]);
}

#[test]
fn at_its_deadline_the_gate_opens_for_whoever_is_there() {
    let mut scene = Scene::of(&[&v3("ann"), &v3("bob")]);
    scene.at(0).send(v3("ann").seek(60.0)).taken();
    scene.at(6_999).deadline().nothing();
    scene.at(7_000).deadline().expect(&["server play 60 @7100"]);
    scene.at(7_200).deadline().nothing();
}

#[test]
fn who_joins_or_returns_during_a_gate_is_not_awaited() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.seek(60.0)).taken();
    scene.at(1).send(v3("cat").join()).taken();
    scene.at(2).send(bob.drop_out()).taken();
    scene.at(3).send(bob.on(7).join_with(b'b')).taken();
    assert_eq!(scene.gate().awaiting.len(), 1);
    scene.at(4).send(v3("cat").ready(Some(1), None)).refused(Reject::NoGate);
    scene.at(5).send(bob.on(7).ready(Some(1), None)).refused(Reject::NoGate);
    scene.at(6).send(ann.ready(Some(1), None)).expect(&["ready ann for 1", "server play 60 @106"]);
}

#[test]
fn whoever_goes_in_whatever_way_is_awaited_no_more() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    // The room itself starts here, with the longest lead: the command brought no measured one.
    let play = "server play 60 @510";
    let lost = "lost bob until 30010";
    let cases = [
        (bob.leave(), vec!["left bob left", play]),
        (bob.drop_out(), vec![lost, play]),
        (ann.kick("bob"), vec!["left bob Kicked", play]),
        (ann.ban("bob"), vec!["left bob Banned", "banned bob", play]),
        (v3("cat").on(b'b'.into()).join().into(), vec!["left bob left", "joined cat #3", play]),
        (ann.on(b'b'.into()).join_with(b'a').into(), vec!["left bob left", "resumed ann on 98, proved", play]),
    ];
    for (command, expected) in cases {
        let mut scene = Scene::of(&[&ann, &bob]);
        scene.at(0).send(ann.seek(60.0)).taken();
        scene.at(1).send(ann.ready(Some(1), None)).taken();
        scene.at(10).send(command).expect(&expected);
    }
}

#[test]
fn a_leaver_who_was_ready_does_not_count_towards_the_quorum() {
    let people = ["ann", "bob", "cat"].map(v3);
    let mut scene = Scene::of(&people.iter().collect::<Vec<_>>());
    scene.at(0).send(people[0].seek(60.0)).taken();
    scene.at(1).send(people[0].ready(Some(1), None)).taken();
    scene.at(2).send(people[1].ready(Some(1), None)).taken();
    scene.at(3).send(people[1].leave()).expect(&["left bob left"]);
    assert_eq!(scene.room.next_deadline(), Some(ms(7_000)));
}

#[test]
fn play_opens_the_gate_and_everything_else_that_moves_the_film_cancels_it() {
    let ann = v3("ann");
    let cases = [
        (ann.control(Control::Play, None, None), "ann play 60 @110"),
        (ann.control(Control::Pause, None, None), "ann pause 60 @10"),
        (ann.seek_at(70.0, false, None), "ann seek 70 @10"),
        (ann.show("https://a.org/", 0.0), "ann shows https://a.org/ 0 @10"),
        (ann.adopt(80.0, true), "ann adopt true 80 @110"),
    ];
    for (command, expected) in cases {
        let mut scene = Scene::of(&[&ann]);
        scene.at(0).send(ann.seek(60.0)).taken();
        scene.at(10).send(command).expect(&[expected]);
        assert_eq!(scene.room.gate, None);
        assert_eq!(scene.room.next_deadline(), None);
    }
}

#[test]
fn a_rate_or_a_correction_leaves_the_gate_as_it_is() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.seek(60.0)).taken();
    scene.at(10).send(ann.rate(2.0)).expect(&["ann rate 2 60 @110"]);
    scene.at(2_000).send(ann.correct(61.0, true, 1_999)).nothing();
    scene.at(2_010).send(ann.ready(Some(1), None)).expect(&["ready ann for 1", "server play 60 @2110"]);
    assert_eq!(scene.position(3_110), 62.0);
}

#[test]
fn another_seek_replaces_the_gate_with_a_newer_one() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.seek(60.0)).taken();
    scene.at(10).send(ann.seek(60.5)).expect(&["ann seek 60.5 @10 gate 2 [ann]"]);
    scene.at(20).send(ann.ready(Some(1), Some(60.5))).refused(Reject::NoGate);
    scene.at(30).send(ann.ready(Some(2), None)).expect(&["ready ann for 2", "server play 60.5 @130"]);
}

#[test]
fn gates_count_from_one_again_in_a_new_epoch() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.seek(60.0)).taken();
    scene.at(1).send(ann.leave()).expect(&["left ann left", "ended"]);
    scene.at(2).send(ann.join()).taken();
    scene.at(3).send(ann.is_ready()).taken();
    scene.at(3).send(ann.seek(9.0)).expect(&["ann seek 9 @3 gate 1 [ann]"]);
}
