//! Rooms, events and notices to JSON. One encoding serves all members of a room.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::PROTOCOL;
use super::client_message::PingEcho;
use super::json_text::Embedded;
use super::messages::{
    self, ExactMillis, GateFields, LeftFields, MediaMillis, Millis, RelayedFields, SentFields, Shown, StampFields,
    StandingFields, UserFields,
};
use crate::domain::{CloseCode, ErrorCode, Head, Limits, RoomTime, UserId};
use crate::hub::delivery::{EventDelivery, Joined, Notice, NoticeBody, Refusal, RosterDelivery, Signal};
use crate::room::{By, Cause, ChatLine, Control, Event, Member, Reject, Room};

/// ROOM_STATE for one receiver, in two parts: most of it is one allocation for all who are told it at the same head.
#[derive(Debug)]
pub struct EncodedState {
    /// The JSON object without its last brace.
    shared: Bytes,
    /// The other fields, from the comma that follows the shared ones to the last brace.
    own: Bytes,
}

impl EncodedState {
    /// Bytes of the message.
    pub fn bytes(&self) -> usize {
        self.shared.len() + self.own.len()
    }

    /// The whole message.
    pub fn join(&self) -> Bytes {
        [&self.shared[..], &self.own[..]].concat().into()
    }
}

/// ROOM_STATE for one member or viewer, or for the whole audience.
pub fn encode_state(room: &Room, joined: &Joined<'_>, limits: &Limits) -> EncodedState {
    let shared = joined.shared.get_or_init(|| encode_shared_state(room, joined, limits)).clone();
    let slot = joined.user.and_then(|user| room.member(user)).map(|member| member.slot);
    let own = messages::RoomStateOwnFields {
        current_time: room.playback.position_at(joined.now),
        user_id: joined.user,
        slot,
        session_id: joined.session.map(Shown),
        resume_token: joined.token.map(|token| token.reveal()),
        resumed: joined.resumed,
        room_time: ExactMillis(joined.now),
        role: if slot.is_some() { "member" } else { "audience" },
        audience: joined.audience,
    };
    let mut own = BytesMut::from(event(&own));
    if let Some(brace) = own.first_mut() {
        *brace = b',';
    }
    EncodedState { shared, own: own.freeze() }
}

fn encode_shared_state(room: &Room, joined: &Joined<'_>, limits: &Limits) -> Bytes {
    let mut members: Vec<(&UserId, &Member)> = room.members.iter().collect();
    members.sort_unstable_by_key(|(_, member)| member.slot);
    let capacity = 1024 + 192 * members.len() + 68 * room.bans.len();
    let message = messages::RoomStateMessage {
        room_id: &room.id,
        url: room.url.as_ref(),
        is_playing: room.playback.playing,
        host_user_id: room.host.as_ref(),
        guest_control_enabled: room.guest_control,
        users: members.into_iter().map(|(user, member)| UserFields::new(user, member)).collect(),
        node_id: joined.node,
        protocol: PROTOCOL,
        epoch: room.head.epoch,
        seq: room.head.seq,
        standing: standing(room),
        film: room.film,
        duration: room.duration,
        has_pin: room.pin.is_some(),
        owner: room.owner.as_ref().map(Shown),
        banned: &room.bans,
        grace_ms: limits.grace_secs.saturating_mul(1000),
        heartbeat_ms: limits.heartbeat_secs.saturating_mul(1000),
    };
    let mut message = json(&message, capacity);
    message.truncate(message.len().saturating_sub(1));
    message
}

/// ROSTER: joins and leaves of one commit. A receiver takes those who left out before it takes the others in, so that a
/// member that left and came back stands there as it is now; one that came and left is not among those who joined.
pub fn encode_roster(delivery: &RosterDelivery<'_>) -> Bytes {
    let (mut joined, mut left) = (BTreeMap::new(), Vec::new());
    for (_, event) in delivery.events {
        match event {
            Event::Joined { user, .. } => {
                if let Some(member) = delivery.room.member(user) {
                    joined.insert(member.slot, UserFields::new(user, member));
                }
            }
            Event::Left { user, reason, .. } => left.push(LeftFields { user_id: user, reason: *reason }),
            _ => {}
        }
    }
    let head = delivery.events.last().map_or_else(Head::default, |(head, _)| *head);
    let capacity = 256 + 192 * joined.len() + 96 * left.len();
    let message = messages::RosterMessage {
        left,
        joined: joined.into_values().collect(),
        events: delivery.events.len(),
        stamp: StampFields::new(head, delivery.now),
    };
    json(&message, capacity)
}

