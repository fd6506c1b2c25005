//! A node's knowledge of the audience: how many watch, on all nodes, and whose hands are raised.
//!
//! Once a second each node publishes its part, and is told the others'. A part that was not heard for [`SILENT`] is
//! dropped, so a lost node's viewers are not counted for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Audience, AudienceState, Viewer};
use crate::clock::Clock;
use crate::domain::{KeyHash, NodeId, RoomTime, SessionRef, StatusReport, UserId, Username};
use crate::hub::digest::DigestPart;

/// A node whose part was not heard for this long has no audience any more.
const SILENT: Duration = Duration::from_secs(3);
/// Raised hands of one node that its part names.
const HANDS: usize = 32;
/// How often a viewer may raise or lower its hand.
const HAND_EVERY: Duration = Duration::from_secs(5);
/// How long a changed count waits for its audit row: a crowd that comes in is one row.
const NOTE_AFTER: Duration = Duration::from_secs(60);

/// A viewer that asks to become a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaisedHand {
    pub user: UserId,
    pub name: Username,
    pub session: SessionRef,
    /// Hash of its client key: a ban should hold for its client, too.
    pub client: Option<KeyHash>,
}

/// A node's own viewers of a room, as it tells the others once a second.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AudiencePart {
    pub count: u32,
    /// At most [`HANDS`].
    pub hands: Vec<RaisedHand>,
}

/// The news of a second.
#[derive(Debug, Default)]
pub(in crate::hub) struct AudienceReport {
    /// For the other nodes.
    pub(in crate::hub) part: Option<AudiencePart>,
    /// The count has changed, and receivers here don't know.
    pub(in crate::hub) count: Option<u32>,
    /// The count differs from the audit's last row for a minute.
    pub(in crate::hub) to_note: Option<u32>,
}

impl Audience {
    /// A viewer raises or lowers its hand. `Err`: it did a moment ago, or too many others ask.
    pub(in crate::hub) fn raise_hand(&self, session: &SessionRef, raised: bool, now: RoomTime) -> Result<(), Duration> {
        let mut state = self.state.lock();
        let up = state.seats.iter().flatten().filter(|viewer| viewer.hand).count();
        let Some(place) = state.by_session.get(&session.id).copied() else { return Ok(()) };
        let Some(viewer) = &mut state.seats[place] else { return Ok(()) };
        if viewer.hand == raised {
            return Ok(());
        }
        if let Some(since) = viewer.hand_at.map(|at| now.saturating_since(at))
            && since < HAND_EVERY
        {
            return Err(HAND_EVERY - since);
        }
        if raised && up >= HANDS {
            return Err(HAND_EVERY);
        }
        (viewer.hand, viewer.hand_at) = (raised, Some(now));
        Ok(())
    }

    /// The host lowers a viewer's hand.
    pub(in crate::hub) fn lower_hand(&self, session: &SessionRef) -> bool {
        self.with(session, |viewer| std::mem::replace(&mut viewer.hand, false)).unwrap_or(false)
    }

    /// The raised hand of a viewer, on whatever node.
    pub(in crate::hub) fn hand_of(&self, user: &UserId) -> Option<RaisedHand> {
        let state = self.state.lock();
        let known = |hands: &[RaisedHand]| hands.iter().find(|hand| hand.user == *user).cloned();
        known(&state.own_hands()).or_else(|| state.others.values().find_map(|(part, _)| known(&part.hands)))
    }

    /// A viewer of this node, or one with a raised hand on another: its client key, as far as it is known.
    pub(in crate::hub) fn origin_of(&self, user: &UserId) -> Option<Option<KeyHash>> {
        let here = {
            let state = self.state.lock();
            let found = state.seats.iter().flatten().find(|viewer| viewer.user == *user);
            found.map(|viewer| viewer.origin.client)
        };
        here.or_else(|| self.hand_of(user).map(|hand| hand.client))
    }

    /// Keeps the viewer's latest status. False: it came too soon after the last.
    pub(in crate::hub) fn note_status(
        &self,
        session: &SessionRef,
        status: StatusReport,
        now: RoomTime,
        every: Duration,
    ) -> bool {
        let note = |viewer: &mut Viewer| {
            let due = viewer.status.is_none_or(|(last, _)| last + every <= now || last > now);
            if due {
                viewer.status = Some((now, status));
            }
            due
        };
        self.with(session, note).unwrap_or(false)
    }

