//! The lossy line of the benches (`benches/support/line`) as a pure value: its rules, with the clock as an argument.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../benches/support/line/link.rs"]
mod link;

use std::time::Duration;

use link::{Conditions, Fate, Link};

const SEED: u64 = 7;

/// 100 ms round trip, ample rate, no loss.
const CLEAN: Conditions = Conditions {
    delay: Duration::from_millis(50),
    jitter: Duration::ZERO,
    loss: 0.0,
    rate: 1_000_000_000,
    queue: 1_000_000,
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Sends `count` numbered packets, one each ms; returns when each came out.
fn carried(link: &mut Link, count: u32) -> Vec<(Duration, u32)> {
    let mut out = Vec::new();
    let mut take = |link: &mut Link, until: Duration| {
        while let Some(due) = link.next_due().filter(|due| *due <= until) {
            let packet = link.receive(due).unwrap();
            out.push((due, u32::from_be_bytes(packet.try_into().unwrap())));
        }
    };
    for number in 0..count {
        let now = ms(number.into());
        take(link, now);
        link.send(now, number.to_be_bytes().to_vec());
    }
    take(link, Duration::MAX);
    out
}

#[test]
fn a_packet_comes_out_after_the_delay_and_not_a_moment_before() {
    let mut link = Link::new(CLEAN, SEED);
    assert_eq!(link.send(ms(10), vec![1; 100]), Fate::Sent);
    let due = link.next_due().unwrap();
    assert_eq!(due, ms(60) + Duration::from_nanos(100), "delay, and 100 bytes at 1 GB/s");
    assert_eq!(link.receive(due - Duration::from_nanos(1)), None);
    assert_eq!(link.receive(due).unwrap(), [1; 100]);
    assert_eq!((link.receive(due), link.next_due()), (None, None), "each comes out once");
}

#[test]
fn as_many_are_lost_as_was_asked_for_and_the_others_are_not_touched() {
    for loss in [0.0, 0.01, 0.02, 0.05, 1.0] {
        let mut link = Link::new(Conditions { loss, ..CLEAN }, SEED);
        let out = carried(&mut link, 100_000);
        let fates = link.fates();
        assert_eq!((fates.sent, fates.dropped), (out.len() as u64, 0), "loss {loss}, seed {SEED}");
        assert_eq!(fates.sent + fates.lost, 100_000);
        let share = fates.lost as f64 / 100_000.0;
        assert!((share - loss).abs() < 0.002, "loss {loss}, seed {SEED}: {share} were lost");
        let late = out.iter().filter(|(when, number)| *when > ms(u64::from(*number) + 51)).count();
        assert_eq!(late, 0, "loss {loss}: nothing waits for a lost packet");
    }
}

#[test]
fn losses_fall_one_by_one_and_not_in_a_row() {
    let mut link = Link::new(Conditions { loss: 0.1, ..CLEAN }, SEED);
    let fates: Vec<bool> = (0..100_000).map(|at| link.send(ms(at), vec![0]) == Fate::Lost).collect();
    let pairs = fates.windows(2).filter(|pair| pair[0] && pair[1]).count() as f64 / 100_000.0;
    assert!((pairs - 0.01).abs() < 0.002, "seed {SEED}: {pairs} of two in a row, by chance 0.01");
}

#[test]
fn jitter_spreads_the_delay_over_its_whole_width_and_never_changes_the_order() {
    let mut link = Link::new(Conditions { jitter: ms(20), ..CLEAN }, SEED);
    let out = carried(&mut link, 10_000);
    assert!(out.iter().map(|(_, number)| *number).eq(0..10_000), "in order, all of them");
    assert!(out.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    let delays = || out.iter().map(|(when, number)| *when - ms(u64::from(*number)));
    let (least, most) = (delays().min().unwrap(), delays().max().unwrap());
    assert!(least >= ms(50) && most < ms(71), "{least:?} to {most:?}");
    assert!(most - least > ms(15), "{least:?} to {most:?}");
}

#[test]
fn the_wire_takes_one_packet_after_another() {
    let mut link = Link::new(Conditions { rate: 1_000, ..CLEAN }, SEED);
    for _ in 0..3 {
        link.send(ms(0), vec![0; 100]);
    }
    link.send(ms(1000), vec![0; 100]);
    let times = std::iter::from_fn(|| link.next_due().inspect(|due| drop(link.receive(*due))));
    assert_eq!(times.collect::<Vec<_>>(), [ms(150), ms(250), ms(350), ms(1150)]);
}

#[test]
fn what_does_not_fit_into_the_queue_is_dropped_and_there_is_room_again_once_the_wire_was_free() {
    let mut link = Link::new(Conditions { rate: 1_000, queue: 300, ..CLEAN }, SEED);
    let flood: Vec<Fate> = (0..5).map(|_| link.send(ms(0), vec![0; 100])).collect();
    assert_eq!(flood, [Fate::Sent, Fate::Sent, Fate::Sent, Fate::Dropped, Fate::Dropped]);
    assert_eq!(link.send(ms(99), vec![0; 100]), Fate::Dropped);
    assert_eq!(link.send(ms(100), vec![0; 100]), Fate::Sent);
    assert_eq!(link.fates(), link::Fates { sent: 4, lost: 0, dropped: 3 });
}

#[test]
fn the_same_seed_is_the_same_weather_and_another_one_is_not() {
    let rough = Conditions { jitter: ms(5), loss: 0.05, ..CLEAN };
    let run = |seed| carried(&mut Link::new(rough, seed), 1000);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
