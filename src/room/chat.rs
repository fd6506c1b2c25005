//! What was said last: told to newcomers, and to members who were away.

use serde::{Deserialize, Serialize};

use super::SharedMap;
use crate::domain::{ChatText, RoomTime, UserId, Username};

/// Bytes of chat that a room keeps, as they leave for a newcomer: about 64 KiB.
const KEPT_BYTES: usize = 65_536;

/// What a line costs beside its texts: the fields of its message, and escapes.
const LINE_BYTES: usize = 256;

/// One CHAT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatLine {
    /// When it was said.
    pub at: RoomTime,
    /// Who said it; may be gone.
    pub user: UserId,
    /// Called what then.
    pub name: Username,
    /// What.
    pub text: ChatText,
}

impl ChatLine {
    fn bytes(&self) -> usize {
        LINE_BYTES + self.name.as_str().len() + self.text.as_str().len()
    }
}

/// The last lines, by the number of their event. Stored a field a line: one more message writes one more field.
pub type Chat = SharedMap<u64, ChatLine>;

impl Chat {
    /// Takes a line in, and lets the oldest go that there is no place for any more.
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
