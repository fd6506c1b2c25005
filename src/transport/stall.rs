//! A time limit for stalled TCP writes.
//!
//! A peer that keeps its receive window closed holds the connection, and the data that waits for it, for as long as it
//! likes: TCP gives up only on a peer that doesn't answer. So a write that waits must make progress: [`STEP`] bytes
//! within the limit, or all that is offered if that is less. A peer that takes a byte now and then is ended, too.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Bytes to be taken by the end of the time: 4.3 kbit/s at 30 s.
const STEP: usize = 16 * 1024;

/// Fails a write with `TimedOut` when it makes no progress.
#[derive(Debug)]
pub(super) struct Unstalled<S> {
    stream: S,
    limit: Duration,
    /// The time limit of a waiting write, and the bytes that were taken since it began.
    waiting: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Unstalled<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, waiting: None }
    }

    /// Judges the outcome of a write of `offered` bytes.
    fn judge(
        &mut self,
        context: &mut Context<'_>,
        offered: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            // Everything was taken.
            Poll::Ready(Ok(count)) if *count >= offered => self.waiting = None,
            Poll::Ready(Ok(count)) => {
                if let Some((_, taken)) = &mut self.waiting {
                    *taken += count;
                    if *taken >= STEP {
                        self.waiting = None;
                    }
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let limit = self.limit;
                let (over, _) = self.waiting.get_or_insert_with(|| (Box::pin(tokio::time::sleep(limit)), 0));
                if over.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")));
                }
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.judge(context, pieces.iter().map(|piece| piece.len()).sum(), written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_or_a_byte_at_a_time_times_out() {
        for every in [None, Some(Duration::from_secs(5))] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            let mut stream = Unstalled::new(ours, LIMIT);
            let reading = async {
                loop {
                    match every {
                        Some(every) => tokio::time::sleep(every).await,
                        None => std::future::pending().await,
                    }
                    theirs.read_exact(&mut [0; 1]).await.unwrap();
                }
            };
            let error = tokio::select! {
                written = stream.write_all(&[7; 100_000]) => written.unwrap_err(),
                () = reading => unreachable!(),
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_gets_everything() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let mut stream = Unstalled::new(ours, LIMIT);
        let reading = async {
            let mut got = 0;
            while got < 200_000 {
                tokio::time::sleep(Duration::from_secs(5)).await;
                got += theirs.read(&mut [0; 4096]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(&[7; 200_000]), reading);
        written.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn small_writes_that_are_taken_late_are_no_stall() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut stream = Unstalled::new(ours, LIMIT);
        for _ in 0..20 {
            let reading = async {
                tokio::time::sleep(Duration::from_secs(20)).await;
                theirs.read_exact(&mut [0; 100]).await.unwrap();
            };
            let (written, ()) = tokio::join!(stream.write_all(&[7; 100]), reading);
            written.unwrap();
        }
    }
}