    /// Adds the statuses of the viewers here that are at most `fresh` old.
    pub(in crate::hub) fn add_statuses(&self, part: &mut DigestPart, now: RoomTime, fresh: Duration) {
        for viewer in self.state.lock().seats.iter().flatten() {
            if let Some((at, status)) = &viewer.status
                && *at + fresh > now
            {
                part.add(None, status);
            }
        }
    }

    /// Takes in the part of another node.
    pub(in crate::hub) fn hear_part(&self, node: &NodeId, part: AudiencePart) {
        let mut state = self.state.lock();
        match part.count {
            0 => drop(state.others.remove(node)),
            _ => drop(state.others.insert(node.clone(), (part, Clock::instant()))),
        }
        state.differs.get_or_insert_with(Clock::instant);
    }

    /// The audit has this count.
    pub(in crate::hub) fn note_count(&self, count: u32) {
        let mut state = self.state.lock();
        (state.noted, state.shown, state.differs) = (count, count, None);
    }

    /// No viewer is anywhere, and everybody knows: nothing is due.
    pub(in crate::hub) fn is_at_rest(&self) -> bool {
        self.is_empty() && self.state.lock().is_at_rest()
    }

    /// The news since the last call; called once a second.
    pub(in crate::hub) fn report(&self, now: RoomTime) -> AudienceReport {
        let mut state = self.state.lock();
        state.tell_passed(now);
        if !state.feed.is_empty() {
            self.fed.notify_one();
        }
        state.others.retain(|_, (_, heard)| heard.elapsed() < SILENT);
        let (here, total) = (state.here(), state.total());
        let part = (here > 0 || state.published > 0).then(|| AudiencePart { count: here, hands: state.own_hands() });
        state.published = here;
        let count = (std::mem::replace(&mut state.shown, total) != total).then_some(total);
        if state.noted == total {
            state.differs = None;
        } else {
            state.differs.get_or_insert_with(Clock::instant);
        }
        let to_note = state.differs.is_some_and(|since| since.elapsed() >= NOTE_AFTER).then_some(total);
        AudienceReport { part, count, to_note }
    }

    /// The hands that went up and down since the host's session here was last told: `true` is up.
    pub(in crate::hub) fn hands_for(&self, host: Option<&SessionRef>) -> Vec<(RaisedHand, bool)> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.host.as_ref() != host {
            state.host = host.cloned();
            state.hands_shown.clear();
        }
        if host.is_none() {
            return Vec::new();
        }
        let mut up = BTreeMap::new();
        for hand in state.own_hands().into_iter().chain(state.others.values().flat_map(|(part, _)| part.hands.clone()))
        {
            up.entry(hand.user.clone()).or_insert(hand);
        }
        let lowered = state.hands_shown.iter().filter(|(user, _)| !up.contains_key(*user));
        let raised = up.iter().filter(|(user, _)| !state.hands_shown.contains_key(*user));
        let lowered: Vec<_> = lowered.map(|(_, hand)| (hand.clone(), false)).collect();
        let changes = lowered.into_iter().chain(raised.map(|(_, hand)| (hand.clone(), true))).collect();
        state.hands_shown = up;
        changes
    }
}

impl AudienceState {
    /// No viewer is anywhere, and everybody knows.
    fn is_at_rest(&self) -> bool {
        let known = (self.published, self.shown, self.noted) != (0, 0, 0);
        !known && self.by_session.is_empty() && self.others.is_empty() && self.hands_shown.is_empty()
    }

    fn own_hands(&self) -> Vec<RaisedHand> {
        let up = self.seats.iter().flatten().filter(|viewer| viewer.hand).take(HANDS);
        let hand = |viewer: &Viewer| RaisedHand {
            user: viewer.user.clone(),
            name: viewer.name.clone(),
            session: viewer.session.clone(),
            client: viewer.origin.client,
        };
        up.map(hand).collect()
    }
}
