//! Messages of the ephemeral lane from node to node: [`Log::publish`](crate::log::Log::publish) takes them, and
//! [`Log::follow`](crate::log::Log::follow) brings them among the commits, which they are no part of.
//!
//! ```text
//! version u8 · kind u8 · user · node · session u64 · what the kind has
//! version u8 · kind u8 (digest) · node · part
//! ```
//!
//! A kind without a sender has neither user nor session. Numbers are big-endian. Ids and names have one byte of length,
//! texts have four. During an update nodes of two versions run side by side: a node ignores what it can't read (another
//! version, an unknown kind), and the ephemeral lane guarantees no delivery. Version 1 (JSON, tandem 3.0.0) is ignored,
//! and its nodes ignore this one: while both run, a member's ticks, statuses and signals reach only the members on
//! nodes of its version; commands reach all.
//! Within a version a kind may be added, and a field at the end of a kind; a field whose meaning changes takes a new
//! version.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::value::{Error as NotAUrl, StrDeserializer};

use super::delivery::Signal;
use super::digest::DigestPart;
use super::room_cell::audience::{AudiencePart, RaisedHand};
use crate::commit::binary::{ByteReader, ByteWriter, WireError};
use crate::domain::{
    KeyHash, Measurement, MediaTime, MediaUrl, MemberSlot, Namespace, NodeId, Rate, RelayedTick, SessionRef,
    StatusReport, UserId, Username,
};
use crate::room::Control;

const VERSION: u8 = 2;
/// A signal is as long as a client's message may be (`MAX_MESSAGE_BYTES` ≤ 1 MiB), plus what is written around it.
const LONGEST: usize = (1 << 20) + 4096;

const TICK: u8 = 1;
const STATUS: u8 = 2;
const SIGNAL: u8 = 3;
const GONE: u8 = 4;
const BUSY: u8 = 5;
const PROBE: u8 = 6;
const DIGEST: u8 = 7;
/// Has no sender: the node itself speaks.
const AUDIENCE: u8 = 16;
const INVITE: u8 = 17;
const NOT_INVITED: u8 = 18;

const OFFER: u8 = 1;
const ANSWER: u8 = 2;
const ICE_CANDIDATE: u8 = 3;
const PLAYBACK_ACK: u8 = 4;
const SYNC_RESPONSE: u8 = 5;
const CUSTOM: u8 = 6;

/// Flags of a tick.
const PLAYING: u8 = 1;
const FROM_HOST: u8 = 2;
const HEARTBEAT: u8 = 4;

/// Flags of a status.
const BUFFERING: u8 = 1;
const HAS_RTT: u8 = 2;
const HAS_DRIFT: u8 = 4;
const HAS_CLOCK_ERROR: u8 = 8;
const IN_CALL: u8 = 16;

/// `user` and `session` are the sender's. The receiver compares them with its own replica, so that a node can't speak
/// for a member whose session it doesn't hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Relay {
    /// A position report, for every node with members. The receiver replaces slot and host flag by what its replica
    /// shows.
    Tick {
        user: UserId,
        session: SessionRef,
        tick: RelayedTick,
        /// Whether v2 members are told, too.
        heartbeat: bool,
    },
    /// A member's own measurements, for every node with v3 members.
    Status { user: UserId, session: SessionRef, status: StatusReport },
    /// A signal from one member to one other, for the target's node.
    Signal {
        user: UserId,
        session: SessionRef,
        to: UserId,
        signal: Signal,
        /// The message type, for the answer if the target is gone.
        request: String,
        /// The client's `ref`.
        reference: Option<u64>,
    },
    /// Answer to a signal whose target has left. For the sender's node; `user` and `session` are the sender's.
    Gone { user: UserId, session: SessionRef, request: String, reference: Option<u64> },
    /// Answer to a signal for which the target's outbox had no room. For the sender's node, like [`Relay::Gone`].
    Busy { user: UserId, session: SessionRef, request: String, reference: Option<u64> },
    /// A node's count of its viewers, and their raised hands, for every node that follows the room; once a second.
    Audience { node: NodeId, part: AudiencePart },
    /// The host's answer to the raised hand of a viewer, for that viewer's node. `user` and `session` are the host's.
    Invite {
        user: UserId,
        session: SessionRef,
        viewer: SessionRef,
        decline: bool,
        request: String,
        reference: Option<u64>,
    },
    /// Answer to an invitation that came to nothing: the room is full, or the viewer is gone. For the host's node.
    NotInvited { user: UserId, session: SessionRef, full: bool, request: String, reference: Option<u64> },
    /// Probes a session, for the node that holds it. `user` and `session` are those probed.
    Probe { user: UserId, session: SessionRef },
    /// How the members of a large room do whose sessions are on `node`, for every node with v3 members.
    Digest { node: NodeId, part: DigestPart },
}

