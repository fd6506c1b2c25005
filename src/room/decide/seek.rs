//! SEEK, READY and the gate between them.

use std::time::Duration;

use super::Draft;
use super::playback::bounded;
use crate::domain::{Dialect, MediaTime, Player, PlayerState, RoomTime, UserId};
use crate::room::{Actor, Basis, By, Cause, Control, ControlKey, Event, Playback, ReadyGate, Reject};

/// A v2 READY names its target, as its player reports it, instead of the gate. In seconds.
const SAME_TARGET_SECS: f64 = 1.0;

impl Draft<'_> {
    pub(super) fn seek(
        &mut self,
        by: &Actor,
        position: MediaTime,
        resume: Option<bool>,
        true_at: Option<RoomTime>,
        on: Basis,
        lead: Duration,
    ) -> Result<(), Reject> {
        let member = self.controller(by)?;
        let resume = self.resumes(member.dialect, resume);
        let key = ControlKey { control: None, position: Some(position), true_at, taken: self.now };
        // Without a timestamp only the room's last command can be repeated, and the room shows whether that one was to
        // play on: the same target with the other choice is another command. (Not for a v2 client: see `resumes`.)
        let same_way = true_at.is_some() || resume == self.base.intends_to_play() || member.dialect == Dialect::V2;
        if same_way && self.is_repeated(member, &key) {
            return Ok(());
        }
        self.current(on)?;
        let playback = self.standing(position);
        let target = playback.position;
        let gate = if resume { self.gate(&by.user, member.dialect, target) } else { None };
        let plays_at_once = resume && gate.is_none();
        self.push(Event::Sought { by: by.user.clone(), playback, gate, key: Some(key) });
        if plays_at_once {
            self.release(target, lead);
        }
        Ok(())
    }

    /// Whether to play on at the target. Without a choice of its sender the room keeps its own. At an open gate the
    /// seek before has stopped a v2 client's player, so its `false` is no choice.
    fn resumes(&self, dialect: Dialect, resume: Option<bool>) -> bool {
        let at_gate = dialect == Dialect::V2 && self.base.gate.is_some();
        resume.filter(|_| !at_gate).unwrap_or_else(|| self.base.intends_to_play())
    }

    /// `None`: there is no member to wait for. A player that loads, failed, can't keep up or was never shown would
    /// only use up the deadline.
    fn gate(&self, seeker: &UserId, dialect: Dialect, target: MediaTime) -> Option<ReadyGate> {
        let answers = |user: &UserId| dialect == Dialect::V3 || user != seeker;
        let able = self.base.members.iter().filter(|(_, member)| member.is_live() && member.player.is_awaited());
        let awaiting: std::collections::BTreeSet<_> =
            able.map(|(user, _)| user).filter(|user| answers(user)).cloned().collect();
        (!awaiting.is_empty()).then(|| ReadyGate {
            id: self.base.next_gate,
            target,
            awaiting,
            ready: Default::default(),
            quorum_at: self.now + Duration::from_millis(self.limits.gate_quorum_ms),
            deadline: self.now + Duration::from_millis(self.limits.gate_deadline_ms),
            by: seeker.clone(),
        })
    }

    pub(super) fn ready(
        &mut self,
        by: &Actor,
        gate: Option<u32>,
        target: Option<MediaTime>,
        film: Option<u32>,
        lead: Duration,
    ) -> Result<(), Reject> {
        let member = self.actor(by)?;
        // Too late: ignored without an answer.
        if film.is_some_and(|film| film != self.base.film) {
            return Ok(());
        }
        // A v2 client can't send PLAYER: one that has sought shows that it has a player.
        if member.dialect == Dialect::V2 && !member.player.is_ready() {
            self.show_player(&by.user, Player::of(PlayerState::Ready));
            return Ok(());
        }
        let open = self.base.gate.as_ref().ok_or(Reject::NoGate)?;
        let meant = match (gate, target) {
            (Some(id), _) => id == open.id,
            (None, Some(target)) => (target.seconds() - open.target.seconds()).abs() <= SAME_TARGET_SECS,
            (None, None) => true,
        };
        if meant && open.ready.contains(&by.user) {
            return Ok(());
        }
        if !meant || !open.awaiting.contains(&by.user) {
            return Err(Reject::NoGate);
        }
        self.push(Event::GateProgress { id: open.id, user: by.user.clone() });
        self.release_if_met(lead);
        Ok(())
    }

    /// Plays on when the gate waits for no member any more.
    pub(super) fn release_if_met(&mut self, lead: Duration) {
        let now = self.now;
        if let Some(gate) = self.room().gate.as_ref().filter(|gate| gate.is_met(now)) {
            let target = gate.target;
            self.release(target, lead);
        }
    }

    fn release(&mut self, target: MediaTime, lead: Duration) {
        // A member that left just now may have taken a longer duration with it.
        let position = bounded(target, self.room().duration, self.limits);
        let playback = Playback {
            position,
            rate: self.base.playback.rate,
            playing: true,
            at: self.scheduled(lead),
            seq: self.next_seq(),
        };
        self.push(Event::Moved { by: By::Server, cause: Cause::Control(Control::Play), playback, key: None });
    }
}
