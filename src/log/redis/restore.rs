//! Reading a room, and writing one back that Redis has lost.

use futures_util::StreamExt;

use super::{RedisLog, wire};
use crate::commit::Snapshot;
use crate::domain::RoomId;
use crate::log::LogError;
use crate::redis::{LinkError, Partition, RestoreAnswer, snapshot};
use crate::telemetry::names;

/// Rooms that are written back at the same time.
const RESTORES: usize = 32;

impl RedisLog {
    /// Writes rooms back to a Redis that is new or has lost everything, at a start: those of
    /// [`crate::repository::Repository::live_rooms`]. Only raises, like [`Log::restore`](crate::log::Log::restore);
    /// returns how many rooms it brought back.
    pub async fn restore_all(&self, snapshots: Vec<Snapshot>) -> Result<usize, LogError> {
        let mut restored = 0;
        let writes = snapshots.iter().map(|snapshot| self.write_back(snapshot));
        let mut writes = futures_util::stream::iter(writes).buffer_unordered(RESTORES);
        while let Some(written) = writes.next().await {
            restored += usize::from(matches!(written?, RestoreAnswer::Raised));
        }
        Ok(restored)
    }

    pub(super) async fn try_restore(&self, given: Snapshot) -> Result<Option<Snapshot>, LogError> {
        match self.write_back(&given).await? {
            RestoreAnswer::Raised => Ok(Some(given)),
            RestoreAnswer::Latest(hash) => Ok(snapshot(&given.room, hash).map_err(LinkError::Answer)?),
            RestoreAnswer::Vacant => Ok(None),
        }
    }

    async fn write_back(&self, given: &Snapshot) -> Result<RestoreAnswer, LinkError> {
        let message = wire::reload(&self.node, &given.room);
        let answer = self.link.restore(given, &message).run().await?;
        if matches!(answer, RestoreAnswer::Raised) {
            // The bus logs the loss once for all rooms.
            tracing::debug!(roomId = %given.room, "written back to Redis, which had lost it");
            metrics::counter!(names::ROOMS_RESTORED).increment(1);
        }
        Ok(answer)
    }

    pub(super) async fn try_load(&self, room: &RoomId) -> Result<Option<Snapshot>, LogError> {
        let hash = self.link.command(redis::cmd("HGETALL").arg(Partition::of(room).room(room))).await?;
        Ok(snapshot(room, hash).map_err(LinkError::Answer)?)
    }
}