/// The message of a committed event. The room's beginning, its end and its keeping have none: no member is there to
/// hear it.
pub fn encode_event(delivery: &EventDelivery<'_>) -> Option<Bytes> {
    let room = delivery.room;
    let stamp = StampFields::new(delivery.head, delivery.now);
    Some(match delivery.event {
        Event::Created { .. } | Event::Kept { .. } | Event::Ended { .. } => return None,
        Event::Joined { user, name, slot, dialect, transport, .. } => event(&messages::UserJoinedMessage {
            user_id: user,
            peer_id: user,
            username: name,
            stamp,
            slot: *slot,
            protocol: dialect.number(),
            transport: *transport,
        }),
        Event::Resumed { user, transport, moved: true, .. } => {
            event(&messages::SessionChangedMessage { user_id: user, stamp, transport: *transport })
        }
        Event::Resumed { user, transport, dialect, .. } => event(&messages::MemberConnectionMessage {
            user_id: user,
            stamp,
            connected: true,
            grace_until: None,
            transport: Some(*transport),
            protocol: Some(dialect.number()),
        }),
        Event::Disconnected { user, until, .. } => event(&messages::MemberConnectionMessage {
            user_id: user,
            stamp,
            connected: false,
            grace_until: Some(Millis(*until)),
            transport: room.member(user).map(|member| member.transport),
            protocol: room.member(user).map(|member| member.dialect.number()),
        }),
        Event::Left { user, reason, .. } => {
            event(&messages::UserLeftMessage { user_id: user, peer_id: user, stamp, reason: *reason })
        }
        Event::Renamed { user, name } => {
            event(&messages::UsernameUpdatedMessage { user_id: user, username: name, stamp })
        }
        Event::HostChanged { host } => event(&messages::HostChangedMessage { host_user_id: host.as_ref(), stamp }),
        Event::GuestControl { enabled } => event(&messages::GuestControlMessage { enabled: *enabled, stamp }),
        Event::PinChanged { pin } => event(&messages::PinChangedMessage { stamp, has_pin: pin.is_some() }),
        Event::BansChanged { .. } => {
            json(&messages::BansChangedMessage { stamp, banned: &room.bans }, 256 + 68 * room.bans.len())
        }
        Event::AudienceCounted { count } => event(&messages::AudienceMessage {
            count: *count,
            timestamp: Millis(delivery.now),
            head: Some(messages::HeadFields { epoch: delivery.head.epoch, seq: delivery.head.seq }),
        }),
        Event::Moved { by, cause, playback, .. } => {
            let standing = StandingFields::new(playback, room.gate.as_ref());
            let user_id = author(by);
            match cause {
                Cause::Control(_) | Cause::Ended => event(&messages::PlayPauseMessage {
                    user_id,
                    control: if playback.playing { Control::Play } else { Control::Pause },
                    // The position with its own time, not the time of sending: a v2 client adds the time since then.
                    current_time: playback.position,
                    event_timestamp: Millis(playback.at),
                    stamp,
                    standing,
                    reason: (*cause == Cause::Ended).then_some("ended"),
                }),
                Cause::Rate => event(&messages::RateChangedMessage { user_id, rate: playback.rate, stamp, standing }),
                Cause::Correction => {
                    event(&messages::CorrectionMessage { reason: "correction", user_id, stamp, standing })
                }
            }
        }
        Event::Sought { by, playback, gate, .. } => event(&messages::SeekPauseMessage {
            user_id: by,
            current_time: playback.position,
            event_timestamp: Millis(playback.at),
            stamp,
            standing: StandingFields::new(playback, gate.as_ref()),
            gate_id: gate.as_ref().map(|gate| gate.id),
        }),
        Event::GateProgress { .. } => event(&messages::ReadyGateMessage {
            outcome: "progress",
            gate: room.gate.as_ref().map(GateFields::new),
            stamp,
        }),
        Event::PlayerChanged { user, player, agreed } => event(&messages::PlayerChangedMessage {
            user_id: user,
            state: player.state,
            reason: player.reason.as_ref(),
            duration: *agreed,
            stamp,
        }),
        Event::UrlChanged { by, url, playback } => event(&messages::UrlChangeMessage {
            user_id: by,
            url,
            current_time: MediaMillis(playback.position),
            stamp,
            standing: StandingFields::new(playback, room.gate.as_ref()),
            film: room.film,
        }),
        Event::Adopted { by, playback, .. } => event(&messages::SyncPlaybackMessage {
            user_id: by,
            current_time: playback.position,
            is_playing: playback.playing,
            // The room's address: the event has none if its sender named none.
            url: room.url.as_ref(),
            stamp,
            standing: StandingFields::new(playback, room.gate.as_ref()),
            film: room.film,
        }),
        Event::Chat { user, text, .. } => {
            let username = room.member(user).map(|member| &member.name);
            json(
                &messages::ChatMessage { user_id: user, username, text, stamp, replayed: None },
                256 + text.as_str().len(),
            )
        }
        Event::Custom { user, namespace, payload } => {
            let message = messages::CustomMessage { user_id: user, namespace, payload: Embedded(payload), stamp };
            json(&message, 256 + payload.len())
        }
    })
}

