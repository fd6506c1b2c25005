//! Where the streams of a connection meet its one session.
//!
//! The streams come in order of arrival, the session when its CONNECT has been answered; a stream may be first. The
//! first stream of the session becomes its control stream.

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::codes;
use crate::domain::CloseCode;
use crate::telemetry::names;
use crate::transport::quic;

/// Streams kept for a session that isn't open yet.
const MAX_WAITING: usize = 2;

/// The receiving half of the control stream, and what of it was read already.
pub(super) struct ControlRecv {
    pub(super) unread: Bytes,
    pub(super) stream: quic::RecvStream,
}

/// The control stream's halves, once they are there.
pub(super) struct Control {
    pub(super) send: oneshot::Receiver<quic::SendStream>,
    pub(super) recv: oneshot::Receiver<ControlRecv>,
}

/// A connection's place for a session.
#[derive(Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Default)]
struct State {
    session: Option<Session>,
    waiting: Vec<(u64, quic::SendStream, ControlRecv)>,
    strikes: u32,
}

struct Session {
    id: u64,
    control: Option<(oneshot::Sender<quic::SendStream>, oneshot::Sender<ControlRecv>)>,
}

impl Slot {
    /// Takes the place. `None`: it is taken.
    pub(super) fn claim(&self, id: u64) -> Option<Control> {
        let mut state = self.0.lock();
        if state.session.is_some() {
            return None;
        }
        let (send_in, send) = oneshot::channel();
        let (recv_in, recv) = oneshot::channel();
        state.session = Some(Session { id, control: Some((send_in, recv_in)) });
        for (of, send, recv) in std::mem::take(&mut state.waiting) {
            state.offer(of, send, recv);
        }
        Some(Control { send, recv })
    }

    /// Whether there is a session.
    pub(super) fn is_taken(&self) -> bool {
        self.0.lock().session.is_some()
    }

    /// Gives the place back: the session was refused.
    pub(super) fn release(&self) {
        let mut state = self.0.lock();
        state.session = None;
        for (_, send, recv) in std::mem::take(&mut state.waiting) {
            state.refuse(send, recv, codes::BUFFERED_STREAM_REJECTED, "no_session");
        }
    }

    /// A bidirectional stream of session `id` arrived.
    pub(super) fn offer(&self, id: u64, send: quic::SendStream, recv: ControlRecv) {
        self.0.lock().offer(id, send, recv);
    }

    /// The code with which to stop a unidirectional stream of session `id`: nobody here reads one.
    pub(super) fn refuse_uni(&self, id: u64) -> u64 {
        let mut state = self.0.lock();
        state.strike("unidirectional");
        let known = state.session.as_ref().is_some_and(|session| session.id == id);
        if known { refused_stream() } else { codes::BUFFERED_STREAM_REJECTED }.into_inner()
    }

    /// Notes a stream that came to nothing; h3 remembers each of them for the life of the connection.
    pub(super) fn strike(&self, reason: &'static str) {
        self.0.lock().strike(reason);
    }

    /// How many streams came to nothing.
    pub(super) fn strikes(&self) -> u32 {
        self.0.lock().strikes
    }
}

impl State {
    fn offer(&mut self, id: u64, send: quic::SendStream, recv: ControlRecv) {
        match &mut self.session {
            Some(session) if session.id == id => match session.control.take() {
                Some((send_in, recv_in)) => {
                    // The session is over when it doesn't listen; the streams end with it.
                    let _ = send_in.send(send);
                    let _ = recv_in.send(recv);
                }
                None => self.refuse(send, recv, refused_stream(), "second"),
            },
            None if self.waiting.len() < MAX_WAITING => self.waiting.push((id, send, recv)),
            _ => self.refuse(send, recv, codes::BUFFERED_STREAM_REJECTED, "no_session"),
        }
    }

    fn refuse(&mut self, mut send: quic::SendStream, mut recv: ControlRecv, code: quic::VarInt, reason: &'static str) {
        self.strike(reason);
        // Fails where the peer has ended the stream itself.
        let _ = send.reset(code);
        let _ = recv.stream.stop(code);
    }

    fn strike(&mut self, reason: &'static str) {
        self.strikes += 1;
        metrics::counter!(names::WEBTRANSPORT_STREAMS_REFUSED, "reason" => reason).increment(1);
    }
}

/// What a client sees on a stream that the protocol doesn't have.
fn refused_stream() -> quic::VarInt {
    codes::to_quic(u32::from(CloseCode::ProtocolError.number()))
}
