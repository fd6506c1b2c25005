//! Messages to the members here outside committed events: the whole state, replies, notices.

use std::cell::OnceCell;
use std::time::Duration;

use bytes::Bytes;

use super::super::delivery::{Joined, Notice, NoticeBody, Refusal, Reply};
use super::super::subscriber::Subscriber;
use super::audience::{Viewer, reconnect};
use super::{AttachedMember, Completion, RoomCellState};
use crate::clock::Clock;
use crate::domain::{Dialect, Head, NodeId, ResumeToken, RoomTime, SessionRef};

/// A room with more members keeps its encoded state until the next change.
const KEEP_ENCODED_ABOVE: usize = 32;

impl RoomCellState {
    pub(super) fn send_joined(
        &self,
        member: &AttachedMember,
        token: Option<&ResumeToken>,
        resumed: bool,
        node: &NodeId,
        now: RoomTime,
    ) {
        let once = OnceCell::new();
        let (user, session, shared) = (Some(&member.user), Some(&member.session), self.shared_state(&once));
        let audience = self.audience.total();
        member.subscriber.state(&self.room, &Joined { user, session, token, resumed, node, now, shared, audience });
    }

    /// Where the encoding of the room is shared: among all who are told of a large room at this head, else by the users
    /// of `once`. A small room is encoded in microseconds, and keeping the bytes of every room would cost more.
    fn shared_state<'a>(&'a self, once: &'a OnceCell<Bytes>) -> &'a OnceCell<Bytes> {
        if self.room.members().len() > KEEP_ENCODED_ABOVE { &self.encoded_state } else { once }
    }

    /// The whole state to one viewer, as a member of the audience.
    pub(in crate::hub) fn welcome(&self, viewer: &Viewer, audience: u32, node: &NodeId, now: RoomTime) {
        let once = OnceCell::new();
        let (user, session, shared) = (Some(&viewer.user), Some(&viewer.session), self.shared_state(&once));
        let joined = Joined { user, session, token: None, resumed: false, node, now, shared, audience };
        viewer.subscriber.state(&self.room, &joined);
    }

    /// The whole state to all viewers here, encoded once.
    pub(super) fn resync_audience(&self, node: &NodeId, now: RoomTime) {
        let encode = |viewer: &dyn Subscriber, audience: u32| {
            let (once, token) = (OnceCell::new(), None);
            let shared = self.shared_state(&once);
            let joined = Joined { user: None, session: None, token, resumed: true, node, now, shared, audience };
            viewer.encode_state(&self.room, &joined)
        };
        if let Some(Some(message)) = self.audience.encode(encode) {
            self.audience.tell(message, now);
        }
    }

    /// The whole state to one member: REQUEST_SYNC, or a JOIN repeated on the same session.
    pub(in crate::hub) fn send_state(&self, session: &SessionRef, node: &NodeId, now: RoomTime) {
        match self.attached(session) {
            Some(member) => self.send_joined(member, None, true, node, now),
            None => self.audience.say(session, now, |viewer, audience| self.welcome(viewer, audience, node, now)),
        }
    }

    pub(in crate::hub) fn send_state_to_all(&self, node: &NodeId, now: RoomTime) {
        let (once, token, audience) = (OnceCell::new(), None, self.audience.total());
        for member in &self.attached {
            let (user, session, shared) = (Some(&member.user), Some(&member.session), self.shared_state(&once));
            let joined = Joined { user, session, token, resumed: true, node, now, shared, audience };
            member.subscriber.state(&self.room, &joined);
        }
        self.resync_audience(node, now);
    }

    /// The kept CHAT lines after `seen`, or all of them.
    pub(super) fn replay_chat(&self, member: &AttachedMember, seen: Option<Head>) {
        let epoch = self.room.head().epoch;
        let from = seen.filter(|seen| seen.epoch == epoch).map_or(0, |seen| seen.seq);
        for (seq, line) in self.room.chat().iter().filter(|(seq, _)| **seq > from) {
            member.subscriber.replay(Head { epoch, seq: *seq }, line);
        }
    }

    /// Tells whoever asked for a command its outcome.
    pub(in crate::hub) fn answer(&self, completion: Completion, result: Result<Head, Refusal>) {
        let (session, request, reference) = match completion {
            Completion::Reply { session, request, reference } => (session, request, reference),
            Completion::Join(reply) => return reply.answer(result.map(drop)),
            Completion::MustCommit | Completion::BestEffort => return,
        };
        let Some(member) = self.attached(&session) else { return };
        match (result, reference) {
            (Ok(head), Some(reference)) => member.subscriber.reply(Reply::Ack { reference, head }),
            (Ok(_), None) => {}
            (Err(refusal), reference) => {
                member.subscriber.reply(Reply::Refused { reference, request, refusal: &refusal });
            }
        }
    }

    fn tell_all(&self, body: NoticeBody<'static>, now: RoomTime) {
        self.audience.notice(body.clone(), now);
        let notice = Notice { body, now, encoded: OnceCell::new() };
        for member in &self.attached {
            member.subscriber.notice(&notice);
        }
    }

    /// How many watch now, for the v3 members and the viewers here.
    pub(in crate::hub) fn tell_audience_count(&self, count: u32, now: RoomTime) {
        let body = NoticeBody::Audience { count };
        self.audience.notice(body.clone(), now);
        let notice = Notice { body, now, encoded: OnceCell::new() };
        for member in self.attached.iter().filter(|member| member.dialect == Dialect::V3) {
            member.subscriber.notice(&notice);
        }
    }

    /// A commit failed: members are told DEGRADED, once.
    pub(in crate::hub) fn note_failed_commit(&mut self, now: RoomTime) {
        if self.failed_commit.replace(Clock::instant()).is_none() {
            self.tell_all(NoticeBody::Degraded { degraded: true }, now);
        }
    }

    /// The log takes commits, or answers reads, again.
    pub(in crate::hub) fn clear_failed_commit(&mut self, now: RoomTime) {
        if self.failed_commit.take().is_some() {
            self.tell_all(NoticeBody::Degraded { degraded: false }, now);
        }
    }

    /// Tells each member to come back after a random part of `spread`, so that they don't come back all at once.
    pub(in crate::hub) fn announce_reconnect(&self, spread: Duration, now: RoomTime) {
        for member in &self.attached {
            member.subscriber.notice(&reconnect(spread, now));
        }
        self.audience.announce_reconnect(spread, now);
    }
}
