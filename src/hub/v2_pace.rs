//! Keeps a v2 member's player in step, within what its client understands.
//!
//! v2's extension acts when a message arrives, never at a moment that the message names, and leaves a deviation below
//! half a second as it is. So a start that all others make 200 ms later leaves it 200 ms ahead for good. It needs:
//! * **starts and stops at their moment**: the hub holds a v2 session's messages back until a scheduled command is due
//!   ([`V2Pace::wait_for`]), less the way there and the time that this player takes to start;
//! * **small corrections**: the extension reports its position twice a second. A deviation that is steady is corrected
//!   by SEEK of userId `server`, to which it seeks without condition, aimed where the room will be when that seek is
//!   done ([`V2Pace::report`]). What a seek or a start costs this player is learned from what is left afterwards.
//!
//! Corrections name no `eventTimestamp`: the extension would compare it with its own clock, which may be wrong.
//! A v2 host is not corrected: the room follows it.

use std::time::Duration;

use crate::domain::{MediaTime, Rate, RoomTime};
use crate::room::{Ask, Cause, Control, Event, Playback};

/// Deviation of a playing player that is left as it is, s. A seek is visible, so this is not much below the goal.
const TOLERANCE_S: f64 = 0.075;
/// The same for a standing one, which a seek disturbs less.
const STANDING_TOLERANCE_S: f64 = 0.040;
/// Reports that must agree before anything is corrected or learned, and how closely, s.
const REPORTS: usize = 2;
const SAME_S: f64 = 0.080;
/// The extension reports nothing for 1.2 s after a SEEK, and its player needs a moment after that.
const AFTER_SEEK: Duration = Duration::from_millis(1500);
/// The same after a start, from its moment on.
const AFTER_START: Duration = Duration::from_millis(400);
/// Longest hold: beyond that something else is wrong.
const LONGEST_HOLD: Duration = Duration::from_secs(1);
/// Corrections in a row that left the player astray, after which it is left alone for a while: it may not know SEEK.
const IN_VAIN: u32 = 4;
const LEFT_ALONE: Duration = Duration::from_secs(60);
/// For how long a SEEK of the member near the place of its last correction is that correction's echo: a player that
/// needs longer than 1.2 s for a seek tells the room of it.
const ECHO: Duration = Duration::from_secs(8);
const ECHO_S: f64 = 1.5;
const MOST_LOST_AT_START_S: f64 = 0.5;
/// Losses are at most so large, s.
const MOST_LOST_S: f64 = 2.5;

/// The cost of an action of a player that a deviation afterwards tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lesson {
    Start,
    Seek,
}

/// A step that brings a v2 member's player and the room together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PaceCorrection {
    /// SEEK of `server` to the member.
    Seek { position: MediaTime, playing: bool },
    /// The room moves to where its v2 host is.
    Follow { position: MediaTime },
}

/// The pace of one v2 member.
#[derive(Debug)]
pub(super) struct V2Pace {
    /// From the arrival of a command to moving film, s.
    start_loss: f64,
    /// From the arrival of SEEK to moving film at its target, s.
    seek_loss: f64,
    lesson: Option<Lesson>,
    /// It has sought itself since the last start: how long that takes says nothing of a start.
    has_sought: bool,
    /// The last deviations, s ahead of the room.
    deviations: Vec<f64>,
    /// Reports before this moment say nothing.
    quiet_until: RoomTime,
    in_vain: u32,
    /// Where the last correction sent it, and when.
    sent_to: Option<(MediaTime, RoomTime)>,
}

impl Default for V2Pace {
    fn default() -> Self {
        Self {
            start_loss: 0.05,
            seek_loss: 0.10,
            lesson: None,
            has_sought: false,
            deviations: Vec::new(),
            quiet_until: RoomTime::default(),
            in_vain: 0,
            sent_to: None,
        }
    }
}

