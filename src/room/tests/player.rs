//! Players: which of them a gate awaits, the film's length, and what a command was decided on.

use super::scene::{Scene, ms, seconds, v2, v3};
use crate::domain::{Player, PlayerState, Rate};
use crate::room::{Ask, Basis, Control, Reject};

#[test]
fn a_gate_waits_for_nobody_who_shows_no_player_loads_or_failed() {
    let [ann, bob, cat, dan] = ["ann", "bob", "cat", "dan"].map(v3);
    let mut scene = Scene::without_players(&[&ann, &bob, &cat, &dan]);
    scene.at(0).send(ann.is_ready()).expect(&["player ann ready"]);
    scene.at(0).send(bob.shows(Player::of(PlayerState::Loading), None)).expect(&["player bob loading"]);
    scene.at(0).send(cat.fails("decode")).expect(&["player cat failed"]);
    scene.at(1).send(ann.seek(60.0)).expect(&["ann seek 60 @1 gate 1 [ann]"]);
    scene.at(2).send(dan.ready(Some(1), None)).refused(Reject::NoGate);
    scene.at(3).send(ann.ready(Some(1), None)).expect(&["ready ann for 1", "server play 60 @103"]);
}

#[test]
fn in_a_room_in_which_nobody_has_a_player_a_seek_plays_on_at_once() {
    let (ann, chat) = (v3("ann"), v3("chat"));
    let mut scene = Scene::without_players(&[&ann, &chat]);
    for second in 1..=3 {
        let expected = [format!("ann seek {second}0 @{second}"), format!("server play {second}0 @{}", second + 100)];
        let expected = expected.each_ref().map(String::as_str);
        scene.at(second).send(ann.seek(second as f64 * 10.0)).expect(&expected);
    }
}

#[test]
fn a_player_that_fails_or_goes_while_a_gate_waits_is_awaited_no_more() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    for (player, told) in [
        (bob.fails("network"), "player bob failed"),
        (bob.shows(Player::default(), None), "player bob none"),
        // The page was reloaded, and has not reported its player yet.
        (bob.on(7).join_with(b'b').into(), "resumed bob on 7, proved"),
    ] {
        let mut scene = Scene::of(&[&ann, &bob]);
        scene.at(0).send(ann.seek(60.0)).taken();
        scene.at(1).send(ann.ready(Some(1), None)).taken();
        let at = if told.starts_with("resumed") { 502 } else { 102 };
        scene.at(2).send(player).expect(&[told, &format!("server play 60 @{at}")]);
    }
}

#[test]
fn a_player_that_cannot_keep_up_is_not_awaited_until_it_says_that_it_can_again() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.seek(30.0)).expect(&["ann seek 30 @0 gate 1 [ann bob]"]);
    scene.at(1).send(ann.ready(Some(1), None)).taken();
    // While a gate waits, too.
    scene.at(2).send(bob.lags("stalls")).expect(&["player bob ready, ends 90", "server play 30 @102"]);
    scene.at(3).send(ann.seek(60.0)).expect(&["ann seek 60 @3 gate 2 [ann]"]);
    scene.at(4).send(bob.is_ready()).expect(&["player bob ready, ends 90"]);
    scene.at(5).send(ann.seek(90.0)).expect(&["ann seek 90 @5 gate 3 [ann bob]"]);
}

#[test]
fn the_film_is_as_long_as_a_player_says_that_cannot_keep_up() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1).send(ann.lags("slow")).taken();
    assert_eq!(scene.room.duration(), Some(seconds(90.0)));
}

#[test]
fn a_player_that_loads_its_film_again_is_still_awaited() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(0).send(ann.seek(60.0)).taken();
    scene.at(1).send(bob.shows(Player::of(PlayerState::Loading), None)).expect(&["player bob loading"]);
    assert!(scene.gate().awaiting.contains(&bob.actor.user));
}

#[test]
fn a_v2_client_shows_its_player_with_its_first_ready() {
    let (ann, bob) = (v2("ann"), v2("bob"));
    let mut scene = Scene::without_players(&[&ann, &bob]);
    scene.at(0).send(bob.ready(None, Some(60.0))).expect(&["player bob ready"]);
    scene.at(1).send(ann.seek(60.0)).expect(&["ann seek 60 @1 gate 1 [bob]"]);
}

