//! The server's messages on the wire: v2's fields first, in v2's order, then the stamp, then the fields of v3. All
//! borrowed; serialising one writes straight into the outgoing buffer. ROOM_STATE alone has two parts: one that all
//! receivers share, and one of each receiver ([`RoomStateOwnFields`]).

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::{Serialize, Serializer};

use super::client_message::PingEcho;
use super::json_text::Embedded;
use crate::domain::{
    ChatText, Head, MediaTime, MediaUrl, MemberSlot, Namespace, NodeId, PlayerReason, PlayerState, Rate, RoomId,
    RoomTime, TransportKind, UserId, Username,
};
use crate::room::{self, Control, LeaveReason};

/// Room time in whole ms, as v2 reads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Millis(pub(super) RoomTime);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_i64(self.0.as_micros().saturating_add(500).div_euclid(1000))
    }
}

/// A position in ms, as URL_CHANGE alone has it: v2 relayed that message unchanged.
#[derive(Debug, Clone, Copy)]
pub(super) struct MediaMillis(pub(super) MediaTime);

impl Serialize for MediaMillis {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u64((self.0.seconds() * 1000.0).round() as u64)
    }
}

/// Room time in ms, with a fraction only if it isn't whole.
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

/// Serialises a value by its `Display`.
pub(super) struct Shown<T>(pub(super) T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&self.0)
    }
}

/// The time of sending.
#[derive(Serialize)]
pub(super) struct SentFields {
    pub(super) timestamp: Millis,
}

/// The time of sending, and the place in the room's order.
#[derive(Serialize)]
pub(super) struct StampFields {
    pub(super) timestamp: Millis,
    pub(super) epoch: u64,
    pub(super) seq: u64,
}

impl StampFields {
    pub(super) fn new(head: Head, now: RoomTime) -> Self {
        Self { timestamp: Millis(now), epoch: head.epoch, seq: head.seq }
    }
}

/// The place in the room's order.
#[derive(Serialize)]
pub(super) struct HeadFields {
    pub(super) epoch: u64,
    pub(super) seq: u64,
}

/// `playback` always comes with `gate`, so that one event is one message.
#[derive(Serialize)]
pub(super) struct StandingFields<'a> {
    playback: PlaybackFields,
    gate: Option<GateFields<'a>>,
}

impl<'a> StandingFields<'a> {
    pub(super) fn new(playback: &room::Playback, gate: Option<&'a room::ReadyGate>) -> Self {
        Self { playback: PlaybackFields::new(playback), gate: gate.map(GateFields::new) }
    }
}

#[derive(Serialize)]
struct PlaybackFields {
    position: MediaTime,
    rate: Rate,
    playing: bool,
    at: ExactMillis,
    seq: u64,
}

