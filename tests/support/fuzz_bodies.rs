//! The bodies of the fuzz targets; they also replay the corpus in a plain test (`tests/fuzz_corpus.rs`) and run under
//! proptest.

#![allow(dead_code, reason = "no test file uses all of it")]

use std::fmt::Debug;

use bytes::Bytes;
use tandem::domain::{CompactBytes, Limits, MemberSlot, TransportKind};
use tandem::hub::relay::Relay;
use tandem::protocol::{
    ClientMessage, Compact, MAX_BUNDLE, Rules, bundles, decode, decode_compact, encode_error, encode_status,
    encode_tick, unbundled,
};
use tandem_webtransport::capsule::{self, CapsuleReader, CloseCapsule};
use tandem_webtransport::message::MessageReader;

/// A text frame: decodes to a message of a known kind, or to a refusal that can be sent.
pub(crate) fn client_message(bytes: &[u8]) {
    match decode(bytes, &Rules::default()) {
        Ok(request) => assert!(ClientMessage::KINDS.contains(&request.message.kind())),
        Err(bad) => {
            assert!(!bad.message.is_empty() && bad.message.len() < 400, "{bad:?}");
            assert!(bad.request.is_empty() || ClientMessage::KINDS.contains(&bad.request));
            let error = encode_error(bad.code, &bad.message, bad.reference, bad.request, None);
            let error: serde_json::Value = serde_json::from_slice(&error).expect("an ERROR is JSON");
            assert_eq!(error["code"], bad.code.as_str());
        }
    }
}

/// A binary frame or a datagram: a decoded tick encodes to the same tick, a status to the same status, and messages
/// survive their bundle.
pub(crate) fn compact(bytes: &[u8]) {
    let limits = Limits::default();
    let parts = unbundled(bytes);
    assert!(parts.iter().map(|part| part.len()).sum::<usize>() <= bytes.len(), "a bundle grew");
    // The parts, or the input cut into pieces as its bytes say.
    let mut rest = bytes;
    let mut pieces = parts;
    while let Some((&length, after)) = rest.split_first() {
        let (piece, after) = after.split_at(usize::from(length).min(after.len()));
        pieces.push(piece);
        rest = after;
    }
    // A bundle is never a part of another.
    pieces.retain(|piece| piece.first() != Some(&6));
    let frames = bundles(pieces.iter().map(|piece| CompactBytes::from(*piece)).collect());
    assert!(frames.iter().all(|frame| frame.len() <= MAX_BUNDLE || frame[0] != 6));
    let mut again: Vec<&[u8]> = frames.iter().flat_map(|frame| unbundled(frame)).collect();
    // A message that is too long to be a part overtakes the open bundle.
    again.sort_unstable();
    pieces.sort_unstable();
    assert_eq!(again, pieces);
    let Ok(read) = decode_compact(bytes, &limits) else { return };
    let written = match read {
        Compact::Tick(report) => encode_tick(&report.relayed(MemberSlot(1), false)),
        Compact::Status(report) => encode_status(&report.relayed(MemberSlot(1), TransportKind::WebSocket)),
        Compact::ClockProbe { .. } | Compact::Unknown => return,
    };
    assert_eq!(decode_compact(&written, &limits), Ok(read));
}

/// The CONNECT stream, cut into pieces as the first byte says: the result is the same as in one piece, and a CLOSE
/// capsule is found as it was written.
pub(crate) fn capsule(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    let whole = first_close(bytes, bytes.len().max(1));
    same(&first_close(bytes, usize::from(piece).max(1)), &whole);
    if let Ok(Some(close)) = whole {
        // Replacing invalid UTF-8 makes a text longer, so it may be cut.
        let again = first_close(&capsule::close(close.code, &close.reason), 1).expect("our own").expect("a close");
        assert!(again.code == close.code && close.reason.starts_with(&again.reason));
    }
}

fn first_close(bytes: &[u8], piece: usize) -> Result<Option<CloseCapsule>, String> {
    let mut reader = CapsuleReader::default();
    for mut piece in bytes.chunks(piece) {
        if let Some(close) = reader.read(&mut piece).map_err(|error| error.to_string())? {
            return Ok(Some(close));
        }
    }
    Ok(None)
}

/// The control stream: the first byte is the limit of a message, the second the size of the pieces in which it comes.
pub(crate) fn control_stream(bytes: &[u8]) {
    let [limit, piece, bytes @ ..] = bytes else { return };
    let limit = usize::from(*limit).max(1);
    let whole = messages(bytes, limit, bytes.len().max(1));
    same(&messages(bytes, limit, usize::from(*piece).max(1)), &whole);
    for message in &whole.0 {
        assert!((1..=limit).contains(&message.len()));
    }
}

/// The messages, and how the stream ended: between two of them, within one, or with a violation.
fn messages(bytes: &[u8], limit: usize, piece: usize) -> (Vec<Vec<u8>>, Result<bool, String>) {
    let (mut reader, mut messages) = (MessageReader::new(limit), Vec::new());
    for piece in bytes.chunks(piece) {
        reader.feed(Bytes::copy_from_slice(piece));
        loop {
            match reader.take() {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(violation) => return (messages, Err(violation.to_string())),
            }
        }
    }
    (messages, Ok(reader.at_boundary()))
}

/// A relay of another node: what was read is written so that it is read again, and a part of it is no relay.
pub(crate) fn relay(bytes: &[u8]) {
    if let Some(relay) = Relay::decode(&Bytes::copy_from_slice(bytes)) {
        let written = relay.encode();
        assert!(written.len() <= bytes.len(), "{} of {} bytes", written.len(), bytes.len());
        assert_eq!(Relay::decode(&written.slice(..written.len() - 1)), None);
        same(&Relay::decode(&relay.encode()), &Some(relay));
    }
}

fn same<T: PartialEq + Debug>(one: &T, other: &T) {
    assert_eq!(one, other);
}
