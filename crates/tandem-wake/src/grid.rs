use std::time::Duration;

use tokio::time::Instant;

/// Instants 100 ms apart.
///
/// A timer that may be late by that much, and that every session has, is set on the grid: the process wakes once for
/// all that are due instead of once for each.
#[derive(Debug, Clone, Copy)]
pub struct TimerGrid(Instant);

impl TimerGrid {
    /// Distance of two instants of the grid.
    pub const STEP: Duration = Duration::from_millis(100);

    /// A grid that contains `origin`.
    pub fn starting_at(origin: Instant) -> Self {
        Self(origin)
    }

    /// The first instant of the grid that isn't before `at`.
    pub fn next(&self, at: Instant) -> Instant {
        let past = at.saturating_duration_since(self.0).as_nanos() % Self::STEP.as_nanos();
        if past == 0 { at } else { at + Self::STEP - Duration::from_nanos(past as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn timers_on_the_grid_are_late_by_less_than_a_step_and_fall_together() {
        #[expect(clippy::disallowed_methods, reason = "the origin of a grid")]
        let origin = Instant::now();
        let (grid, first) = (TimerGrid::starting_at(origin), origin + Duration::from_micros(12_345_678));
        let times: Vec<_> = (0..1000).map(|step| first + Duration::from_micros(step * 777)).collect();
        let mut on_grid: Vec<_> = times.iter().map(|at| grid.next(*at)).collect();
        for (at, on_grid) in times.iter().zip(&on_grid) {
            assert!(*on_grid >= *at && *on_grid < *at + TimerGrid::STEP);
            assert_eq!(grid.next(*on_grid), *on_grid);
        }
        on_grid.dedup();
        assert_eq!(on_grid.len(), 9, "in 777 ms");
    }
}
