//! What a command would do.

use super::{Command, Event, Reject, Room};
use crate::domain::{Limits, RoomTime};

impl Room {
    /// The events that the command causes at `now`, or why it is refused. No events: nothing to do (a duplicate).
    pub fn decide(&self, now: RoomTime, command: &Command, limits: &Limits) -> Result<Vec<Event>, Reject> {
        let _ = (now, command, limits);
        unimplemented!()
    }
}
