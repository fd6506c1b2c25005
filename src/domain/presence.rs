//! How a member's player and connection do: what it measures itself, and what of it the room is told.

use serde::{Deserialize, Serialize};

use super::{ErrorCode, Invalid, MemberSlot, TransportKind};

/// A measured time in whole microseconds, within ±10 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Measurement(i32);

impl Measurement {
    pub const MAX: Self = Self(600_000_000);

    /// Refuses what lies beyond 10 minutes.
    pub fn from_micros(micros: i32) -> Result<Self, Invalid> {
        if micros.unsigned_abs() > Self::MAX.0.unsigned_abs() {
            return Err(Invalid::new(ErrorCode::OutOfRange, "a measurement must be within 10 minutes"));
        }
        Ok(Self(micros))
    }

    /// Of a constant, at most a few seconds.
    pub(crate) const fn from_millis(millis: i16) -> Self {
        Self(millis as i32 * 1000)
    }

    pub const fn micros(self) -> i32 {
        self.0
    }

    /// With fractions.
    pub fn millis(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

/// A client's own measurements. Only the latest counts; none is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    /// The sender's own counter (wrapping).
    pub seq: u32,
    /// Whether the player waits for data.
    pub buffering: bool,
    /// Whether the member is in the room's call.
    pub in_call: bool,
    /// Round trip to the server.
    pub rtt: Option<Measurement>,
    /// Deviation from the playback vector; negative: behind it.
    pub drift: Option<Measurement>,
    /// Estimated error of the client's clock.
    pub clock_error: Option<Measurement>,
}

impl StatusReport {
    /// Adds what only the server knows of the sender.
    pub fn relayed(self, slot: MemberSlot, transport: TransportKind) -> RelayedStatus {
        RelayedStatus { slot, transport, report: self }
    }
}

/// A [`StatusReport`] as the server relays it to the other members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayedStatus {
    pub slot: MemberSlot,
    pub transport: TransportKind,
    pub report: StatusReport,
}

/// How a large room's members and audience do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomDigest {
    /// Members who are connected.
    pub members: u32,
    pub audience: u32,
    /// Members and viewers who lately said that they buffer, or how far they are from the vector.
    pub measured: u32,
    /// Of these, those in step.
    pub in_step: u32,
    /// Of these, those whose players wait for data.
    pub buffering: u32,
    /// Median and 95th percentile of the distance from the vector, in either direction; `None`: nobody said.
    pub distance: Option<[Measurement; 2]>,
    /// Members who stand out, the worst first.
    pub stand_outs: Vec<StandOut>,
}

/// A member who stands out of a large room: it buffers, is out of step, or is in the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandOut {
    pub slot: MemberSlot,
    pub buffering: bool,
    pub in_call: bool,
    pub drift: Option<Measurement>,
}
