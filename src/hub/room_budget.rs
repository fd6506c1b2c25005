//! Byte buckets of a room: bytes that its commands store, and bytes that each of its members is sent.
//!
//! Sessions and addresses have buckets of their own (`session::budget`). These bound all of them together.
//!
//! * **Stored**: `MAX_ROOM_STORED_BYTES` an hour. Messages of any member may use half of it; the other half is left for
//!   members in control. Kicks, bans, SET_PIN and READY always pass, so that a spoilt room can be put in order.
//! * **Relayed**: bytes of chat, payloads and names. A burst is a quarter of a session's outbox, so the room's messages
//!   never end the session of a member that reads at all. Playback commands are never refused for it.
//!
//! Each node charges its own members before their commands are queued, and other nodes' members when their events
//! arrive, so the rates hold over all nodes in the long run.

use std::time::Duration;

use crate::clock::Clock;
use crate::domain::Limits;
use crate::quota::{Bucket, Pace};
use crate::room::{Ask, Event};

/// Bytes of an event besides what its sender chose.
const ENVELOPE: usize = 256;

/// A room's buckets, created on first use: most replicas are of rooms in which no member here sends anything.
#[derive(Debug, Default)]
pub(super) struct RoomBudget(Option<RoomBuckets>);

#[derive(Debug)]
struct RoomBuckets {
    stored: Bucket,
    relayed: Bucket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BudgetClass {
    /// Any member may send it.
    Content,
    /// Moves the playback.
    Control,
    Free,
}

struct RoomPaces {
    stored: Pace,
    relayed: Pace,
}

impl RoomPaces {
    fn of(limits: &Limits) -> Self {
        let stored = limits.room_stored_bytes as f64;
        Self { stored: Pace::new(stored / 3600.0, stored), relayed: Pace::of(limits.room_relayed_bytes_per_sec, 8.0) }
    }
}

impl RoomBudget {
    /// Charges a member's request, or returns how long to wait.
    pub(super) fn admit(&mut self, ask: &Ask, limits: &Limits) -> Result<(), Duration> {
        let (class, text, film) = match ask {
            Ask::Chat { text, .. } => (BudgetClass::Content, text.as_str().len(), 0),
            Ask::Custom { payload, .. } => (BudgetClass::Content, payload.len(), 0),
            Ask::Rename { name, .. } => (BudgetClass::Content, name.as_str().len(), 0),
            Ask::SetUrl { url, .. } => (BudgetClass::Control, 0, url.as_str().len()),
            Ask::Adopt { url, .. } => (BudgetClass::Control, 0, url.as_ref().map_or(0, |url| url.as_str().len())),
            Ask::PlayPause { .. } | Ask::Seek { .. } | Ask::SetRate { .. } => (BudgetClass::Control, 0, 0),
            _ => (BudgetClass::Free, 0, 0),
        };
        let (paces, now) = (RoomPaces::of(limits), Clock::instant());
        let full =
            || RoomBuckets { stored: Bucket::full(paces.stored, now), relayed: Bucket::full(paces.relayed, now) };
        let buckets = self.0.get_or_insert_with(full);
        let reserve = limits.room_stored_bytes as f64 / 2.0;
        let wait = match class {
            BudgetClass::Free => None,
            BudgetClass::Control => buckets.stored.wait(0.0, paces.stored, now),
            BudgetClass::Content => {
                let relayed = buckets.relayed.wait(0.0, paces.relayed, now);
                relayed.max(buckets.stored.wait(reserve, paces.stored, now))
            }
        };
        if let Some(wait) = wait {
            return Err(wait);
        }
        buckets.charge(text, film);
        Ok(())
    }

    /// Charges an event of another node's member.
    pub(super) fn note(&mut self, event: &Event) {
        let Some(buckets) = &mut self.0 else { return };
        match event {
            Event::Chat { text, .. } => buckets.charge(text.as_str().len(), 0),
            Event::Custom { payload, .. } => buckets.charge(payload.len(), 0),
            Event::Renamed { name, .. } => buckets.charge(name.as_str().len(), 0),
            Event::UrlChanged { url, .. } => buckets.charge(0, url.as_str().len()),
            Event::Adopted { url, .. } => buckets.charge(0, url.as_ref().map_or(0, |url| url.as_str().len())),
            _ => buckets.charge(0, 0),
        }
    }
}

impl RoomBuckets {
    /// Texts and payloads are relayed and not stored; film addresses are both.
    fn charge(&mut self, text: usize, film: usize) {
        self.stored.charge((ENVELOPE + film) as f64);
        self.relayed.charge((ENVELOPE + text + film) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ChatText, UserId};
    use crate::room::{Basis, Control};

    fn chat(characters: usize) -> Ask {
        Ask::Chat { text: ChatText::parse(&"x".repeat(characters), &Limits::default()).unwrap() }
    }

    fn play() -> Ask {
        Ask::PlayPause { control: Control::Play, position: None, true_at: None, on: Basis::default() }
    }

    fn passed(budget: &mut RoomBudget, ask: &Ask) -> usize {
        let limits = Limits::default();
        (0..100_000).take_while(|_| budget.admit(ask, &limits).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn what_guests_say_is_less_than_an_outbox_and_never_keeps_the_film_from_moving() {
        let mut budget = RoomBudget::default();
        let bytes = passed(&mut budget, &chat(2000)) as u64 * 2256;
        assert!(bytes <= Limits::default().outbox_bytes / 3, "{bytes}");
        assert!(budget.admit(&play(), &Limits::default()).is_ok());
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(passed(&mut budget, &chat(2000)) > 100);
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_what_a_room_may_store_is_left_for_those_in_control() {
        let mut budget = RoomBudget::default();
        let limits = Limits::default();
        // For an hour, as fast as chat is admitted.
        let mut said = 0;
        for _ in 0..3600 {
            said += passed(&mut budget, &chat(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let stored = said as u64 * 256;
        assert!(stored <= limits.room_stored_bytes * 3 / 2 + 10_000, "{stored}");
        let moves = passed(&mut budget, &play()) as u64 * 256;
        assert!(moves >= limits.room_stored_bytes / 2 - 10_000, "{moves}");
        assert!(budget.admit(&play(), &limits).is_err());
        let kick = Ask::Kick { target: UserId::parse("mallory").unwrap() };
        assert!(budget.admit(&kick, &limits).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_node_committed_counts_here_too() {
        let mut budget = RoomBudget::default();
        let (limits, text) = (Limits::default(), ChatText::parse(&"x".repeat(2000), &Limits::default()).unwrap());
        budget.admit(&chat(1), &limits).unwrap();
        for _ in 0..200 {
            budget.note(&Event::Chat {
                user: UserId::parse("ann").unwrap(),
                text: text.clone(),
                at: crate::domain::RoomTime::default(),
            });
        }
        assert!(budget.admit(&chat(1), &limits).is_err());
    }
}
