//! Detects that the host's player has left the playback vector for good.
//!
//! One late report is ignored. A deviation of more than 250 ms that stays the same (within 150 ms) for at least a
//! second, over at least two reports, is where the host really is: the room follows. The same holds for a host that
//! stands while the room plays, and the reverse.

use crate::domain::{RoomTime, TickReport};
use crate::room::Playback;

const TOLERANCE_S: f64 = 0.250;
const SAME_S: f64 = 0.150;
const STEADY_S: f64 = 1.0;

#[derive(Debug, Default)]
pub(super) struct HostDrift {
    first: Option<Deviation>,
}

#[derive(Debug, Clone, Copy)]
struct Deviation {
    at: RoomTime,
    /// The lead over the vector, s; negative: behind.
    by: f64,
    playing: bool,
}

impl HostDrift {
    pub(super) fn reset(&mut self) {
        self.first = None;
    }

    /// Takes a report of the host. True: the deviation is steady and must be corrected; the detection starts over.
    pub(super) fn feed(&mut self, report: &TickReport, playback: &Playback) -> bool {
        let by = report.position.seconds() - playback.position_at(report.at).seconds();
        let astray = by.abs() > TOLERANCE_S || report.playing != playback.playing;
        if !astray {
            self.first = None;
            return false;
        }
        let now = Deviation { at: report.at, by, playing: report.playing };
        match self.first {
            // While the host stands and the room plays, the deviation grows by itself: its size says nothing.
            Some(first)
                if first.playing == now.playing
                    && (now.playing != playback.playing || (first.by - by).abs() < SAME_S) =>
            {
                let steady = now.at.seconds_since(first.at) >= STEADY_S;
                if steady {
                    self.first = None;
                }
                steady
            }
            _ => {
                self.first = Some(now);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Limits, MediaTime, Rate};

    fn playing_from_zero() -> Playback {
        Playback { position: MediaTime::ZERO, rate: Rate::NORMAL, playing: true, at: RoomTime::from_millis(0), seq: 1 }
    }

    fn tick(at_ms: i64, position: f64, playing: bool) -> TickReport {
        let position = MediaTime::parse(position, &Limits::default()).unwrap();
        TickReport { seq: 0, playing, position, at: RoomTime::from_millis(at_ms), rate: Rate::NORMAL }
    }

    #[test]
    fn a_host_that_stays_half_a_second_ahead_for_a_second_is_followed() {
        let mut drift = HostDrift::default();
        let reports = [(10_000, 10.5), (10_250, 10.76), (10_500, 11.0), (11_000, 11.49)];
        let answers = reports.map(|(at, position)| drift.feed(&tick(at, position, true), &playing_from_zero()));
        assert_eq!(answers, [false, false, false, true]);
    }

    #[test]
    fn one_late_report_among_good_ones_corrects_nothing() {
        let mut drift = HostDrift::default();
        let reports = [(10_000, 9.0), (10_250, 10.25), (11_250, 10.25), (11_500, 11.5)];
        assert!(reports.iter().all(|&(at, position)| !drift.feed(&tick(at, position, true), &playing_from_zero())));
    }

    #[test]
    fn a_host_that_stands_while_the_room_plays_is_followed() {
        let mut drift = HostDrift::default();
        assert!(!drift.feed(&tick(10_000, 10.0, false), &playing_from_zero()));
        assert!(drift.feed(&tick(13_000, 10.0, false), &playing_from_zero()));
    }

    #[test]
    fn a_deviation_that_wanders_is_not_steady() {
        let mut drift = HostDrift::default();
        let reports = [(10_000, 10.5), (10_500, 12.0), (11_000, 14.0), (11_500, 11.9)];
        assert!(reports.iter().all(|&(at, position)| !drift.feed(&tick(at, position, true), &playing_from_zero())));
    }
}
