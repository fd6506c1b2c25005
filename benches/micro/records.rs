//! Rooms and events as the log keeps them. The record codec is the hub's own; from outside it shows as the serde form of
//! its parts, and as the hub's way back from a snapshot.

use divan::{Bencher, black_box};
use tandem::room::Event;

use crate::house::{House, NOW, joining, limits, room_id, room_of};

fn joined() -> Event {
    let room = room_of(10);
    room.decide(NOW, &joining(10), &limits()).unwrap().remove(0)
}

#[divan::bench]
fn write_event(bencher: Bencher<'_, '_>) {
    let event = joined();
    bencher.bench_local(|| serde_json::to_vec(black_box(&event)));
}

#[divan::bench]
fn read_event(bencher: Bencher<'_, '_>) {
    let bytes = serde_json::to_vec(&joined()).unwrap();
    bencher.bench_local(|| serde_json::from_slice::<Event>(black_box(&bytes)));
}

#[divan::bench(args = [2, 10, 200])]
fn write_whole_room(bencher: Bencher<'_, '_>, members: usize) {
    let room = room_of(members);
    bencher.bench_local(|| serde_json::to_vec(black_box(&room)));
}

/// What a hub does at start, and after a gap.
#[divan::bench(args = [2, 10, 200])]
fn read_snapshot(bencher: Bencher<'_, '_>, members: usize) {
    let house = House::new();
    house.room(0, members);
    let snapshot = house.runtime.block_on(house.log.load(&room_id(0))).unwrap().unwrap();
    let reader = House::new();
    let _inside = reader.runtime.enter();
    bencher.with_inputs(|| vec![snapshot.clone()]).bench_local_values(|snapshots| reader.hub.recover(snapshots));
}
