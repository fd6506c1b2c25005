//! The compact messages: clock probes, ticks, statuses, digests, and bundles of messages that leave together.
//! Big-endian; the first byte is the kind.

use bytes::BufMut;

use crate::domain::{
    CompactBytes, ErrorCode, Invalid, Limits, Measurement, MediaTime, Rate, RelayedStatus, RelayedTick, RoomDigest,
    RoomTime, StandOut, StatusReport, TickReport, TransportKind,
};

const PROBE: u8 = 1;
const REPLY: u8 = 2;
const TICK: u8 = 3;
const STATUS: u8 = 4;
const DIGEST: u8 = 5;
const BUNDLE: u8 = 6;

const PROBE_LEN: usize = 12;
const REPLY_LEN: usize = 28;
const TICK_LEN: usize = 28;
const STATUS_LEN: usize = 20;
const DIGEST_LEN: usize = 28;
const STAND_OUT_LEN: usize = 7;

/// Bytes of a bundle, at most.
pub const MAX_BUNDLE: usize = 999;

const PLAYING: u8 = 1;
const FROM_HOST: u8 = 2;

const BUFFERING: u8 = 1;
const HAS_RTT: u8 = 2;
const HAS_DRIFT: u8 = 4;
const HAS_CLOCK_ERROR: u8 = 8;
const IN_CALL: u8 = 16;
const OVER_WEBTRANSPORT: u8 = 32;

/// Of a digest: it has percentiles.
const HAS_DISTANCE: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Compact {
    /// Asks for room time. `t0` is the client's own clock and only returned.
    ClockProbe { id: u16, t0: f64 },
    /// A position report. Slot and host flag in the message are not read: the server writes its own.
    Tick(TickReport),
    /// A member's own measurements. Slot and transport in the message are not read: the server writes its own.
    Status(StatusReport),
    /// A kind of another version; ignored.
    Unknown,
}

pub fn decode_compact(bytes: &[u8], limits: &Limits) -> Result<Compact, Invalid> {
    let (kind, length) = match bytes.first() {
        None => return Err(Invalid::new(ErrorCode::BadMessage, "an empty compact message")),
        Some(&PROBE) => ("clock probe", PROBE_LEN),
        Some(&TICK) => ("tick", TICK_LEN),
        Some(&STATUS) => ("status", STATUS_LEN),
        Some(_) => return Ok(Compact::Unknown),
    };
    if bytes.len() != length {
        return Err(Invalid::new(ErrorCode::BadMessage, format!("a {kind} has {length} bytes")));
    }
    match bytes[0] {
        PROBE => Ok(Compact::ClockProbe { id: u16::from_be_bytes(at(bytes, 2)), t0: f64::from_be_bytes(at(bytes, 4)) }),
        STATUS => Ok(Compact::Status(read_status(bytes)?)),
        _ => Ok(Compact::Tick(read_tick(bytes, limits)?)),
    }
}

fn read_tick(bytes: &[u8], limits: &Limits) -> Result<TickReport, Invalid> {
    let moment = RoomTime::from_millis_f64(f64::from_be_bytes(at(bytes, 16)));
    Ok(TickReport {
        playing: bytes[1] & PLAYING != 0,
        seq: u32::from_be_bytes(at(bytes, 4)),
        // Adding 0 turns minus zero into zero.
        position: MediaTime::parse(f64::from_be_bytes(at(bytes, 8)) + 0.0, limits)?,
        at: moment.ok_or_else(|| Invalid::new(ErrorCode::OutOfRange, "a tick's `at` is no moment"))?,
        rate: Rate::parse(f64::from(f32::from_be_bytes(at(bytes, 24))))?,
    })
}

fn read_status(bytes: &[u8]) -> Result<StatusReport, Invalid> {
    let flags = bytes[1];
    let measurement = |flag: u8, start: usize| {
        let micros = (flags & flag != 0).then(|| i32::from_be_bytes(at(bytes, start)));
        micros.map(Measurement::from_micros).transpose()
    };
    Ok(StatusReport {
        seq: u32::from_be_bytes(at(bytes, 4)),
        buffering: flags & BUFFERING != 0,
        in_call: flags & IN_CALL != 0,
        rtt: measurement(HAS_RTT, 8)?,
        drift: measurement(HAS_DRIFT, 12)?,
        clock_error: measurement(HAS_CLOCK_ERROR, 16)?,
    })
}

/// `t1`: arrival of the probe; `t2`: departure of the reply.
pub fn encode_clock_reply(id: u16, t0: f64, t1: RoomTime, t2: RoomTime) -> CompactBytes {
    CompactBytes::encode(REPLY_LEN, |out| {
        out.put_u8(REPLY);
        out.put_u8(0);
        out.put_u16(id);
        out.put_f64(t0);
        out.put_f64(t1.as_millis_f64());
        out.put_f64(t2.as_millis_f64());
    })
}

