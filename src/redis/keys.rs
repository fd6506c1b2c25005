//! Names of keys and channels. The table is in the module's documentation.

use crate::domain::{NodeId, RoomId};

/// A constant of the stored format: with another number of partitions the stored rooms would not be found.
pub const PARTITIONS: u16 = 64;

/// Keys of one partition share a hash tag, so that a commit, which touches several, stays on one shard of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Partition(u16);

impl Partition {
    pub(crate) fn of(room: &RoomId) -> Self {
        Self::of_name(room.as_str())
    }

    pub(crate) fn of_name(name: &str) -> Self {
        // FNV-1a: the same on every build and machine, which std's hashers don't promise.
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fold);
        Self((hash % u64::from(PARTITIONS)) as u16)
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> + Clone {
        (0..PARTITIONS).map(Self)
    }

    pub(crate) fn first() -> Self {
        Self(0)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn key(self, what: &str) -> String {
        format!("tandem:{{p{:02}}}:{what}", self.0)
    }

    pub(crate) fn room(self, room: &RoomId) -> String {
        self.key(&format!("room:{room}"))
    }

    pub(crate) fn channel(self, room: &RoomId) -> String {
        self.key(&format!("bus:{room}"))
    }

    pub(crate) fn node_channel(self, node: &NodeId) -> String {
        self.key(&format!("node:{node}"))
    }

    pub(crate) fn probe_channel(self, node: &NodeId) -> String {
        self.key(&format!("probe:{node}"))
    }

    pub(crate) fn outbox(self) -> String {
        self.key("outbox")
    }

    pub(crate) fn rooms(self) -> String {
        self.key("rooms")
    }

    pub(crate) fn era(self) -> String {
        self.key("era")
    }

    pub(crate) fn audited(self) -> String {
        self.key("audited")
    }
}

/// The lease of the node that drains the outboxes.
pub(crate) const DRAINER: &str = "tandem:{nodes}:drainer";
/// The lease of the node that looks for rooms without a follower.
pub(crate) const SWEEPER: &str = "tandem:{nodes}:sweeper";
/// The nodes' leases: a sorted set, by the moment at which each ends.
pub(crate) const LEASES: &str = "tandem:{nodes}:leases";

/// The nodes' reports of themselves, and the drainer's of the cluster.
pub(crate) const REPORTS: &str = "tandem:{nodes}:reports";
/// The salt of the hashes of addresses and user ids.
pub(crate) const SALT: &str = "tandem:{nodes}:salt";

/// The consumer group of the audit.
pub(crate) const AUDIT_GROUP: &str = "audit";

/// The slot of a key in a Redis Cluster: CRC16 (XMODEM) of its hash tag.
pub(crate) fn slot(key: &str) -> u16 {
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
