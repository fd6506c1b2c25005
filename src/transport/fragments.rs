//! Limits the fragments of a WebSocket message.
//!
//! A message may come in any number of fragments (RFC 6455 §5.4), empty ones among them. tungstenite joins them and
//! reports only the whole message, so a client could keep a core busy with fragments of six bytes. This reader parses
//! the frame headers as the bytes pass, and fails a message of more than [`FRAGMENTS`] fragments.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Fragments of one message, at most. Browsers fragment only messages above the server's size limit.
const FRAGMENTS: u32 = 64;

/// A client sent a message of too many fragments.
#[derive(Debug, thiserror::Error)]
#[error("a message of more than {FRAGMENTS} fragments")]
pub(super) struct TooManyFragments;

/// A stream whose incoming bytes are a client's frames.
#[derive(Debug)]
pub(super) struct FragmentLimit<S> {
    stream: S,
    frames: FrameScanner,
}

impl<S> FragmentLimit<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, frames: FrameScanner::default() }
    }
}

/// Position in the frames.
#[derive(Debug, Default)]
struct FrameScanner {
    /// Bytes of the current header that were read.
    read: u8,
    first: u8,
    second: u8,
    length: u64,
    /// Bytes of the payload that remain.
    payload: u64,
    /// Fragments of the current message.
    fragments: u32,
}

impl FrameScanner {
    /// Follows the next bytes.
    fn pass(&mut self, mut bytes: &[u8]) -> Result<(), TooManyFragments> {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.payload > 0 {
                let skipped = bytes.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = rest;
            self.header(*byte)?;
        }
        Ok(())
    }

    fn header(&mut self, byte: u8) -> Result<(), TooManyFragments> {
        match self.read {
            0 => self.first = byte,
            1 => {
                self.second = byte;
                self.length = 0;
            }
            at if at < 2 + self.length_bytes() => self.length = self.length << 8 | u64::from(byte),
            _ => {}
        }
        self.read += 1;
        if self.read < 2 {
            return Ok(());
        }
        let mask = if self.second & 0x80 == 0 { 0 } else { 4 };
        if self.read < 2 + self.length_bytes() + mask {
            return Ok(());
        }
        self.payload = if self.length_bytes() == 0 { u64::from(self.second & 0x7f) } else { self.length };
        self.read = 0;
        let (is_last, is_control) = (self.first & 0x80 != 0, self.first & 0x08 != 0);
        if !is_control {
            self.fragments = if is_last { 0 } else { self.fragments + 1 };
        }
        if self.fragments > FRAGMENTS { Err(TooManyFragments) } else { Ok(()) }
    }

    /// Bytes of the extended payload length.
    fn length_bytes(&self) -> u8 {
        match self.second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FragmentLimit<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let passed = self.frames.pass(&buffer.filled()[before..]);
        Poll::Ready(passed.map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FragmentLimit<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::{FRAGMENTS, FrameScanner};

    /// A client's frame.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(0x80 | length as u8),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        // A payload that looks like fragments.
        bytes.extend(std::iter::repeat_n(0, length));
        bytes
    }

    fn is_refused(frames: &[Vec<u8>], pieces: usize) -> bool {
        let mut counting = FrameScanner::default();
        frames.concat().chunks(pieces).any(|piece| counting.pass(piece).is_err())
    }

    #[test]
    fn messages_of_all_lengths_pass_however_the_bytes_come() {
        let lengths = [0, 1, 125, 126, 1000, 65_535, 65_536, 70_000];
        let frames: Vec<_> = (0..FRAGMENTS * 2).map(|n| frame(0x81, lengths[n as usize % lengths.len()])).collect();
        for pieces in [1, 7, 1024] {
            assert!(!is_refused(&frames, pieces), "{pieces}");
        }
    }

    #[test]
    fn a_message_of_too_many_fragments_is_refused_and_control_frames_between_them_change_nothing() {
        let mut frames = vec![frame(0x01, 10)];
        for _ in 1..FRAGMENTS {
            frames.extend([frame(0x00, 0), frame(0x89, 0)]);
        }
        let mut ended = frames.clone();
        ended.push(frame(0x80, 5));
        for pieces in [1, 7, 1024] {
            assert!(!is_refused(&frames, pieces), "just as many as may be");
            assert!(!is_refused(&[ended.clone(), ended.clone()].concat(), pieces), "two messages");
            assert!(is_refused(&[frames.clone(), vec![frame(0x00, 0)]].concat(), pieces), "{pieces}");
        }
    }
}
