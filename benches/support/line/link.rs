//! One direction of a line, without I/O: what goes in at one end comes out at the other, late, or not at all.
//!
//! ```text
//! send(now, packet) ─► queue (bounded) ─► wire (so many bytes a second) ─► lost? ─► delay + jitter ─► receive(now)
//! ```
//!
//! Time is an argument, a [`Duration`] since any origin; chance comes from a seed. So the same packets at the same
//! times meet the same fate, and the tests need no clock. Guarantees:
//! * Packets come out in the order in which they went in, each at most once.
//! * None comes out before it was on the wire for `delay`, and none that found no other before it later than its time
//!   on the wire, `delay` and `jitter` together.
//! * What waits for the wire is never more than `queue` bytes: what doesn't fit is dropped, as a router does.

use std::collections::VecDeque;
use std::time::Duration;

/// Delay, jitter, loss, width and queue of the line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Conditions {
    /// The time that every packet takes.
    pub(crate) delay: Duration,
    /// Each takes up to this much more.
    pub(crate) jitter: Duration,
    /// The share of packets that is lost, each by itself: 0.02 is two in a hundred.
    pub(crate) loss: f64,
    /// Bytes that the wire takes a second.
    pub(crate) rate: u64,
    /// Bytes that may wait for the wire.
    pub(crate) queue: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It will come out.
    Sent,
    /// It is lost on the wire.
    Lost,
    /// It found the queue full.
    Dropped,
}

/// Number of packets that met each [`Fate`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Fates {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) dropped: u64,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Link {
    conditions: Conditions,
    rng: Rng,
    /// Until then the wire is taken by packets that came before.
    busy_until: Duration,
    flying: VecDeque<(Duration, Vec<u8>)>,
    fates: Fates,
}

impl Link {
    pub(crate) fn new(conditions: Conditions, seed: u64) -> Self {
        let (busy_until, flying) = (Duration::ZERO, VecDeque::new());
        Self { conditions, rng: Rng(seed), busy_until, flying, fates: Fates::default() }
    }

    /// Takes a packet in. Times must not go back.
    pub(crate) fn send(&mut self, now: Duration, packet: Vec<u8>) -> Fate {
        let on_wire = |bytes: usize| Duration::from_secs_f64(bytes as f64 / self.conditions.rate as f64);
        let wait = self.busy_until.saturating_sub(now);
        if wait + on_wire(packet.len()) > on_wire(self.conditions.queue) {
            self.fates.dropped += 1;
            return Fate::Dropped;
        }
        self.busy_until = now + wait + on_wire(packet.len());
        // Both draws are made for every packet, so that the loss of one doesn't change the jitter of the next.
        let (chance, jitter) = (self.rng.share(), self.conditions.jitter.mul_f64(self.rng.share()));
        if chance < self.conditions.loss {
            self.fates.lost += 1;
            return Fate::Lost;
        }
        let due = self.busy_until + self.conditions.delay + jitter;
        let before = self.flying.back().map_or(Duration::ZERO, |(due, _)| *due);
        self.flying.push_back((due.max(before), packet));
        self.fates.sent += 1;
        Fate::Sent
    }

    /// Time until the next packet comes out.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.flying.front().map(|(due, _)| *due)
    }

    /// The next packet that has come out by now.
    pub(crate) fn receive(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.flying.pop_front_if(|(due, _)| *due <= now).map(|(_, packet)| packet)
    }

    /// The counts since the link was made.
    pub(crate) fn fates(&self) -> Fates {
        self.fates
    }
}

/// Chance that is the same every time: SplitMix64.
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    /// At least 0 and less than 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
