//! Rooms and events as the log keeps them. The record codec is the hub's own; from outside it shows as the serde form
//! of its parts, and as a hub's look at a room that it has to load.

use divan::{Bencher, black_box};
use tandem::room::Event;

use crate::hub_fixture::{HubFixture, NOW, joining, limits, room_id, room_of};

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

/// A hub does this after a gap: it loads the snapshot and decodes the room.
#[divan::bench(args = [2, 10, 200])]
fn read_snapshot(bencher: Bencher<'_, '_>, members: usize) {
    let fixture = HubFixture::new();
    fixture.room(0, members);
    // A hub without a replica of the room.
    let (stranger, room) = (fixture.another_hub(), room_id(0));
    bencher.bench_local(|| fixture.runtime.block_on(stranger.peek(&room)).unwrap().unwrap());
}
