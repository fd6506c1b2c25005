//! What a command would do: one file per theme, and the [`Draft`] that they all write to.

mod gate;
mod join;
mod membership;
mod playback;
mod player;

use std::time::Duration;

use super::{Actor, Basis, Command, Event, Member, Reject, Room};
use crate::domain::{Limits, RoomTime};

impl Room {
    /// The events that the command causes at `now`, or why it is refused. No events: nothing to do (a duplicate, a
    /// close that came too late, a value that is set already).
    pub fn decide(&self, now: RoomTime, command: &Command, limits: &Limits) -> Result<Vec<Event>, Reject> {
        let mut draft = Draft::new(self, now, limits);
        match command {
            Command::Join(join) => draft.join(join)?,
            Command::Leave { by } => draft.leave(by)?,
            Command::Disconnect { user, session } => draft.disconnect(user, session),
            Command::Deadline { lead, may_keep } => draft.deadline(*lead, *may_keep),
            Command::Rename { by, name } => draft.rename(by, name)?,
            Command::SetGuestControl { by, enabled } => draft.set_guest_control(by, *enabled)?,
            Command::TransferHost { by, target } => draft.transfer_host(by, target)?,
            Command::Kick { by, target } => draft.kick(by, target)?,
            Command::Ban { by, target } => draft.ban(by, target)?,
            Command::Unban { by, target } => draft.unban(by, target)?,
            Command::SetPin { by, pin } => draft.set_pin(by, pin.as_ref())?,
            Command::PlayPause { by, control, position, true_at, on, lead } => {
                draft.play_pause(by, *control, *position, *true_at, *on, *lead)?;
            }
            Command::Seek { by, position, resume, true_at, on, lead } => {
                draft.seek(by, *position, *resume, *true_at, *on, *lead)?;
            }
            Command::SetRate { by, rate, on, lead } => draft.set_rate(by, *rate, *on, *lead)?,
            Command::SetUrl { by, url, position } => draft.set_url(by, url, *position)?,
            Command::Adopt { by, position, playing, url, lead } => {
                draft.adopt(by, *position, *playing, url.as_ref(), *lead)?;
            }
            Command::Correct { host, position, playing, at } => draft.correct(host, *position, *playing, *at),
            Command::Ready { by, gate, target, film, lead } => draft.ready(by, *gate, *target, *film, *lead)?,
            Command::Player { by, player, film, lead } => draft.player(by, player, *film, *lead)?,
            Command::Chat { by, text } => {
                draft.actor(by)?;
                draft.push(Event::Chat { user: by.user.clone(), text: text.clone(), at: draft.now });
            }
            Command::Custom { by, namespace, payload } => {
                draft.actor(by)?;
                draft.push(Event::Custom {
                    user: by.user.clone(),
                    namespace: namespace.clone(),
                    payload: payload.clone(),
                });
            }
        }
        Ok(draft.events)
    }
}

/// A decision in the making: the events so far, and the room as it would be after them.
struct Draft<'a> {
    now: RoomTime,
    limits: &'a Limits,
    /// The room as it is.
    base: &'a Room,
    events: Vec<Event>,
    /// `base` after the first `applied` events. Most decisions are one event and never need the copy.
    ahead: Option<Room>,
    applied: usize,
}

impl<'a> Draft<'a> {
    fn new(base: &'a Room, now: RoomTime, limits: &'a Limits) -> Self {
        Self { now, limits, base, events: Vec::new(), ahead: None, applied: 0 }
    }

    fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// The room after the events so far.
    fn room(&mut self) -> &Room {
        if self.events.is_empty() {
            return self.base;
        }
        let ahead = self.ahead.get_or_insert_with(|| self.base.clone());
        for event in &self.events[self.applied..] {
            ahead.apply(event);
        }
        self.applied = self.events.len();
        ahead
    }

    /// The number that the next event gets.
    fn next_seq(&self) -> u64 {
        self.base.head.seq.saturating_add(self.events.len() as u64 + 1)
    }

    /// The member that asks, if the session still speaks for it.
    fn actor(&self, by: &Actor) -> Result<&'a Member, Reject> {
        let member = self.base.members.get(&by.user).filter(|member| member.is_on(&by.session));
        member.ok_or(Reject::NotMember)
    }

    fn host(&self, by: &Actor) -> Result<(), Reject> {
        self.actor(by)?;
        if self.base.is_host(&by.user) { Ok(()) } else { Err(Reject::NotHost) }
    }

    fn controller(&self, by: &Actor) -> Result<&'a Member, Reject> {
        let member = self.actor(by)?;
        if self.base.may_control(&by.user) { Ok(member) } else { Err(Reject::NotInControl) }
    }

    /// Refuses what was decided on a film, or at a gate, that is no longer the room's. A command that doesn't say is taken.
    fn current(&self, on: Basis) -> Result<(), Reject> {
        let newest_gate = self.base.next_gate.saturating_sub(1);
        let stale =
            on.film.is_some_and(|film| film != self.base.film) || on.gate.is_some_and(|gate| gate != newest_gate);
        if stale { Err(Reject::Stale) } else { Ok(()) }
    }

    /// When a command that is scheduled `lead` ahead takes effect.
    fn scheduled(&self, lead: Duration) -> RoomTime {
        self.now + lead.min(self.longest_lead())
    }

    /// For what the room starts of itself, without a measured lead: everybody has heard of it by then.
    fn longest_lead(&self) -> Duration {
        Duration::from_millis(self.limits.max_lead_ms)
    }
}
