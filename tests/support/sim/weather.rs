//! What happens between the nodes and the log, as the log's faults are told.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::dice::Dice;
use super::faulty_log::{Crossing, Fate, Faults, What};

/// The node that watches: nothing happens to it.
pub(crate) const AUDITOR: &str = "auditor";

/// How many times in a hundred.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    late: usize,
    late_ms: usize,
    lost: usize,
    twice: usize,
}

impl Weather {
    pub(crate) fn some(dice: &mut Dice) -> Self {
        let storm = dice.percent(30);
        Self {
            late: dice.below(if storm { 80 } else { 30 }),
            late_ms: [5, 60, 400, 3000][dice.below(if storm { 4 } else { 3 })],
            lost: dice.below(if storm { 25 } else { 6 }),
            twice: dice.below(20),
        }
    }
}

impl Weather {
    /// Far from Redis: late, often twice, never lost.
    pub(crate) fn slow() -> Self {
        Self { late: 70, late_ms: 30, lost: 0, twice: 20 }
    }
}

/// The weather now, and how often anything ephemeral crossed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sky(Arc<Mutex<(Weather, usize)>>);

impl Sky {
    pub(crate) fn over(faults: &Faults, mut dice: Dice) -> Self {
        let sky = Self::default();
        let seen = sky.clone();
        faults.decide_by(move |crossing| seen.fate(crossing, &mut dice));
        sky
    }

    pub(crate) fn becomes(&self, weather: Weather) {
        self.0.lock().0 = weather;
    }

    /// Ephemeral messages that crossed so far.
    pub(crate) fn ephemeral(&self) -> usize {
        self.0.lock().1
    }

    fn fate(&self, crossing: Crossing<'_>, dice: &mut Dice) -> Fate {
        let mut now = self.0.lock();
        if crossing.node.as_str() == AUDITOR {
            return Fate::Arrives;
        }
        if crossing.what == What::Ephemeral {
            now.1 += 1;
        }
        let Weather { late, late_ms, lost, twice } = now.0;
        match dice.below(100) {
            roll if roll < lost => Fate::Lost,
            roll if roll < lost + twice => Fate::Twice,
            roll if roll < lost + twice + late => Fate::Late(Duration::from_millis(dice.below(late_ms + 1) as u64)),
            _ => Fate::Arrives,
        }
    }
}
