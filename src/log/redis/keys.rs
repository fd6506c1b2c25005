//! Names in Redis. The table is in the module's documentation.

use crate::domain::{NodeId, RoomId};

/// Partitions. A constant of the stored format: another number would not find the rooms of before.
pub const PARTITIONS: u16 = 64;

/// Keys of one partition share a hash tag, so that a commit, which touches several, stays on one shard of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Partition(u16);

impl Partition {
    pub(super) fn of(room: &RoomId) -> Self {
        Self::of_name(room.as_str())
    }

    /// Of whatever has a name.
    pub(super) fn of_name(name: &str) -> Self {
        // FNV-1a: the same on every build and machine, which std's hashers don't promise.
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fold);
        Self((hash % u64::from(PARTITIONS)) as u16)
    }

    pub(super) fn all() -> impl Iterator<Item = Self> + Clone {
        (0..PARTITIONS).map(Self)
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(super) fn key(self, what: &str) -> String {
        format!("tandem:{{p{:02}}}:{what}", self.0)
    }

    pub(super) fn room(self, room: &RoomId) -> String {
        self.key(&format!("room:{room}"))
    }

    pub(super) fn channel(self, room: &RoomId) -> String {
        self.key(&format!("bus:{room}"))
    }

    pub(super) fn node_channel(self, node: &NodeId) -> String {
        self.key(&format!("node:{node}"))
    }

    pub(super) fn probe_channel(self, node: &NodeId) -> String {
        self.key(&format!("probe:{node}"))
    }

    pub(super) fn outbox(self) -> String {
        self.key("outbox")
    }

    pub(super) fn rooms(self) -> String {
        self.key("rooms")
    }

    pub(super) fn era(self) -> String {
        self.key("era")
    }

    pub(super) fn audited(self) -> String {
        self.key("audited")
    }
}

/// Which node drains the outboxes.
pub(super) const DRAINER: &str = "tandem:{nodes}:drainer";
/// Which node sweeps.
pub(super) const SWEEPER: &str = "tandem:{nodes}:sweeper";
/// Every node's lease: a sorted set, by the moment at which it ends.
pub(super) const LEASES: &str = "tandem:{nodes}:leases";

/// What is said of the cluster and its nodes.
pub(super) const REPORTS: &str = "tandem:{nodes}:reports";
/// What addresses and user ids are hashed with.
pub(super) const SALT: &str = "tandem:{nodes}:salt";

/// The slot of a key in a Redis Cluster: CRC16 (XMODEM) of its hash tag.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or(key, |(tag, _)| tag);
    let step = |crc: u16, byte: u8| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    };
    tag.bytes().fold(0, step) % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_and_slots_stay_what_they_were() {
        let partition = |room: &str| Partition::of(&RoomId::parse(room).unwrap());
        assert_eq!(partition("friday").room(&RoomId::parse("friday").unwrap()), "tandem:{p50}:room:friday");
        assert_eq!(slot("foo"), 12182, "CLUSTER KEYSLOT foo");
        assert_eq!(slot("a{foo}b"), 12182);
        let used: std::collections::BTreeSet<_> = (0..1000).map(|n| partition(&format!("room-{n}"))).collect();
        assert_eq!(used.len(), usize::from(PARTITIONS), "rooms spread over all partitions");
    }
}
