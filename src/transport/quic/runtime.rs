//! tokio as quinn sees it, with distant timers on a grid.
//!
//! Thousands of quiet connections have one timer each, for the keep-alive. Set to the microsecond, each of them wakes the
//! process on its own, sends one packet, and wakes it again with the answer. On a grid many leave, and are answered, at
//! once. Timers that are near are those of loss detection and pacing, and stay exact.

use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

use crate::clock::Grid;

/// What is farther away than this is no matter of milliseconds.
const DISTANT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct CoarseTimers(Grid);

impl CoarseTimers {
    pub(super) fn new() -> Self {
        Self(Grid::start())
    }
}

impl Runtime for CoarseTimers {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(CoarseTimer { timer: TokioRuntime.new_timer(coarse(self.0, at)), grid: self.0 })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

fn coarse(grid: Grid, at: Instant) -> Instant {
    let distant = at.saturating_duration_since(TokioRuntime.now()) > DISTANT;
    if distant { grid.next(at.into()).into_std() } else { at }
}

#[derive(Debug)]
struct CoarseTimer {
    timer: Pin<Box<dyn AsyncTimer>>,
    grid: Grid,
}

impl AsyncTimer for CoarseTimer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        let at = coarse(self.grid, at);
        self.timer.as_mut().reset(at);
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll(context)
    }
}