impl V2Pace {
    /// How long a message about the event is held back for this member, `way` being the time to it. Also begins a new
    /// observation: what was seen before belongs to another vector.
    pub(super) fn wait_for(&mut self, event: &Event, now: RoomTime, way: Duration, own: bool) -> Duration {
        let (playback, starts) = match event {
            Event::Moved { playback, cause: Cause::Control(Control::Play), .. } => (playback, true),
            Event::Moved { playback, cause: Cause::Control(Control::Pause) | Cause::Ended, .. } => (playback, false),
            Event::Sought { .. } if own => {
                self.has_sought = true;
                self.observe_anew(now + AFTER_START, None);
                return Duration::ZERO;
            }
            Event::Moved { .. } | Event::Sought { .. } | Event::UrlChanged { .. } | Event::Adopted { .. } => {
                self.observe_anew(now + AFTER_START, None);
                return Duration::ZERO;
            }
            _ => return Duration::ZERO,
        };
        let teaches = starts && !own && !std::mem::take(&mut self.has_sought);
        self.observe_anew(playback.at.max(now) + AFTER_START, teaches.then_some(Lesson::Start));
        let loss = if starts { Duration::from_secs_f64(self.start_loss) } else { Duration::ZERO };
        // Its own player is there already.
        if own {
            return Duration::ZERO;
        }
        playback.at.saturating_since(now).saturating_sub(way + loss).min(LONGEST_HOLD)
    }

    fn observe_anew(&mut self, quiet_until: RoomTime, lesson: Option<Lesson>) {
        self.deviations.clear();
        self.quiet_until = quiet_until;
        self.lesson = lesson;
        self.in_vain = 0;
    }

    /// Takes a position report that was `way` under way.
    pub(super) fn report(
        &mut self,
        position: MediaTime,
        playing: bool,
        now: RoomTime,
        way: Duration,
        playback: &Playback,
        is_host: bool,
    ) -> Option<PaceCorrection> {
        if now < self.quiet_until || playing != playback.playing || playback.rate != Rate::NORMAL {
            self.deviations.clear();
            return None;
        }
        let sent = RoomTime::from_micros(now.as_micros() - i64::try_from(way.as_micros()).unwrap_or(0));
        let by = position.seconds() - playback.position_at(sent).seconds();
        if self.deviations.last().is_some_and(|last| (last - by).abs() > SAME_S) {
            self.deviations.clear();
        }
        self.deviations.push(by);
        if self.deviations.len() < REPORTS {
            return None;
        }
        let by = self.deviations.drain(..).sum::<f64>() / REPORTS as f64;
        if playing {
            self.learn(by);
        }
        let tolerance = if playing { TOLERANCE_S } else { STANDING_TOLERANCE_S };
        if by.abs() <= tolerance {
            self.in_vain = 0;
            return None;
        }
        if is_host {
            self.quiet_until = now + AFTER_SEEK;
            let position = playback.position_at(now).moved(by);
            return playing.then_some(PaceCorrection::Follow { position });
        }
        if self.in_vain >= IN_VAIN {
            self.in_vain = 0;
            self.quiet_until = now + LEFT_ALONE;
            return None;
        }
        self.in_vain += 1;
        self.quiet_until = now + AFTER_SEEK;
        let arrives = now + way;
        let position = if playing {
            self.lesson = Some(Lesson::Seek);
            playback.position_at(arrives).moved(self.seek_loss)
        } else {
            playback.position
        };
        self.sent_to = Some((position, arrives));
        Some(PaceCorrection::Seek { position, playing })
    }

    fn learn(&mut self, by: f64) {
        let loss = match self.lesson.take() {
            // More is a jump, by a clock that is wrong for instance.
            Some(Lesson::Start) if by.abs() <= MOST_LOST_AT_START_S => &mut self.start_loss,
            Some(Lesson::Seek) => &mut self.seek_loss,
            Some(Lesson::Start) | None => return,
        };
        *loss = (*loss - by).clamp(0.0, MOST_LOST_S);
    }

    /// Whether a command of the member is its own player's answer to a correction, not a person's.
    pub(super) fn is_echo(&self, ask: &Ask, now: RoomTime) -> bool {
        let (Ask::Seek { position, .. }, Some((sent_to, at))) = (ask, self.sent_to) else { return false };
        let since = now.saturating_since(at);
        let ahead = position.seconds() - sent_to.seconds();
        since <= ECHO && ahead > -ECHO_S && ahead < since.as_secs_f64() + ECHO_S
    }
}
