//! Rooms that wait for members who were all lost: how many a node keeps of one address.
//!
//! A room that is kept costs memory for hours, and to leave one behind costs a client one JOIN. So they are counted by the
//! class of the address that the last member was lost from; a room beyond that ends with its grace time, as if it were not kept.

use std::collections::HashMap;

use super::Hub;
use super::room_cell::{RoomCell, RoomCellState};
use crate::domain::AddressTag;

/// Kept rooms of this node, by the class of address.
pub(super) type KeptRooms = HashMap<AddressTag, u64>;

impl Hub {
    /// Whether this room may be kept when its deadline finds nobody there. Its place is taken at once, and given back by
    /// [`Hub::count_kept`] if it is not kept after all: many rooms may fall due in one moment.
    pub(super) fn reserve_keep(&self, cell: &RoomCell) -> bool {
        let mut state = cell.lock();
        if state.room.has_live_members() || state.room.kept().is_some() {
            return true;
        }
        // Unknown where addresses are not counted: no bound but that of rooms.
        let Some(address) = state.room.last_address() else { return true };
        if state.counted_as_kept == Some(address) {
            return true;
        }
        let mut kept = self.0.kept.lock();
        let fits = kept.get(&address).copied().unwrap_or_default() < self.0.parts.limits.kept_rooms;
        if fits {
            *kept.entry(address).or_default() += 1;
            state.counted_as_kept = Some(address);
        }
        fits
    }

    /// Brings the count in line with the replica.
    pub(super) fn count_kept(&self, state: &mut RoomCellState) {
        let address = state.room.kept().and_then(|kept| kept.address);
        let counted = std::mem::replace(&mut state.counted_as_kept, address);
        if counted == address {
            return;
        }
        let mut kept = self.0.kept.lock();
        if let Some(address) = address {
            *kept.entry(address).or_default() += 1;
        }
        if let Some(before) = counted
            && let Some(count) = kept.get_mut(&before)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                kept.remove(&before);
            }
        }
    }
}
