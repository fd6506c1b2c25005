//! Nodes that die: their members are as disconnected as if each had lost its connection.
//!
//! Whoever watches the nodes' leases calls this, on every node that is left: the commits compete, one wins, the others
//! find nothing to do.

use std::sync::Arc;

use super::Hub;
use super::delivery::Refusal;
use super::room_cell::RoomCell;
use crate::domain::{NodeId, RoomId};

impl Hub {
    /// That node is gone: its members enter their grace time, in every room with a replica here. Returns how many it
    /// found. A replica may lag behind what the node still committed, so call again as long as the node has no lease.
    /// Never call it for a node that came back under the same name: its new sessions would end too.
    pub fn expire_node(&self, node: &NodeId) -> usize {
        let mut cells: Vec<_> = self.0.rooms.lock().values().cloned().collect();
        cells.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        let mut expired = 0;
        for cell in &cells {
            self.contain(cell, || expired += self.expire_in(cell, node));
        }
        expired
    }

    /// The same for a room of which nobody here may be a member: whoever lived only on that node is found by whoever
    /// sweeps the log's rooms. From now on this node keeps the room's deadlines.
    pub async fn expire_node_in(&self, room: &RoomId, node: &NodeId) -> Result<usize, Refusal> {
        let cell = self.open(room).await?;
        let expired = self.expire_in(&cell, node);
        self.retire(&cell);
        Ok(expired)
    }

    /// A room that no node followed: this node does from now on. Members whose node is not among the living, or that this
    /// node itself doesn't know (it was restarted), enter their grace time. Returns how many.
    pub async fn adopt(&self, room: &RoomId, alive: &[NodeId]) -> Result<usize, Refusal> {
        let cell = self.open(room).await?;
        let lost = {
            let state = cell.lock();
            let mut sessions = state.room.live_sessions();
            sessions.retain(|(user, session)| match session.node == *self.node() {
                true => !state.knows(user, session),
                false => !alive.contains(&session.node),
            });
            sessions
        };
        let count = lost.len();
        for (user, session) in lost {
            self.lose(&cell, user, session);
        }
        self.retire(&cell);
        Ok(count)
    }

    fn expire_in(&self, cell: &Arc<RoomCell>, node: &NodeId) -> usize {
        let mut sessions = cell.lock().room.live_sessions();
        sessions.retain(|(_, session)| session.node == *node);
        let expired = sessions.len();
        for (user, session) in sessions {
            self.lose(cell, user, session);
        }
        expired
    }
}
