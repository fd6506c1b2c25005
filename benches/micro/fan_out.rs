//! The hub: from one member to all others, by how many there are. The subscribers encode once and forget, so what is
//! measured is the hub; `sessions` has the rest of the road.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use tandem::hub::Departure;
use tandem::room::{Ask, Basis, Control};

use crate::hub_fixture::{HubFixture, Sink, position, tick};

const MEMBERS: [usize; 5] = [2, 10, 50, 200, 1000];

#[divan::bench(args = MEMBERS)]
fn tick_to_all(bencher: Bencher<'_, '_>, members: usize) {
    let fixture = HubFixture::new();
    let host = fixture.room(0, members);
    let mut seq = 0;
    bencher.counter(ItemsCount::new(members - 1)).bench_local(|| {
        seq += 1;
        fixture.hub.tick(&host, tick(fixture.clock.now(), seq));
    });
}

/// The sender of the ticks joined last.
#[divan::bench(args = MEMBERS)]
fn tick_of_the_last_to_join(bencher: Bencher<'_, '_>, members: usize) {
    let fixture = HubFixture::new();
    fixture.room(0, members - 1);
    let last = fixture.runtime.block_on(fixture.join(0, members, Arc::new(Sink)));
    let mut seq = 0;
    bencher.counter(ItemsCount::new(members - 1)).bench_local(|| {
        seq += 1;
        fixture.hub.tick(&last, tick(fixture.clock.now(), seq));
    });
}

/// A heartbeat of the host: to v3 members it is a tick.
#[divan::bench(args = MEMBERS)]
fn heartbeat_to_all(bencher: Bencher<'_, '_>, members: usize) {
    let fixture = HubFixture::new();
    let host = fixture.room(0, members);
    bencher
        .counter(ItemsCount::new(members - 1))
        .bench_local(|| fixture.hub.heartbeat(&host, position(0.0), false, None).unwrap());
}

/// A host's tick to four others, in one room after another: cost by how many rooms there are.
#[divan::bench(args = [10, 100, 1000, 5000])]
fn tick_in_one_of_many_rooms(bencher: Bencher<'_, '_>, rooms: usize) {
    let fixture = HubFixture::new();
    let hosts: Vec<_> = (0..rooms).map(|room| fixture.room(room, 5)).collect();
    let mut seq = 0;
    bencher.counter(ItemsCount::new(4_usize)).bench_local(|| {
        seq += 1;
        fixture.hub.tick(&hosts[seq as usize % rooms], tick(fixture.clock.now(), seq));
    });
}

/// Play, until everybody has it: decided, committed to the memory log, applied, handed out.
#[divan::bench(args = MEMBERS)]
fn committed_command(bencher: Bencher<'_, '_>, members: usize) {
    let fixture = HubFixture::new();
    let host = fixture.room(0, members);
    let (mut playing, mut seconds) = (false, 0.0);
    bencher.counter(ItemsCount::new(members)).bench_local(|| {
        (playing, seconds) = (!playing, (seconds + 1.0) % 1000.0);
        let control = if playing { Control::Play } else { Control::Pause };
        let position = Some(position(seconds));
        let ask = Ask::PlayPause { control, position, true_at: None, on: Basis::default() };
        fixture.runtime.block_on(async {
            fixture.hub.submit(&host, ask, "PLAY_PAUSE", None);
            settled(&fixture).await;
        });
    });
}

/// Somebody joins a room with so many others, and leaves.
#[divan::bench(args = [2, 10, 50, 200])]
fn join_and_leave(bencher: Bencher<'_, '_>, members: usize) {
    let fixture = HubFixture::new();
    fixture.room(0, members);
    let mut joined = 0;
    bencher.bench_local(|| {
        fixture.runtime.block_on(async {
            joined += 1;
            let guest = fixture.join(0, 10_000 + joined % 50_000, Arc::new(Sink)).await;
            fixture.hub.depart(guest, Departure::Left);
            settled(&fixture).await;
        });
    });
}

/// Lets the tasks run until nothing waits for a commit: on this one thread they run when we don't.
async fn settled(fixture: &HubFixture) {
    use futures_util::FutureExt;
    let mut done = std::pin::pin!(fixture.hub.settled());
    // Asked anew each time: it sleeps between two looks, and we want no timer in the figure.
    while done.as_mut().now_or_never().is_none() {
        tokio::task::yield_now().await;
        done.set(fixture.hub.settled());
    }
}