#[test]
fn a_player_is_told_of_once() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1).send(ann.is_ready()).nothing();
    scene.at(2).send(ann.fails("decode")).expect(&["player ann failed"]);
    scene.at(3).send(ann.fails("decode")).nothing();
    scene.at(4).send(ann.fails("network")).expect(&["player ann failed"]);
}

#[test]
fn with_another_film_every_player_that_was_shown_starts_over() {
    let [ann, bob, cat] = ["ann", "bob", "cat"].map(v3);
    let mut scene = Scene::without_players(&[&ann, &bob, &cat]);
    scene.at(0).send(ann.measures(90.0)).taken();
    scene.at(0).send(bob.fails("decode")).taken();
    assert_eq!(scene.room.film(), 0);
    scene.at(1).send(ann.show("https://example.org/a", 95.0)).expect(&["ann shows https://example.org/a 95 @1"]);
    assert_eq!((scene.room.film(), scene.room.duration()), (1, None));
    let states = scene.room.members().values().map(|member| member.player.state).collect::<Vec<_>>();
    assert_eq!(states, [PlayerState::Loading, PlayerState::Loading, PlayerState::None]);
    // SYNC_PLAYBACK of v2 is another film only with another address.
    scene.at(2).send(ann.adopt(5.0, false)).taken();
    assert_eq!(scene.room.film(), 1);
}

#[test]
fn what_is_said_of_another_film_is_not_heard() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1).send(ann.show("https://example.org/a", 0.0)).taken();
    scene.at(2).send(ann.shows(Player::of(PlayerState::Ready), Some(0))).nothing();
    scene.at(3).send(ann.shows(Player::of(PlayerState::Ready), Some(1))).expect(&["player ann ready"]);
    scene.at(4).send(ann.seek(60.0)).taken();
    let ready = Ask::Ready { gate: Some(1), target: None, film: Some(0) };
    scene.at(5).send(ann.asks(ready)).nothing();
}

#[test]
fn a_command_for_another_film_or_an_earlier_gate_is_refused() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1).send(ann.show("https://example.org/a", 0.0)).taken();
    scene.at(2).send(ann.is_ready()).taken();
    scene.at(3).send(ann.seek(60.0)).taken();
    scene.at(4).send(ann.seek(90.0)).expect(&["ann seek 90 @4 gate 2 [ann]"]);
    let decided_on = |on: Basis| {
        [
            Ask::PlayPause { control: Control::Pause, position: Some(seconds(60.0)), true_at: None, on },
            Ask::Seek { position: seconds(61.0), resume: Some(true), true_at: None, on },
            Ask::SetRate { rate: Rate::parse(2.0).unwrap(), on },
        ]
        .map(|ask| ann.asks(ask))
    };
    for on in [
        Basis { film: Some(0), gate: None },
        Basis { film: Some(2), gate: None },
        Basis { film: Some(1), gate: Some(1) },
    ] {
        for command in decided_on(on) {
            scene.at(5).send(command).refused(Reject::Stale);
        }
    }
    for command in decided_on(Basis { film: Some(1), gate: Some(2) }) {
        let mut other = Scene::new();
        other.room = scene.room.clone();
        other.at(5).send(command).taken();
    }
}

#[test]
fn a_film_that_plays_stands_at_its_end() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.measures(90.0)).expect(&["player ann ready, ends 90"]);
    scene.at(0).send(ann.play(80.0)).taken();
    assert_eq!(scene.room.next_deadline(), Some(ms(10_100)));
    scene.at(10_099).deadline().nothing();
    scene.at(10_100).deadline().expect(&["server end 90 @10100"]);
    assert_eq!(scene.room.next_deadline(), None);
    assert_eq!((scene.position(99_000), scene.room.playback().playing), (90.0, false));
    assert_eq!(scene.room.playback.seq, scene.room.head.seq);
    // At the end the film goes no further, until a member seeks back.
    scene.at(20_000).send(ann.control(Control::Play, None, None)).taken();
    scene.at(20_100).deadline().expect(&["server end 90 @20100"]);
    scene.at(20_200).send(ann.seek(95.0)).expect(&["ann seek 90 @20200 gate 1 [ann]"]);
    scene.at(20_300).send(ann.play(0.0)).expect(&["ann play 0 @20400"]);
}

