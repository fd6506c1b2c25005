//! The digest of a large room: how its members do, in one message whose size doesn't grow with their number.
//!
//! ```text
//! statuses of the sessions here ─► DigestPart ─► Relay::Digest ─► other nodes
//!                                      └─ merge ◄─ parts of other nodes
//!                                           └─► RoomDigest ─► members here
//! ```
//! Merging is exact: the parts of all nodes, merged in any order, are the part that one node with all sessions would
//! have made. Percentiles come from a histogram of fixed buckets and are at most a sixteenth off.

use bytes::{Buf, BufMut};

use crate::domain::{Measurement, MemberSlot, RoomDigest, StandOut, StatusReport};

/// The largest distance from the vector that counts as in step: one frame at 25 a second, as on the page.
pub const IN_STEP: Measurement = Measurement::from_millis(40);
/// Members who are named, of those who stand out.
pub const STAND_OUTS: usize = 16;

/// A node's knowledge of its own sessions of a room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DigestPart {
    measured: u32,
    in_step: u32,
    buffering: u32,
    distances: DistanceHistogram,
    /// The worst first, at most [`STAND_OUTS`].
    stand_outs: Vec<StandOut>,
}

impl DigestPart {
    /// Adds what a session last said of itself. `slot`: of a member; viewers have none, so they are counted, not named.
    pub fn add(&mut self, slot: Option<MemberSlot>, status: &StatusReport) {
        if let Some(drift) = status.drift {
            self.distances.add(distance(drift));
        }
        if status.drift.is_some() || status.buffering {
            self.measured = self.measured.saturating_add(1);
            self.buffering = self.buffering.saturating_add(status.buffering.into());
            self.in_step = self.in_step.saturating_add(is_in_step(status).into());
        }
        if let Some(slot) = slot.filter(|_| stands_out(status)) {
            let StatusReport { buffering, in_call, drift, .. } = *status;
            self.stand_outs.push(StandOut { slot, buffering, in_call, drift });
            // Sorted once for many, not for each.
            if self.stand_outs.len() >= 4 * STAND_OUTS {
                self.keep_worst();
            }
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.measured = self.measured.saturating_add(other.measured);
        self.in_step = self.in_step.saturating_add(other.in_step);
        self.buffering = self.buffering.saturating_add(other.buffering);
        self.distances.merge(&other.distances);
        self.stand_outs.extend_from_slice(&other.stand_outs);
        self.keep_worst();
    }

    /// Drops stand-outs whose slot is not one of the node's members.
    pub fn retain_slots(&mut self, is_there: impl Fn(MemberSlot) -> bool) {
        self.stand_outs.retain(|member| is_there(member.slot));
    }

    /// The digest of a room with so many connected members and viewers.
    pub fn digest(mut self, members: u32, audience: u32) -> RoomDigest {
        self.keep_worst();
        // A member that moves from node to node may be in the parts of both for a moment: the worse report counts.
        let mut stand_outs: Vec<StandOut> = Vec::with_capacity(self.stand_outs.len());
        for member in self.stand_outs {
            if stand_outs.iter().all(|known| known.slot != member.slot) {
                stand_outs.push(member);
            }
        }
        let distance = self.distances.percentile(50).zip(self.distances.percentile(95));
        RoomDigest {
            members,
            audience,
            measured: self.measured,
            in_step: self.in_step,
            buffering: self.buffering,
            distance: distance.map(|(median, high)| [median, high]),
            stand_outs,
        }
    }

    fn keep_worst(&mut self) {
        self.stand_outs.sort_unstable_by_key(rank);
        self.stand_outs.truncate(STAND_OUTS);
    }

    /// Writes the part for other nodes.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut worst = self.clone();
        worst.keep_worst();
        for count in [self.measured, self.in_step, self.buffering] {
            out.put_u32(count);
        }
        let filled: Vec<_> = self.distances.filled().collect();
        out.put_u8(filled.len() as u8);
        for (bucket, count) in filled {
            out.put_u8(bucket);
            out.put_u32(count);
        }
        out.put_u8(worst.stand_outs.len() as u8);
        for member in &worst.stand_outs {
            out.put_u16(member.slot.0);
            out.put_u8(
                u8::from(member.buffering) | u8::from(member.in_call) << 1 | u8::from(member.drift.is_some()) << 2,
            );
            out.put_i32(member.drift.map_or(0, Measurement::micros));
        }
    }

