//! What others read of a room.

use super::{Connection, Room};
use crate::domain::{SessionRef, UserId};

impl Room {
    /// Members with a session, on any node.
    pub fn live_sessions(&self) -> Vec<(UserId, SessionRef)> {
        let live = self.members.iter().filter_map(|(user, member)| match &member.connection {
            Connection::Live(session) => Some((user.clone(), session.clone())),
            Connection::Lost { .. } => None,
        });
        live.collect()
    }
}
