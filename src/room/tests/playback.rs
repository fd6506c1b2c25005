use super::scene::{LEAD, Scene, ms, v2, v3};
use crate::domain::MediaTime;
use crate::room::{Control, ControlKey, Reject};

#[test]
fn play_starts_ahead_and_the_film_stands_until_then() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1000).send(ann.play(12.5)).expect(&["ann play 12.5 @1100"]);
    assert_eq!(scene.position(1000), 12.5);
    assert_eq!(scene.position(1100), 12.5);
    assert_eq!(scene.position(3100), 14.5);
    assert_eq!(scene.room.playback.seq, scene.room.head.seq);
}

#[test]
fn the_lead_has_a_limit() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.limits.max_lead_ms = 60;
    assert!(LEAD > std::time::Duration::from_millis(60));
    scene.at(0).send(ann.play(1.0)).expect(&["ann play 1 @60"]);
}

#[test]
fn a_timestamp_carries_the_position_forward_but_never_back_and_a_wrong_clock_says_nothing() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    let play = |true_at| ann.control(Control::Play, Some(10.0), Some(true_at));
    scene.at(10_000).send(play(9_900)).expect(&["ann play 10.2 @10100"]);
    scene.at(10_000).send(play(10_100)).expect(&["ann play 10 @10100"]);
    scene.at(10_000).send(play(99_999)).expect(&["ann play 10 @10100"]);
    scene.at(10_000).send(play(8_100)).expect(&["ann play 12 @10100"]);
    scene.at(10_000).send(play(-3_600_000)).expect(&["ann play 10 @10100"]);
    scene.at(10_001).send(ann.rate(2.0)).taken();
    scene.at(10_002).send(play(9_602)).expect(&["ann play 11 @10102"]);
}

#[test]
fn a_pause_of_a_film_that_moves_stops_all_at_one_scheduled_moment() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.play(10.0)).taken();
    scene.at(5_000).send(ann.control(Control::Pause, Some(14.8), Some(4_900))).expect(&["ann pause 15 @5100"]);
    assert_eq!(scene.position(60_000), 15.0);
}

#[test]
fn a_pause_where_the_sender_s_player_stands_already_is_at_once() {
    let (ann, old) = (v3("ann"), v2("old"));
    let mut scene = Scene::of(&[&ann, &old]);
    scene.at(0).send(ann.guests(true)).taken();
    scene.at(0).send(ann.play(10.0)).taken();
    scene.at(5_000).send(ann.pause(14.8)).expect(&["ann pause 14.8 @5000"]);
    scene.at(6_000).send(ann.play(14.8)).taken();
    scene.at(8_000).send(old.control(Control::Pause, Some(16.5), Some(7_900))).expect(&["old pause 16.5 @8000"]);
    // The film stands: there is nothing to schedule.
    scene.at(9_000).send(ann.control(Control::Pause, Some(3.0), Some(8_900))).expect(&["ann pause 3 @9000"]);
}

#[test]
fn without_a_position_the_room_s_own_counts() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.play(10.0)).taken();
    // PLAY while it plays doesn't bend the vector.
    scene.at(2_000).send(ann.control(Control::Play, None, None)).expect(&["ann play 12 @2100"]);
    scene.at(4_100).send(ann.control(Control::Pause, None, None)).expect(&["ann pause 14.1 @4200"]);
    scene.at(9_000).send(ann.control(Control::Play, None, Some(8_000))).expect(&["ann play 14.1 @9100"]);
}

#[test]
fn a_rate_bends_the_line_without_a_jump() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.play(10.0)).taken();
    scene.at(2_000).send(ann.rate(2.0)).expect(&["ann rate 2 12 @2100"]);
    assert_eq!(scene.position(3_100), 14.0);
    scene.at(3_100).send(ann.pause(14.0)).taken();
    scene.at(4_000).send(ann.rate(0.5)).expect(&["ann rate 0.5 14 @4100"]);
    scene.at(5_000).send(ann.play(14.0)).taken();
    assert_eq!(scene.position(7_100), 15.0);
}

#[test]
fn a_rate_does_not_start_a_scheduled_play_early() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1_000).send(ann.play(10.0)).taken();
    scene.at(990).send(ann.rate(2.0)).expect(&["ann rate 2 10 @1100"]);
}

#[test]
fn another_film_stands_at_its_start() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.play(100.0)).taken();
    let film = "https://example.org/next";
    scene.at(1_000).send(ann.show(film, 2.5)).expect(&["ann shows https://example.org/next 2.5 @1000"]);
    assert_eq!(scene.position(9_000), 2.5);
    assert_eq!(scene.room.url.as_ref().unwrap().as_str(), film);
}

#[test]
fn the_room_adopts_a_whole_state() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.adopt(30.0, true)).expect(&["ann adopt true 30 @100"]);
    scene.at(1_000).send(ann.adopt(31.0, false)).expect(&["ann adopt false 31 @1000"]);
    assert_eq!(scene.room.url, None);
}

#[test]
fn the_room_follows_its_host_s_player_but_not_too_eagerly() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.guests(true)).taken();
    scene.at(1_000).send(ann.play(10.0)).taken();
    scene.at(1_500).send(ann.correct(10.0, true, 1_450)).nothing();
    scene.at(2_099).send(ann.correct(10.0, true, 2_000)).nothing();
    scene.at(2_100).send(bob.correct(10.0, true, 2_000)).nothing();
    scene.at(2_100).send(ann.correct(10.0, true, 1_000)).nothing();
    scene.at(2_100).send(ann.correct(10.0, true, 2_000)).expect(&["ann correct true 10.1 @2100"]);
    scene.at(4_000).send(ann.correct(11.0, false, 3_900)).expect(&["ann correct false 11 @4000"]);
    scene.at(6_000).send(ann.drop_out()).taken();
    scene.at(7_000).send(ann.correct(12.0, true, 6_900)).nothing();
}

