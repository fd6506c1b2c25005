//! What an event does to a room.

use super::{Event, Room};

impl Room {
    /// Takes an event in: advances the head by one.
    pub fn apply(&mut self, event: &Event) {
        let _ = event;
        unimplemented!()
    }
}