#[test]
fn the_end_comes_as_soon_as_the_rate_brings_it() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(ann.measures(90.0)).taken();
    scene.at(0).send(ann.play(80.0)).taken();
    scene.at(5_000).send(ann.rate(2.0)).expect(&["ann rate 2 85 @5100"]);
    assert_eq!(scene.room.next_deadline(), Some(ms(7_600)));
    scene.at(7_600).deadline().expect(&["server end 90 @7600"]);
}

#[test]
fn the_host_says_how_long_the_film_is_and_without_it_the_middle_of_the_others() {
    let [ann, bob, cat, dan] = ["ann", "bob", "cat", "dan"].map(v3);
    let mut scene = Scene::without_players(&[&ann, &bob, &cat, &dan]);
    scene.at(0).send(bob.measures(90.0)).expect(&["player bob ready, ends 90"]);
    scene.at(0).send(cat.measures(1.0)).expect(&["player cat ready, ends 90"]);
    scene.at(0).send(dan.measures(89.9)).expect(&["player dan ready, ends 89.9"]);
    scene.at(1).send(ann.measures(90.2)).expect(&["player ann ready, ends 90.2"]);
    // Guests that agree on a false length don't end the host's film.
    for guest in [&bob, &cat, &dan] {
        scene.at(2).send(guest.measures(0.5)).taken();
    }
    assert_eq!(scene.room.duration(), Some(seconds(90.2)));
    scene.at(3).send(ann.fails("decode")).expect(&["player ann failed, ends 0.5"]);
}

#[test]
fn a_live_stream_has_no_length_whatever_its_player_took_for_one() {
    let ann = v3("ann");
    let mut scene = Scene::without_players(&[&ann]);
    scene.at(0).send(ann.measures(24.0)).expect(&["player ann ready, ends 24"]);
    scene.at(1).send(ann.fails("live")).expect(&["player ann failed"]);
    assert_eq!(scene.room.duration(), None);
    scene.at(2).send(ann.measures(24.0)).taken();
    scene.at(3).send(ann.fails("decode")).expect(&["player ann failed, ends 24"]);
}

#[test]
fn what_a_member_that_goes_has_said_goes_with_it() {
    let [ann, bob] = ["ann", "bob"].map(v3);
    let mut scene = Scene::without_players(&[&ann, &bob]);
    scene.at(0).send(ann.measures(0.5)).taken();
    scene.at(0).send(bob.measures(90.0)).expect(&["player bob ready, ends 0.5"]);
    scene.at(1).send(ann.leave()).expect(&["player ann none, ends 90", "left ann left", "host bob"]);
    // The last report stays: the film is no longer for the member's leaving.
    scene.at(2).send(v3("cat").join()).taken();
    scene.at(3).send(bob.leave()).expect(&["left bob left", "host cat"]);
    assert_eq!(scene.room.duration(), Some(seconds(90.0)));
}

#[test]
fn a_seek_at_the_gate_keeps_what_the_room_means_to_do() {
    for (ann, resume) in [(v3("ann"), None), (v2("ann"), Some(false)), (v2("ann"), None)] {
        let bob = v3("bob");
        let mut scene = Scene::of(&[&ann, &bob]);
        scene.at(0).send(ann.play(0.0)).taken();
        scene.at(1_500).send(ann.seek_resuming(30.0, Some(true), None)).taken();
        assert!(!scene.room.playback().playing && scene.room.intends_to_play());
        scene.at(2_400).send(ann.seek_resuming(33.0, resume, None)).taken();
        assert!(scene.room.intends_to_play(), "{ann:?} {resume:?}", ann = ann.dialect);
        scene.at(9_400).deadline().expect(&["server play 33 @9500"]);
    }
}

#[test]
fn a_seek_that_says_nothing_leaves_a_paused_room_paused() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1).send(ann.seek_resuming(30.0, None, None)).expect(&["ann seek 30 @1"]);
    scene.at(2).send(ann.play(30.0)).taken();
    scene.at(3).send(ann.seek_resuming(40.0, None, None)).expect(&["ann seek 40 @3 gate 1 [ann]"]);
    // A pause at the gate is deliberate.
    scene.at(4).send(ann.pause(40.0)).taken();
    scene.at(5).send(ann.seek_resuming(50.0, None, None)).expect(&["ann seek 50 @5"]);
}
