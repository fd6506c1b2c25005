//! Error codes of WebTransport over HTTP/3 (draft-ietf-webtrans-http3).

use tandem_quic::VarInt;
pub(super) use tandem_quic::codes::{EXCESSIVE_LOAD, ID_ERROR, NO_ERROR};

/// WT_BUFFERED_STREAM_REJECTED: more streams of an unknown session than are kept.
pub(super) const BUFFERED_STREAM_REJECTED: VarInt = VarInt::from_u32(0x3994_bd84);

/// Application codes are mapped to this range, which skips the code points that HTTP/3 reserves for grease.
const FIRST: u64 = 0x52e4_a40f_a8db;
const LAST: u64 = 0x52e5_ac98_3162;

/// Maps an application's code to a QUIC error code.
pub(super) fn to_quic(code: u32) -> VarInt {
    let code = u64::from(code);
    VarInt::from_u64(FIRST + code + code / 0x1e).unwrap_or(VarInt::MAX)
}

/// Maps a QUIC error code back, if it is an application's.
pub(super) fn from_quic(code: VarInt) -> Option<u32> {
    let code = code.into_inner();
    if !(FIRST..=LAST).contains(&code) || (code - 0x21).is_multiple_of(0x1f) {
        return None;
    }
    let shifted = code - FIRST;
    u32::try_from(shifted - shifted / 0x1f).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_both_mappings() {
        for code in (0..100).chain([1000, 4001, 4010, u32::MAX - 1, u32::MAX]) {
            assert_eq!(from_quic(to_quic(code)), Some(code));
        }
    }

    #[test]
    fn the_range_has_the_bounds_of_the_draft() {
        assert_eq!(to_quic(0).into_inner(), FIRST);
        assert_eq!(to_quic(u32::MAX).into_inner(), LAST);
    }

    #[test]
    fn codes_of_http3_and_of_grease_are_no_application_codes() {
        for code in [0, 0x100, 0x107, FIRST - 1, FIRST + 0x1e, LAST + 1] {
            assert_eq!(from_quic(VarInt::from_u64(code).unwrap()), None, "{code:#x}");
        }
    }
}
