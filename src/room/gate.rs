//! The ready gate: after a seek that should play on, the room stands still until its members have buffered.
//!
//! It waits for every member that was connected at the seek and whose player was ready then, but not for a v2 seeker (which
//! never answers). A member that only chats, or whose player loads or failed, would only use up the deadline. It opens
//! when all of them are ready; or when `GATE_QUORUM_MS` have passed and two thirds are; or at its deadline. Who leaves
//! or loses its connection, and whose player fails, is no longer awaited. Play, pause, seek and a change of film cancel it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::{MediaTime, RoomTime, UserId};

/// An open gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadyGate {
    /// Counts up within an epoch: a READY for an older gate opens nothing.
    pub id: u32,
    /// Where everybody seeks to.
    pub target: MediaTime,
    /// Who has not answered.
    pub awaiting: BTreeSet<UserId>,
    /// Who has.
    pub ready: BTreeSet<UserId>,
    /// From when on two thirds are enough.
    pub quorum_at: RoomTime,
    /// When it opens at the latest.
    pub deadline: RoomTime,
    /// Who sought.
    pub by: UserId,
}

impl ReadyGate {
    /// Whether the room may play at `now`.
    pub fn is_met(&self, now: RoomTime) -> bool {
        self.awaiting.is_empty() || now >= self.deadline || (now >= self.quorum_at && self.has_quorum())
    }

    /// When to look again.
    pub fn next_deadline(&self) -> RoomTime {
        if self.has_quorum() { self.quorum_at.min(self.deadline) } else { self.deadline }
    }

    fn has_quorum(&self) -> bool {
        let all = self.awaiting.len() + self.ready.len();
        self.ready.len() * 3 >= all * 2
    }
}
