//! The server's messages as they stand on the wire: v2's fields first, in v2's order, then the stamp, then what v3 adds.
//! Everything is borrowed; serialising one writes straight into the outgoing buffer.

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::{Serialize, Serializer};

use super::client_message::Echo;
use super::json_text::Embedded;
use crate::domain::{
    ChatText, Head, MediaTime, MediaUrl, Namespace, NodeId, PlayerReason, PlayerState, Rate, RoomId, RoomTime, Slot,
    TransportKind, UserId, Username,
};
use crate::room::{self, Control, LeaveReason};

/// Room time in whole ms: what v2 reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Millis(pub(super) RoomTime);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_i64(self.0.as_micros().saturating_add(500).div_euclid(1000))
    }
}

/// A position in ms: what URL_CHANGE alone speaks, since v2 relayed it as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct MediaMillis(pub(super) MediaTime);

impl Serialize for MediaMillis {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u64((self.0.seconds() * 1000.0).round() as u64)
    }
}

/// Room time in ms to the microsecond, without a fraction where there is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExactMillis(pub(super) RoomTime);

impl Serialize for ExactMillis {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        if self.0.as_micros() % 1000 == 0 {
            out.serialize_i64(self.0.as_millis())
        } else {
            out.serialize_f64(self.0.as_millis_f64())
        }
    }
}

/// A value that knows its own text.
pub(super) struct Shown<T>(pub(super) T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&self.0)
    }
}

/// When the server sent it.
#[derive(Serialize)]
pub(super) struct Sent {
    pub(super) timestamp: Millis,
}

/// When the server sent it, and its place in the room's order.
#[derive(Serialize)]
pub(super) struct Stamp {
    pub(super) timestamp: Millis,
    pub(super) epoch: u64,
    pub(super) seq: u64,
}

impl Stamp {
    pub(super) fn new(head: Head, now: RoomTime) -> Self {
        Self { timestamp: Millis(now), epoch: head.epoch, seq: head.seq }
    }
}

/// `playback` never comes without `gate`: so one event is one message.
#[derive(Serialize)]
pub(super) struct Standing<'a> {
    playback: Playback,
    gate: Option<Gate<'a>>,
}

impl<'a> Standing<'a> {
    pub(super) fn new(playback: &room::Playback, gate: Option<&'a room::Gate>) -> Self {
        Self { playback: Playback::new(playback), gate: gate.map(Gate::new) }
    }
}

#[derive(Serialize)]
struct Playback {
    position: MediaTime,
    rate: Rate,
    playing: bool,
    at: ExactMillis,
    seq: u64,
}

