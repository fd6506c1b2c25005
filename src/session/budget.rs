//! Byte buckets of a session, beside the [rate](super::message_rate) of its messages: what it may make the server send
//! and store.
//!
//! | bucket | what it counts |
//! |---|---|
//! | committed | bytes of commands that are committed, by session and by address |
//! | relayed | bytes of signals and answers to REQUEST_SYNC; by address also of commits, each member's copy counted |
//! | pair | bytes of signals to one other member |
//! | films, PINs | URL_CHANGE and SYNC_PLAYBACK; SET_PIN, which costs an argon2 |
//!
//! A session that exceeds a bucket gets ERROR `RATE_LIMITED`; other members are not affected. The room's own buckets
//! are the hub's (`hub::room_budget`), because all members share them. Ticks, heartbeats and position reports pass no
//! bucket: they have a fixed size, and their rate is bounded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::{Limits, UserId};
use crate::protocol::ClientMessage;
use crate::quota::{AddressBudget, Bucket, Cost, Pace, longest_wait};
use crate::room::Ask;

/// Bytes that the server adds to a message: sender, time, place in the order.
const ENVELOPE: usize = 256;
/// Approximate bytes of a member in ROOM_STATE.
const MEMBER: usize = 200;
/// The most targets of a session's signals at a time.
const PAIRS: usize = 512;
/// `retryAfterMs` when a session sends signals to too many targets.
const A_SECOND: Duration = Duration::from_secs(1);

pub(super) struct SessionBudget {
    address: Arc<AddressBudget>,
    committed: Bucket,
    relayed: Bucket,
    films: Bucket,
    pins: Bucket,
    pairs: HashMap<UserId, Bucket>,
}

/// The bucket that was exceeded, for the metric, and how long to wait.
#[derive(Debug)]
pub(super) struct BudgetExceeded {
    pub(super) budget: &'static str,
    pub(super) retry_after: Duration,
}

fn over(budget: &'static str) -> impl Fn(Duration) -> BudgetExceeded {
    move |retry_after| BudgetExceeded { budget, retry_after }
}

struct SessionPaces {
    committed: Pace,
    relayed: Pace,
    pair: Pace,
    films: Pace,
    pins: Pace,
}

impl SessionPaces {
    fn of(limits: &Limits) -> Self {
        let a_minute = |count: u64, burst: f64| Pace::new(count as f64 / 60.0, burst);
        Self {
            committed: Pace::of(limits.committed_bytes_per_sec, 32.0),
            relayed: Pace::of(limits.relayed_bytes_per_sec, 8.0),
            pair: Pace::of(limits.pair_bytes_per_sec, 8.0),
            // A user who pasted the wrong address pastes the right one at once.
            films: a_minute(limits.film_changes_per_minute, 5.0),
            pins: a_minute(limits.pin_changes_per_minute, 5.0),
        }
    }
}

impl SessionBudget {
    pub(super) fn new(limits: &Limits, address: Arc<AddressBudget>) -> Self {
        let (paces, now) = (SessionPaces::of(limits), Clock::instant());
        let full = |pace| Bucket::full(pace, now);
        Self {
            address,
            committed: full(paces.committed),
            relayed: full(paces.relayed),
            films: full(paces.films),
            pins: full(paces.pins),
            pairs: HashMap::new(),
        }
    }

    /// Charges a command of `bytes`, of which each of `hearers` gets a copy.
    pub(super) fn command(
        &mut self,
        limits: &Limits,
        message: &ClientMessage,
        bytes: usize,
        hearers: usize,
    ) -> Result<(), BudgetExceeded> {
        let (paces, now) = (SessionPaces::of(limits), Clock::instant());
        let (film, pin) = match message {
            ClientMessage::Ask(Ask::SetUrl { .. } | Ask::Adopt { .. }) => (1.0, 0.0),
            ClientMessage::SetPin(_) => (0.0, 1.0),
            _ => (0.0, 0.0),
        };
        let committed = (bytes + ENVELOPE) as f64;
        let mut own = [
            (&mut self.committed, paces.committed, committed),
            (&mut self.films, paces.films, film),
            (&mut self.pins, paces.pins, pin),
        ];
        // The address is charged only for what the session may send.
        if let Some(wait) = longest_wait(&mut own, now) {
            return Err(over("session")(wait));
        }
        let cost = Cost { committed, relayed: committed * hearers as f64, pins: pin };
        self.address.spend(cost, now).map_err(over("address"))?;
        for (bucket, _, amount) in own {
            bucket.charge(amount);
        }
        Ok(())
    }