impl Relay {
    pub fn encode(&self) -> Bytes {
        let mut out = ByteWriter(Vec::with_capacity(96));
        match self {
            Self::Tick { user, session, tick, heartbeat } => {
                header(&mut out, TICK, user, session);
                write_tick(&mut out, tick, *heartbeat);
            }
            Self::Status { user, session, status } => {
                header(&mut out, STATUS, user, session);
                write_status(&mut out, status);
            }
            Self::Signal { user, session, to, signal, request, reference } => {
                header(&mut out, SIGNAL, user, session);
                out.short(to.as_str());
                write_answer_to(&mut out, request, *reference);
                write_signal(&mut out, signal);
            }
            Self::Gone { user, session, request, reference } => {
                header(&mut out, GONE, user, session);
                write_answer_to(&mut out, request, *reference);
            }
            Self::Busy { user, session, request, reference } => {
                header(&mut out, BUSY, user, session);
                write_answer_to(&mut out, request, *reference);
            }
            Self::Audience { node, part } => {
                out.0.extend_from_slice(&[VERSION, AUDIENCE]);
                out.short(node.as_str());
                write_part(&mut out, part);
            }
            Self::Invite { user, session, viewer, decline, request, reference } => {
                header(&mut out, INVITE, user, session);
                write_session(&mut out, viewer);
                out.flag(*decline);
                write_answer_to(&mut out, request, *reference);
            }
            Self::NotInvited { user, session, full, request, reference } => {
                header(&mut out, NOT_INVITED, user, session);
                out.flag(*full);
                write_answer_to(&mut out, request, *reference);
            }
            Self::Probe { user, session } => header(&mut out, PROBE, user, session),
            Self::Digest { node, part } => {
                out.0.extend_from_slice(&[VERSION, DIGEST]);
                out.short(node.as_str());
                let mut bytes = Vec::with_capacity(256);
                part.encode(&mut bytes);
                out.bytes(&bytes);
            }
        }
        out.0.into()
    }

    /// `None`: another version, an unknown kind, or bytes that no node writes.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        read(ByteReader(bytes.clone())).ok()
    }
}

fn header(out: &mut ByteWriter, kind: u8, user: &UserId, session: &SessionRef) {
    out.0.extend_from_slice(&[VERSION, kind]);
    out.short(user.as_str());
    write_session(out, session);
}

fn write_session(out: &mut ByteWriter, session: &SessionRef) {
    out.short(session.node.as_str());
    out.number(session.id);
}