/// An earlier CHAT, with the head and the time at which it was committed.
pub fn encode_replay(head: Head, line: &ChatLine) -> Bytes {
    let (username, stamp) = (Some(&line.name), StampFields::new(head, line.at));
    let message =
        messages::ChatMessage { user_id: &line.user, username, text: &line.text, stamp, replayed: Some(true) };
    json(&message, 256 + line.text.as_str().len())
}

pub fn encode_notice(notice: &Notice<'_>) -> Bytes {
    let sent = SentFields { timestamp: Millis(notice.now) };
    match &notice.body {
        NoticeBody::Signal { from, to, signal, node } => {
            encode_signal(signal, RelayedFields { from, to, node_id: node, timestamp: Millis(notice.now) })
        }
        NoticeBody::Heartbeat { from, tick } => event(&messages::HostHeartbeatMessage {
            user_id: from,
            current_time: tick.position_at(notice.now),
            is_playing: tick.playing,
            event_timestamp: None,
            sent,
        }),
        NoticeBody::Nudge { position, playing } => event(&messages::NudgeMessage {
            user_id: SERVER,
            current_time: *position,
            is_playing: *playing,
            event_timestamp: None,
            sent,
        }),
        NoticeBody::Sync { room } => event(&messages::SyncResponseMessage {
            from_user_id: SERVER,
            current_time: room.playback.position_at(notice.now),
            is_playing: room.playback.playing,
            url: room.url.as_ref(),
            sent,
            standing: standing(room),
            epoch: room.head.epoch,
            room_seq: room.head.seq,
        }),
        NoticeBody::Audience { count } => {
            event(&messages::AudienceMessage { count: *count, timestamp: sent.timestamp, head: None })
        }
        NoticeBody::Passed { events, head } => {
            event(&messages::PassedMessage { events: *events, stamp: StampFields::new(*head, notice.now) })
        }
        NoticeBody::Hand { user, name, raised } => {
            event(&messages::HandMessage { user_id: user, username: name, raised: *raised, sent })
        }
        NoticeBody::Degraded { degraded } => event(&messages::DegradedMessage { degraded: *degraded, sent }),
        NoticeBody::Reconnect { after } => event(&messages::ReconnectMessage { after_ms: whole_millis(*after), sent }),
    }
}

/// ACK of a command that was committed at `head`.
pub fn encode_reply_ack(reference: u64, head: Head, now: RoomTime) -> Bytes {
    event(&messages::AckMessage { reference, stamp: StampFields::new(head, now) })
}

/// ERROR. `request`: the type refused, empty if unknown.
pub fn encode_error(
    code: ErrorCode,
    message: &str,
    reference: Option<u64>,
    request: &str,
    retry_after: Option<Duration>,
) -> Bytes {
    event(&messages::ErrorMessage {
        message,
        code: code.as_str(),
        reference,
        retry_after_ms: retry_after.map(whole_millis),
        request: Some(request).filter(|request| !request.is_empty()),
    })
}

pub fn encode_pong(echo: Option<&PingEcho>, now: RoomTime) -> Bytes {
    event(&messages::PongMessage { sent: SentFields { timestamp: Millis(now) }, echo })
}

/// PROBE, for a v3 page. ALIVE returns the `id`.
pub fn encode_probe(id: u64, now: RoomTime) -> Bytes {
    event(&messages::ProbeMessage { id, sent: SentFields { timestamp: Millis(now) } })
}

