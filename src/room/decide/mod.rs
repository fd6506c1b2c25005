//! Decisions: one file per subject, and the [`Draft`] that all of them write.

mod enter;
mod membership;
mod playback;
mod player_report;
mod seek;

use std::time::Duration;

use super::{Actor, Ask, Basis, Command, Event, Member, Reject, Room};
use crate::domain::{Limits, RoomTime};

impl Room {
    /// The events that the command causes at `now`, or why it is refused. No events: there is nothing to do (a
    /// duplicate, a close that came too late, a value that is set already).
    pub fn decide(&self, now: RoomTime, command: &Command, limits: &Limits) -> Result<Vec<Event>, Reject> {
        let mut draft = Draft::new(self, now, limits);
        match command {
            Command::Join(join) => draft.join(join)?,
            Command::Leave { by } => draft.leave(by)?,
            Command::Disconnect { user, session } => draft.disconnect(user, session),
            Command::Deadline { lead, may_keep } => draft.deadline(*lead, *may_keep),
            Command::Asked { by, lead, ask } => draft.asked(by, *lead, ask)?,
            Command::CountAudience { count } => draft.count_audience(*count),
            Command::Correct { host, position, playing, at } => draft.correct(host, *position, *playing, *at),
        }
        Ok(draft.events)
    }
}

/// A decision in progress: the events so far, and the room as it would be after them.
struct Draft<'a> {
    now: RoomTime,
    limits: &'a Limits,
    /// The room before the decision.
    base: &'a Room,
    events: Vec<Event>,
    /// `base` after the first `applied` events. Most decisions have one event and never need this copy.
    ahead: Option<Room>,
    applied: usize,
}

impl<'a> Draft<'a> {
    fn new(base: &'a Room, now: RoomTime, limits: &'a Limits) -> Self {
        Self { now, limits, base, events: Vec::new(), ahead: None, applied: 0 }
    }

    fn asked(&mut self, by: &Actor, lead: Duration, ask: &Ask) -> Result<(), Reject> {
        match ask {
            Ask::Rename { name } => self.rename(by, name),
            Ask::SetGuestControl { enabled } => self.set_guest_control(by, *enabled),
            Ask::TransferHost { target } => self.transfer_host(by, target),
            Ask::Kick { target } => self.kick(by, target),
            Ask::Ban { target } => self.ban(by, target, None),
            Ask::BanViewer { target, client } => self.ban(by, target, Some(*client)),
            Ask::Unban { target } => self.unban(by, target),
            Ask::SetPin { pin } => self.set_pin(by, pin.as_ref()),
            Ask::PlayPause { control, position, true_at, on } => {
                self.play_pause(by, *control, *position, *true_at, *on, lead)
            }
            Ask::Seek { position, resume, true_at, on } => self.seek(by, *position, *resume, *true_at, *on, lead),
            Ask::SetRate { rate, on } => self.set_rate(by, *rate, *on, lead),
            Ask::SetUrl { url, position } => self.set_url(by, url, *position),
            Ask::Adopt { position, playing, url } => self.adopt(by, *position, *playing, url.as_ref(), lead),
            Ask::Ready { gate, target, film } => self.ready(by, *gate, *target, *film, lead),
            Ask::Player { player, film } => self.player(by, player, *film, lead),
            Ask::Chat { text } => {
                self.actor(by)?;
                self.push(Event::Chat { user: by.user.clone(), text: text.clone(), at: self.now });
                Ok(())
            }
            Ask::Custom { namespace, payload } => {
                self.actor(by)?;
                self.push(Event::Custom {
                    user: by.user.clone(),
                    namespace: namespace.clone(),
                    payload: payload.clone(),
                });
                Ok(())
            }
        }
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

    /// The `seq` of the next event.
    fn next_seq(&self) -> u64 {
        self.base.head.seq.saturating_add(self.events.len() as u64 + 1)
    }

    /// The member that asks, if this is its current session.
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

    /// Refuses a command that was decided on another film, or at an earlier gate. One that doesn't say is accepted.
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

    /// The lead of what the room starts by itself, without a measured round trip.
    fn longest_lead(&self) -> Duration {
        Duration::from_millis(self.limits.max_lead_ms)
    }
}