fn read(mut input: ByteReader) -> Result<Relay, WireError> {
    if input.0.len() > LONGEST {
        return Err(WireError::Wrong("the length"));
    }
    match input.byte()? {
        VERSION => {}
        other => return Err(WireError::Version(other)),
    }
    let kind = input.byte()?;
    if kind == DIGEST {
        let node = read_node(&mut input)?;
        let part = DigestPart::decode(&input.bytes()?).ok_or(WireError::Wrong("a digest"))?;
        return Ok(Relay::Digest { node, part });
    }
    if kind == AUDIENCE {
        return Ok(Relay::Audience { node: read_node(&mut input)?, part: read_part(&mut input)? });
    }
    let user = read_user(&mut input)?;
    let session = read_session(&mut input)?;
    Ok(match kind {
        TICK => {
            let (tick, heartbeat) = read_tick(&mut input)?;
            Relay::Tick { user, session, tick, heartbeat }
        }
        STATUS => Relay::Status { user, session, status: read_status(&mut input)? },
        SIGNAL => {
            let to = read_user(&mut input)?;
            let (request, reference) = read_answer_to(&mut input)?;
            Relay::Signal { user, session, to, signal: read_signal(&mut input)?, request, reference }
        }
        GONE => {
            let (request, reference) = read_answer_to(&mut input)?;
            Relay::Gone { user, session, request, reference }
        }
        BUSY => {
            let (request, reference) = read_answer_to(&mut input)?;
            Relay::Busy { user, session, request, reference }
        }
        INVITE => {
            let (viewer, decline) = (read_session(&mut input)?, input.flag()?);
            let (request, reference) = read_answer_to(&mut input)?;
            Relay::Invite { user, session, viewer, decline, request, reference }
        }
        NOT_INVITED => {
            let full = input.flag()?;
            let (request, reference) = read_answer_to(&mut input)?;
            Relay::NotInvited { user, session, full, request, reference }
        }
        PROBE => Relay::Probe { user, session },
        _ => return Err(WireError::Wrong("the kind")),
    })
}

fn read_node(input: &mut ByteReader) -> Result<NodeId, WireError> {
    input.short(|text| NodeId::parse(text).ok())
}

fn read_user(input: &mut ByteReader) -> Result<UserId, WireError> {
    input.short(|text| UserId::parse(text).ok())
}

fn read_session(input: &mut ByteReader) -> Result<SessionRef, WireError> {
    Ok(SessionRef { node: read_node(input)?, id: input.number()? })
}

fn write_part(out: &mut ByteWriter, part: &AudiencePart) {
    out.0.extend_from_slice(&part.count.to_be_bytes());
    out.count(part.hands.len());
    for RaisedHand { user, name, session, client } in &part.hands {
        out.short(user.as_str());
        out.text(name.as_str());
        write_session(out, session);
        out.optional(client.as_ref(), |out, client| out.short(&client.to_string()));
    }
}

fn read_part(input: &mut ByteReader) -> Result<AudiencePart, WireError> {
    let count = u32::from_be_bytes(input.array()?);
    let hand = |input: &mut ByteReader| {
        Ok(RaisedHand {
            user: read_user(input)?,
            name: read_name(input)?,
            session: read_session(input)?,
            client: input.optional(|input| input.short(|text| KeyHash::parse(text).ok()))?,
        })
    };
    let hands = (0..input.count()?).map(|_| hand(input)).collect::<Result<_, WireError>>()?;
    Ok(AudiencePart { count, hands })
}

/// As the viewer's node has parsed it; its longest name need not be this node's.
fn read_name(input: &mut ByteReader) -> Result<Username, WireError> {
    let text = input.text()?;
    Username::deserialize(StrDeserializer::<NotAUrl>::new(&text)).map_err(|_| WireError::Wrong("a name"))
}

/// 31 bytes: more than a compact tick, because room time must come out to the microsecond as it went in.
fn write_tick(out: &mut ByteWriter, tick: &RelayedTick, heartbeat: bool) {
    let RelayedTick { slot, seq, playing, from_host, position, at, rate } = tick;
    out.0.push(
        if *playing { PLAYING } else { 0 }
            | if *from_host { FROM_HOST } else { 0 }
            | if heartbeat { HEARTBEAT } else { 0 },
    );
    out.0.extend_from_slice(&slot.0.to_be_bytes());
    out.0.extend_from_slice(&seq.to_be_bytes());
    out.real(position.seconds());
    out.time(*at);
    out.real(rate.factor());
}