/// CLOSING, the last message of a v3 session that ends in order: it carries the closing code in case the transport
/// loses its own.
pub fn encode_closing(code: CloseCode, reason: &str, now: RoomTime) -> Bytes {
    event(&messages::ClosingMessage { code: code.number(), reason, sent: SentFields { timestamp: Millis(now) } })
}

/// The code of a refusal, and when the client may try again.
pub fn refusal_code(refusal: &Refusal) -> (ErrorCode, Option<Duration>) {
    /// A full queue empties within a few commits, a busy outbox as its client reads.
    const A_MOMENT: Duration = Duration::from_secs(1);
    /// Other sessions have to end first.
    const A_WHILE: Duration = Duration::from_secs(5);
    match refusal {
        Refusal::Room(reject @ Reject::Kicked { retry_after }) => (reject.code(), Some(*retry_after)),
        Refusal::Room(reject) => (reject.code(), None),
        Refusal::PinThrottled { retry_after } => (ErrorCode::PinThrottled, Some(*retry_after)),
        Refusal::JoinThrottled { retry_after } => (ErrorCode::RateLimited, Some(*retry_after)),
        Refusal::OverBudget { retry_after } => (ErrorCode::RateLimited, Some(*retry_after)),
        Refusal::HandsBusy { retry_after } => (ErrorCode::RateLimited, Some(*retry_after)),
        Refusal::Forbidden => (ErrorCode::Forbidden, None),
        Refusal::TargetBusy => (ErrorCode::RateLimited, Some(A_MOMENT)),
        Refusal::SessionLimit => (ErrorCode::SessionLimit, None),
        Refusal::AddressFull => (ErrorCode::Overloaded, Some(A_WHILE)),
        Refusal::RoomLimit => (ErrorCode::RoomLimit, None),
        Refusal::Overloaded => (ErrorCode::Overloaded, Some(A_MOMENT)),
        Refusal::Unavailable | Refusal::Draining => (ErrorCode::Unavailable, None),
        Refusal::Internal => (ErrorCode::Internal, None),
    }
}

/// The sender of what the room itself does.
const SERVER: &str = "server";

fn author(by: &By) -> &str {
    match by {
        By::Member(user) => user.as_str(),
        By::Server => SERVER,
    }
}

fn standing(room: &Room) -> StandingFields<'_> {
    StandingFields::new(&room.playback, room.gate.as_ref())
}

fn encode_signal(signal: &Signal, relayed: RelayedFields<'_>) -> Bytes {
    let from = relayed.from;
    match signal {
        Signal::Offer { offer } => json(&messages::OfferMessage { offer: Embedded(offer), relayed }, 256 + offer.len()),
        Signal::Answer { answer } => {
            json(&messages::AnswerMessage { answer: Embedded(answer), relayed }, 256 + answer.len())
        }
        Signal::IceCandidate { candidate } => {
            json(&messages::IceCandidateMessage { candidate: Embedded(candidate), relayed }, 256 + candidate.len())
        }
        Signal::PlaybackAck { control } => event(&messages::PlaybackAckMessage { control: *control, relayed }),
        Signal::SyncResponse { position, playing, url } => event(&messages::DirectSyncMessage {
            from_user_id: from,
            current_time: *position,
            is_playing: *playing,
            url: url.as_ref(),
            relayed,
        }),
        Signal::Custom { namespace, payload } => {
            let message =
                messages::DirectCustomMessage { user_id: from, namespace, payload: Embedded(payload), relayed };
            json(&message, 256 + payload.len())
        }
    }
}

/// Rounded up: a client that waits this long must not come too early.
fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A message of ordinary size.
fn event(message: &impl Serialize) -> Bytes {
    json(message, 384)
}

fn json(message: &impl Serialize, capacity: usize) -> Bytes {
    let mut out = Vec::with_capacity(capacity);
    match serde_json::to_writer(&mut out, message) {
        Ok(()) => out.into(),
        // Serialising these structs to memory can't fail; if it did, one message would be lost and not the process.
        Err(error) => {
            tracing::error!(%error, "a message could not be encoded");
            debug_assert!(false, "a message could not be encoded: {error}");
            Bytes::from_static(br#"{"type":"ERROR","message":"a fault of the server","code":"INTERNAL"}"#)
        }
    }
}
