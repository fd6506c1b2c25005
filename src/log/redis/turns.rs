//! Commits that wait: for a node that loses every race, and for what others may know of a room that was lost.
//!
//! A commit is a race for the room's next place, and a node whose round trip is longer than the pause between the others'
//! commits loses every one of them. So a node that has lost [`PATIENT`] times in a row claims the next turn, with the very
//! request that loses once more (`commit.lua`): until its next commit is in, or [`TURN`] is over, the others' commits to
//! this room are answered `wait`, and asked again after a moment. It costs nothing where nobody loses like that.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt;
use redis::ScriptInvocation;

use super::{Answer, RedisLog, unreadable};
use crate::clock::Clock;
use crate::domain::RoomId;
use crate::log::LogError;

/// Conflicts in a row after which a node claims the room's next turn.
const PATIENT: u32 = 3;
/// How long the others wait for its commit: longer than its round trip, shorter than a caller's patience.
pub(super) const TURN: Duration = Duration::from_millis(1000);

/// Conflicts in a row, of the rooms that have some.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<RoomId, u32>>);

impl Turns {
    /// Whether this node has lost often enough there.
    pub(super) fn is_due(&self, room: &RoomId) -> bool {
        self.0.lock().get(room).is_some_and(|lost| *lost >= PATIENT)
    }

    pub(super) fn note(&self, room: &RoomId, lost: bool) {
        let mut conflicts = self.0.lock();
        if lost {
            *conflicts.entry(room.clone()).or_default() += 1;
        } else {
            conflicts.remove(room);
        }
    }

    /// This node has no more to say there.
    pub(super) fn forget(&self, room: &RoomId) {
        self.0.lock().remove(room);
    }
}

impl RedisLog {
    /// Asks again while the room has to wait, which the answer says how long to do, and once Redis has been relieved.
    pub(super) async fn in_turn(&self, call: &ScriptInvocation<'_>) -> Result<Answer, LogError> {
        let since = Clock::instant();
        loop {
            let answer = Answer::of(self.link.script(call).await?)?;
            let longest: u64 = match answer.what.as_str() {
                "wait" if since.elapsed() > self.options.deadline => {
                    return Err(LogError(format!("others had their turns for {:?}", self.options.deadline)));
                }
                "wait" => redis::from_redis_value(answer.value(0)?).map_err(unreadable)?,
                "full" if since.elapsed() > self.options.deadline => {
                    return Err(LogError("Redis is full (maxmemory)".to_owned()));
                }
                "full" => {
                    self.relieve().await?;
                    50
                }
                _ => return Ok(answer),
            };
            let pause = rand::rng().random_range(longest / 2..=longest).max(1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_that_this_node_left_after_a_conflict_is_forgotten() {
        let (turns, friday) = (Turns::default(), RoomId::parse("friday").unwrap());
        (0..PATIENT).for_each(|_| turns.note(&friday, true));
        assert!(turns.is_due(&friday));
        turns.forget(&friday);
        assert!(!turns.is_due(&friday) && turns.0.lock().is_empty());
    }
}