#[test]
fn a_film_that_nobody_stops_is_written_down_within_its_limit() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.play(604_800.0)).taken();
    let later = 3_600_000;
    assert!(scene.position(later) > 604_800.0);
    scene.at(later).send(ann.control(Control::Pause, None, None)).expect(&["ann pause 604800 @3600100"]);
    let carried = ann.control(Control::Play, Some(604_800.0), Some(later - 2_000));
    scene.at(later).send(carried).expect(&["ann play 604800 @3600100"]);
    scene.at(2 * later).send(ann.rate(4.0)).expect(&["ann rate 4 604800 @7200100"]);
    assert_eq!(MediaTime::ZERO.moved(f64::MAX).moved(f64::MAX).seconds(), f64::MAX);
}

#[test]
fn guests_move_the_film_only_while_they_may() {
    let (ann, bob) = (v3("ann"), v2("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    let commands = || {
        [
            bob.play(1.0),
            bob.pause(1.5),
            bob.seek(2.0),
            bob.rate(2.0),
            bob.show("https://a.org/", 0.0),
            bob.adopt(1.0, true),
        ]
    };
    for command in commands() {
        scene.at(1).send(command).refused(Reject::NotInControl);
    }
    scene.at(2).send(ann.guests(true)).taken();
    for command in commands() {
        scene.at(3).send(command).taken();
    }
    scene.at(4).send(ann.guests(false)).taken();
    scene.at(5).send(bob.play(9.0)).refused(Reject::NotInControl);
}

#[test]
fn a_repeated_command_has_no_effect_for_ten_seconds() {
    let ann = v2("ann");
    let mut scene = Scene::of(&[&ann]);
    for true_at in [Some(-50), None] {
        let play = ann.control(Control::Play, Some(10.0), true_at);
        scene.at(0).send(play.clone()).taken();
        scene.at(3_000).send(play.clone()).nothing();
        scene.at(10_000).send(play.clone()).nothing();
        scene.at(10_001).send(play).taken();
    }
}

#[test]
fn a_repeated_command_does_not_undo_what_somebody_else_did_meanwhile() {
    let (ann, bob) = (v2("ann"), v2("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.guests(true)).taken();
    let play = ann.control(Control::Play, Some(10.0), Some(-50));
    scene.at(0).send(play.clone()).taken();
    scene.at(1_000).send(bob.pause(11.0)).expect(&["bob pause 11 @1000"]);
    scene.at(3_000).send(play).nothing();
    assert!(!scene.room.playback.playing);
}

#[test]
fn without_a_timestamp_only_the_room_s_last_command_is_a_repetition() {
    let (ann, bob) = (v2("ann"), v2("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.guests(true)).taken();
    let play = ann.control(Control::Play, None, None);
    scene.at(0).send(play.clone()).taken();
    scene.at(100).send(play.clone()).nothing();
    scene.at(1_000).send(bob.control(Control::Pause, None, None)).taken();
    // Deliberate: the film was paused in between.
    scene.at(2_000).send(play.clone()).taken();
    for (at, between) in
        [(3_000, ann.rate(2.0)), (4_000, ann.show("https://a.org/", 0.0)), (5_000, ann.adopt(1.0, false))]
    {
        scene.at(at).send(play.clone()).nothing();
        scene.at(at).send(between).taken();
        scene.at(at).send(play.clone()).taken();
    }
}

#[test]
fn what_the_room_does_of_itself_is_nobody_s_command() {
    let (ann, bob) = (v2("ann"), v2("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    let seek = ann.seek_at(60.0, true, None);
    scene.at(0).send(seek.clone()).taken();
    scene.at(100).send(bob.ready(None, None)).expect(&["ready bob for 1", "server play 60 @200"]);
    scene.at(1_500).send(ann.correct(60.9, true, 1_500)).taken();
    scene.at(3_000).send(seek).nothing();
}

#[test]
fn the_same_seek_the_other_way_round_is_another_command() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.seek_at(60.0, true, None)).taken();
    scene.at(1).send(ann.seek_at(60.0, true, None)).nothing();
    scene.at(2).send(ann.seek_at(60.0, false, None)).expect(&["ann seek 60 @2"]);
    scene.at(3).send(ann.seek_at(60.0, false, None)).nothing();
    scene.at(4).send(ann.seek_at(60.0, true, None)).expect(&["ann seek 60 @4 gate 2 [ann]"]);
}

#[test]
fn a_member_s_last_commands_are_few() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    for step in 0..50 {
        scene.at(step).send(ann.control(Control::Pause, Some(step as f64), Some(step))).taken();
    }
    assert_eq!(scene.room.members[&ann.actor.user].recent.len(), ControlKey::KEPT);
    scene.at(50).send(ann.control(Control::Pause, Some(42.0), Some(42))).nothing();
    scene.at(50).send(ann.control(Control::Pause, Some(41.0), Some(41))).taken();
    scene.at(60_000).send(ann.control(Control::Pause, Some(1.0), Some(60_000))).taken();
    assert_eq!(scene.room.members[&ann.actor.user].recent.len(), 1);
    assert_eq!(scene.room.playback.at, ms(60_000));
}
