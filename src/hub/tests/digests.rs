//! Properties of the digest: merged parts are the part of the whole, percentiles have a bounded error, and those who
//! stand out are the worst.

use proptest::prelude::*;

use super::*;

fn measured(micros: i32) -> Option<Measurement> {
    Some(Measurement::from_micros(micros).unwrap())
}

/// Mostly small drifts, as in a room that works.
fn drift() -> impl Strategy<Value = Option<Measurement>> {
    prop_oneof![
        1 => Just(None),
        6 => (-60_000..60_000).prop_map(measured),
        2 => (-600_000_000..=600_000_000).prop_map(measured),
    ]
}

/// Statuses of members, each with a slot of its own, and of viewers.
fn statuses() -> impl Strategy<Value = Vec<(Option<MemberSlot>, StatusReport)>> {
    let status = (any::<bool>(), drift(), 0..8, 0..10).prop_map(|(viewer, drift, buffering, call)| {
        let (buffering, in_call) = (buffering == 0, call == 0);
        (viewer, StatusReport { buffering, in_call, drift, ..StatusReport::default() })
    });
    proptest::collection::vec(status, 0..300).prop_map(|all| {
        let slots = (1..).map(MemberSlot);
        all.into_iter().zip(slots).map(|((viewer, status), slot)| ((!viewer).then_some(slot), status)).collect()
    })
}

fn part_of<'a>(statuses: impl IntoIterator<Item = &'a (Option<MemberSlot>, StatusReport)>) -> DigestPart {
    let mut part = DigestPart::default();
    for (slot, status) in statuses {
        part.add(*slot, status);
    }
    part
}

fn through_the_wire(part: &DigestPart) -> DigestPart {
    let mut bytes = Vec::new();
    part.encode(&mut bytes);
    DigestPart::decode(&bytes).expect("what was written is read")
}

proptest! {
    #[test]
    fn merged_parts_are_the_part_of_the_whole(
        all in statuses(), node_of in proptest::collection::vec(0..5_usize, 300), order in Just(vec![0, 1, 2, 3, 4]).prop_shuffle(),
    ) {
        let of = |node: usize| part_of(all.iter().zip(&node_of).filter(|(_, its)| **its == node).map(|(status, _)| status));
        let mut merged = DigestPart::default();
        for node in order {
            merged.merge(&through_the_wire(&of(node)));
        }
        prop_assert_eq!(merged.digest(300, 0), part_of(&all).digest(300, 0));
    }

    #[test]
    fn a_percentile_is_at_most_a_sixteenth_off(all in statuses()) {
        let mut exact: Vec<_> = all.iter().filter_map(|(_, status)| status.drift).map(distance).collect();
        exact.sort_unstable();
        let digest = part_of(&all).digest(0, 0);
        let at = |percent: usize| f64::from(exact[(exact.len() * percent).div_ceil(100) - 1]);
        match digest.distance {
            None => prop_assert!(exact.is_empty()),
            Some(distances) => for (told, percent) in distances.into_iter().zip([50, 95]) {
                let off = (f64::from(told.micros()) - at(percent)).abs();
                prop_assert!(off <= at(percent) / 16.0, "p{} is {} µs, not {:?}", percent, at(percent), told);
            },
        }
    }

    #[test]
    fn those_who_stand_out_are_the_worst(all in statuses()) {
        let named = part_of(&all).digest(0, 0).stand_outs;
        let eligible = all.iter().filter(|(slot, status)| slot.is_some() && stands_out(status));
        prop_assert_eq!(named.len(), eligible.clone().count().min(STAND_OUTS));
        let worse = |status: &StatusReport| (status.buffering, status.drift.map_or(0, distance), status.in_call);
        let least = named.iter().map(|m| (m.buffering, m.drift.map_or(0, distance), m.in_call)).min();
        for (slot, status) in eligible {
            let is_named = named.iter().any(|member| Some(member.slot) == *slot);
            prop_assert!(is_named || Some(worse(status)) <= least, "{slot:?} {status:?} is worse than some of {named:?}");
        }
        let order: Vec<_> = named.iter().map(|m| (m.buffering, m.drift.map_or(0, distance), m.in_call)).collect();
        prop_assert!(order.is_sorted_by(|one, next| one >= next));
    }

    #[test]
    fn counts_add_up(all in statuses()) {
        let digest = part_of(&all).digest(7, 1204);
        let count = |is: &dyn Fn(&StatusReport) -> bool| all.iter().filter(|(_, status)| is(status)).count() as u32;
        prop_assert_eq!((digest.members, digest.audience), (7, 1204));
        prop_assert_eq!(digest.buffering, count(&|status| status.buffering));
        prop_assert_eq!(digest.measured, count(&|status| status.buffering || status.drift.is_some()));
        prop_assert_eq!(digest.in_step, count(&is_in_step));
        prop_assert!(digest.in_step + digest.buffering <= digest.measured);
    }

    #[test]
    fn any_bytes_are_a_part_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(part) = DigestPart::decode(&bytes) {
            prop_assert_eq!(through_the_wire(&part), part);
        }
    }
}

#[test]
fn every_distance_has_a_bucket_whose_middle_is_near() {
    let edges = (0..30).flat_map(|octave| [(1 << octave) - 1, 1 << octave, (1 << octave) + 1]);
    for micros in edges.chain([Measurement::MAX.micros().unsigned_abs()]).filter(|micros| *micros <= 600_000_000) {
        let bucket = bucket_of(micros);
        assert!(bucket < BUCKETS, "{micros}");
        let off = middle_of(bucket as u32).abs_diff(micros);
        assert!(f64::from(off) <= f64::from(micros) / 16.0, "{micros} is {off} off");
    }
    assert_eq!(bucket_of(u32::MAX), bucket_of(600_000_000), "no input is out of bounds");
}

#[test]
fn a_member_in_the_parts_of_two_nodes_is_named_once_with_the_worse_report() {
    let status = |micros| StatusReport { drift: measured(micros), ..StatusReport::default() };
    let (mut old, mut new) = (DigestPart::default(), DigestPart::default());
    old.add(Some(MemberSlot(3)), &status(-90_000));
    new.add(Some(MemberSlot(3)), &status(50_000));
    old.merge(&new);
    let named = old.digest(1, 0).stand_outs;
    assert_eq!(named.iter().map(|member| (member.slot.0, member.drift)).collect::<Vec<_>>(), [(3, measured(-90_000))]);
}

#[test]
fn a_part_that_is_cut_off_or_longer_is_none() {
    let mut part = DigestPart::default();
    part.add(
        Some(MemberSlot(1)),
        &StatusReport { buffering: true, drift: measured(90_000), ..StatusReport::default() },
    );
    let mut bytes = Vec::new();
    part.encode(&mut bytes);
    for length in 0..bytes.len() {
        assert_eq!(DigestPart::decode(&bytes[..length]), None, "{length} bytes");
    }
    bytes.push(0);
    assert_eq!(DigestPart::decode(&bytes), None);
}

#[test]
fn a_part_of_thousands_is_small() {
    let mut part = DigestPart::default();
    for index in 0..10_000 {
        part.add(
            Some(MemberSlot(index)),
            &StatusReport { drift: measured(i32::from(index) * 7), ..StatusReport::default() },
        );
    }
    let mut bytes = Vec::new();
    part.encode(&mut bytes);
    assert!(bytes.len() < 1000, "{} bytes", bytes.len());
}
