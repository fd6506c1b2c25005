//! h3 can't send the setting without which Safari opens no session.
//!
//! Safari 26.4 and later asks for SETTINGS_WEBTRANSPORT_MAX_SESSIONS of draft-ietf-webtrans-http3-07. h3 writes its
//! SETTINGS frame in the first write of the control stream, so the adapter appends the setting to that write. The later
//! drafts' 0x14e9cd29 and 0x2c7cf000 must not be sent: Safari would then expect flow-control settings too.
//!
//! Upstream: hyperium/h3#347, with hyperium/h3#363 as its solution (both open on 2026-11-30). Delete when a release
//! sends 0xc671706a.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::varint;

const WEBTRANSPORT_MAX_SESSIONS: u64 = 0xc671_706a;

const CONTROL_STREAM: u64 = 0;
const SETTINGS_FRAME: u64 = 4;

/// Appends the setting to the first write of the control stream (its type, then the SETTINGS frame). Other bytes are
/// returned unchanged.
pub(crate) fn extend(first_write: Bytes) -> Bytes {
    rewrite(&first_write).unwrap_or(first_write)
}

fn rewrite(mut rest: &[u8]) -> Option<Bytes> {
    let is_settings = varint::take(&mut rest)? == CONTROL_STREAM && varint::take(&mut rest)? == SETTINGS_FRAME;
    let length = usize::try_from(varint::take(&mut rest)?).ok()?;
    if !is_settings || length > rest.len() {
        return None;
    }
    let mut payload = BytesMut::from(&rest[..length]);
    rest.advance(length);
    varint::put(WEBTRANSPORT_MAX_SESSIONS, &mut payload);
    varint::put(1, &mut payload);

    let mut write = BytesMut::new();
    varint::put(CONTROL_STREAM, &mut write);
    varint::put(SETTINGS_FRAME, &mut write);
    varint::put(payload.len() as u64, &mut write);
    write.put(payload);
    write.put(rest);
    Some(write.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_appended_and_what_follows_the_frame_stays() {
        let extended = extend(Bytes::from_static(&[0, 4, 2, 8, 1, 0x21, 0]));
        assert_eq!(&extended[..], [0, 4, 11, 8, 1, 0xc0, 0, 0, 0, 0xc6, 0x71, 0x70, 0x6a, 1, 0x21, 0]);
    }

    #[test]
    fn other_writes_are_left_alone() {
        for write in [&[2][..], &[0, 7, 1, 0], &[0, 4, 9, 1], &[]] {
            assert_eq!(extend(Bytes::from_static(write)), write);
        }
    }
}
