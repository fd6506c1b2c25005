//! Capsules (RFC 9297 §3.2) on the CONNECT stream: WT_CLOSE_SESSION and WT_DRAIN_SESSION of
//! draft-ietf-webtrans-http3; other kinds are skipped, as RFC 9297 asks.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::varint;

const CLOSE_SESSION: u64 = 0x2843;
const DRAIN_SESSION: u64 = 0x78ae;
const CODE_BYTES: usize = 4;
/// The draft's limit, in bytes.
const MAX_REASON: usize = 1024;
/// The longest type and length.
const MAX_HEAD: usize = 16;

/// WT_CLOSE_SESSION (CLOSE_WEBTRANSPORT_SESSION in earlier drafts), as the peer sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseCapsule {
    /// The application's error code.
    pub code: u32,
    /// The application's message; invalid UTF-8 is replaced.
    pub reason: String,
}

/// A close capsule of a length that the draft doesn't allow: the code takes 4 bytes, the message at most 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a CLOSE capsule of {length} bytes")]
pub struct MalformedClose {
    /// Bytes after the capsule's head.
    pub length: u64,
}

/// Reads capsules from a stream cut anywhere. Buffers at most one close capsule; others are skipped as they arrive.
#[derive(Debug, Default)]
pub struct CapsuleReader {
    head: Vec<u8>,
    state: CapsuleState,
}

#[derive(Debug, Default)]
enum CapsuleState {
    #[default]
    Head,
    Skip(u64),
    Close(BytesMut, usize),
}

impl CapsuleReader {
    /// Consumes `bytes` up to the end of the first close capsule, which it returns.
    pub fn read(&mut self, bytes: &mut impl Buf) -> Result<Option<CloseCapsule>, MalformedClose> {
        while bytes.has_remaining() {
            match &mut self.state {
                CapsuleState::Head => {
                    self.head.push(bytes.get_u8());
                    self.begin()?;
                }
                CapsuleState::Skip(left) => {
                    let skipped = bytes.remaining().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    bytes.advance(skipped);
                    *left -= skipped as u64;
                    if *left == 0 {
                        self.state = CapsuleState::Head;
                    }
                }
                CapsuleState::Close(collected, length) => {
                    let wanted = bytes.remaining().min(*length - collected.len());
                    collected.put(bytes.take(wanted));
                    if collected.len() == *length {
                        let code = collected.get_u32();
                        let reason = String::from_utf8_lossy(collected).into_owned();
                        self.state = CapsuleState::Head;
                        return Ok(Some(CloseCapsule { code, reason }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Begins the capsule once its head is complete.
    fn begin(&mut self) -> Result<(), MalformedClose> {
        debug_assert!(self.head.len() <= MAX_HEAD);
        let mut head = self.head.as_slice();
        let Some(kind) = varint::take(&mut head) else { return Ok(()) };
        let Some(length) = varint::take(&mut head) else { return Ok(()) };
        self.head.clear();
        self.state = match kind {
            CLOSE_SESSION if (CODE_BYTES as u64..=(CODE_BYTES + MAX_REASON) as u64).contains(&length) => {
                CapsuleState::Close(BytesMut::new(), length as usize)
            }
            CLOSE_SESSION => return Err(MalformedClose { length }),
            _ if length == 0 => CapsuleState::Head,
            _ => CapsuleState::Skip(length),
        };
        Ok(())
    }
}

/// Encodes a close capsule. A reason above 1024 bytes is cut between characters.
pub fn close(code: u32, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
    let mut capsule = BytesMut::with_capacity(MAX_HEAD + CODE_BYTES + reason.len());
    varint::put(CLOSE_SESSION, &mut capsule);
    varint::put((CODE_BYTES + reason.len()) as u64, &mut capsule);
    capsule.put_u32(code);
    capsule.put_slice(reason.as_bytes());
    capsule.freeze()
}

/// Encodes WT_DRAIN_SESSION.
pub fn drain() -> Bytes {
    let mut capsule = BytesMut::with_capacity(MAX_HEAD);
    varint::put(DRAIN_SESSION, &mut capsule);
    varint::put(0, &mut capsule);
    capsule.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn skippable(kind: u64, length: usize) -> Vec<u8> {
        let mut capsule = Vec::new();
        varint::put(kind, &mut capsule);
        varint::put(length as u64, &mut capsule);
        capsule.resize(capsule.len() + length, 7);
        capsule
    }

    fn read_in_pieces(bytes: &[u8], piece: usize) -> Option<CloseCapsule> {
        let mut reader = CapsuleReader::default();
        bytes.chunks(piece).find_map(|mut piece| reader.read(&mut piece).unwrap())
    }

    #[test]
    fn drain_and_close_have_the_bytes_of_the_draft() {
        assert_eq!(&drain()[..], [0x80, 0x00, 0x78, 0xae, 0x00]);
        assert_eq!(&close(1001, "bye")[..], [0x68, 0x43, 0x07, 0, 0, 0x03, 0xe9, b'b', b'y', b'e']);
    }

    #[test]
    fn a_reason_beyond_the_limit_is_cut_between_characters() {
        let capsule = close(1, &"é".repeat(600));
        let CloseCapsule { reason, .. } = CapsuleReader::default().read(&mut &capsule[..]).unwrap().unwrap();
        assert_eq!(reason, "é".repeat(512));
    }

    #[test]
    fn a_close_that_is_too_short_or_too_long_is_an_error() {
        for length in [0, 3, 1029, 1 << 40] {
            let mut capsule = Vec::new();
            varint::put(CLOSE_SESSION, &mut capsule);
            varint::put(length, &mut capsule);
            assert_eq!(CapsuleReader::default().read(&mut capsule.as_slice()), Err(MalformedClose { length }));
        }
    }

    #[test]
    fn a_huge_unknown_capsule_is_skipped_without_being_held() {
        let mut head = Vec::new();
        varint::put(0x1234_5678, &mut head);
        varint::put(1 << 40, &mut head);
        let mut reader = CapsuleReader::default();
        assert_eq!(reader.read(&mut head.as_slice()), Ok(None));
        for _ in 0..1000 {
            assert_eq!(reader.read(&mut &[0; 4096][..]), Ok(None));
        }
        assert!(reader.head.is_empty() && matches!(reader.state, CapsuleState::Skip(_)));
    }

    proptest! {
        #[test]
        fn a_close_is_found_behind_unknown_capsules_however_the_bytes_are_cut(
            kinds in proptest::collection::vec((0u64..1 << 40, 0usize..300), 0..6),
            piece in 1usize..64,
            code: u32,
            reason in "\\PC{0,40}",
        ) {
            let mut bytes = Vec::new();
            for (kind, length) in kinds {
                if kind != CLOSE_SESSION {
                    bytes.extend(skippable(kind, length));
                }
            }
            bytes.extend(close(code, &reason));
            prop_assert_eq!(read_in_pieces(&bytes, piece), Some(CloseCapsule { code, reason }));
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let mut reader = CapsuleReader::default();
            let mut rest = bytes.as_slice();
            while let Ok(Some(_)) = reader.read(&mut rest) {}
            prop_assert!(reader.head.len() <= MAX_HEAD);
        }
    }
}