impl Playback {
    fn new(playback: &room::Playback) -> Self {
        let room::Playback { position, rate, playing, at, seq } = *playback;
        Self { position, rate, playing, at: ExactMillis(at), seq }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Gate<'a> {
    id: u32,
    target_time: MediaTime,
    awaiting: &'a BTreeSet<UserId>,
    ready: &'a BTreeSet<UserId>,
    deadline: Millis,
    by: &'a UserId,
}

impl<'a> Gate<'a> {
    pub(super) fn new(gate: &'a room::Gate) -> Self {
        Self {
            id: gate.id,
            target_time: gate.target,
            awaiting: &gate.awaiting,
            ready: &gate.ready,
            deadline: Millis(gate.deadline),
            by: &gate.by,
        }
    }
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident $(<$life:lifetime>)? = $kind:literal {
        $($(#[$attribute:meta])* $field:ident: $type:ty,)*
    })*) => {
        /// Every type that the server sends, in the order of the documentation.
        pub const SERVER_KINDS: &[&str] = &[$($kind,)*];

        $(
            $(#[$doc])*
            #[derive(Serialize)]
            #[serde(tag = "type", rename = $kind, rename_all = "camelCase")]
            pub(super) struct $name $(<$life>)? {
                $($(#[$attribute])* pub(super) $field: $type,)*
            }
        )*
    };
}

messages! {
    RoomState<'a> = "ROOM_STATE" {
        room_id: &'a RoomId,
        url: Option<&'a MediaUrl>,
        current_time: MediaTime,
        is_playing: bool,
        host_user_id: Option<&'a UserId>,
        guest_control_enabled: bool,
        users: Vec<User<'a>>,
        node_id: &'a NodeId,
        protocol: u8,
        user_id: &'a UserId,
        slot: Option<Slot>,
        session_id: Shown<&'a crate::domain::SessionRef>,
        resume_token: Option<&'a str>,
        resumed: bool,
        epoch: u64,
        seq: u64,
        room_time: ExactMillis,
        #[serde(flatten)] standing: Standing<'a>,
        film: u32,
        duration: Option<MediaTime>,
        has_pin: bool,
        owner: Option<Shown<&'a crate::domain::KeyHash>>,
        banned: &'a BTreeSet<UserId>,
        grace_ms: u64,
        heartbeat_ms: u64,
    }
    UserJoined<'a> = "USER_JOINED" {
        user_id: &'a UserId,
        peer_id: &'a UserId,
        username: &'a Username,
        #[serde(flatten)] stamp: Stamp,
        slot: Slot,
        protocol: u8,
        transport: TransportKind,
    }
    UserLeft<'a> = "USER_LEFT" {
        user_id: &'a UserId,
        peer_id: &'a UserId,
        #[serde(flatten)] stamp: Stamp,
        reason: LeaveReason,
    }
    MemberConnection<'a> = "MEMBER_CONNECTION" {
        user_id: &'a UserId,
        #[serde(flatten)] stamp: Stamp,
        connected: bool,
        grace_until: Option<Millis>,
        transport: Option<TransportKind>,
        protocol: Option<u8>,
    }
    HostChanged<'a> = "HOST_CHANGED" {
        host_user_id: Option<&'a UserId>,
        #[serde(flatten)] stamp: Stamp,
    }
    GuestControl = "GUEST_CONTROL" {
        enabled: bool,
        #[serde(flatten)] stamp: Stamp,
    }
    UsernameUpdated<'a> = "USERNAME_UPDATED" {
        user_id: &'a UserId,
        username: &'a Username,
        #[serde(flatten)] stamp: Stamp,
    }
    PinChanged = "PIN_CHANGED" {
        #[serde(flatten)] stamp: Stamp,
        has_pin: bool,
    }
    BansChanged<'a> = "BANS_CHANGED" {
        #[serde(flatten)] stamp: Stamp,
        banned: &'a BTreeSet<UserId>,
    }
    PlayPause<'a> = "PLAY_PAUSE" {
        user_id: &'a str,
        control: Control,
        current_time: MediaTime,
        event_timestamp: Millis,
        #[serde(flatten)] stamp: Stamp,
        #[serde(flatten)] standing: Standing<'a>,
        #[serde(skip_serializing_if = "Option::is_none")] reason: Option<&'static str>,
    }
    SeekPause<'a> = "SEEK_PAUSE" {
        user_id: &'a UserId,
        current_time: MediaTime,
        event_timestamp: Millis,
        #[serde(flatten)] stamp: Stamp,
        #[serde(flatten)] standing: Standing<'a>,
        gate_id: Option<u32>,
    }
    RateChanged<'a> = "RATE_CHANGED" {
        user_id: &'a str,
        rate: Rate,
        #[serde(flatten)] stamp: Stamp,
        #[serde(flatten)] standing: Standing<'a>,
    }
    UrlChange<'a> = "URL_CHANGE" {
        user_id: &'a UserId,
        url: &'a MediaUrl,
        current_time: MediaMillis,
        #[serde(flatten)] stamp: Stamp,
        #[serde(flatten)] standing: Standing<'a>,
        film: u32,
    }
    SyncPlayback<'a> = "SYNC_PLAYBACK" {
        user_id: &'a UserId,
        current_time: MediaTime,
        is_playing: bool,
        url: Option<&'a MediaUrl>,
        #[serde(flatten)] stamp: Stamp,
        #[serde(flatten)] standing: Standing<'a>,
        film: u32,
    }
    /// The vector of a correction.
    Correction<'a> = "PLAYBACK" {
        reason: &'static str,
        user_id: &'a str,
        #[serde(flatten)] stamp: Stamp,
        #[serde(flatten)] standing: Standing<'a>,
    }
    ReadyGate<'a> = "READY_GATE" {
        outcome: &'static str,
        gate: Option<Gate<'a>>,
        #[serde(flatten)] stamp: Stamp,
    }
    PlayerChanged<'a> = "PLAYER_STATE" {
        user_id: &'a UserId,
        state: PlayerState,
        #[serde(skip_serializing_if = "Option::is_none")] reason: Option<&'a PlayerReason>,
        duration: Option<MediaTime>,
        #[serde(flatten)] stamp: Stamp,
    }
    Chat<'a> = "CHAT" {
        user_id: &'a UserId,
        username: Option<&'a Username>,
        text: &'a ChatText,
        #[serde(flatten)] stamp: Stamp,
        #[serde(skip_serializing_if = "Option::is_none")] replayed: Option<bool>,
    }
    /// To all; to one it is a [`Relayed`].
    Custom<'a> = "CUSTOM" {
        user_id: &'a UserId,
        namespace: &'a Namespace,
        payload: Embedded<'a>,
        #[serde(flatten)] stamp: Stamp,
    }
    /// The server's; a member's is a [`Relayed`].
    SyncResponse<'a> = "SYNC_RESPONSE" {
        from_user_id: &'a str,
        current_time: MediaTime,
        is_playing: bool,
        url: Option<&'a MediaUrl>,
        #[serde(flatten)] sent: Sent,
        #[serde(flatten)] standing: Standing<'a>,
        epoch: u64,
        room_seq: u64,
    }
    HostHeartbeat<'a> = "HOST_HEARTBEAT" {
        user_id: &'a UserId,
        current_time: MediaTime,
        is_playing: bool,
        event_timestamp: Millis,
        #[serde(flatten)] sent: Sent,
    }
    Status<'a> = "MEMBER_STATUS" {
        user_id: &'a UserId,
        #[serde(flatten)] sent: Sent,
        transport: TransportKind,
        rtt_ms: Option<f64>,
        drift_ms: Option<f64>,
        clock_error_ms: Option<f64>,
        buffering: bool,
    }
    Offer<'a> = "OFFER" {
        offer: Embedded<'a>,
        #[serde(flatten)] relayed: Relayed<'a>,
    }
    Answer<'a> = "ANSWER" {
        answer: Embedded<'a>,
        #[serde(flatten)] relayed: Relayed<'a>,
    }
    IceCandidate<'a> = "ICE_CANDIDATE" {
        candidate: Embedded<'a>,
        #[serde(flatten)] relayed: Relayed<'a>,
    }
    PlaybackAck<'a> = "PLAYBACK_ACK" {
        control: Control,
        #[serde(flatten)] relayed: Relayed<'a>,
    }
    Pong<'a> = "PONG" {
        #[serde(flatten)] sent: Sent,
        echo: Option<&'a Echo>,
    }
    Ack = "ACK" {
        #[serde(rename = "ref")] reference: u64,
        #[serde(flatten)] stamp: Stamp,
    }
    Degraded = "DEGRADED" {
        degraded: bool,
        #[serde(flatten)] sent: Sent,
    }
    Reconnect = "RECONNECT" {
        after_ms: u64,
        #[serde(flatten)] sent: Sent,
    }
    Probe = "PROBE" {
        id: u64,
        #[serde(flatten)] sent: Sent,
    }
    Closing<'a> = "CLOSING" {
        code: u16,
        reason: &'a str,
        #[serde(flatten)] sent: Sent,
    }
    Error<'a> = "ERROR" {
        message: &'a str,
        code: &'static str,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")] reference: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")] retry_after_ms: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")] request: Option<&'a str>,
    }
}

