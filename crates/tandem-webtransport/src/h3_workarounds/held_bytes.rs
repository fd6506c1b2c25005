//! h3 buffers whole frames in memory, whatever length they announce.
//!
//! A client could announce a HEADERS frame of a gigabyte and send it. So the adapter counts what it has given to h3 for
//! a stream, the code that takes payload out of h3 reports it here, and a stream of which h3 holds too much is ended
//! with H3_EXCESSIVE_LOAD.
//!
//! Upstream: hyperium/h3#308 (open on 2026-11-30). Delete when h3 bounds its buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that h3 may hold of one request: a field section far above what a browser sends.
pub(crate) const MAX_REQUEST: usize = 64 << 10;
/// Bytes of a unidirectional stream. h3 doesn't tell what it has consumed there, so this is what the peer's control
/// stream may carry in its life: thousands of PRIORITY_UPDATE frames.
pub(crate) const MAX_UNIDIRECTIONAL: usize = 256 << 10;
/// A frame's header counts as held until its payload is delivered; at most this many bytes.
const FRAME_HEAD: usize = 16;

/// Unparsed bytes of a stream in h3's buffers.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeldBytes(Arc<AtomicUsize>);

impl HeldBytes {
    /// A frame's payload, or a part of it, came out of h3.
    pub(crate) fn delivered(&self, bytes: usize) {
        let left = |held: usize| Some(held.saturating_sub(bytes + FRAME_HEAD));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }

    /// Bytes went into h3; returns how many it holds now.
    pub(crate) fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}
