//! The whole road without a network: frames into a session, through hub and outboxes, to the clients of all others over
//! the memory transport.

use std::time::Duration;

use crate::memory_transport::{Delivered, MemoryClient, pair};
use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use serde_json::json;
use tandem::protocol;
use tandem::session;
use tandem::session::transport::Frame;

use crate::hub_fixture::{HubFixture, relayed_tick};

const MEMBERS: [usize; 4] = [2, 10, 50, 200];

/// So many clients in one room; the first is its host.
fn clients(fixture: &HubFixture, members: usize) -> Vec<MemoryClient> {
    fixture.runtime.block_on(async {
        let mut clients = Vec::new();
        for number in 0..members {
            let (transport, mut client) = pair();
            fixture.tracker.spawn(session::run(transport, fixture.services(), ()));
            let join = json!({"type": "JOIN", "protocol": 3, "roomId": "room", "userId": format!("member-{number}")});
            client.message(join.to_string()).await;
            until(&mut client, "ROOM_STATE").await;
            clients.push(client);
        }
        // Drops the others' messages about later members.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for client in &mut clients {
            while client.try_recv().is_some() {}
        }
        clients
    })
}

/// Reads on to a message of this type.
async fn until(client: &mut MemoryClient, kind: &str) {
    let start = format!(r#"{{"type":"{kind}""#);
    loop {
        match client.recv().await.unwrap() {
            Delivered::Message(message) if message.starts_with(start.as_bytes()) => return,
            Delivered::Message(_) | Delivered::Compact(_) | Delivered::Drain => {}
            Delivered::Closed { code, reason } => panic!("closed: {code:?} {reason}"),
        }
    }
}

#[divan::bench(args = MEMBERS)]
fn tick_to_all(bencher: Bencher<'_, '_>, members: usize) {
    let fixture = HubFixture::new();
    let mut clients = clients(&fixture, members);
    let mut seq = 0;
    bencher.counter(ItemsCount::new(members - 1)).bench_local(|| {
        seq += 1;
        let tick = protocol::encode_tick(&relayed_tick(fixture.clock.now(), seq));
        fixture.runtime.block_on(async {
            clients[0].send(Frame::Compact(tick.message())).await;
            for client in &mut clients[1..] {
                while !matches!(client.recv().await.unwrap(), Delivered::Compact(_)) {}
            }
        });
    });
}

#[divan::bench(args = MEMBERS)]
fn play_to_all(bencher: Bencher<'_, '_>, members: usize) {
    let fixture = HubFixture::new();
    let mut clients = clients(&fixture, members);
    let (mut playing, mut seconds) = (false, 0);
    bencher.counter(ItemsCount::new(members)).bench_local(|| {
        (playing, seconds) = (!playing, (seconds + 1) % 1000);
        let control = if playing { "play" } else { "pause" };
        let message = format!(r#"{{"type":"PLAY_PAUSE","control":"{control}","currentTime":{seconds}}}"#);
        fixture.runtime.block_on(async {
            clients[0].message(Bytes::from(message)).await;
            for client in &mut clients {
                until(client, "PLAY_PAUSE").await;
            }
        });
    });
}

/// An offer of 1.2 KB to one other member.
#[divan::bench(args = MEMBERS)]
fn signal_to_one(bencher: Bencher<'_, '_>, members: usize) {
    let fixture = HubFixture::new();
    let mut clients = clients(&fixture, members);
    let sdp = "x".repeat(1100);
    let to = members - 1;
    let message = json!({"type": "OFFER", "to": format!("member-{to}"), "offer": {"type": "offer", "sdp": sdp}});
    let message = Bytes::from(message.to_string());
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        fixture.runtime.block_on(async {
            clients[0].message(message.clone()).await;
            until(&mut clients[to], "OFFER").await;
        });
    });
}