/// A relayed tick.
pub fn encode_tick(tick: &RelayedTick) -> CompactBytes {
    let flags = if tick.playing { PLAYING } else { 0 } | if tick.from_host { FROM_HOST } else { 0 };
    CompactBytes::encode(TICK_LEN, |out| {
        out.put_u8(TICK);
        out.put_u8(flags);
        out.put_u16(tick.slot.0);
        out.put_u32(tick.seq);
        out.put_f64(tick.position.seconds());
        out.put_f64(tick.at.as_millis_f64());
        out.put_f32(tick.rate.factor() as f32);
    })
}

/// `flag`, if it holds.
fn flag(flag: u8, holds: bool) -> u8 {
    if holds { flag } else { 0 }
}

pub fn encode_status(status: &RelayedStatus) -> CompactBytes {
    let RelayedStatus { slot, transport, report } = status;
    let flags = flag(BUFFERING, report.buffering)
        | flag(HAS_RTT, report.rtt.is_some())
        | flag(HAS_DRIFT, report.drift.is_some())
        | flag(HAS_CLOCK_ERROR, report.clock_error.is_some())
        | flag(IN_CALL, report.in_call)
        | flag(OVER_WEBTRANSPORT, *transport == TransportKind::WebTransport);
    CompactBytes::encode(STATUS_LEN, |out| {
        out.put_u8(STATUS);
        out.put_u8(flags);
        out.put_u16(slot.0);
        out.put_u32(report.seq);
        for measured in [report.rtt, report.drift, report.clock_error] {
            out.put_i32(measured.map_or(0, Measurement::micros));
        }
    })
}

/// Joins messages for one receiver: those that wait for it leave as one frame where that has at most [`MAX_BUNDLE`]
/// bytes, else as several. A message that is alone, or too long to be a part, stays as it is.
pub fn bundles(messages: Vec<CompactBytes>) -> Vec<CompactBytes> {
    if messages.len() < 2 {
        return messages;
    }
    let mut bundled = Vec::with_capacity(1);
    let mut parts: Vec<CompactBytes> = Vec::with_capacity(messages.len());
    let mut length = 1;
    for message in messages {
        if message.len() > usize::from(u8::MAX) {
            bundled.push(message);
            continue;
        }
        if length + 1 + message.len() > MAX_BUNDLE {
            close_bundle(&mut parts, &mut bundled);
            length = 1;
        }
        length += 1 + message.len();
        parts.push(message);
    }
    close_bundle(&mut parts, &mut bundled);
    bundled
}

fn close_bundle(parts: &mut Vec<CompactBytes>, bundled: &mut Vec<CompactBytes>) {
    match parts.len() {
        0 | 1 => bundled.append(parts),
        _ => {
            bundled.push(bundle(parts.iter().map(|part| &part[..])));
            parts.clear();
        }
    }
}

fn bundle<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> CompactBytes {
    let parts = parts.filter_map(|part| Some((u8::try_from(part.len()).ok()?, part)));
    CompactBytes::encode(1 + parts.clone().map(|(length, _)| 1 + usize::from(length)).sum::<usize>(), |out| {
        out.put_u8(BUNDLE);
        for (length, part) in parts {
            out.put_u8(length);
            out.put_slice(part);
        }
    })
}

/// The digest of a large room.
pub fn encode_digest(digest: &RoomDigest) -> CompactBytes {
    let RoomDigest { members, audience, measured, in_step, buffering, distance, stand_outs } = digest;
    CompactBytes::encode(DIGEST_LEN + STAND_OUT_LEN * stand_outs.len(), |out| {
        out.put_u8(DIGEST);
        out.put_u8(flag(HAS_DISTANCE, distance.is_some()));
        out.put_u16(u16::try_from(*members).unwrap_or(u16::MAX));
        for count in [audience, measured, in_step, buffering] {
            out.put_u32(*count);
        }
        for percentile in distance.unwrap_or_default() {
            out.put_i32(percentile.micros());
        }
        for StandOut { slot, buffering, in_call, drift } in stand_outs {
            out.put_u16(slot.0);
            out.put_u8(flag(BUFFERING, *buffering) | flag(HAS_DRIFT, drift.is_some()) | flag(IN_CALL, *in_call));
            out.put_i32(drift.map_or(0, Measurement::micros));
        }
    })
}

/// The messages of a frame, in order: the parts of a bundle, or the message itself. A bundle that ends early has the
/// parts before that.
pub fn unbundled(frame: &[u8]) -> Vec<&[u8]> {
    let Some((&BUNDLE, mut rest)) = frame.split_first() else { return vec![frame] };
    let mut parts = Vec::new();
    while let Some((&length, after)) = rest.split_first() {
        let Some((part, after)) = after.split_at_checked(usize::from(length)) else { break };
        parts.push(part);
        rest = after;
    }
    parts
}

/// `N` bytes from `start`; the caller has checked the length.
fn at<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[start..start + N]);
    field
}
