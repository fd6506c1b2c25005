//! h3 calls a request malformed whose `:protocol` it doesn't know.
//!
//! h3 0.0.8 knows `webtransport` and `connect-udp`. Drafts since draft-ietf-webtrans-http3-15 say `webtransport-h3`,
//! and a protocol that the server doesn't support deserves a 501 (RFC 9220 §3), not a stream error. So `:protocol` is
//! taken out of the field section before h3 decodes it. The section is walked by its lengths only (RFC 9204 §4.5,
//! without a dynamic table, which this server doesn't offer). Huffman coding gives each text one encoding, so names and
//! values are compared as they stand on the wire.
//!
//! Upstream: hyperium/h3#236 (merged, unreleased) added `websocket`; for values of the application's choice there is
//! hyperium/h3#293 (open on 2026-11-30). Delete when h3 hands out an unknown `:protocol`.

use bytes::{Buf, Bytes, BytesMut};

/// The `:protocol` of an extended CONNECT (RFC 9220).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectProtocol {
    /// `webtransport` or `webtransport-h3`.
    WebTransport,
    /// Any other value.
    Other,
}

struct QpackText {
    plain: &'static [u8],
    huffman: &'static [u8],
}

const NAME: QpackText = QpackText { plain: b":protocol", huffman: &[0xb9, 0x5d, 0x87, 0x49, 0xc8, 0x7a, 0x3f] };
const WEBTRANSPORT: QpackText =
    QpackText { plain: b"webtransport", huffman: &[0xf0, 0x58, 0xd3, 0x60, 0xea, 0x45, 0x67, 0xb1, 0x3f] };
const WEBTRANSPORT_H3: QpackText = QpackText {
    plain: b"webtransport-h3",
    huffman: &[0xf0, 0x58, 0xd3, 0x60, 0xea, 0x45, 0x67, 0xb1, 0x2b, 0x4e, 0xcf],
};

/// Returns the section without `:protocol`, and its value. A section that can't be read is returned unchanged, for h3
/// to judge.
pub(crate) fn extract(section: Bytes) -> (Bytes, Option<ConnectProtocol>) {
    match find(&section) {
        Some((line, protocol)) => {
            let mut rest = BytesMut::with_capacity(section.len());
            rest.extend_from_slice(&section[..line.start]);
            rest.extend_from_slice(&section[line.end..]);
            (rest.freeze(), Some(protocol))
        }
        None => (section, None),
    }
}

fn find(section: &[u8]) -> Option<(std::ops::Range<usize>, ConnectProtocol)> {
    let mut rest = section;
    integer(&mut rest, 8)?; // required insert count
    integer(&mut rest, 7)?; // base
    while let Some(&first) = rest.first() {
        let start = section.len() - rest.len();
        if first & 0x80 != 0 {
            integer(&mut rest, 6)?; // indexed
        } else if first & 0x40 != 0 {
            integer(&mut rest, 4)?; // literal with name reference
            string(&mut rest, 7)?;
        } else if first & 0x20 != 0 {
            let is_protocol = NAME.is(string(&mut rest, 3)?);
            let value = string(&mut rest, 7)?;
            if is_protocol {
                let known = WEBTRANSPORT.is(value) || WEBTRANSPORT_H3.is(value);
                let protocol = if known { ConnectProtocol::WebTransport } else { ConnectProtocol::Other };
                return Some((start..section.len() - rest.len(), protocol));
            }
        } else {
            return None; // refers to a dynamic table
        }
    }
    None
}

impl QpackText {
    fn is(&self, (huffman, bytes): (bool, &[u8])) -> bool {
        bytes == if huffman { self.huffman } else { self.plain }
    }
}

/// Takes a string whose length has a prefix of `prefix` bits (RFC 7541 §5.2). True: it is Huffman-coded.
fn string<'a>(bytes: &mut &'a [u8], prefix: u8) -> Option<(bool, &'a [u8])> {
    let huffman = bytes.first()? & (1 << prefix) != 0;
    let length = integer(bytes, prefix)?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some((huffman, text))
}

/// Takes an integer with a prefix of `prefix` bits (RFC 7541 §5.1).
fn integer(bytes: &mut &[u8], prefix: u8) -> Option<usize> {
    let mask = u8::MAX >> (8 - prefix);
    let first = *bytes.first()? & mask;
    bytes.advance(1);
    if first < mask {
        return Some(usize::from(first));
    }
    let mut value = usize::from(mask);
    for shift in (0..28).step_by(7) {
        let byte = *bytes.first()?;
        bytes.advance(1);
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 7541, appendix B, as far as the texts need it.
    fn huffman(text: &[u8]) -> Vec<u8> {
        let code = |letter: &u8| match letter {
            b'-' => "010110",
            b'3' => "011001",
            b':' => "1011100",
            b'a' => "00011",
            b'b' => "100011",
            b'c' => "00100",
            b'e' => "00101",
            b'h' => "100111",
            b'l' => "101000",
            b'n' => "101010",
            b'o' => "00111",
            b'p' => "101011",
            b'r' => "101100",
            b's' => "01000",
            b't' => "01001",
            b'w' => "1111000",
            other => panic!("no code for {other}"),
        };
        let mut bits: String = text.iter().map(code).collect();
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes()
            .chunks(8)
            .map(|bits| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap())
            .collect()
    }

    fn literal(name: &[u8], value: &[u8], coded: bool) -> Vec<u8> {
        let (name, value, bit) =
            if coded { (huffman(name), huffman(value), 1) } else { (name.to_vec(), value.to_vec(), 0) };
        let mut line = vec![0x20 | bit << 3 | name.len().min(7) as u8];
        if name.len() >= 7 {
            line.push(name.len() as u8 - 7);
        }
        line.extend(name);
        line.push(bit << 7 | value.len() as u8);
        line.extend(value);
        line
    }

    /// `:method CONNECT` (static 15), `:scheme https` (23), `:path /wt` (name 1), then the line, then `:authority`
    /// (name 0).
    fn request(protocol: &[u8]) -> Bytes {
        [&[0, 0, 0xc0 | 15, 0xc0 | 23, 0x51, 3][..], b"/wt", protocol, &[0x50, 1, b'h']].concat().into()
    }

    #[test]
    fn the_coded_texts_agree_with_the_table_of_the_rfc() {
        for text in [NAME, WEBTRANSPORT, WEBTRANSPORT_H3] {
            assert_eq!(text.huffman, huffman(text.plain));
        }
    }

    #[test]
    fn both_names_of_webtransport_are_known_plain_and_coded() {
        for value in ["webtransport", "webtransport-h3"] {
            for coded in [false, true] {
                let (rest, protocol) = extract(request(&literal(b":protocol", value.as_bytes(), coded)));
                assert_eq!(protocol, Some(ConnectProtocol::WebTransport), "{value}, coded: {coded}");
                assert_eq!(rest, request(&[]));
            }
        }
    }

    #[test]
    fn another_protocol_is_known_to_be_another() {
        let (rest, protocol) = extract(request(&literal(b":protocol", b"websocket", false)));
        assert_eq!((rest, protocol), (request(&[]), Some(ConnectProtocol::Other)));
    }

    #[test]
    fn a_request_without_protocol_is_left_as_it_is() {
        let plain = request(&literal(b"protocol", b"webtransport", false));
        assert_eq!(extract(plain.clone()), (plain, None));
    }

    proptest! {
        #[test]
        fn no_section_makes_it_panic(section in proptest::collection::vec(any::<u8>(), 0..200)) {
            extract(section.into());
        }
    }
}
