//! Ids of rooms, users, sessions and nodes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use unicode_segmentation::UnicodeSegmentation;

use super::{ErrorCode, Invalid, visible};

/// Ids are short, printable and safe in a path, a key and a log line.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'@' | b'-'))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an id into its one spelling.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                let parse: fn(&str) -> Result<Arc<str>, Invalid> = $parse;
                parse(text).map(Self)
            }

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

/// 1–64 characters of `A–Z a–z 0–9 . _ : @ -`.
fn plain(what: &str, text: &str) -> Result<Arc<str>, Invalid> {
    if is_id(text) {
        return Ok(text.into());
    }
    Err(Invalid::new(ErrorCode::BadId, format!("{what} must be 1-64 characters of A-Z a-z 0-9 . _ : @ -")))
}

/// The longest name of a room in grapheme clusters, and in bytes: an emoji of a family takes 25.
const ROOM_NAME: (usize, usize) = (64, 512);

/// Characters with a meaning in addresses, keys and pages: a name without them needs no escaping.
const RESERVED: [char; 14] = ['/', '\\', '#', '?', '%', '<', '>', '{', '}', '"', '`', '|', '^', '&'];

/// Parses a room's name into one spelling (NFC, single spaces, nothing invisible). Ids of v2 keep theirs.
fn room_name(text: &str) -> Result<Arc<str>, Invalid> {
    let refuse = |why: &str| Err(Invalid::new(ErrorCode::BadId, format!("roomId {why}")));
    if is_id(text) {
        return Ok(text.into());
    }
    let (longest, bytes) = ROOM_NAME;
    if text.len() > bytes * 2 {
        return refuse("must have 1-64 characters");
    }
    // A variation selector after an emoji makes no other room.
    let name: String = visible::line(text).chars().filter(|c| !matches!(c, '\u{fe0e}' | '\u{fe0f}')).collect();
    if name.contains(RESERVED) {
        return refuse("must not have any of / \\ # ? % < > { } \" ` | ^ &");
    }
    if !visible::is_visible(&name) || name.graphemes(true).count() > longest || name.len() > bytes {
        return refuse("must have 1-64 characters, one of which can be seen");
    }
    Ok(name.into())
}

id!(
    /// A room's name, chosen by its creator: letters of any script, digits, marks, spaces, emoji.
    RoomId,
    room_name
);
id!(
    /// A user's id, chosen by its client; unique within a room, bound to one session at a time.
    UserId,
    |text| plain("userId", text)
);
id!(
    /// The name of a server process.
    NodeId,
    |text| plain("NODE_ID", text)
);

/// One session of one node: unique in the cluster for the life of the node's process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionRef {
    /// The node that holds the connection.
    pub node: NodeId,
    /// The node's own counter, started at a random number so that a restarted node repeats no id.
    pub id: u64,
}

impl fmt::Display for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.node, self.id)
    }
}

/// The number of a member in compact messages, from 1. It is given to another member of the epoch only after all 65,534
/// others were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberSlot(pub u16);

/// The seven base36 digits of a short link; case does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ShortId(String);

impl ShortId {
    pub const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    pub const LEN: usize = 7;

    /// Accepts seven base36 digits in either case.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == Self::LEN && text.bytes().all(|b| b.is_ascii_alphanumeric()))
            .then(|| Self(text.to_ascii_lowercase()))
    }

    /// A random id: every digit equally likely.
    pub fn random() -> Self {
        use rand::RngExt;
        let mut rng = rand::rng();
        Self((0..Self::LEN).map(|_| Self::ALPHABET[rng.random_range(0..36)] as char).collect())
    }

    /// In lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_called_what_people_call_it() {
        for name in [
            "friday",
            "A.b_c:d@e-f",
            "Anna's movie night",
            "Größe",
            "سهرة",
            "金曜の夜",
            "🍿 Friday 🎬",
            "👩\u{200d}👩\u{200d}👧 film",
        ] {
            assert_eq!(RoomId::parse(name).unwrap().as_str(), name);
        }
        let family = "👩\u{200d}👩\u{200d}👧";
        assert!(RoomId::parse(&family.repeat(20)).is_ok(), "20 characters");
        assert!(RoomId::parse(&"ö".repeat(65)).is_err() && RoomId::parse(&"ö".repeat(64)).is_ok());
    }

    #[test]
    fn equal_names_are_one_room() {
        let same = [
            ("Gro\u{308}ße", "Größe"),
            ("  movie\u{a0}\u{3000}night ", "movie night"),
            ("fri\u{200b}day night", "friday night"),
            ("❤\u{fe0f} night", "❤ night"),
            ("\u{202e}night shift", "night shift"),
        ];
        for (one, other) in same {
            assert_eq!(RoomId::parse(one).unwrap(), RoomId::parse(other).unwrap());
        }
    }

    #[test]
    fn a_room_s_name_is_safe_wherever_it_stands() {
        for name in [
            "",
            " ",
            "\u{200b}",
            "\u{3164}",
            "a/b",
            "a b?",
            "a#b",
            "100 %",
            "<b>",
            "{x}",
            "a&b",
            "say \"hi\"",
            "\u{301}",
        ] {
            assert_eq!(RoomId::parse(name).unwrap_err().code, ErrorCode::BadId, "{name:?}");
        }
        assert_eq!(RoomId::parse("line\nbreak \0").unwrap().as_str(), "line break");
    }

    #[test]
    fn people_and_nodes_are_called_in_plain_characters() {
        assert!(UserId::parse("ann").is_ok() && UserId::parse("Größe").is_err() && NodeId::parse("n 1").is_err());
    }
}
