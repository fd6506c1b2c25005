//! The compact messages: clock probes and ticks. Big-endian; the first byte is the kind.

use bytes::BufMut;

use crate::domain::{CompactBytes, ErrorCode, Invalid, Limits, MediaTime, Rate, RelayedTick, RoomTime, TickReport};

const PROBE: u8 = 1;
const REPLY: u8 = 2;
const TICK: u8 = 3;

const PROBE_LEN: usize = 12;
const REPLY_LEN: usize = 28;
const TICK_LEN: usize = 28;

const PLAYING: u8 = 1;
const FROM_HOST: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Compact {
    /// Asks for room time. `t0` is the client's own clock and only returned.
    ClockProbe { id: u16, t0: f64 },
    /// A position report. Slot and host flag in the message are not read: the server writes its own.
    Tick(TickReport),
    /// A kind of another version; ignored.
    Unknown,
}

pub fn decode_compact(bytes: &[u8], limits: &Limits) -> Result<Compact, Invalid> {
    let (kind, length) = match bytes.first() {
        None => return Err(Invalid::new(ErrorCode::BadMessage, "an empty compact message")),
        Some(&PROBE) => ("clock probe", PROBE_LEN),
        Some(&TICK) => ("tick", TICK_LEN),
        Some(_) => return Ok(Compact::Unknown),
    };
    if bytes.len() != length {
        return Err(Invalid::new(ErrorCode::BadMessage, format!("a {kind} has {length} bytes")));
    }
    if bytes[0] == PROBE {
        return Ok(Compact::ClockProbe { id: u16::from_be_bytes(at(bytes, 2)), t0: f64::from_be_bytes(at(bytes, 4)) });
    }
    let moment = RoomTime::from_millis_f64(f64::from_be_bytes(at(bytes, 16)));
    Ok(Compact::Tick(TickReport {
        playing: bytes[1] & PLAYING != 0,
        seq: u32::from_be_bytes(at(bytes, 4)),
        // Adding 0 turns minus zero into zero.
        position: MediaTime::parse(f64::from_be_bytes(at(bytes, 8)) + 0.0, limits)?,
        at: moment.ok_or_else(|| Invalid::new(ErrorCode::OutOfRange, "a tick's `at` is no moment"))?,
        rate: Rate::parse(f64::from(f32::from_be_bytes(at(bytes, 24))))?,
    }))
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

/// `N` bytes from `start`; the caller has checked the length.
fn at<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[start..start + N]);
    field
}
