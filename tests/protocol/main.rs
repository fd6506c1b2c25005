//! The wire protocol: golden files, what decoding refuses and accepts, and that no client input can break it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod decoding;
mod encoding;
mod golden;
mod robust;
mod v2_faults;

#[path = "../support/fuzz_bodies.rs"]
mod fuzz_bodies;
#[path = "../support/wire_samples.rs"]
mod wire_samples;

use tandem::domain::ErrorCode;
use tandem::protocol::{BadRequest, ClientMessage, ClientRequest, Rules, decode};

fn request(text: &str) -> ClientRequest {
    decode(text.as_bytes(), &Rules::default()).unwrap_or_else(|bad| panic!("{text}: {bad}"))
}

fn message(text: &str) -> ClientMessage {
    request(text).message
}

fn refused(text: impl AsRef<[u8]>) -> BadRequest {
    decode(text.as_ref(), &Rules::default()).expect_err(&String::from_utf8_lossy(text.as_ref()))
}

fn refused_with(code: ErrorCode, texts: &[&str]) {
    for text in texts {
        assert_eq!(refused(text).code, code, "{text}");
    }
}
