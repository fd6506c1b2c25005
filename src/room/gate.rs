//! The ready gate: after a seek that should play on, the room stands until its members have buffered.
//!
//! A gate awaits every member that was connected at the seek with a ready player, except a v2 seeker, which never
//! answers. Members that only chat, and players that load or failed, would only use up the deadline. The gate opens
//! when all awaited members are ready, when `GATE_QUORUM_MS` have passed and two thirds are, or at its deadline. A
//! member that leaves or loses its connection, or whose player fails, is no longer awaited. Play, pause, seek and a
//! change of film cancel the gate.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::{MediaTime, RoomTime, UserId};

/// An open gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadyGate {
    /// Counts up within an epoch: a READY for an older gate opens nothing.
    pub id: u32,
    /// The position sought.
    pub target: MediaTime,
    /// Members that have not answered.
    pub awaiting: BTreeSet<UserId>,
    /// Members that have.
    pub ready: BTreeSet<UserId>,
    /// From this time on two thirds are enough.
    pub quorum_at: RoomTime,
    /// When the gate opens at the latest.
    pub deadline: RoomTime,
    /// The member that sought.
    pub by: UserId,
}

impl ReadyGate {
    /// Whether the room may play at `now`.
    pub fn is_met(&self, now: RoomTime) -> bool {
        self.awaiting.is_empty() || now >= self.deadline || (now >= self.quorum_at && self.has_quorum())
    }

    /// When [`ReadyGate::is_met`] may change without an event.
    pub fn next_deadline(&self) -> RoomTime {
        if self.has_quorum() { self.quorum_at.min(self.deadline) } else { self.deadline }
    }

    fn has_quorum(&self) -> bool {
        let all = self.awaiting.len() + self.ready.len();
        self.ready.len() * 3 >= all * 2
    }
}
