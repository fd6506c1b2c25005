//! How many rooms a node keeps for members who were all lost (`MAX_KEPT_ROOMS_PER_ADDRESS`).
//!
//! A kept room costs memory for hours, and a client leaves one behind for one JOIN. Kept rooms are therefore counted by
//! the address class of the member that was lost last. A room above the bound ends with its grace time.

use std::collections::HashMap;

use super::Hub;
use super::room_cell::{RoomCell, RoomCellState};
use crate::domain::AddressTag;

/// The number of kept rooms by address class.
pub(super) type KeptRooms = HashMap<AddressTag, u64>;

impl Hub {
    /// Whether the room may be kept if its deadline finds no live member. Counts it at once, because many rooms may
    /// fall due in one moment; [`Hub::count_kept`] takes it off again if it is not kept.
    pub(super) fn reserve_keep(&self, cell: &RoomCell) -> bool {
        let mut state = cell.lock();
        let room = state.room();
        if room.has_live_members() || room.kept().is_some() {
            return true;
        }
        // Unknown where addresses are not counted: then only the number of rooms is bounded.
        let Some(address) = room.last_address() else { return true };
        if state.kept_place() == Some(address) {
            return true;
        }
        let mut kept = self.0.kept.lock();
        let fits = kept.get(&address).copied().unwrap_or_default() < self.0.parts.limits.kept_rooms;
        if fits {
            *kept.entry(address).or_default() += 1;
            state.set_kept_place(Some(address));
        }
        fits
    }

    /// Brings the count in line with the replica. Called after every change of it.
    pub(super) fn count_kept(&self, state: &mut RoomCellState) {
        let address = state.room().kept().and_then(|kept| kept.address);
        let counted = state.set_kept_place(address);
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
