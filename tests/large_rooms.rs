//! What a member receives while a film plays, by the size of its room: whole sessions over the in-memory transport,
//! under paused time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/memory_server.rs"]
mod memory_server;
#[path = "support/memory_transport.rs"]
mod memory_transport;

use std::time::Duration;

use memory_server::MemoryServer;
use memory_transport::{Delivered, MemoryClient};
use tandem::domain::Limits;
use tandem::session::transport::Frame;

/// Those of a room who wait for data, or are out of step.
const STAND_OUTS: usize = 3;
const STEP: Duration = Duration::from_millis(250);

/// The members of one room.
struct Crowd {
    server: MemoryServer,
    members: Vec<MemoryClient>,
    received: Vec<usize>,
}

impl Crowd {
    async fn of(size: usize, full_presence_members: u64) -> Self {
        let limits = Limits { room_address_members: 10_000, full_presence_members, ..Limits::default() };
        let server = MemoryServer::without_rates(limits);
        let mut room = Self { server, members: Vec::new(), received: Vec::new() };
        for index in 0..size {
            let client = room.server.connect();
            client.message(format!(r#"{{"type":"JOIN","protocol":3,"roomId":"friday","userId":"m{index}"}}"#)).await;
            room.members.push(client);
            room.received.push(0);
            room.listen(Duration::from_millis(5)).await;
        }
        room
    }

    async fn listen(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        for (member, received) in self.members.iter_mut().zip(&mut self.received) {
            while let Some(frame) = member.try_recv() {
                *received += match frame {
                    Delivered::Message(bytes) | Delivered::Compact(bytes) => bytes.len(),
                    Delivered::Drain => 0,
                    Delivered::Closed { reason, .. } => panic!("a session ended: {reason}"),
                };
            }
        }
    }

    /// As the client does it: a clock probe each second, a status every two, a position each second, of the host four.
    async fn watch(&mut self, step: u32) {
        let now = self.server.services.clock.now().as_millis_f64();
        for (index, member) in self.members.iter().enumerate() {
            // They began at different times.
            let turn = step + index as u32;
            if turn.is_multiple_of(4) {
                let probe = [&[1, 0, 0, 1][..], &now.to_be_bytes()].concat();
                member.send(Frame::Compact(probe.into())).await;
            }
            if turn.is_multiple_of(4) || index == 0 {
                let position =
                    [&[3, 0, 0, 0][..], &step.to_be_bytes(), &0f64.to_be_bytes(), &now.to_be_bytes()].concat();
                member.send(Frame::Compact([&position[..], &1f32.to_be_bytes()].concat().into())).await;
            }
            if turn.is_multiple_of(8) {
                let (flags, drift) = if (1..=STAND_OUTS).contains(&index) { (1 | 14, 90_000_i32) } else { (14, 3000) };
                let measured = [14_500_i32, drift, 800].map(i32::to_be_bytes).concat();
                let status = [&[4, flags, 0, 0][..], &step.to_be_bytes(), &measured].concat();
                member.send(Frame::Compact(status.into())).await;
            }
        }
        self.listen(STEP).await;
    }

    /// Bytes of messages a second to a guest who doesn't stand out.
    async fn bytes_a_second(&mut self) -> f64 {
        const SECONDS: u32 = 10;
        for step in 0..12 {
            self.watch(step).await;
        }
        let before = self.received[STAND_OUTS + 1];
        for step in 12..12 + 4 * SECONDS {
            self.watch(step).await;
        }
        (self.received[STAND_OUTS + 1] - before) as f64 / f64::from(SECONDS)
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_member_receives_does_not_grow_with_its_room() {
    let large = Limits::default().full_presence_members as usize + 1;
    let few = Crowd::of(large, large as u64 - 1).await.bytes_a_second().await;
    let many = Crowd::of(200, large as u64 - 1).await.bytes_a_second().await;
    println!("{few} B/s in a room of {large}, {many} B/s in one of 200");
    assert!(many <= few * 1.05 && few <= many * 1.05, "{few} B/s in a room of {large}, {many} B/s in one of 200");
    assert!(many <= 250.0, "{many} B/s");
}

#[tokio::test(start_paused = true)]
async fn without_a_digest_it_would() {
    let (few, many) = (Crowd::of(10, 200).await, Crowd::of(40, 200).await);
    let [few, many] = [few, many].map(|mut room| async move { room.bytes_a_second().await });
    let (few, many) = (few.await, many.await);
    assert!(many > 3.0 * few, "{few} and {many} B/s");
}
