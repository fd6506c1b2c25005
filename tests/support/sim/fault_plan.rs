//! Which crossings between the nodes and the log are late, lost or repeated.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::counting_log::Tally;
use super::faulty_log::{Crossing, Fate, Faults, What};
use super::rng::Rng;

/// The node of the auditor, exempt from faults.
pub(crate) const AUDITOR: &str = "auditor";

/// Probabilities, percent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FaultRates {
    late: usize,
    late_ms: usize,
    lost: usize,
    twice: usize,
}

impl FaultRates {
    pub(crate) fn some(rng: &mut Rng) -> Self {
        let heavy = rng.percent(30);
        Self {
            late: rng.below(if heavy { 80 } else { 30 }),
            late_ms: [5, 60, 400, 3000][rng.below(if heavy { 4 } else { 3 })],
            lost: rng.below(if heavy { 25 } else { 6 }),
            twice: rng.below(20),
        }
    }
}

impl FaultRates {
    /// A distant log: late, often twice, never lost.
    pub(crate) fn slow() -> Self {
        Self { late: 70, late_ms: 30, lost: 0, twice: 20 }
    }
}

/// The rates in force, and how often an ephemeral message has crossed; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultPlan(Arc<Mutex<(FaultRates, usize)>>);

impl FaultPlan {
    pub(crate) fn over(faults: &Faults, mut rng: Rng, tally: &Tally) -> Self {
        let plan = Self::default();
        let (seen, tally) = (plan.clone(), tally.clone());
        faults.decide_by(move |crossing| {
            let fate = seen.fate(crossing, &mut rng);
            match fate {
                Fate::Arrives => {}
                Fate::Late(_) => tally.count(format!("late: {:?}", crossing.what)),
                Fate::Lost => tally.count(format!("lost: {:?}", crossing.what)),
                Fate::Twice => tally.count(format!("twice: {:?}", crossing.what)),
            }
            fate
        });
        plan
    }

    pub(crate) fn becomes(&self, rates: FaultRates) {
        self.0.lock().0 = rates;
    }

    /// Ephemeral messages that crossed so far.
    pub(crate) fn ephemeral(&self) -> usize {
        self.0.lock().1
    }

    fn fate(&self, crossing: Crossing<'_>, rng: &mut Rng) -> Fate {
        let mut now = self.0.lock();
        if crossing.node.as_str() == AUDITOR {
            return Fate::Arrives;
        }
        if crossing.what == What::Ephemeral {
            now.1 += 1;
        }
        let FaultRates { late, late_ms, lost, twice } = now.0;
        match rng.below(100) {
            roll if roll < lost => Fate::Lost,
            roll if roll < lost + twice => Fate::Twice,
            roll if roll < lost + twice + late => Fate::Late(Duration::from_millis(rng.below(late_ms + 1) as u64)),
            _ => Fate::Arrives,
        }
    }
}
