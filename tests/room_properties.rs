//! Invariants of a room after every step of random scripts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(unreachable_pub, reason = "the fuzz target takes the same file in")]
#[path = "support/room_script.rs"]
mod room_script;

use std::collections::BTreeMap;

use proptest::prelude::*;

proptest! {
    // A failure prints its script and its seed; no files are left behind.
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_of_a_room_its_invariants_hold(script in prop::collection::vec(any::<u8>(), 0..1000)) {
        room_script::run(&script);
    }
}

#[test]
fn an_empty_script_is_a_script() {
    room_script::run(&[]);
}

/// Scripts whose commands are all refused would prove nothing.
#[test]
fn scripts_reach_every_event_and_every_refusal() {
    let mut seen = BTreeMap::new();
    for seed in 0..120_u64 {
        for (what, times) in room_script::play(&noise(seed, 1500)) {
            *seen.entry(what).or_insert(0) += times;
        }
    }
    println!("{seen:#?}");
    let events = [
        "room_created",
        "member_joined",
        "member_resumed",
        "member_disconnected",
        "member_left",
        "room_kept",
        "member_renamed",
        "host_changed",
        "guest_control",
        "pin_changed",
        "bans_changed",
        "play",
        "pause",
        "rate",
        "correction",
        "film_ended",
        "player",
        "seek",
        "gate_progress",
        "url_changed",
        "playback_adopted",
        "chat",
        "custom",
        "room_ended",
    ];
    let refusals = [
        "NotMember",
        "NotHost",
        "NotInControl",
        "PinRequired",
        "PinWrong",
        "PinStale",
        "UserIdTaken",
        "ProbeFirst",
        "TokenInvalid",
        "Banned",
        "Full",
        "AddressFull",
        "Kicked",
        "TargetGone",
        "NoGate",
        "Stale",
        "BansFull",
        "nothing",
    ];
    for what in events.iter().chain(&refusals) {
        assert!(seen.get(*what).is_some_and(|times| *times >= 10), "{what} hardly occurs: {:?}", seen.get(*what));
    }
}

/// SplitMix64, so that the test repeats.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) as u8
    };
    (0..len).map(|_| next()).collect()
}
