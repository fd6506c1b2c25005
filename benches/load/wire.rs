//! The few messages that a load needs, written and read by hand: the client shares the machine with the server, so what
//! it costs is taken from the measurement.

use crate::clock;

/// The kind of message that a load consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// v2's HOST_HEARTBEAT as JSON, host to all, the host too.
    Heartbeat,
    /// A compact tick, a v3 host to the others.
    Tick,
    /// PLAY_PAUSE with `ref`: committed, to all, the host too, and ACK.
    Play,
    /// An OFFER of 1.2 KB, host to one of the others in turn.
    Signal,
}

impl Kind {
    pub(crate) const NAMES: [&str; 4] = ["heartbeat", "tick", "play", "signal"];

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let kinds = [Self::Heartbeat, Self::Tick, Self::Play, Self::Signal];
        Self::NAMES.iter().position(|known| *known == name).map(|index| kinds[index])
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Members who get each message, in a room of so many.
    pub(crate) fn receivers(self, members: usize) -> usize {
        match self {
            Self::Heartbeat | Self::Play => members,
            Self::Tick => members - 1,
            Self::Signal => 1,
        }
    }

    /// The protocol version in the members' JOIN.
    pub(crate) fn protocol(self) -> u8 {
        match self {
            Self::Tick => 3,
            Self::Heartbeat | Self::Play | Self::Signal => 2,
        }
    }
}

pub(crate) fn room_name(run: &str, room: usize) -> String {
    format!("{run}-{room}")
}

pub(crate) fn user_name(room: usize, member: usize) -> String {
    format!("user-{room}-{member}")
}

/// `token`: of a membership that is taken over.
pub(crate) fn join(room: &str, user: &str, protocol: u8, token: Option<&str>) -> String {
    let protocol = if protocol == 2 { String::new() } else { format!(r#","protocol":{protocol}"#) };
    let token = token.map(|token| format!(r#","resumeToken":"{token}""#)).unwrap_or_default();
    format!(r#"{{"type":"JOIN","roomId":"{room}","userId":"{user}","username":"{user}"{protocol}{token}}}"#)
}

/// `as: "viewer"`: the audience.
pub(crate) fn join_as_viewer(room: &str, user: &str) -> String {
    format!(r#"{{"type":"JOIN","roomId":"{room}","userId":"{user}","username":"{user}","protocol":3,"as":"viewer"}}"#)
}

/// The host starts the film where the clock stands: from then on its heartbeats say what the room knows, as a real
/// player's do, and the server has no drift to correct.
pub(crate) fn play(now: u64, reference: Option<u64>, playing: bool) -> String {
    let reference = reference.map(|reference| format!(r#","ref":{reference}"#)).unwrap_or_default();
    let control = if playing { "play" } else { "pause" };
    format!(r#"{{"type":"PLAY_PAUSE","control":"{control}","currentTime":{}{reference}}}"#, clock::as_seconds(now))
}

/// As v2's extension sends it.
pub(crate) fn heartbeat(room: &str, user: &str, now: u64) -> String {
    let wall = clock::wall_millis() as u64;
    format!(
        r#"{{"type":"HOST_HEARTBEAT","currentTime":{},"isPlaying":true,"eventTimestamp":{wall},"userId":"{user}","roomId":"{room}","timestamp":{wall}}}"#,
        clock::as_seconds(now)
    )
}

/// Length of an OFFER's session description: a browser's with audio and video.
const SDP_BYTES: usize = 1150;

pub(crate) fn signal(to: &str, now: u64) -> String {
    let sdp = "a=candidate:1 1 udp 2122260223 192.0.2.1 50000 typ host ".repeat(SDP_BYTES / 56 + 1);
    format!(
        r#"{{"type":"OFFER","to":"{to}","offer":{{"currentTime":{},"type":"offer","sdp":"{}"}}}}"#,
        clock::as_seconds(now),
        &sdp[..SDP_BYTES]
    )
}

pub(crate) fn probe(id: u16, now: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0] = 1;
    bytes[2..4].copy_from_slice(&id.to_be_bytes());
    bytes[4..].copy_from_slice(&(now as f64 / 1000.0).to_be_bytes());
    bytes
}

/// A viewer in step: 20 ms of round trip, 3 ms of drift, 1 ms of clock error.
pub(crate) fn status(seq: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&[4, 2 | 4 | 8]);
    bytes[4..8].copy_from_slice(&seq.to_be_bytes());
    for (place, micros) in [20_000_i32, 3000, 1000].into_iter().enumerate() {
        bytes[8 + 4 * place..12 + 4 * place].copy_from_slice(&micros.to_be_bytes());
    }
    bytes
}

pub(crate) const TICK_BYTES: usize = 28;

/// `wall`: room time, ms.
pub(crate) fn tick(seq: u32, now: u64, wall: f64) -> [u8; TICK_BYTES] {
    let mut bytes = [0; TICK_BYTES];
    bytes[..2].copy_from_slice(&[3, 1]);
    bytes[4..8].copy_from_slice(&seq.to_be_bytes());
    bytes[8..16].copy_from_slice(&clock::as_seconds(now).to_be_bytes());
    bytes[16..24].copy_from_slice(&wall.to_be_bytes());
    bytes[24..].copy_from_slice(&1f32.to_be_bytes());
    bytes
}

/// A tick's counter, and when it was sent.
pub(crate) fn read_tick(bytes: &[u8]) -> Option<(u32, u64)> {
    if bytes.len() != TICK_BYTES || bytes[0] != 3 {
        return None;
    }
    let seq = u32::from_be_bytes(bytes[4..8].try_into().ok()?);
    Some((seq, clock::as_micros(f64::from_be_bytes(bytes[8..16].try_into().ok()?))))
}

/// `type` of a server's message: always its first field.
pub(crate) fn kind_of(message: &[u8]) -> &[u8] {
    let rest = message.strip_prefix(br#"{"type":""#).unwrap_or_default();
    &rest[..rest.iter().position(|byte| *byte == b'"').unwrap_or(0)]
}

/// The text after `"name":` up to the next comma or brace, without quotes.
pub(crate) fn field<'a>(message: &'a [u8], name: &str) -> Option<&'a str> {
    let mut start = 0;
    loop {
        let quote = start + message[start..].iter().position(|byte| *byte == b'"')?;
        let rest = &message[quote + 1..];
        if let Some(value) = rest.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"\":")) {
            let end = value.iter().position(|byte| matches!(byte, b',' | b'}'))?;
            return std::str::from_utf8(&value[..end]).ok().map(|value| value.trim_matches('"'));
        }
        start = quote + 1;
    }
}

/// The time that a message carries as its position: when it was sent.
pub(crate) fn sent_at(message: &[u8]) -> Option<u64> {
    field(message, "currentTime")?.parse().ok().map(clock::as_micros)
}

/// A frame that a client received, borrowed from its read buffer.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    Message(&'a [u8]),
    Compact(&'a [u8]),
}
