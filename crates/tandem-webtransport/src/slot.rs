//! Assigns the streams of a connection to its one session.
//!
//! Streams arrive in any order, and the session begins when its CONNECT was answered; a stream may be first
//! (draft-ietf-webtrans-http3, "Buffering Incoming Streams and Datagrams"). The first stream of the session becomes
//! its control stream.

use bytes::Bytes;
use parking_lot::Mutex;
use tandem_quic::{RecvStream, SendStream, VarInt};
use tokio::sync::oneshot;

use crate::{ObserveWebTransport, WebTransportEvent, codes};

/// Streams kept for a session that isn't open yet.
const MAX_WAITING: usize = 2;

/// The receiving half of the control stream, and the bytes of it that were read already.
pub(crate) struct ControlRecv {
    pub(crate) unread: Bytes,
    pub(crate) stream: RecvStream,
}

/// The halves of the control stream, once the client has opened it.
pub(crate) struct ControlStream {
    pub(crate) send: oneshot::Receiver<SendStream>,
    pub(crate) recv: oneshot::Receiver<ControlRecv>,
}

/// A connection's slot for a session.
pub(crate) struct WebTransportSlot {
    state: Mutex<SlotState>,
    /// The code for streams that a session doesn't have.
    refused: VarInt,
    observe: ObserveWebTransport,
}

#[derive(Default)]
struct SlotState {
    session: Option<SlotSession>,
    waiting: Vec<(u64, SendStream, ControlRecv)>,
    /// Streams that were refused or came to nothing.
    useless: u32,
}

struct SlotSession {
    id: u64,
    /// Taken by the first stream.
    control: Option<(oneshot::Sender<SendStream>, oneshot::Sender<ControlRecv>)>,
}

impl WebTransportSlot {
    pub(crate) fn new(violation_code: u32, observe: ObserveWebTransport) -> Self {
        Self { state: Mutex::default(), refused: codes::to_quic(violation_code), observe }
    }

    /// Claims the slot, or returns `None` if the connection has a session.
    pub(crate) fn claim(&self, id: u64) -> Option<ControlStream> {
        let mut state = self.state.lock();
        if state.session.is_some() {
            return None;
        }
        let (send_in, send) = oneshot::channel();
        let (recv_in, recv) = oneshot::channel();
        state.session = Some(SlotSession { id, control: Some((send_in, recv_in)) });
        for (of, send, recv) in std::mem::take(&mut state.waiting) {
            self.assign(&mut state, of, send, recv);
        }
        Some(ControlStream { send, recv })
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.state.lock().session.is_some()
    }

    /// Frees the slot: the session was refused.
    pub(crate) fn release(&self) {
        let mut state = self.state.lock();
        state.session = None;
        for (_, send, recv) in std::mem::take(&mut state.waiting) {
            self.refuse(&mut state, send, recv, codes::BUFFERED_STREAM_REJECTED, "no_session");
        }
    }

    /// Takes a bidirectional stream of session `id`.
    pub(crate) fn offer(&self, id: u64, send: SendStream, recv: ControlRecv) {
        self.assign(&mut self.state.lock(), id, send, recv);
    }

    /// Counts a unidirectional stream of session `id`, and returns the code with which to stop it: no session reads
    /// one.
    pub(crate) fn refuse_uni(&self, id: u64) -> u64 {
        let mut state = self.state.lock();
        self.count(&mut state, "unidirectional");
        let known = state.session.as_ref().is_some_and(|session| session.id == id);
        if known { self.refused } else { codes::BUFFERED_STREAM_REJECTED }.into_inner()
    }

    /// Counts a stream that came to nothing. h3 remembers each of them for the life of the connection.
    pub(crate) fn count_useless(&self, reason: &'static str) {
        self.count(&mut self.state.lock(), reason);
    }

    pub(crate) fn useless(&self) -> u32 {
        self.state.lock().useless
    }

    fn assign(&self, state: &mut SlotState, id: u64, send: SendStream, recv: ControlRecv) {
        match &mut state.session {
            Some(session) if session.id == id => match session.control.take() {
                Some((send_in, recv_in)) => {
                    // Fails if the session is over; the streams end with it.
                    let _ = send_in.send(send);
                    let _ = recv_in.send(recv);
                }
                None => self.refuse(state, send, recv, self.refused, "second"),
            },
            None if state.waiting.len() < MAX_WAITING => state.waiting.push((id, send, recv)),
            _ => self.refuse(state, send, recv, codes::BUFFERED_STREAM_REJECTED, "no_session"),
        }
    }

    fn refuse(
        &self,
        state: &mut SlotState,
        mut send: SendStream,
        mut recv: ControlRecv,
        code: VarInt,
        reason: &'static str,
    ) {
        self.count(state, reason);
        // Fails where the client has ended the stream itself.
        let _ = send.reset(code);
        let _ = recv.stream.stop(code);
    }

    fn count(&self, state: &mut SlotState, reason: &'static str) {
        state.useless += 1;
        (self.observe)(WebTransportEvent::StreamRefused { reason });
    }
}