    /// Charges a signal of `bytes` to one other member.
    pub(super) fn signal(&mut self, limits: &Limits, to: &UserId, bytes: usize) -> Result<(), BudgetExceeded> {
        let (paces, now) = (SessionPaces::of(limits), Clock::instant());
        if self.pairs.len() >= PAIRS && !self.pairs.contains_key(to) {
            self.pairs.retain(|_, bucket| !bucket.is_full(paces.pair, now));
            if self.pairs.len() >= PAIRS {
                return Err(over("pair")(A_SECOND));
            }
        }
        let bytes = (bytes + ENVELOPE) as f64;
        let pair = match self.pairs.entry(to.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Bucket::full(paces.pair, now)),
        };
        if let Some(wait) = pair.wait(0.0, paces.pair, now) {
            return Err(over("pair")(wait));
        }
        if let Some(wait) = self.relayed.wait(0.0, paces.relayed, now) {
            return Err(over("session")(wait));
        }
        self.address.spend(Cost { relayed: bytes, ..Cost::default() }, now).map_err(over("address"))?;
        pair.charge(bytes);
        self.relayed.charge(bytes);
        Ok(())
    }

    /// Charges REQUEST_SYNC, whose answer lists all members.
    pub(super) fn sync(&mut self, limits: &Limits, members: usize) -> Result<(), BudgetExceeded> {
        let (paces, now) = (SessionPaces::of(limits), Clock::instant());
        if let Some(wait) = self.relayed.wait(0.0, paces.relayed, now) {
            return Err(over("session")(wait));
        }
        let bytes = (ENVELOPE + members * MEMBER) as f64;
        self.address.spend(Cost { relayed: bytes, ..Cost::default() }, now).map_err(over("address"))?;
        self.relayed.charge(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::domain::{ChatText, MediaTime, Pin};
    use crate::quota::AddressBudgets;

    fn budget(limits: &Limits) -> SessionBudget {
        SessionBudget::new(limits, AddressBudgets::new(limits).of(IpAddr::V4(Ipv4Addr::LOCALHOST)))
    }

    fn user(n: usize) -> UserId {
        UserId::parse(&format!("user-{n}")).unwrap()
    }

    fn chat() -> ClientMessage {
        ClientMessage::Ask(Ask::Chat { text: ChatText::parse("x", &Limits::default()).unwrap() })
    }

    /// How many pass at one moment, and which bucket refuses the next.
    fn passed(mut take: impl FnMut() -> Result<(), BudgetExceeded>) -> (usize, &'static str) {
        let mut count = 0;
        loop {
            match take() {
                Ok(()) => count += 1,
                Err(over) => return (count, over.budget),
            }
            assert!(count < 1_000_000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_with_twenty_others_passes_at_once_and_a_burst_to_one_does_not() {
        let limits = Limits::default();
        let mut caller = budget(&limits);
        for n in 0..20 {
            caller.signal(&limits, &user(n), 6000).unwrap();
            for _ in 0..20 {
                caller.signal(&limits, &user(n), 300).unwrap();
            }
        }
        let mut mallory = budget(&limits);
        let (count, by) = passed(|| mallory.signal(&limits, &user(0), 30_000));
        assert!(count <= 3, "{count}");
        assert_eq!(by, "pair");
        assert!(mallory.signal(&limits, &user(1), 300).is_ok(), "another pair has its own");
        let (count, by) = passed({
            let mut n = 1;
            move || {
                n += 1;
                mallory.signal(&limits, &user(n), 30_000)
            }
        });
        assert!(count <= 16, "{count}");
        assert_eq!(by, "session");
    }

    #[tokio::test(start_paused = true)]
    async fn signals_to_ever_new_names_keep_a_bounded_number_of_buckets() {
        let limits = Limits {
            relayed_bytes_per_sec: 1_000_000_000,
            address_relayed_bytes_per_sec: 1_000_000_000,
            ..Limits::default()
        };
        let mut mallory = budget(&limits);
        let (count, by) = passed({
            let (mallory, mut n) = (&mut mallory, 0);
            move || {
                n += 1;
                mallory.signal(&limits, &user(n), 300)
            }
        });
        assert_eq!((count, by), (PAIRS, "pair"));
        assert_eq!(mallory.pairs.len(), PAIRS);
    }

    #[tokio::test(start_paused = true)]
    async fn the_film_changes_once_a_second_and_the_pin_every_ten() {
        let limits = Limits::default();
        let mut host = budget(&limits);
        let adopt = ClientMessage::Ask(Ask::Adopt { position: MediaTime::ZERO, playing: true, url: None });
        assert_eq!(passed(|| host.command(&limits, &adopt, 100, 2)), (5, "session"));
        let pin = ClientMessage::SetPin(Pin::parse("1111").unwrap());
        assert_eq!(passed(|| host.command(&limits, &pin, 100, 2)), (5, "session"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(passed(|| host.command(&limits, &adopt, 100, 2)), (1, "session"));
        // One borrowed token, and then none for more than ten seconds.
        assert_eq!(passed(|| host.command(&limits, &pin, 100, 2)), (1, "session"));
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(passed(|| host.command(&limits, &pin, 100, 2)), (0, "session"));
        assert!(host.command(&limits, &chat(), 100, 2).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn two_hundred_chat_messages_pass_at_once_and_payloads_by_their_bytes() {
        let limits = Limits::default();
        let mut ann = budget(&limits);
        for _ in 0..200 {
            ann.command(&limits, &chat(), 300, 50).unwrap();
        }
        let mut mallory = budget(&limits);
        let (count, by) = passed(|| mallory.command(&limits, &chat(), 16_400, 20));
        assert!((10..=20).contains(&count), "{count}");
        assert_eq!(by, "session");
        // In a room of 500 the copies count.
        let mut mallory = budget(&limits);
        let (count, by) = passed(|| mallory.command(&limits, &chat(), 16_400, 500));
        assert!(count <= 3, "{count}");
        assert_eq!(by, "address");
    }

    #[tokio::test(start_paused = true)]
    async fn the_sessions_of_an_address_share_its_buckets() {
        let limits = Limits::default();
        let addresses = AddressBudgets::new(&limits);
        let mut sessions: Vec<_> =
            (0..100).map(|_| SessionBudget::new(&limits, addresses.of(IpAddr::V4(Ipv4Addr::LOCALHOST)))).collect();
        let mut bytes = 0;
        for session in &mut sessions {
            bytes += 2300 * passed(|| session.command(&limits, &chat(), 2044, 1)).0;
        }
        assert!((2_000_000..2_200_000).contains(&bytes), "{bytes}");
    }
}
