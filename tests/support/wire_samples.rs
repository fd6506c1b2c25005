//! A sample of every message of the wire, encoded: for the golden files and for the documentation's test.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tandem::domain::*;
use tandem::hub::delivery::{EventDelivery, Joined, Notice, NoticeBody, RosterDelivery, Signal};
use tandem::protocol::*;
use tandem::room::{By, Cause, ChatLine, Control, Event, LeaveReason, Origin, Playback, ReadyGate, Room};

pub(crate) const EPOCH: u64 = 1_795_000_000_000;

/// `ms` after the epoch.
pub(crate) fn at(ms: i64) -> RoomTime {
    RoomTime::from_millis(EPOCH as i64 + ms)
}

pub(crate) fn position(seconds: f64) -> MediaTime {
    MediaTime::parse(seconds, &Limits::default()).unwrap()
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

pub(crate) fn film() -> MediaUrl {
    MediaUrl::parse("https://example.org/film.webm", &UrlPolicy::default(), &Limits::default()).unwrap()
}

fn token() -> TokenHash {
    TokenHash::from_bytes([0; 32])
}

fn session(id: u64) -> SessionRef {
    SessionRef { node: NodeId::parse("node-1").unwrap(), id }
}

pub(crate) fn playing_from(seconds: f64, since: RoomTime) -> Playback {
    Playback { position: position(seconds), rate: Rate::NORMAL, playing: true, at: since, seq: 9 }
}

pub(crate) fn gate() -> ReadyGate {
    ReadyGate {
        id: 3,
        target: position(93.25),
        awaiting: BTreeSet::from([user("bob")]),
        ready: BTreeSet::from([user("ann")]),
        quorum_at: at(3000),
        deadline: at(7000),
        by: user("ann"),
    }
}

/// Ann (host, live, v3) and Bob (lost, v2): Bob sorts after Ann by slot, Ann's film plays.
pub(crate) fn room(playback: Playback, gate: Option<ReadyGate>) -> Room {
    let member = |name: &str, slot: u16, connection: serde_json::Value, dialect: &str, transport: &str| {
        json!({"name": name, "slot": slot, "joined_at": at(0), "connection": connection, "dialect": dialect,
               "transport": transport, "token": vec![0; 32], "previous_token": null, "recent": []})
    };
    let zoe = member("Zoë \"Z\"", 1, json!({"Live": session(1)}), "V3", "webtransport");
    let bob = member("Bob", 2, json!({"Lost": {"until": at(30_000)}}), "V2", "websocket");
    let mut ann = member("Ann", 3, json!({"Live": session(3)}), "V3", "websocket");
    ann["player"] = json!({"state": "failed", "reason": "decode"});
    serde_json::from_value(json!({
        "id": "friday", "head": {"epoch": EPOCH, "seq": 9}, "created_at": at(0), "host": "ann", "guest_control": true,
        "pin": "$argon2id$", "owner": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", "url": film(), "film": 1, "duration": 5400.0, "playback": playback, "gate": gate, "next_gate": 4, "next_slot": 4,
        "bans": ["mallory"], "members": {"ann": ann, "bob": bob, "zoe": zoe},
    }))
    .unwrap()
}

pub(crate) fn event(room: &Room, event: &Event) -> Option<Bytes> {
    let head = Head { epoch: EPOCH, seq: 9 };
    encode_event(&EventDelivery { room, event, head, now: at(10), encoded: OnceCell::new() })
}

pub(crate) fn notice(body: NoticeBody<'_>) -> Bytes {
    encode_notice(&Notice { body, now: at(10), encoded: OnceCell::new() })
}

pub(crate) fn state(room: &Room, token: Option<&ResumeToken>, now: RoomTime) -> Bytes {
    let (user, session, node) = (user("ann"), session(255), NodeId::parse("node-1").unwrap());
    let shared = &OnceCell::new();
    let (user, session) = (Some(&user), Some(&session));
    let resumed = token.is_none();
    let joined = Joined { user, session, token, resumed, node: &node, now, shared, audience: 0 };
    encode_state(room, &joined, &Limits::default()).join()
}

fn state_of_audience(room: &Room, viewer: Option<&str>) -> Bytes {
    let (viewer, session, node) = (viewer.map(user), session(256), NodeId::parse("node-1").unwrap());
    let (user, session) = (viewer.as_ref(), viewer.as_ref().map(|_| &session));
    let (resumed, shared) = (viewer.is_none(), &OnceCell::new());
    let joined = Joined { user, session, token: None, resumed, node: &node, now: at(10), shared, audience: 1204 };
    encode_state(room, &joined, &Limits::default()).join()
}

/// One member left and another came in its place.
pub(crate) fn roster() -> Bytes {
    let (room, seqs) = (room(playing_from(12.5, at(60)), None), [8, 9]);
    let left = Event::Left { at: at(0), user: user("kim"), reason: LeaveReason::Left, until: None };
    let (_, _, joined) = events().into_iter().find(|(name, ..)| *name == "joined").unwrap();
    let events: Vec<_> = seqs.map(|seq| Head { epoch: EPOCH, seq }).into_iter().zip([left, joined]).collect();
    encode_roster(&RosterDelivery { room: &room, events: &events, now: at(10), encoded: OnceCell::new() })
}

/// Every event that has a message, with the room after it.
pub(crate) fn events() -> Vec<(&'static str, Room, Event)> {
    let playback = playing_from(12.5, at(60));
    let paused = Playback { position: position(93.25), playing: false, ..playback };
    let quiet = || room(playback, None);
    let waiting = || room(paused, Some(gate()));
    let (ann, bob) = (user("ann"), user("bob"));
    let limits = Limits::default();
    let bob_named = Username::parse("Bob", &limits).unwrap();
    let (dialect, transport, session) = (Dialect::V3, TransportKind::WebTransport, session(7));
    let moved = |by: By, cause: Cause| Event::Moved { by, cause, playback, key: None };
    vec![
        ("joined", quiet(), {
            let (user, name, session) = (bob.clone(), bob_named.clone(), session.clone());
            let origin = Origin::default();
            Event::Joined {
                at: at(0),
                user,
                name,
                slot: MemberSlot(2),
                session,
                dialect,
                transport,
                token: token(),
                origin,
            }
        }),
        ("left", quiet(), Event::Left { at: at(0), user: bob.clone(), reason: LeaveReason::Left, until: None }),
        (
            "lost for good",
            quiet(),
            Event::Left { at: at(0), user: bob.clone(), reason: LeaveReason::Lost, until: None },
        ),
        ("resumed", quiet(), {
            let user = bob.clone();
            let origin = Origin::default();
            Event::Resumed {
                at: at(0),
                user,
                session,
                dialect,
                transport,
                token: token(),
                proved: None,
                origin,
                moved: false,
            }
        }),
        ("moved", quiet(), {
            let (user, token, origin) = (ann.clone(), token(), Origin::default());
            let session = SessionRef { node: NodeId::parse("node-1").unwrap(), id: 8 };
            Event::Resumed { at: at(0), user, session, dialect, transport, token, proved: None, origin, moved: true }
        }),
        ("disconnected", quiet(), Event::Disconnected { at: at(0), user: bob.clone(), until: at(30_000) }),
        ("host", quiet(), Event::HostChanged { host: Some(bob.clone()) }),
        ("no host", quiet(), Event::HostChanged { host: None }),
        ("guest control", quiet(), Event::GuestControl { enabled: true }),
        ("renamed", quiet(), Event::Renamed { user: bob.clone(), name: bob_named }),
        ("pin lifted", quiet(), Event::PinChanged { pin: None }),
        ("banned", quiet(), Event::BansChanged { user: user("mallory"), banned: true, client: None }),
        ("play", quiet(), moved(By::Member(ann.clone()), Cause::Control(Control::Play))),
        ("pause", room(paused, None), {
            let (by, cause) = (By::Member(bob.clone()), Cause::Control(Control::Pause));
            Event::Moved { by, cause, playback: paused, key: None }
        }),
        ("gate released", quiet(), moved(By::Server, Cause::Control(Control::Play))),
        ("seek that stands still", room(paused, None), {
            Event::Sought { by: bob.clone(), playback: paused, gate: None, key: None }
        }),
        ("seek that waits", waiting(), {
            Event::Sought { by: ann.clone(), playback: paused, gate: Some(gate()), key: None }
        }),
        ("rate", quiet(), moved(By::Member(ann.clone()), Cause::Rate)),
        ("film over", room(paused, None), {
            Event::Moved { by: By::Server, cause: Cause::Ended, playback: paused, key: None }
        }),
        ("player that failed", quiet(), {
            let reason = Some(PlayerReason::parse("decode").unwrap());
            let player = Player { reason, ..Player::of(PlayerState::Failed) };
            Event::PlayerChanged { user: ann.clone(), player, agreed: None }
        }),
        ("player that is ready", quiet(), {
            let player = Player { duration: Some(position(5400.5)), ..Player::of(PlayerState::Ready) };
            Event::PlayerChanged { user: ann.clone(), player, agreed: Some(position(5400.0)) }
        }),
        ("film", quiet(), Event::UrlChanged { by: ann.clone(), url: film(), playback }),
        ("adopted", quiet(), Event::Adopted { by: ann.clone(), playback, url: None }),
        ("audience counted", quiet(), Event::AudienceCounted { count: 1204 }),
        ("correction", quiet(), moved(By::Member(ann.clone()), Cause::Correction)),
        ("gate progress", waiting(), Event::GateProgress { id: 3, user: ann.clone() }),
        (
            "chat",
            quiet(),
            Event::Chat {
                user: ann.clone(),
                text: ChatText::parse("\"ready\"?\u{1}\u{2028}", &limits).unwrap(),
                at: at(0),
            },
        ),
        ("custom", quiet(), {
            let namespace = Namespace::parse("org.example.poll").unwrap();
            Event::Custom { user: ann, namespace, payload: r#"{"vote":2}"#.to_owned() }
        }),
    ]
}

/// Signals from one member to one other.
pub(crate) fn signals() -> Vec<(&'static str, Signal)> {
    let sdp = |kind: &str| format!(r#"{{"type":"{kind}","sdp":"v=0\r\n"}}"#);
    let namespace = Namespace::parse("org.example.poll").unwrap();
    vec![
        ("custom to one", Signal::Custom { namespace, payload: "null".to_owned() }),
        ("sync of a member", Signal::SyncResponse { position: position(15.75), playing: true, url: None }),
        ("offer", Signal::Offer { offer: sdp("offer") }),
        ("answer", Signal::Answer { answer: sdp("answer") }),
        ("candidate", Signal::IceCandidate { candidate: r#"{"candidate":"a","sdpMLineIndex":0}"#.to_owned() }),
        ("end of candidates", Signal::IceCandidate { candidate: "null".to_owned() }),
        ("playback ack", Signal::PlaybackAck { control: Control::Play }),
    ]
}

/// Every message that the server sends, in all of its shapes.
pub(crate) fn server_messages() -> Vec<(&'static str, Bytes)> {
    let playback = playing_from(12.5, at(0));
    let (ann, node) = (user("ann"), NodeId::parse("node-1").unwrap());
    let tick = RelayedTick {
        slot: MemberSlot(1),
        seq: 1,
        playing: true,
        from_host: true,
        position: position(15.75),
        at: RoomTime::from_micros(EPOCH as i64 * 1000 + 1500),
        rate: Rate::NORMAL,
    };
    let token = ResumeToken::presented("qZ");
    let mut vacant_host = serde_json::to_value(room(playback, None)).unwrap();
    for absent in ["host", "url", "pin", "owner"] {
        vacant_host[absent] = json!(null);
    }
    let bare: Room = serde_json::from_value(vacant_host).unwrap();
    let moment = RoomTime::from_micros(EPOCH as i64 * 1000 + 3_250_500);

    let mut all = vec![
        ("welcome", state(&room(playback, None), Some(&token), moment)),
        ("resync while a gate is open", state(&room(playback, Some(gate())), None, at(3250))),
        ("state without film, host and PIN", state(&bare, None, at(3250))),
        ("welcome of a viewer", state_of_audience(&room(playback, None), Some("eve"))),
        ("state for the whole audience", state_of_audience(&room(playback, None), None)),
    ];
    for (name, room, what) in events() {
        all.push((name, event(&room, &what).unwrap()));
    }
    all.push(("roster", roster()));
    let bob = UserId::parse("bob").unwrap();
    for (name, signal) in signals() {
        all.push((name, notice(NoticeBody::Signal { from: &ann, to: &bob, signal: &signal, node: &node })));
    }
    all.extend([
        ("sync", notice(NoticeBody::Sync { room: &room(playback, Some(gate())) })),
        ("heartbeat", notice(NoticeBody::Heartbeat { from: &ann, tick })),
        ("nudge", notice(NoticeBody::Nudge { position: position(12.5), playing: true })),
        ("chat of before", {
            let limits = Limits::default();
            let (name, text) = (Username::parse("Ann", &limits).unwrap(), ChatText::parse("ready?", &limits).unwrap());
            encode_replay(Head { epoch: EPOCH, seq: 4 }, &ChatLine { at: at(-500), user: ann.clone(), name, text })
        }),
        ("audience", notice(NoticeBody::Audience { count: 1204 })),
        ("passed", notice(NoticeBody::Passed { events: 3, head: Head { epoch: EPOCH, seq: 9 } })),
        ("hand", {
            let (eve, name) = (user("eve"), Username::parse("Eve", &Limits::default()).unwrap());
            notice(NoticeBody::Hand { user: &eve, name: &name, raised: true })
        }),
        ("degraded", notice(NoticeBody::Degraded { degraded: true })),
        ("reconnect", notice(NoticeBody::Reconnect { after: Duration::from_micros(1_200_001) })),
        ("pong", encode_pong(Some(&serde_json::Number::from(EPOCH)), at(10))),
        ("pong without echo", encode_pong(None, at(10))),
        ("probe", encode_probe(1, at(10))),
        ("closing", encode_closing(CloseCode::Kicked, "removed by the host", at(10))),
        ("ack", encode_reply_ack(7, Head { epoch: EPOCH, seq: 5 }, at(10))),
        ("error", encode_error(ErrorCode::NotInControl, "only the host may", Some(7), "PLAY_PAUSE", None)),
        (
            "error to wait for",
            encode_error(ErrorCode::PinThrottled, "wait", None, "JOIN", Some(Duration::from_secs(5))),
        ),
        ("error of nothing known", encode_error(ErrorCode::BadMessage, "not JSON", None, "", None)),
    ]);
    all
}

/// Every message that a client may send, with all fields, as v3 sends it.
pub(crate) const CLIENT_MESSAGES: &[&str] = &[
    r#"{"type":"JOIN","protocol":3,"roomId":"friday","userId":"ann","username":"Ann","pin":"4711","resumeToken":"qZ","epoch":1795000000000,"lastSeq":4,"move":true,"fallback":"slow","clientKey":"Y2xpZW50IGtleSBvZiBhbm4","hostKey":"aG9zdCBrZXkgb2YgZnJpZGF5","owner":"47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU","as":"member","ref":1}"#,
    r#"{"type":"LEAVE"}"#,
    r#"{"type":"PING","timestamp":1795000000000}"#,
    r#"{"type":"ALIVE","id":1}"#,
    r#"{"type":"UPDATE_USERNAME","username":"Ann B."}"#,
    r#"{"type":"TOGGLE_GUEST_CONTROL","enabled":true}"#,
    r#"{"type":"TRANSFER_HOST","targetUserId":"bob"}"#,
    r#"{"type":"KICK","targetUserId":"bob"}"#,
    r#"{"type":"BAN","targetUserId":"bob"}"#,
    r#"{"type":"UNBAN","targetUserId":"bob"}"#,
    r#"{"type":"SET_PIN","pin":"4711"}"#,
    r#"{"type":"PLAY_PAUSE","control":"play","currentTime":12.5,"eventTimestamp":1795000000000.5,"film":1,"gate":2,"ref":7}"#,
    r#"{"type":"SEEK","currentTime":93.25,"isPlaying":true,"eventTimestamp":1795000000000,"film":1,"gate":2,"ref":9007199254740992}"#,
    r#"{"type":"SET_RATE","rate":1.25,"film":1,"gate":2}"#,
    r#"{"type":"READY","gateId":3,"targetTime":93.25,"film":1}"#,
    r#"{"type":"PLAYER","state":"failed","reason":"decode","duration":5400.5,"film":1}"#,
    r#"{"type":"HOST_HEARTBEAT","currentTime":12.5,"isPlaying":true,"eventTimestamp":1795000000000}"#,
    r#"{"type":"POSITION_UPDATE","currentTime":12.5,"isPlaying":false}"#,
    r#"{"type":"URL_CHANGE","url":"https://example.org/film.webm","currentTime":93250}"#,
    r#"{"type":"REQUEST_SYNC","respectAutoPlay":true}"#,
    r#"{"type":"SYNC_PLAYBACK","currentTime":12.5,"isPlaying":true,"url":"https://example.org/film.webm"}"#,
    r#"{"type":"SYNC_RESPONSE","to":"bob","currentTime":12.5,"isPlaying":true,"url":"https://example.org/film.webm"}"#,
    r#"{"type":"OFFER","to":"bob","offer":{"type":"offer","sdp":"v=0\r\n"}}"#,
    r#"{"type":"ANSWER","to":"bob","answer":{"type":"answer","sdp":"v=0\r\n"}}"#,
    r#"{"type":"ICE_CANDIDATE","to":"bob","candidate":{"candidate":"candidate:1","sdpMid":"0","sdpMLineIndex":0}}"#,
    r#"{"type":"PLAYBACK_ACK","to":"bob","control":"pause"}"#,
    r#"{"type":"CHAT","text":"ready?"}"#,
    r#"{"type":"CUSTOM","namespace":"org.example.poll","payload":{"vote":2},"to":"bob"}"#,
    r#"{"type":"RAISE_HAND","raised":true}"#,
    r#"{"type":"INVITE_TO_MEMBER","targetUserId":"eve","decline":false,"ref":9}"#,
];

/// Messages of v2 clients, with fields that they omit, add, or write differently.
pub(crate) const V2_MESSAGES: &[&str] = &[
    r#"{"type":"JOIN","roomId":"friday","userId":"ann","username":"","timestamp":1795000000000}"#,
    r#"{"type":"JOIN","roomId":"friday","userId":"ann","username":"Ann","pin":null,"timestamp":1795000000000}"#,
    r#"{"type":"LEAVE","roomId":"friday","userId":"ann","timestamp":1795000000000}"#,
    r#"{"type":"PING","roomId":"friday","userId":"ann","timestamp":1795000000000}"#,
    r#"{"type":"PLAY_PAUSE","roomId":"friday","userId":"ann","control":"pause","currentTime":null,"eventTimestamp":null,"timestamp":1}"#,
    r#"{"type":"SEEK","roomId":"friday","userId":"ann","currentTime":93.25,"isPlaying":true,"timestamp":1}"#,
    r#"{"type":"READY","roomId":"friday","userId":"bob","targetTime":93.25,"timestamp":1}"#,
    r#"{"type":"HOST_HEARTBEAT","roomId":"friday","userId":"ann","currentTime":12,"isPlaying":true,"eventTimestamp":-1}"#,
    r#"{"type":"URL_CHANGE","roomId":"friday","userId":"ann","url":"https://www.netflix.com/watch/1","timestamp":1}"#,
    r#"{"type":"SYNC_PLAYBACK","userId":"ann","currentTime":12.5,"isPlaying":true,"url":""}"#,
    r#"{"type":"SYNC_RESPONSE","userId":"ann","to":"bob","currentTime":12.5,"isPlaying":true}"#,
    r#"{"type":"ICE_CANDIDATE","from":"ann","to":"bob","candidate":null}"#,
    r#"{"type":"SET_PIN","pin":null}"#,
    r#"{"type":"CUSTOM","namespace":"org.example.poll","payload":null}"#,
];
