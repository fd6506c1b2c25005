//! The requests of HTTP to the hub, the log and the repository.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::drain::Progress;
use super::storage::Storage;
use crate::clock::Clock;
use crate::domain::{Head, ResumeToken, RoomId, ShortId, UserId};
use crate::http::{Backend, NodeEndpoints, Status, Unavailable};
use crate::hub::Hub;
use crate::repository::{EventRow, RepositoryError};
use crate::room::Room;
use crate::session::{Services, SessionCounts};

pub(super) struct Rooms {
    hub: Hub,
    storage: Arc<Storage>,
    clock: Clock,
    counts: SessionCounts,
    short_link: Duration,
    progress: Progress,
}

impl Rooms {
    pub(super) fn new(
        hub: Hub,
        storage: Arc<Storage>,
        services: &Services,
        short_link: Duration,
        progress: Progress,
    ) -> Self {
        let (clock, counts) = (services.clock.clone(), services.counts.clone());
        Self { hub, storage, clock, counts, short_link, progress }
    }

    /// A live room, on whatever node its members are.
    async fn peek(&self, room: &RoomId) -> Result<Option<Room>, Unavailable> {
        self.hub.peek(room).await.map_err(|refusal| Unavailable(refusal.to_string()))
    }
}

fn unavailable(error: RepositoryError) -> Unavailable {
    Unavailable(error.to_string())
}

impl Backend for Rooms {
    fn readiness(&self) -> BoxFuture<'_, Vec<(&'static str, Result<(), String>)>> {
        Box::pin(async {
            let database = self.storage.repository.ping().await.map_err(|error| error.to_string());
            let log = match self.hub.status().degraded_rooms {
                0 => self.storage.log_ready().await,
                rooms => Err(format!("the last commit of {rooms} rooms failed")),
            };
            vec![("log", log), ("database", database)]
        })
    }

    fn room_is_live<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<bool, Unavailable>> {
        Box::pin(async { Ok(self.peek(room).await?.is_some()) })
    }

    fn mint_short<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<ShortId, Unavailable>> {
        let now = self.clock.now();
        Box::pin(async move {
            self.storage.repository.short_link(room, now, now + self.short_link).await.map_err(unavailable)
        })
    }

    fn resolve_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, Unavailable>> {
        let now = self.clock.now();
        Box::pin(async move {
            self.storage.repository.resolve_short(short, now, now + self.short_link).await.map_err(unavailable)
        })
    }

    fn recall_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, Unavailable>> {
        Box::pin(async move { self.storage.repository.recall_short(short).await.map_err(unavailable) })
    }

    fn authorize_member<'a>(
        &'a self,
        room: &'a RoomId,
        user: &'a UserId,
        token: &'a ResumeToken,
    ) -> BoxFuture<'a, Result<bool, Unavailable>> {
        Box::pin(async {
            let hash = token.hash();
            Ok(self.peek(room).await?.is_some_and(|room| room.member(user).is_some_and(|member| member.knows(&hash))))
        })
    }

    fn events<'a>(
        &'a self,
        room: &'a RoomId,
        after: Head,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Unavailable>> {
        Box::pin(async move {
            let Some(live) = self.peek(room).await? else { return Ok(Vec::new()) };
            // An earlier epoch was another room, of other people, that had the same name.
            let begun = Head { epoch: live.head().epoch, seq: 0 };
            self.storage.repository.events(room, after.max(begun), limit).await.map_err(unavailable)
        })
    }

    fn other_nodes(&self) -> Vec<NodeEndpoints> {
        self.storage.other_nodes()
    }

    fn status(&self) -> Status {
        let hub = self.hub.status();
        let mut details = self.storage.describe();
        details.insert("degradedRooms".into(), hub.degraded_rooms.into());
        details.insert("unreadableRooms".into(), hub.unreadable_rooms.into());
        details.insert("drain".into(), self.progress.describe());
        Status {
            draining: self.hub.is_draining(),
            sessions: self.counts.by_transport(),
            rooms: hub.rooms as u64,
            members: hub.members as u64,
            details,
        }
    }
}
