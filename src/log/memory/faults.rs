//! Faults on demand: what tests and the simulation do to the log. Without a decision function nothing here happens.
//!
//! Everything that crosses between a node and the log asks the decision function once, in an order that follows from
//! the order of the calls; delays are tokio timers. So a seeded function under tokio's paused time on one thread plays
//! the same story every time.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Shared;
use crate::domain::{NodeId, RoomId};
use crate::log::LogError;

/// Something crosses between a node and the log.
#[derive(Debug, Clone, Copy)]
pub struct Crossing<'a> {
    /// What.
    pub what: What,
    /// From or to which node.
    pub node: &'a NodeId,
    /// About which room.
    pub room: &'a RoomId,
}

/// What crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// A commit on its way in. Lost: the caller gets an error, and it never happened.
    Commit,
    /// Its answer. Lost: the caller gets an error, and it *did* happen (or conflict).
    Answer,
    /// A load. Lost: an error.
    Load,
    /// A commit on its way to a follower.
    Delivery,
    /// An ephemeral message on its way to a node.
    Ephemeral,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// It arrives.
    #[default]
    Arrives,
    /// It arrives later. Deliveries of one node stay in order: what is behind waits too.
    Late(Duration),
    /// It is lost. A lost delivery shows by the heads of the room's next one; [`Faults::calm`] admits the rest as gaps.
    Lost,
    /// A delivery or ephemeral message arrives twice; the others once.
    Twice,
}

type Decide = dyn FnMut(Crossing<'_>) -> Fate + Send;

/// The faults of one log. Cheap to clone; does not keep the log alive.
#[derive(Debug, Clone)]
pub struct Faults {
    shared: Weak<Shared>,
}

impl Faults {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }

    /// From now on this function decides. It is called under a lock: it must not call the log.
    pub fn decide_by(&self, decide: impl FnMut(Crossing<'_>) -> Fate + Send + 'static) {
        if let Some(shared) = self.shared.upgrade() {
            shared.trouble.lock().decide = Some(Box::new(decide));
        }
    }

    /// Cuts a node off: its commits and loads fail, those under way too (though they may take effect), deliveries stop.
    pub fn partition(&self, node: &NodeId) {
        if let Some(shared) = self.shared.upgrade() {
            shared.trouble.lock().partitioned.insert(node.clone());
            shared.with_follower(node, |follower| follower.cut_off());
        }
    }

    /// Ends a partition: the node hears [`Followed::Gap`](crate::log::Followed::Gap)`(None)`, then what comes next.
    pub fn heal(&self, node: &NodeId) {
        if let Some(shared) = self.shared.upgrade() {
            shared.trouble.lock().partitioned.remove(node);
            shared.with_follower(node, |follower| follower.reconnect());
        }
    }

    /// No more faults: partitions heal, and every lost delivery that no later one has shown is reported as a gap.
    pub fn calm(&self) {
        if let Some(shared) = self.shared.upgrade() {
            let partitioned = {
                let mut trouble = shared.trouble.lock();
                trouble.decide = None;
                std::mem::take(&mut trouble.partitioned)
            };
            for node in &partitioned {
                shared.with_follower(node, |follower| follower.reconnect());
            }
            shared.with_followers(|follower| follower.admit_missed());
        }
    }
}

/// The state behind [`Faults`].
#[derive(Default)]
pub(super) struct Trouble {
    decide: Option<Box<Decide>>,
    partitioned: BTreeSet<NodeId>,
}

/// How a message reaches a follower.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub(super) dropped: bool,
    pub(super) times: usize,
    pub(super) due: Option<Instant>,
}

impl Trouble {
    pub(super) fn is_partitioned(&self, node: &NodeId) -> bool {
        self.partitioned.contains(node)
    }

    fn fate(&mut self, crossing: Crossing<'_>) -> Fate {
        self.decide.as_mut().map_or(Fate::Arrives, |decide| decide(crossing))
    }

    pub(super) fn delivery(&mut self, crossing: Crossing<'_>) -> Delivery {
        let fate = self.fate(crossing);
        Delivery {
            dropped: fate == Fate::Lost,
            times: if fate == Fate::Twice { 2 } else { 1 },
            due: match fate {
                // The timer knows the time: reading the clock is for `clock` alone.
                Fate::Late(by) => Some(tokio::time::sleep(by).deadline()),
                _ => None,
            },
        }
    }
}

/// A request or an answer crosses: late, or not at all.
pub(super) async fn cross(trouble: &Mutex<Trouble>, crossing: Crossing<'_>) -> Result<(), LogError> {
    let fate = trouble.lock().fate(crossing);
    if let Fate::Late(by) = fate {
        tokio::time::sleep(by).await;
    }
    if fate == Fate::Lost {
        return Err(LogError(format!("{:?} of {} was lost", crossing.what, crossing.node)));
    }
    if trouble.lock().is_partitioned(crossing.node) {
        return Err(LogError(format!("{} is cut off", crossing.node)));
    }
    Ok(())
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trouble").field("partitioned", &self.partitioned).finish_non_exhaustive()
    }
}
