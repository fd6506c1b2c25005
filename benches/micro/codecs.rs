//! Bytes to messages and back.

use std::cell::OnceCell;

use divan::{Bencher, black_box};
use tandem::hub::delivery::{EventDelivery, Joined, Notice, NoticeBody};
use tandem::protocol::{self, Rules};
use tandem::room::{Ask, Basis, Command, Control, Room};

use crate::hub_fixture::{NOW, actor, asked, limits, position, relayed_tick, room_of, user};

const JOIN: &str = r#"{"type":"JOIN","protocol":3,"roomId":"friday","userId":"member-1","username":"Member 1","resumeToken":"qZ","epoch":1795000000000,"lastSeq":4,"ref":1}"#;
const HEARTBEAT: &str = r#"{"type":"HOST_HEARTBEAT","roomId":"friday","userId":"member-1","currentTime":12.5,"isPlaying":true,"eventTimestamp":1795000000000,"timestamp":1795000000000}"#;
const PLAY: &str =
    r#"{"type":"PLAY_PAUSE","control":"play","currentTime":12.5,"eventTimestamp":1795000000000.5,"ref":7}"#;
const CHAT: &str = r#"{"type":"CHAT","text":"ready? then let us begin","ref":8}"#;

/// An offer of 1.2 KB.
fn offer() -> String {
    let sdp = "a=candidate:1 1 udp 2122260223 192.0.2.1 54400 typ host\\r\\n".repeat(20);
    format!(r#"{{"type":"OFFER","to":"member-2","offer":{{"type":"offer","sdp":"{sdp}"}}}}"#)
}

mod decode {
    use super::*;

    fn decodes(bencher: Bencher<'_, '_>, text: &str) {
        let rules = Rules::default();
        protocol::decode(text.as_bytes(), &rules).map_err(|bad| bad.to_string()).unwrap();
        bencher.bench_local(|| protocol::decode(black_box(text.as_bytes()), &rules));
    }

    #[divan::bench]
    fn heartbeat_of_v2(bencher: Bencher<'_, '_>) {
        decodes(bencher, HEARTBEAT);
    }

    #[divan::bench]
    fn join(bencher: Bencher<'_, '_>) {
        decodes(bencher, JOIN);
    }

    #[divan::bench]
    fn play(bencher: Bencher<'_, '_>) {
        decodes(bencher, PLAY);
    }

    #[divan::bench]
    fn chat(bencher: Bencher<'_, '_>) {
        decodes(bencher, CHAT);
    }

    #[divan::bench]
    fn offer_of_1200_bytes(bencher: Bencher<'_, '_>) {
        decodes(bencher, &offer());
    }

    #[divan::bench]
    fn tick_datagram(bencher: Bencher<'_, '_>) {
        let (bytes, limits) = (protocol::encode_tick(&relayed_tick(NOW, 1)), limits());
        bencher.bench_local(|| protocol::decode_compact(black_box(&bytes), &limits));
    }
}

mod encode {
    use super::*;

    /// A room after this command, and the last event of it.
    fn after(members: usize, command: &Command) -> (Room, tandem::room::Event) {
        let mut room = room_of(members);
        let events = room.decide(NOW, command, &limits()).unwrap();
        events.iter().for_each(|event| room.apply(event));
        let last = events.last().unwrap().clone();
        (room, last)
    }

    fn encodes(bencher: Bencher<'_, '_>, (room, event): &(Room, tandem::room::Event)) {
        bencher.bench_local(|| {
            let head = room.head();
            protocol::encode_event(&EventDelivery { room, event, head, now: NOW, encoded: OnceCell::new() })
        });
    }

    #[divan::bench]
    fn play(bencher: Bencher<'_, '_>) {
        let (position, on) = (Some(position(12.5)), Basis::default());
        let play = Ask::PlayPause { control: Control::Play, position, true_at: None, on };
        encodes(bencher, &after(10, &asked(play)));
    }

    /// With the gate that everybody is awaited at.
    #[divan::bench(args = [2, 10, 200])]
    fn seek(bencher: Bencher<'_, '_>, members: usize) {
        let (position, on) = (position(12.5), Basis::default());
        let seek = Ask::Seek { position, resume: Some(true), true_at: None, on };
        encodes(bencher, &after(members, &asked(seek)));
    }

    #[divan::bench]
    fn joined(bencher: Bencher<'_, '_>) {
        encodes(bencher, &after(10, &crate::hub_fixture::joining(10)));
    }

    #[divan::bench(args = [2, 10, 200])]
    fn room_state(bencher: Bencher<'_, '_>, members: usize) {
        let (room, limits, actor) = (room_of(members), limits(), actor(0));
        let (user, session) = (Some(&actor.user), Some(&actor.session));
        bencher.bench_local(|| {
            let (shared, node) = (&OnceCell::new(), &actor.session.node);
            let joined = Joined { user, session, token: None, resumed: true, node, now: NOW, shared, audience: 0 };
            protocol::encode_state(black_box(&room), &joined, &limits).join()
        });
    }

    /// ROOM_STATE for one more who is told it at the same head.
    #[divan::bench(args = [2, 10, 200])]
    fn room_state_shared(bencher: Bencher<'_, '_>, members: usize) {
        let (room, limits, actor) = (room_of(members), limits(), actor(0));
        let (user, session, shared) = (Some(&actor.user), Some(&actor.session), &OnceCell::new());
        let joined = Joined {
            user,
            session,
            token: None,
            resumed: true,
            node: &actor.session.node,
            now: NOW,
            shared,
            audience: 0,
        };
        bencher.bench_local(|| protocol::encode_state(black_box(&room), &joined, &limits).join());
    }

    #[divan::bench]
    fn heartbeat(bencher: Bencher<'_, '_>) {
        let (from, tick) = (user(0), relayed_tick(NOW, 1));
        bencher.bench_local(|| {
            let body = NoticeBody::Heartbeat { from: black_box(&from), tick };
            protocol::encode_notice(&Notice { body, now: NOW, encoded: OnceCell::new() })
        });
    }

    #[divan::bench]
    fn tick_datagram(bencher: Bencher<'_, '_>) {
        let tick = relayed_tick(NOW, 1);
        bencher.bench_local(|| protocol::encode_tick(black_box(&tick)));
    }
}
