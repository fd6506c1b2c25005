//! Names of rooms, people, sessions and nodes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ErrorCode, Invalid};

/// Ids are short, printable and safe in a path, a key and a log line.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'@' | b'-'))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts 1–64 characters of `A–Z a–z 0–9 . _ : @ -`.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                if is_id(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(Invalid::new(ErrorCode::BadId, concat!($what, " must be 1-64 characters of A-Z a-z 0-9 . _ : @ -")))
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(
    /// A room's name, chosen by whoever opens it.
    RoomId,
    "roomId"
);
id!(
    /// A person's name for the machine, chosen by the client, unique within a room, bound to one session at a time.
    UserId,
    "userId"
);
id!(
    /// A server process.
    NodeId,
    "NODE_ID"
);

/// One session of one node: unique in the cluster for the life of the node's process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionRef {
    /// The node that holds the connection.
    pub node: NodeId,
    /// The node's own count, started at a random number so that a restarted node doesn't repeat itself.
    pub id: u64,
}

impl fmt::Display for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.node, self.id)
    }
}

/// A small number that stands for a member in compact messages; never given to another within an epoch. From 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u16);

/// Seven base36 digits that stand for a room in a link; case does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ShortId(String);

impl ShortId {
    /// Digits of a short id.
    pub const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    /// Number of digits.
    pub const LEN: usize = 7;

    /// Accepts seven base36 digits in either case.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == Self::LEN && text.bytes().all(|b| b.is_ascii_alphanumeric()))
            .then(|| Self(text.to_ascii_lowercase()))
    }

    /// A new one: every digit equally likely.
    pub fn random() -> Self {
        use rand::RngExt;
        let mut rng = rand::rng();
        Self((0..Self::LEN).map(|_| Self::ALPHABET[rng.random_range(0..36)] as char).collect())
    }

    /// The text, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
