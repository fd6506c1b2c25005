//! What a member last reported of its player and its connection, for the tables that people read.
//!
//! The seam: a session's ticks, heartbeats and statuses → the hub keeps the last of each in the member's record, under
//! the room's lock that these messages take anyway → once a minute a task takes the members that reported since
//! (`Hub::take_reports`) → `Repository::store_reports` updates their rows in `users`, many in one statement.
//!
//! Not by way of the log: a film plays for two hours without a commit, so a clock is needed anyhow; a commit that
//! carried the reports of 200 members would make one click cost what the room is large; and nobody replays them. So an
//! outbox entry, a stored field and the audit hold none. A report that is lost (the database is away, the node dies) is
//! followed by another one a minute later.

use crate::domain::{RoomId, RoomTime, UserId};

/// Rows of `users` that are to show a member's last report.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberReport {
    pub room: RoomId,
    pub user: UserId,
    /// Position of its player, s.
    pub position: Option<f64>,
    /// Whether its player plays.
    pub playing: Option<bool>,
    pub quality: Option<ConnectionQuality>,
    /// When it last reported anything.
    pub at: RoomTime,
}

/// A member's connection in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionQuality {
    /// Round trip below 150 ms.
    Good,
    /// Round trip below 400 ms.
    Fair,
    /// A longer one, or the player waits for data.
    Poor,
}

impl ConnectionQuality {
    /// `None`: the report says nothing of the connection.
    pub fn of(rtt_ms: Option<f64>, buffering: bool) -> Option<Self> {
        match rtt_ms {
            _ if buffering => Some(Self::Poor),
            Some(rtt) if rtt < 150.0 => Some(Self::Good),
            Some(rtt) if rtt < 400.0 => Some(Self::Fair),
            Some(_) => Some(Self::Poor),
            None => None,
        }
    }

    /// The value of the column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Fair => "fair",
            Self::Poor => "poor",
        }
    }
}
