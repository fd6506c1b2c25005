//! What a member asked, saw and waited for: everything that the auditor is told of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tandem::domain::Head;
use tokio::time::Instant;

use crate::support::client::Carrier;

/// One member's book.
#[derive(Debug)]
pub(crate) struct MemberRecord {
    pub(crate) user: String,
    pub(crate) room: String,
    pub(crate) carrier: Carrier,
    /// The node that serves it; `None`: it has no membership on a connection now.
    pub(crate) node: Option<usize>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// Connections that it lost.
    pub(crate) losses: usize,
    /// Closing codes and reasons, as far as the server said them.
    pub(crate) ends: Vec<(u32, String)>,
    /// The server ended it with a code after which a client doesn't come back.
    pub(crate) dismissed: bool,
    /// Of those, the ones that the server had announced (`RECONNECT`).
    pub(crate) announced: usize,
    /// ROOM_STATEs that it did not ask for: its node had missed something.
    pub(crate) resyncs: usize,
    /// It had to join without its token.
    pub(crate) memberships_lost: usize,
    /// Guest control is on.
    pub(crate) may_command: bool,
    /// `DEGRADED` as last heard, and how often it was true.
    pub(crate) degraded: bool,
    pub(crate) times_degraded: usize,
    /// From when on it waits for a command to be acknowledged.
    pub(crate) waits_since: Option<Instant>,
    /// Duration of each outage.
    pub(crate) waits: Vec<Duration>,
    /// The answer to the latest request for the whole state, and its number.
    pub(crate) synced: Option<(u64, Value)>,
}

/// A message that arrived.
#[derive(Debug)]
pub(crate) enum Seen {
    /// ROOM_STATE. `fresh`: the first of its connection.
    State { head: Head, fresh: bool, seen: Option<Head> },
    /// A committed event.
    Event { head: Head, json: Value },
    /// An answer.
    Answer { reference: u64 },
}

/// A command.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) what: What,
    pub(crate) answer: Option<Result<Head, String>>,
    /// The connection was lost before the answer: the outcome is unknown.
    pub(crate) lost: bool,
}

/// Commands that the audit can tell from each other, though it keeps no texts: by their size, or their position.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// So many characters.
    Chat(usize),
    /// So many bytes.
    Custom(usize),
    /// To a second of the film.
    Seek(f64),
    Pause(f64),
}

impl What {
    /// Its name in the audit.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Chat(_) => "chat",
            Self::Custom(_) => "custom",
            Self::Seek(_) => "seek",
            Self::Pause(_) => "pause",
        }
    }

    /// Whether a row of the audit with these data is this command.
    pub(crate) fn is(&self, data: &Value) -> bool {
        match self {
            Self::Chat(chars) => data["chars"] == *chars,
            Self::Custom(bytes) => data["bytes"] == *bytes,
            Self::Seek(position) | Self::Pause(position) => data["playback"]["position"] == *position,
        }
    }
}

impl MemberRecord {
    pub(crate) fn new(user: &str, room: &str, carrier: Carrier) -> Self {
        Self {
            user: user.to_owned(),
            room: room.to_owned(),
            carrier,
            node: None,
            seen: Vec::new(),
            asked: BTreeMap::new(),
            losses: 0,
            ends: Vec::new(),
            dismissed: false,
            announced: 0,
            resyncs: 0,
            memberships_lost: 0,
            may_command: false,
            degraded: false,
            times_degraded: 0,
            waits_since: None,
            waits: Vec::new(),
            synced: None,
        }
    }

    /// Commands that the server said are committed.
    pub(crate) fn acknowledged(&self) -> usize {
        self.asked.values().filter(|asked| matches!(asked.answer, Some(Ok(_)))).count()
    }

    /// Commands that wait for their answer.
    pub(crate) fn open(&self) -> usize {
        self.asked.values().filter(|asked| asked.answer.is_none() && !asked.lost).count()
    }

    /// It is in trouble from now on, if it isn't already.
    pub(crate) fn struck(&mut self, now: Instant) {
        self.waits_since.get_or_insert(now);
    }

    pub(crate) fn answered(&mut self, reference: u64, answer: Result<Head, String>, now: Instant) {
        if answer.is_ok()
            && let Some(since) = self.waits_since.take()
        {
            self.waits.push(now.duration_since(since));
        }
        self.seen.push(Seen::Answer { reference });
        if let Some(asked) = self.asked.get_mut(&reference) {
            asked.answer = Some(answer);
        }
    }

    /// Its place in the room's order.
    pub(crate) fn head(&self) -> Option<Head> {
        self.seen.iter().rev().find_map(|seen| match seen {
            Seen::State { head, .. } | Seen::Event { head, .. } => Some(*head),
            Seen::Answer { .. } => None,
        })
    }
}