impl PlaybackFields {
    fn new(playback: &room::Playback) -> Self {
        let room::Playback { position, rate, playing, at, seq } = *playback;
        Self { position, rate, playing, at: ExactMillis(at), seq }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GateFields<'a> {
    id: u32,
    target_time: MediaTime,
    awaiting: &'a BTreeSet<UserId>,
    ready: &'a BTreeSet<UserId>,
    deadline: Millis,
    by: &'a UserId,
}

impl<'a> GateFields<'a> {
    pub(super) fn new(gate: &'a room::ReadyGate) -> Self {
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
    RoomStateMessage<'a> = "ROOM_STATE" {
        room_id: &'a RoomId,
        url: Option<&'a MediaUrl>,
        is_playing: bool,
        host_user_id: Option<&'a UserId>,
        guest_control_enabled: bool,
        users: Vec<UserFields<'a>>,
        node_id: &'a NodeId,
        protocol: u8,
        epoch: u64,
        seq: u64,
        #[serde(flatten)] standing: StandingFields<'a>,
        film: u32,
        duration: Option<MediaTime>,
        has_pin: bool,
        owner: Option<Shown<&'a crate::domain::KeyHash>>,
        banned: &'a BTreeSet<UserId>,
        grace_ms: u64,
        heartbeat_ms: u64,
    }
    UserJoinedMessage<'a> = "USER_JOINED" {
        user_id: &'a UserId,
        peer_id: &'a UserId,
        username: &'a Username,
        #[serde(flatten)] stamp: StampFields,
        slot: MemberSlot,
        protocol: u8,
        transport: TransportKind,
    }
    UserLeftMessage<'a> = "USER_LEFT" {
        user_id: &'a UserId,
        peer_id: &'a UserId,
        #[serde(flatten)] stamp: StampFields,
        reason: LeaveReason,
    }
    /// Joins and leaves of one commit.
    RosterMessage<'a> = "ROSTER" {
        left: Vec<LeftFields<'a>>,
        joined: Vec<UserFields<'a>>,
        events: usize,
        #[serde(flatten)] stamp: StampFields,
    }
    MemberConnectionMessage<'a> = "MEMBER_CONNECTION" {
        user_id: &'a UserId,
        #[serde(flatten)] stamp: StampFields,
        connected: bool,
        grace_until: Option<Millis>,
        transport: Option<TransportKind>,
        protocol: Option<u8>,
    }
    SessionChangedMessage<'a> = "SESSION_CHANGED" {
        user_id: &'a UserId,
        #[serde(flatten)] stamp: StampFields,
        transport: TransportKind,
    }
    HostChangedMessage<'a> = "HOST_CHANGED" {
        host_user_id: Option<&'a UserId>,
        #[serde(flatten)] stamp: StampFields,
    }
    GuestControlMessage = "GUEST_CONTROL" {
        enabled: bool,
        #[serde(flatten)] stamp: StampFields,
    }
    UsernameUpdatedMessage<'a> = "USERNAME_UPDATED" {
        user_id: &'a UserId,
        username: &'a Username,
        #[serde(flatten)] stamp: StampFields,
    }
    PinChangedMessage = "PIN_CHANGED" {
        #[serde(flatten)] stamp: StampFields,
        has_pin: bool,
    }
    BansChangedMessage<'a> = "BANS_CHANGED" {
        #[serde(flatten)] stamp: StampFields,
        banned: &'a BTreeSet<UserId>,
    }
    PlayPauseMessage<'a> = "PLAY_PAUSE" {
        user_id: &'a str,
        control: Control,
        current_time: MediaTime,
        event_timestamp: Millis,
        #[serde(flatten)] stamp: StampFields,
        #[serde(flatten)] standing: StandingFields<'a>,
        #[serde(skip_serializing_if = "Option::is_none")] reason: Option<&'static str>,
    }
    SeekPauseMessage<'a> = "SEEK_PAUSE" {
        user_id: &'a UserId,
        current_time: MediaTime,
        event_timestamp: Millis,
        #[serde(flatten)] stamp: StampFields,
        #[serde(flatten)] standing: StandingFields<'a>,
        gate_id: Option<u32>,
    }
    RateChangedMessage<'a> = "RATE_CHANGED" {
        user_id: &'a str,
        rate: Rate,
        #[serde(flatten)] stamp: StampFields,
        #[serde(flatten)] standing: StandingFields<'a>,
    }
    UrlChangeMessage<'a> = "URL_CHANGE" {
        user_id: &'a UserId,
        url: &'a MediaUrl,
        current_time: MediaMillis,
        #[serde(flatten)] stamp: StampFields,
        #[serde(flatten)] standing: StandingFields<'a>,
        film: u32,
    }
    SyncPlaybackMessage<'a> = "SYNC_PLAYBACK" {
        user_id: &'a UserId,
        current_time: MediaTime,
        is_playing: bool,
        url: Option<&'a MediaUrl>,
        #[serde(flatten)] stamp: StampFields,
        #[serde(flatten)] standing: StandingFields<'a>,
        film: u32,
    }
    CorrectionMessage<'a> = "PLAYBACK" {
        reason: &'static str,
        user_id: &'a str,
        #[serde(flatten)] stamp: StampFields,
        #[serde(flatten)] standing: StandingFields<'a>,
    }
    ReadyGateMessage<'a> = "READY_GATE" {
        outcome: &'static str,
        gate: Option<GateFields<'a>>,
        #[serde(flatten)] stamp: StampFields,
    }
    PlayerChangedMessage<'a> = "PLAYER_STATE" {
        user_id: &'a UserId,
        state: PlayerState,
        #[serde(skip_serializing_if = "Option::is_none")] reason: Option<&'a PlayerReason>,
        duration: Option<MediaTime>,
        #[serde(flatten)] stamp: StampFields,
    }
    ChatMessage<'a> = "CHAT" {
        user_id: &'a UserId,
        username: Option<&'a Username>,
        text: &'a ChatText,
        #[serde(flatten)] stamp: StampFields,
        #[serde(skip_serializing_if = "Option::is_none")] replayed: Option<bool>,
    }
    /// CUSTOM to all members; to one it is a [`DirectCustomMessage`].
    CustomMessage<'a> = "CUSTOM" {
        user_id: &'a UserId,
        namespace: &'a Namespace,
        payload: Embedded<'a>,
        #[serde(flatten)] stamp: StampFields,
    }
    /// Of the server; of a member it is a [`DirectSyncMessage`].
    SyncResponseMessage<'a> = "SYNC_RESPONSE" {
        from_user_id: &'a str,
        current_time: MediaTime,
        is_playing: bool,
        url: Option<&'a MediaUrl>,
        #[serde(flatten)] sent: SentFields,
        #[serde(flatten)] standing: StandingFields<'a>,
        epoch: u64,
        room_seq: u64,
    }
    HostHeartbeatMessage<'a> = "HOST_HEARTBEAT" {
        user_id: &'a UserId,
        current_time: MediaTime,
        is_playing: bool,
        event_timestamp: Option<Millis>,
        #[serde(flatten)] sent: SentFields,
    }
    NudgeMessage<'a> = "SEEK" {
        user_id: &'a str,
        current_time: MediaTime,
        is_playing: bool,
        event_timestamp: Option<Millis>,
        #[serde(flatten)] sent: SentFields,
    }
    OfferMessage<'a> = "OFFER" {
        offer: Embedded<'a>,
        #[serde(flatten)] relayed: RelayedFields<'a>,
    }
    AnswerMessage<'a> = "ANSWER" {
        answer: Embedded<'a>,
        #[serde(flatten)] relayed: RelayedFields<'a>,
    }
    IceCandidateMessage<'a> = "ICE_CANDIDATE" {
        candidate: Embedded<'a>,
        #[serde(flatten)] relayed: RelayedFields<'a>,
    }
    PlaybackAckMessage<'a> = "PLAYBACK_ACK" {
        control: Control,
        #[serde(flatten)] relayed: RelayedFields<'a>,
    }
    AudienceMessage = "AUDIENCE" {
        count: u32,
        timestamp: Millis,
        #[serde(flatten)] head: Option<HeadFields>,
    }
    PassedMessage = "PASSED" {
        events: u64,
        #[serde(flatten)] stamp: StampFields,
    }
    HandMessage<'a> = "HAND" {
        user_id: &'a UserId,
        username: &'a Username,
        raised: bool,
        #[serde(flatten)] sent: SentFields,
    }
    PongMessage<'a> = "PONG" {
        #[serde(flatten)] sent: SentFields,
        echo: Option<&'a PingEcho>,
    }
    AckMessage = "ACK" {
        #[serde(rename = "ref")] reference: u64,
        #[serde(flatten)] stamp: StampFields,
    }
    DegradedMessage = "DEGRADED" {
        degraded: bool,
        #[serde(flatten)] sent: SentFields,
    }
    ReconnectMessage = "RECONNECT" {
        after_ms: u64,
        #[serde(flatten)] sent: SentFields,
    }
    ProbeMessage = "PROBE" {
        id: u64,
        #[serde(flatten)] sent: SentFields,
    }
    ClosingMessage<'a> = "CLOSING" {
        code: u16,
        reason: &'a str,
        #[serde(flatten)] sent: SentFields,
    }
    ErrorMessage<'a> = "ERROR" {
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
pub(super) struct LeftFields<'a> {
    pub(super) user_id: &'a UserId,
    pub(super) reason: LeaveReason,
}