fn read_tick(input: &mut ByteReader) -> Result<(RelayedTick, bool), WireError> {
    let flags = input.byte()?;
    let tick = RelayedTick {
        slot: MemberSlot(u16::from_be_bytes(input.array()?)),
        seq: u32::from_be_bytes(input.array()?),
        playing: flags & PLAYING != 0,
        from_host: flags & FROM_HOST != 0,
        position: read_position(input)?,
        at: input.time()?,
        rate: Rate::parse(input.real()?).map_err(|_| WireError::Wrong("the rate"))?,
    };
    Ok((tick, flags & HEARTBEAT != 0))
}

/// The sender's node has held the position against its `MAX_POSITION_SECS`, which need not be this node's.
fn read_position(input: &mut ByteReader) -> Result<MediaTime, WireError> {
    match input.real()? {
        seconds if seconds.is_finite() && seconds >= 0.0 => Ok(MediaTime::ZERO.moved(seconds)),
        _ => Err(WireError::Wrong("the position")),
    }
}

fn write_status(out: &mut ByteWriter, status: &StatusReport) {
    let StatusReport { seq, buffering, in_call, rtt, drift, clock_error } = status;
    let measured = [(HAS_RTT, rtt), (HAS_DRIFT, drift), (HAS_CLOCK_ERROR, clock_error)];
    let flags = measured.iter().filter(|(_, value)| value.is_some()).map(|(flag, _)| flag).sum::<u8>();
    out.0.push(flags | if *buffering { BUFFERING } else { 0 } | if *in_call { IN_CALL } else { 0 });
    out.0.extend_from_slice(&seq.to_be_bytes());
    for value in measured.into_iter().filter_map(|(_, value)| *value) {
        out.0.extend_from_slice(&value.micros().to_be_bytes());
    }
}

fn read_status(input: &mut ByteReader) -> Result<StatusReport, WireError> {
    let flags = input.byte()?;
    let seq = u32::from_be_bytes(input.array()?);
    let mut measured = |flag| match flags & flag {
        0 => Ok(None),
        _ => {
            let micros = i32::from_be_bytes(input.array()?);
            Measurement::from_micros(micros).map(Some).map_err(|_| WireError::Wrong("a status"))
        }
    };
    Ok(StatusReport {
        seq,
        buffering: flags & BUFFERING != 0,
        in_call: flags & IN_CALL != 0,
        rtt: measured(HAS_RTT)?,
        drift: measured(HAS_DRIFT)?,
        clock_error: measured(HAS_CLOCK_ERROR)?,
    })
}

/// The message type and the client's `ref`: an answer to the message names both.
fn write_answer_to(out: &mut ByteWriter, request: &str, reference: Option<u64>) {
    out.short(request);
    out.optional(reference.as_ref(), |out, reference| out.number(*reference));
}

fn read_answer_to(input: &mut ByteReader) -> Result<(String, Option<u64>), WireError> {
    let request = input.short(|text| Some(text.to_owned()))?;
    Ok((request, input.optional(ByteReader::number)?))
}

fn write_signal(out: &mut ByteWriter, signal: &Signal) {
    match signal {
        Signal::Offer { offer } => write_text(out, OFFER, offer),
        Signal::Answer { answer } => write_text(out, ANSWER, answer),
        Signal::IceCandidate { candidate } => write_text(out, ICE_CANDIDATE, candidate),
        Signal::PlaybackAck { control } => {
            out.0.push(PLAYBACK_ACK);
            out.flag(*control == Control::Play);
        }
        Signal::SyncResponse { position, playing, url } => {
            out.0.push(SYNC_RESPONSE);
            out.real(position.seconds());
            out.flag(*playing);
            out.optional(url.as_ref(), |out, url| out.text(url.as_str()));
        }
        Signal::Custom { namespace, payload } => {
            out.0.push(CUSTOM);
            out.short(namespace.as_str());
            out.text(payload);
        }
    }
}

fn write_text(out: &mut ByteWriter, kind: u8, text: &str) {
    out.0.push(kind);
    out.text(text);
}

