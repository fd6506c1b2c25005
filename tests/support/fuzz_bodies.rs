//! What the fuzz targets do with their bytes; the same bodies replay the corpus in a plain test (`tests/fuzz_corpus.rs`)
//! and run under proptest.

use tandem::domain::{Limits, Slot, Tick};
use tandem::protocol::{ClientMessage, Compact, Rules, decode, decode_compact, encode_error, encode_tick};

/// A text frame: a message of a known kind, or a refusal that can be sent.
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

/// A binary frame or a datagram: what was read as a tick says the same when it is written.
pub(crate) fn compact(bytes: &[u8]) {
    let limits = Limits::default();
    let Ok(Compact::Tick { playing, seq, position, at, rate }) = decode_compact(bytes, &limits) else { return };
    let tick = Tick { slot: Slot(1), seq, playing, from_host: false, position, at, rate };
    let again = decode_compact(&encode_tick(&tick), &limits);
    assert_eq!(again, Ok(Compact::Tick { playing, seq, position, at, rate }));
}