/// A member in ROOM_STATE.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct User<'a> {
    user_id: &'a UserId,
    username: &'a Username,
    slot: Slot,
    connected: bool,
    protocol: u8,
    transport: TransportKind,
    joined_at: Millis,
    player: PlayerState,
    player_reason: Option<&'a PlayerReason>,
}

impl<'a> User<'a> {
    pub(super) fn new(user_id: &'a UserId, member: &'a room::Member) -> Self {
        Self {
            user_id,
            username: &member.name,
            slot: member.slot,
            connected: member.is_live(),
            protocol: member.dialect.number(),
            transport: member.transport,
            joined_at: Millis(member.joined_at),
            player: member.player.state,
            player_reason: member.player.reason.as_ref(),
        }
    }
}

/// The server's part of what one member sends another: the sender can't write any of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Relayed<'a> {
    pub(super) from: &'a UserId,
    pub(super) to: &'a UserId,
    pub(super) node_id: &'a NodeId,
    pub(super) timestamp: Millis,
}

/// CUSTOM from one member to one other.
#[derive(Serialize)]
#[serde(tag = "type", rename = "CUSTOM", rename_all = "camelCase")]
pub(super) struct DirectCustom<'a> {
    pub(super) user_id: &'a UserId,
    pub(super) namespace: &'a Namespace,
    pub(super) payload: Embedded<'a>,
    #[serde(flatten)]
    pub(super) relayed: Relayed<'a>,
}

/// SYNC_RESPONSE from one member to one other.
#[derive(Serialize)]
#[serde(tag = "type", rename = "SYNC_RESPONSE", rename_all = "camelCase")]
pub(super) struct DirectSync<'a> {
    pub(super) from_user_id: &'a UserId,
    pub(super) current_time: MediaTime,
    pub(super) is_playing: bool,
    pub(super) url: Option<&'a MediaUrl>,
    #[serde(flatten)]
    pub(super) relayed: Relayed<'a>,
}