fn read_signal(input: &mut ByteReader) -> Result<Signal, WireError> {
    Ok(match input.byte()? {
        OFFER => Signal::Offer { offer: input.text()? },
        ANSWER => Signal::Answer { answer: input.text()? },
        ICE_CANDIDATE => Signal::IceCandidate { candidate: input.text()? },
        PLAYBACK_ACK => Signal::PlaybackAck { control: if input.flag()? { Control::Play } else { Control::Pause } },
        SYNC_RESPONSE => Signal::SyncResponse {
            position: read_position(input)?,
            playing: input.flag()?,
            url: input.optional(read_url)?,
        },
        CUSTOM => {
            Signal::Custom { namespace: input.short(|text| Namespace::parse(text).ok())?, payload: input.text()? }
        }
        _ => return Err(WireError::Wrong("the signal")),
    })
}

/// As the sender's node has parsed it; its policy of film hosts need not be this node's.
fn read_url(input: &mut ByteReader) -> Result<MediaUrl, WireError> {
    let text = input.text()?;
    MediaUrl::deserialize(StrDeserializer::<NotAUrl>::new(&text)).map_err(|_| WireError::Wrong("a url"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Limits, RoomTime, UrlPolicy};

    fn ann() -> (UserId, SessionRef) {
        (UserId::parse("ann").unwrap(), SessionRef { node: NodeId::parse("n1").unwrap(), id: 7 })
    }

    fn a_part() -> DigestPart {
        let mut part = DigestPart::default();
        for micros in [600_000_000, -90_000, 3000] {
            let drift = Measurement::from_micros(micros).ok();
            part.add(Some(MemberSlot(micros as u16)), &StatusReport { drift, ..StatusReport::default() });
        }
        part
    }

    fn a_tick() -> Relay {
        let (user, session) = ann();
        let tick = RelayedTick {
            slot: MemberSlot(1),
            seq: 9,
            playing: true,
            from_host: true,
            position: MediaTime::parse(12.345_678_901_2, &Limits::default()).unwrap(),
            at: RoomTime::from_millis(1_795_000_000_000),
            rate: Rate::NORMAL,
        };
        Relay::Tick { user, session, tick, heartbeat: false }
    }

    fn an_offer() -> Relay {
        an_offer_of("{}")
    }

    fn an_offer_of(text: &str) -> Relay {
        let (user, session) = ann();
        let (to, signal) = (UserId::parse("bob").unwrap(), Signal::Offer { offer: text.into() });
        Relay::Signal { user, session, to, signal, request: "OFFER".into(), reference: Some(7) }
    }

    fn an_audience() -> Relay {
        let (user, session) = ann();
        let name = Username::parse("Ann", &Limits::default()).unwrap();
        let hand = |client| RaisedHand { user: user.clone(), name: name.clone(), session: session.clone(), client };
        let hands = vec![hand(None), hand(Some(KeyHash::from_bytes([7; 32])))];
        Relay::Audience { node: session.node.clone(), part: AudiencePart { count: 1204, hands } }
    }

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        let (user, session) = ann();
        let to = UserId::parse("bob").unwrap();
        let url = MediaUrl::parse("https://example.org/", &UrlPolicy::any(), &Limits::default()).unwrap();
        let signals = [
            Signal::Offer { offer: r#"{"sdp":"v=0\r\n"}"#.into() },
            Signal::Answer { answer: "{}".into() },
            Signal::IceCandidate { candidate: "null".into() },
            Signal::PlaybackAck { control: crate::room::Control::Play },
            Signal::SyncResponse { position: MediaTime::ZERO, playing: true, url: None },
            Signal::SyncResponse { position: MediaTime::ZERO, playing: false, url: Some(url) },
            Signal::Custom { namespace: Namespace::parse("org.example").unwrap(), payload: "[1,2]".into() },
        ];
        let relays = signals.into_iter().map(|signal| Relay::Signal {
            user: user.clone(),
            session: session.clone(),
            to: to.clone(),
            signal,
            request: "OFFER".into(),
            reference: Some(7),
        });
        let status = StatusReport {
            seq: 7,
            rtt: Measurement::from_micros(20_500).ok(),
            clock_error: Measurement::from_micros(-1000).ok(),
            in_call: true,
            ..StatusReport::default()
        };
        let others = [
            a_tick(),
            Relay::Status { user: user.clone(), session: session.clone(), status },
            Relay::Probe { user: user.clone(), session: session.clone() },
            Relay::Digest { node: session.node.clone(), part: a_part() },
            an_audience(),
            Relay::Audience { node: session.node.clone(), part: AudiencePart { count: 0, hands: Vec::new() } },
            Relay::Invite {
                user: user.clone(),
                session: session.clone(),
                viewer: SessionRef { id: 9, ..session.clone() },
                decline: true,
                request: "INVITE_TO_MEMBER".into(),
                reference: Some(7),
            },
            Relay::NotInvited {
                user: user.clone(),
                session: session.clone(),
                full: true,
                request: "INVITE_TO_MEMBER".into(),
                reference: None,
            },
            Relay::Gone { user: user.clone(), session: session.clone(), request: "OFFER".into(), reference: None },
            Relay::Busy { user: user.clone(), session: session.clone(), request: "OFFER".into(), reference: Some(7) },
        ];
        for relay in relays.chain(others) {
            assert_eq!(Relay::decode(&relay.encode()), Some(relay));
        }
    }

    #[test]
    fn what_another_version_wrote_is_ignored() {
        let mut newer = a_tick().encode().to_vec();
        newer[0] = VERSION + 1;
        assert_eq!(Relay::decode(&newer.into()), None);
        let json = b"\x01{\"probe\":{\"user\":\"ann\",\"session\":{\"node\":\"n1\",\"id\":7}}}";
        assert_eq!(Relay::decode(&Bytes::from_static(json)), None, "JSON of 3.0.0");
        assert_eq!(Relay::decode(&Bytes::new()), None);
        assert_eq!(Relay::decode(&Bytes::from_static(&[VERSION])), None);
    }

    #[test]
    fn a_kind_and_a_field_that_were_added_later_change_nothing() {
        let mut unknown = a_tick().encode().to_vec();
        unknown[1] = 200;
        assert_eq!(Relay::decode(&unknown.into()), None);
        let with_more = [&a_tick().encode()[..], b"red"].concat();
        assert_eq!(Relay::decode(&with_more.into()), Some(a_tick()));
    }

    #[test]
    fn a_tick_takes_a_fifth_of_its_json() {
        assert_eq!(a_tick().encode().len(), 2 + 4 + 3 + 8 + 31);
    }

    #[test]
    fn half_a_relay_is_none() {
        for relay in [a_tick(), an_offer(), an_audience()] {
            let whole = relay.encode();
            for length in 0..whole.len() {
                assert_eq!(Relay::decode(&whole.slice(..length)), None, "{length} bytes of {relay:?}");
            }
        }
    }

    #[test]
    fn values_that_no_node_writes_are_refused() {
        let whole = a_tick().encode();
        let position = whole.len() - 24;
        for wrong in [f64::NAN, f64::INFINITY, -1.0] {
            let mut bytes = whole.to_vec();
            bytes[position..position + 8].copy_from_slice(&wrong.to_be_bytes());
            assert_eq!(Relay::decode(&bytes.into()), None, "{wrong}");
        }
        let mut forged = an_offer().encode().to_vec();
        forged.truncate(forged.len() - 2 - 4);
        forged.extend(u32::MAX.to_be_bytes());
        assert_eq!(Relay::decode(&forged.into()), None, "a length beyond the message");
        assert!(Relay::decode(&an_offer_of(&"1".repeat(LONGEST - 100)).encode()).is_some());
        assert_eq!(Relay::decode(&an_offer_of(&"1".repeat(LONGEST)).encode()), None, "longer than any message");
    }
}
