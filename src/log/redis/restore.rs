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
    /// Writes rooms back to a Redis that is new or has lost everything, at a start. Only raises, like
    /// [`Log::restore`](crate::log::Log::restore). Where Redis lacks none of them it has lost nothing: what data has no
    /// id yet is new.
    pub(super) async fn restore_all(&self, snapshots: Vec<Snapshot>) -> Result<(), LogError> {
        let mut restored = 0;
        let writes = snapshots.into_iter().map(|snapshot| async move { self.write_back(&snapshot).await });
        let mut writes = futures_util::stream::iter(writes).buffer_unordered(RESTORES);
        while let Some(written) = writes.next().await {
            restored += usize::from(matches!(written?, RestoreAnswer::Raised));
        }
        if restored > 0 {
            tracing::warn!(rooms = restored, "rooms that Redis did not have came back from the database");
            return Ok(());
        }
        Ok(self.link.name_new_data(&self.node).await?)
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
