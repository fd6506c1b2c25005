//! Commands that move the playback.

use std::time::Duration;

use super::Draft;
use crate::domain::{Dialect, Limits, MediaTime, MediaUrl, Rate, RoomTime, UserId};
use crate::room::{Actor, Basis, By, Cause, Control, ControlKey, Event, Member, Playback, Reject};

/// How far back a client's timestamp is trusted.
const MAX_CARRY: Duration = Duration::from_secs(2);

/// Age before which a vector is not corrected: the host's player may still be on its way to it.
const MIN_AGE_TO_CORRECT: Duration = Duration::from_secs(1);

impl Draft<'_> {
    pub(super) fn play_pause(
        &mut self,
        by: &Actor,
        control: Control,
        position: Option<MediaTime>,
        true_at: Option<RoomTime>,
        on: Basis,
        lead: Duration,
    ) -> Result<(), Reject> {
        let member = self.controller(by)?;
        let key = ControlKey { control: Some(control), position, true_at, taken: self.now };
        if self.is_repeated(member, &key) {
            return Ok(());
        }
        self.current(on)?;
        let current = &self.base.playback;
        let true_at = true_at.map(|at| member.dialect.believed(at, self.now));
        let playback = match control {
            Control::Play => {
                let start = self.scheduled(lead);
                let position = match (position, true_at) {
                    (Some(position), Some(true_at)) => carried(position, true_at, start, current.rate),
                    (Some(position), None) => position,
                    // Where the room is by then; a timestamp without a position dates nothing.
                    (None, _) => current.position_at(start),
                };
                self.running(position, start)
            }
            Control::Pause => self.stopped(member, position, true_at, lead),
        };
        self.push(Event::Moved {
            by: By::Member(by.user.clone()),
            cause: Cause::Control(control),
            playback,
            key: Some(key),
        });
        Ok(())
    }

    pub(super) fn set_rate(&mut self, by: &Actor, rate: Rate, on: Basis, lead: Duration) -> Result<(), Reject> {
        self.controller(by)?;
        self.current(on)?;
        let current = self.base.playback;
        if current.rate == rate {
            return Ok(());
        }
        // A start that is scheduled later still happens then.
        let at = self.scheduled(lead).max(current.at);
        // A film that stands keeps its position; at an open gate that is the gate's target.
        let position = if current.playing { self.bounded(current.position_at(at)) } else { current.position };
        let playback = Playback { position, rate, at, seq: self.next_seq(), ..current };
        self.push(Event::Moved { by: By::Member(by.user.clone()), cause: Cause::Rate, playback, key: None });
        Ok(())
    }

    pub(super) fn set_url(&mut self, by: &Actor, url: &MediaUrl, position: MediaTime) -> Result<(), Reject> {
        self.controller(by)?;
        // The former film's duration doesn't bound the new one's position.
        let playback = Playback { position, ..self.standing(position) };
        self.push(Event::UrlChanged { by: by.user.clone(), url: url.clone(), playback });
        Ok(())
    }

    pub(super) fn adopt(
        &mut self,
        by: &Actor,
        position: MediaTime,
        playing: bool,
        url: Option<&MediaUrl>,
        lead: Duration,
    ) -> Result<(), Reject> {
        self.controller(by)?;
        let mut playback = if playing { self.running(position, self.scheduled(lead)) } else { self.standing(position) };
        if url.is_some_and(|url| self.base.url.as_ref() != Some(url)) {
            playback.position = position;
        }
        self.push(Event::Adopted { by: by.user.clone(), playback, url: url.cloned() });
        Ok(())
    }

    /// Follows the host. The hub's view of ticks may be behind the room: a correction that no longer fits is dropped.
    pub(super) fn correct(&mut self, host: &UserId, position: MediaTime, playing: bool, at: RoomTime) {
        let room = self.base;
        let from_host = room.is_host(host) && room.members.get(host).is_some_and(Member::is_live);
        let settled = self.now >= room.playback.at + MIN_AGE_TO_CORRECT;
        if !from_host || !settled || room.gate.is_some() || at < room.playback.at {
            return;
        }
        let playback = if playing {
            self.running(carried(position, at, self.now, room.playback.rate), self.now)
        } else {
            self.standing(position)
        };
        self.push(Event::Moved { by: By::Member(host.clone()), cause: Cause::Correction, playback, key: None });
    }

    /// Whether the member sent this command before. `recent` holds a command without a timestamp only while it is the
    /// room's last playback command.
    pub(super) fn is_repeated(&self, member: &Member, key: &ControlKey) -> bool {
        member.recent.iter().any(|earlier| earlier.is_same(key) && earlier.is_recent(self.now))
    }

    /// The vector of a pause. One with a dated position, or without any, pauses a moving film: all stop at one
    /// scheduled moment. A bare position, and any position of a v2 client, is where the sender's player stands already:
    /// all stop there at once.
    fn stopped(
        &self,
        member: &Member,
        position: Option<MediaTime>,
        true_at: Option<RoomTime>,
        lead: Duration,
    ) -> Playback {
        let current = &self.base.playback;
        let moving = member.dialect == Dialect::V3 && current.playing;
        let stop = self.scheduled(lead);
        match (position, true_at) {
            (Some(position), Some(true_at)) if moving => {
                self.vector(carried(position, true_at, stop, current.rate), false, stop)
            }
            (None, _) if moving => self.vector(current.position_at(stop), false, stop),
            (Some(position), _) => self.standing(position),
            (None, _) => self.standing(current.position_at(self.now)),
        }
    }

    pub(super) fn standing(&self, position: MediaTime) -> Playback {
        self.vector(position, false, self.now)
    }

    fn running(&self, position: MediaTime, at: RoomTime) -> Playback {
        self.vector(position, true, at)
    }

    fn vector(&self, position: MediaTime, playing: bool, at: RoomTime) -> Playback {
        let position = self.bounded(position);
        Playback { position, rate: self.base.playback.rate, playing, at, seq: self.next_seq() }
    }

    fn bounded(&self, position: MediaTime) -> MediaTime {
        bounded(position, self.base.duration, self.limits)
    }

    /// Stops the film at its end.
    pub(super) fn end_film(&mut self) {
        let now = self.now;
        let room = self.room();
        let Some(end) = room.duration.filter(|_| room.ends_at().is_some_and(|at| at <= now)) else { return };
        let rate = room.playback.rate;
        let playback = Playback { position: end, rate, playing: false, at: now, seq: self.next_seq() };
        self.push(Event::Moved { by: By::Server, cause: Cause::Ended, playback, key: None });
    }
}

/// Bounds a position by the film's duration, where it is known, and by `MAX_POSITION_SECS`: a film that nobody stopped
/// runs on without end.
pub(super) fn bounded(position: MediaTime, duration: Option<MediaTime>, limits: &Limits) -> MediaTime {
    let largest = MediaTime::ZERO.moved(limits.position_secs as f64);
    let end = duration.filter(|end| *end < largest).unwrap_or(largest);
    if position > end { end } else { position }
}

/// The position at `start` of a film that was at `position` at `true_at`; never earlier. A timestamp further back than
/// any network delay comes from a wrong clock (a v2 client sends its own) and is ignored.
fn carried(position: MediaTime, true_at: RoomTime, start: RoomTime, rate: Rate) -> MediaTime {
    let elapsed = start.saturating_since(true_at);
    if elapsed > MAX_CARRY { position } else { position.moved(elapsed.as_secs_f64() * rate.factor()) }
}
