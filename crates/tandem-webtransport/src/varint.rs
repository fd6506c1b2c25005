//! QUIC's variable-length integers (RFC 9000 §16).

use bytes::{Buf, BufMut};

/// Takes an integer off the front; returns `None`, and takes nothing, if it is incomplete.
pub(super) fn take(bytes: &mut impl Buf) -> Option<u64> {
    let first = *bytes.chunk().first()?;
    let length = 1usize << (first >> 6);
    if bytes.remaining() < length {
        return None;
    }
    let mut value = u64::from(bytes.get_u8() & 0x3f);
    for _ in 1..length {
        value = value << 8 | u64::from(bytes.get_u8());
    }
    Some(value)
}

/// Appends an integer. Values above 2^62 - 1 don't exist in QUIC and are truncated.
pub(super) fn put(value: u64, bytes: &mut impl BufMut) {
    match value {
        0..0x40 => bytes.put_u8(value as u8),
        0x40..0x4000 => bytes.put_u16(0x4000 | value as u16),
        0x4000..0x4000_0000 => bytes.put_u32(0x8000_0000 | value as u32),
        _ => bytes.put_u64(0xc000_0000_0000_0000 | value & (u64::MAX >> 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d][..], 494_878_333),
            (&[0x7b, 0xbd][..], 15_293),
            (&[0x25][..], 37),
            (&[0x40, 0x25][..], 37),
        ] {
            let mut rest = bytes;
            assert_eq!(take(&mut rest), Some(value));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn an_incomplete_integer_is_not_taken() {
        let mut part = &[0x9d, 0x7f, 0x3e][..];
        assert_eq!(take(&mut part), None);
        assert_eq!(part.len(), 3);
    }

    #[test]
    fn an_integer_that_was_written_is_read_back() {
        for value in [0, 63, 64, 16_383, 16_384, 0x3fff_ffff, 0x4000_0000, (1 << 62) - 1] {
            let mut bytes = Vec::new();
            put(value, &mut bytes);
            assert_eq!(take(&mut bytes.as_slice()), Some(value));
        }
    }
}
