//! A large room's digest: the statuses of the members here, and the parts of other nodes.

use std::cell::OnceCell;
use std::time::Duration;

use super::super::delivery::DigestDelivery;
use super::super::digest::DigestPart;
use super::RoomCellState;
use crate::domain::{Dialect, Limits, NodeId, RoomTime};
use crate::room::Member;
use crate::telemetry::{HotCounter, names};

static DELIVERIES: HotCounter = HotCounter::new(names::DELIVERIES, &[("class", "digest")]);

/// A status that is older says nothing of how the member does now. Clients send one every 2 s.
const FRESH: Duration = Duration::from_secs(5);
/// A node whose part is older has no part any more.
const SILENCE: Duration = Duration::from_secs(3);

impl RoomCellState {
    /// Whether members hear a digest instead of everybody's ticks and statuses.
    pub(in crate::hub) fn is_large(&self, limits: &Limits) -> bool {
        self.room.members().len() as u64 > limits.full_presence_members
    }

    /// Keeps another node's part. It can name only members whose sessions that node holds.
    pub(in crate::hub) fn note_part(&mut self, node: NodeId, mut part: DigestPart, now: RoomTime) {
        let members = self.room.members();
        part.retain_slots(|slot| members.values().any(|member| member.slot == slot && member.node() == Some(&node)));
        self.parts.insert(node, (now, part));
    }

    pub(in crate::hub) fn drop_silent_parts(&mut self, now: RoomTime) {
        self.parts.retain(|_, (at, _)| *at + SILENCE > now);
    }

    /// Whether the room speaks in a digest: to its members, if it is large, and to its audience, if it has one.
    pub(in crate::hub) fn has_digest(&self, limits: &Limits) -> bool {
        self.is_large(limits) || self.audience.total() > 0
    }

    /// Tells how the room does: the viewers here, and the v3 members of a large room. Returns the part of this node.
    pub(in crate::hub) fn tell_digest(&self, limits: &Limits, now: RoomTime) -> DigestPart {
        let mut part = DigestPart::default();
        for member in &self.attached {
            if let Some((at, status)) = &member.status
                && *at + FRESH > now
            {
                part.add(Some(member.slot), status);
            }
        }
        self.audience.add_statuses(&mut part, now, FRESH);
        let mut all = part.clone();
        for (_, others) in self.parts.values() {
            all.merge(others);
        }
        let members = self.room.members().values().filter(|member| Member::is_live(member)).count();
        let digest = all.digest(members as u32, self.audience.total());
        self.audience.digest(digest.clone());
        if !self.is_large(limits) {
            return part;
        }
        let delivery = DigestDelivery { digest, encoded: OnceCell::new() };
        let mut told = 0;
        for member in self.attached.iter().filter(|member| member.dialect == Dialect::V3) {
            member.subscriber.digest(&delivery);
            told += 1;
        }
        DELIVERIES.increment(told);
        part
    }
}