    /// `None`: this is no part, or one of another version.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let input = &mut bytes;
        let [measured, in_step, buffering] = [(); 3].map(|()| input.try_get_u32().ok());
        let mut distances = DistanceHistogram::default();
        for _ in 0..input.try_get_u8().ok()? {
            let (bucket, count) = (input.try_get_u8().ok()?, input.try_get_u32().ok()?);
            *distances.counts.get_mut(usize::from(bucket))? = count;
        }
        let mut stand_outs = Vec::new();
        for _ in 0..input.try_get_u8().ok()? {
            let slot = MemberSlot(input.try_get_u16().ok()?);
            let (flags, drift) = (input.try_get_u8().ok()?, input.try_get_i32().ok()?);
            let drift = (flags & 4 != 0).then(|| Measurement::from_micros(drift)).transpose().ok()?;
            stand_outs.push(StandOut { slot, buffering: flags & 1 != 0, in_call: flags & 2 != 0, drift });
        }
        let mut part = Self { measured: measured?, in_step: in_step?, buffering: buffering?, distances, stand_outs };
        part.keep_worst();
        input.is_empty().then_some(part)
    }
}

fn distance(drift: Measurement) -> u32 {
    drift.micros().unsigned_abs()
}

fn is_in_step(status: &StatusReport) -> bool {
    !status.buffering && status.drift.is_some_and(|drift| distance(drift) <= distance(IN_STEP))
}

fn stands_out(status: &StatusReport) -> bool {
    status.buffering || status.in_call || status.drift.is_some_and(|drift| distance(drift) > distance(IN_STEP))
}

/// Orders stand-outs: those that buffer first, then by their distance, then those in the call; of equals by slot.
fn rank(member: &StandOut) -> impl Ord + use<> {
    let distance = member.drift.map_or(0, distance);
    (!member.buffering, u32::MAX - distance, !member.in_call, member.slot, member.drift)
}

/// Buckets of an octave: a bucket is at most an eighth as wide as its lower bound, so its middle is at most a sixteenth
/// off.
const STEPS: u32 = 8;
/// Up to the largest measurement, which is below 2^30 µs.
const BUCKETS: usize = 224;

/// Counts of distances in µs, by buckets that are the same on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DistanceHistogram {
    counts: Box<[u32; BUCKETS]>,
}

impl Default for DistanceHistogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]) }
    }
}

impl DistanceHistogram {
    fn add(&mut self, micros: u32) {
        let count = &mut self.counts[bucket_of(micros)];
        *count = count.saturating_add(1);
    }

    fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count = count.saturating_add(*more);
        }
    }

    fn filled(&self) -> impl Iterator<Item = (u8, u32)> {
        (0..).zip(self.counts.iter().copied()).filter(|(_, count)| *count > 0)
    }

    /// The middle of the bucket that holds the value of this rank.
    fn percentile(&self, percent: u64) -> Option<Measurement> {
        let total: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let rank = (total * percent).div_ceil(100).max(1);
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += u64::from(*count);
            below >= rank
        })?;
        Measurement::from_micros(middle_of(bucket as u32) as i32).ok()
    }
}

/// Below [`STEPS`] each value has its own bucket; above, each octave has [`STEPS`] of equal width.
fn bucket_of(micros: u32) -> usize {
    let micros = micros.min(distance(Measurement::MAX));
    let shift = micros.checked_ilog2().unwrap_or(0).saturating_sub(STEPS.ilog2());
    (shift * STEPS + (micros >> shift)) as usize
}

fn middle_of(bucket: u32) -> u32 {
    let shift = (bucket / STEPS).saturating_sub(1);
    let lower = (bucket - shift * STEPS) << shift;
    let width = 1 << shift;
    // The last bucket ends above the largest measurement.
    (lower + (width - 1) / 2).min(distance(Measurement::MAX))
}

#[cfg(test)]
#[path = "tests/digests.rs"]
mod tests;
