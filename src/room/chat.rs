//! The last CHAT lines: replayed to new members and to members that were away.

use serde::{Deserialize, Serialize};

use super::SharedMap;
use crate::domain::{ChatText, RoomTime, UserId, Username};

/// The size of the kept lines as messages, in bytes: about 64 KiB.
const KEPT_BYTES: usize = 65_536;

/// Bytes of a line beside its texts: the fields of its message, and escapes.
const LINE_BYTES: usize = 256;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatLine {
    /// Room time of the CHAT.
    pub at: RoomTime,
    /// The sender; it may have left since.
    pub user: UserId,
    /// The sender's name at the time.
    pub name: Username,
    pub text: ChatText,
}

impl ChatLine {
    fn bytes(&self) -> usize {
        LINE_BYTES + self.name.as_str().len() + self.text.as_str().len()
    }
}

/// The last lines by the `seq` of their event. Each is stored in a field of its own: a message writes one field.
pub type Chat = SharedMap<u64, ChatLine>;

impl Chat {
    /// Adds a line and drops the oldest ones above `KEPT_BYTES`.
    pub(super) fn say(&mut self, seq: u64, line: ChatLine) {
        self.insert(seq, line);
        let mut bytes: usize = self.values().map(ChatLine::bytes).sum();
        while bytes > KEPT_BYTES {
            let Some((seq, size)) = self.iter().next().map(|(seq, line)| (*seq, line.bytes())) else { return };
            self.remove(&seq);
            bytes -= size;
        }
    }
}
