//! Members of nodes whose lease has expired are disconnected.
//!
//! The watch of the leases calls this on every remaining node. Their commits compete: one wins, the others find nothing
//! to do.

use std::sync::Arc;

use super::Hub;
use super::delivery::Refusal;
use super::room_cell::{RoomCell, RoomCellState};
use crate::domain::{NodeId, RoomId, SessionRef, UserId};

impl Hub {
    /// Begins the grace time of the node's members, in every room with a replica here. Returns their number. A replica
    /// may lag behind the node's last commits, so this is called again as long as the node has no lease. Never for a
    /// node that came back under the same name: its new sessions would end too.
    pub fn lose_node(&self, node: &NodeId) -> usize {
        let mut lost = 0;
        for cell in &self.cells_in_order() {
            self.contain(cell, || lost += self.lose_members_of(cell, node));
        }
        lost
    }

    /// The same for one room, which need not have a replica here; from now on this node keeps the room's deadlines.
    /// Public for the simulation alone, whose nodes know all rooms: a server adopts rooms that no node follows.
    pub async fn lose_node_in(&self, room: &RoomId, node: &NodeId) -> Result<usize, Refusal> {
        let cell = self.open(room).await?;
        let lost = self.lose_members_of(&cell, node);
        self.retire(&cell);
        Ok(lost)
    }

    /// Takes over a room that no node followed. Members whose node is not in `alive` enter their grace time, and those
    /// who name a session of this process that it doesn't know: it has ended, and its Disconnect was not committed.
    /// Returns their number.
    pub async fn adopt(&self, room: &RoomId, alive: &[NodeId]) -> Result<usize, Refusal> {
        let cell = self.open(room).await?;
        let lost = self.lose_where(&cell, |state, user, session| match session.node == *self.node() {
            true => !state.knows(user, session),
            false => !alive.contains(&session.node),
        });
        self.retire(&cell);
        Ok(lost)
    }

    fn lose_members_of(&self, cell: &Arc<RoomCell>, node: &NodeId) -> usize {
        self.lose_where(cell, |_, _, session| session.node == *node)
    }

    /// Disconnects the members whose live session fits; returns their number.
    fn lose_where(&self, cell: &Arc<RoomCell>, fits: impl Fn(&RoomCellState, &UserId, &SessionRef) -> bool) -> usize {
        let lost = {
            let state = cell.lock();
            let mut sessions = state.room().live_sessions();
            sessions.retain(|(user, session)| fits(&state, user, session));
            sessions
        };
        let count = lost.len();
        for (user, session) in lost {
            self.lose(cell, user, session);
        }
        count
    }
}