/// The part of ROOM_STATE that no two receivers share: the position is the one at the time of sending.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoomStateOwnFields<'a> {
    pub(super) current_time: MediaTime,
    pub(super) user_id: Option<&'a UserId>,
    pub(super) slot: Option<MemberSlot>,
    pub(super) session_id: Option<Shown<&'a crate::domain::SessionRef>>,
    pub(super) resume_token: Option<&'a str>,
    pub(super) resumed: bool,
    pub(super) room_time: ExactMillis,
    pub(super) role: &'static str,
    pub(super) audience: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserFields<'a> {
    user_id: &'a UserId,
    username: &'a Username,
    slot: MemberSlot,
    connected: bool,
    protocol: u8,
    transport: TransportKind,
    joined_at: Millis,
    player: PlayerState,
    player_reason: Option<&'a PlayerReason>,
}

impl<'a> UserFields<'a> {
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

/// The part of a relayed signal that only the server writes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RelayedFields<'a> {
    pub(super) from: &'a UserId,
    pub(super) to: &'a UserId,
    pub(super) node_id: &'a NodeId,
    pub(super) timestamp: Millis,
}

/// CUSTOM from one member to one other.
#[derive(Serialize)]
#[serde(tag = "type", rename = "CUSTOM", rename_all = "camelCase")]
pub(super) struct DirectCustomMessage<'a> {
    pub(super) user_id: &'a UserId,
    pub(super) namespace: &'a Namespace,
    pub(super) payload: Embedded<'a>,
    #[serde(flatten)]
    pub(super) relayed: RelayedFields<'a>,
}

/// SYNC_RESPONSE from one member to one other.
#[derive(Serialize)]
#[serde(tag = "type", rename = "SYNC_RESPONSE", rename_all = "camelCase")]
pub(super) struct DirectSyncMessage<'a> {
    pub(super) from_user_id: &'a UserId,
    pub(super) current_time: MediaTime,
    pub(super) is_playing: bool,
    pub(super) url: Option<&'a MediaUrl>,
    #[serde(flatten)]
    pub(super) relayed: RelayedFields<'a>,
}
