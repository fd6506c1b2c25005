//! The last report of each member here, until the task that stores it takes it ([`crate::commit::MemberReport`]).

use std::time::Duration;

use super::Hub;
use crate::commit::{ConnectionQuality, MemberReport};
use crate::domain::{Measurement, MediaTime, RoomTime, StatusReport};

/// A member's row is written at most this often.
const STORE_EVERY: Duration = Duration::from_secs(60);

/// The latest position and connection quality that a member reported.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastReport {
    position: Option<MediaTime>,
    playing: Option<bool>,
    quality: Option<ConnectionQuality>,
    at: Option<RoomTime>,
    taken_at: Option<RoomTime>,
}

impl LastReport {
    pub(super) fn note_position(&mut self, position: MediaTime, playing: bool, now: RoomTime) {
        self.position = Some(position);
        self.playing = Some(playing);
        self.at = Some(now);
    }

    pub(super) fn note_status(&mut self, status: &StatusReport, now: RoomTime) {
        self.quality = ConnectionQuality::of(status.rtt.map(Measurement::millis), status.buffering).or(self.quality);
        self.at = Some(now);
    }

    /// The time of the latest report, if there was one since the last take, at least `STORE_EVERY` ago.
    fn take(&mut self, now: RoomTime) -> Option<RoomTime> {
        let at = self.at?;
        if self.taken_at.is_some_and(|taken| at <= taken || taken + STORE_EVERY > now) {
            return None;
        }
        self.taken_at = Some(now);
        Some(at)
    }
}

impl Hub {
    /// Takes the reports of members on this node that are due to be stored.
    pub fn take_reports(&self) -> Vec<MemberReport> {
        let now = self.now();
        let mut reports = Vec::new();
        for cell in self.cells() {
            let mut state = cell.lock();
            for member in state.members_here_mut() {
                let Some(at) = member.last_report.take(now) else { continue };
                let LastReport { position, playing, quality, .. } = member.last_report;
                let (room, user) = (cell.id().clone(), member.user.clone());
                reports.push(MemberReport {
                    room,
                    user,
                    position: position.map(MediaTime::seconds),
                    playing,
                    quality,
                    at,
                });
            }
        }
        reports
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::{Fixture, Silent};
    use super::*;
    use crate::domain::Limits;

    #[tokio::test(start_paused = true)]
    async fn a_member_s_report_is_due_at_once_and_then_once_a_minute_however_often_it_reports() {
        let fixture = Fixture::new();
        let ann = fixture.join("ann", Arc::new(Silent)).await;
        let _silent = fixture.join("bob", Arc::new(Silent)).await;
        let position = |seconds| MediaTime::parse(seconds, &Limits::default()).unwrap();
        let status =
            |millis: i32| StatusReport { rtt: Measurement::from_micros(millis * 1000).ok(), ..StatusReport::default() };
        assert_eq!(fixture.hub.take_reports(), []);
        let mut taken = Vec::new();
        for second in 0..180 {
            fixture.hub.position(&ann, position(f64::from(second)), true);
            fixture.hub.member_status(&ann, status(second * 4));
            taken.extend(fixture.hub.take_reports());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let shown: Vec<_> =
            taken.iter().map(|report| (report.user.as_str(), report.position, report.quality)).collect();
        let row = |second, quality| ("ann", Some(second), Some(quality));
        let [good, fair, poor] = [ConnectionQuality::Good, ConnectionQuality::Fair, ConnectionQuality::Poor];
        assert_eq!(shown, [row(0.0, good), row(60.0, fair), row(120.0, poor)]);
        assert_eq!(fixture.hub.take_reports().len(), 1);
        tokio::time::sleep(STORE_EVERY * 2).await;
        assert_eq!(fixture.hub.take_reports(), [], "it has said nothing since");
    }
}
