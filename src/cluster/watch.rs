//! Watches the leases: this node's, the others', and rooms that no node follows.
//!
//! A node renews its lease several times within its length; a lease that runs out means that the process is gone, or
//! partitioned. Every other node acts on it, after a random pause so that they don't all commit at once, and again as
//! long as the lease is missing: a replica may have lagged behind. A node that could not reach Redis itself doesn't
//! judge the others before a whole lease has passed: theirs ran out for the same reason. One node at a time sweeps
//! orphan rooms.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::RngExt;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{ClusterNodes, Roster};
use crate::clock::Clock;
use crate::domain::{NodeId, RoomId};
use crate::panics;
use crate::telemetry::{Seldom, names};

#[derive(Debug, Clone, Copy)]
pub struct WatchOptions {
    /// How long a lease runs; it is renewed after each quarter.
    pub lease: Duration,
    /// How long a node that is gone stays in the roster.
    pub remember: Duration,
    /// How long after a planned stop its members may take to come back elsewhere.
    pub farewell: Duration,
    /// How often rooms without a follower are looked for.
    pub sweep_every: Duration,
    /// How long such a room must have been without a commit.
    pub quiet: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(6),
            remember: Duration::from_secs(300),
            farewell: Duration::from_secs(30),
            sweep_every: Duration::from_secs(30),
            quiet: Duration::from_secs(15),
        }
    }
}

/// The roster as of the last renewal; clones share it.
#[derive(Clone, Default)]
pub struct SharedRoster(Arc<Mutex<Roster>>);

/// This node's report, JSON.
pub type NodeReport = Box<dyn Fn() -> String + Send + Sync>;

type OnOrphan = Arc<dyn Fn(RoomId, Vec<NodeId>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Nodes whose loss was logged.
#[derive(Debug, Default)]
struct LoggedLosses {
    /// Not the first look.
    looked: bool,
    told: HashSet<NodeId>,
}

impl LoggedLosses {
    /// Nodes that are gone since the last look without a planned stop. Nodes that were gone before this process began,
    /// or still are after an outage of Redis, don't count.
    fn of(&mut self, roster: &Roster) -> Vec<NodeId> {
        let first = !std::mem::replace(&mut self.looked, true);
        self.told.retain(|node| roster.gone.contains(node));
        let news = roster.gone.iter().filter(|node| self.told.insert((*node).clone()));
        news.filter(|node| !first && !roster.has_left(node)).cloned().collect()
    }
}

/// Renews this node's lease and watches the others'.
pub struct LeaseWatch {
    nodes: Arc<ClusterNodes>,
    options: WatchOptions,
    roster: SharedRoster,
    report: NodeReport,
    on_gone: Box<dyn Fn(&NodeId) + Send + Sync>,
    on_orphan: OnOrphan,
    /// Nodes whose lease ran out, and when to act on it.
    missed: HashMap<NodeId, Instant>,
    losses: LoggedLosses,
    away: Seldom,
    /// Since when renewals succeed without interruption.
    sighted: Option<Instant>,
}

impl SharedRoster {
    /// The nodes as they were last seen.
    pub fn get(&self) -> Roster {
        self.0.lock().clone()
    }
}

impl LeaseWatch {
    /// Takes the lease, and watches until `stop`; then the lease ends after [`WatchOptions::farewell`].
    ///
    /// * `report`: asked before each renewal, shown by [`SharedRoster::get`] on every node.
    /// * `on_gone`: that node is gone ([`crate::hub::Hub::lose_node`]). Called more than once.
    /// * `on_orphan`: no node follows this room; these nodes live ([`crate::hub::Hub::adopt`]).
    pub fn start(
        nodes: Arc<ClusterNodes>,
        options: WatchOptions,
        report: NodeReport,
        on_gone: impl Fn(&NodeId) + Send + Sync + 'static,
        on_orphan: impl Fn(RoomId, Vec<NodeId>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> SharedRoster {
        let roster = SharedRoster::default();
        let (on_gone, on_orphan) = (Box::new(on_gone), Arc::new(on_orphan));
        let mut watch = LeaseWatch {
            nodes,
            options,
            roster: roster.clone(),
            report,
            on_gone,
            on_orphan,
            missed: HashMap::new(),
            losses: LoggedLosses::default(),
            away: Seldom::new(),
            sighted: None,
        };
        // Without this task the lease runs out, and the others take this node's members for lost.
        tracker.spawn(panics::abort_if_panics("lease", async move {
            stop.run_until_cancelled(watch.run()).await;
            // The last report: by it the others know a planned stop.
            watch.nodes.say((watch.report)());
            if let Err(error) = watch.nodes.sign_off(options.farewell).await {
                tracing::warn!(%error, "the lease could not be prolonged for the members' return: it runs out");
            }
        }));
        roster
    }

    async fn run(&mut self) {
        let mut beats = tokio::time::interval(self.options.lease / 4);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut swept = Clock::instant();
        // Beside the renewals: a sweep asks for every partition, and far from Redis that takes longer than a lease.
        let mut sweep: Option<BoxFuture<'static, ()>> = None;
        loop {
            let sweeping = async {
                match &mut sweep {
                    Some(sweep) => sweep.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = beats.tick() => self.beat().await,
                () = sweeping => sweep = None,
            }
            if sweep.is_none() && swept.elapsed() > self.options.sweep_every {
                swept = Clock::instant();
                sweep = Some(Box::pin(self.sweep()));
            }
        }
    }

    async fn beat(&mut self) {
        self.nodes.say((self.report)());
        match self.nodes.beat(self.options.lease, self.options.remember).await {
            Ok(roster) => {
                self.away.clear();
                self.look(roster);
            }
            Err(error) => {
                // Nothing is known of the others: none counts as gone.
                self.missed.clear();
                self.sighted = None;
                if self.away.is_due() {
                    tracing::warn!(%error, "this node's lease could not be renewed");
                }
            }
        }
    }

    fn look(&mut self, roster: Roster) {
        metrics::gauge!(names::NODES).set(roster.alive.len() as f64);
        let now = Clock::instant();
        let fair = *self.sighted.get_or_insert(now) + self.options.lease;
        self.missed.retain(|node, _| roster.gone.contains(node));
        for node in self.losses.of(&roster) {
            tracing::warn!(%node, "a node is gone: its members enter their grace time");
        }
        for node in &roster.gone {
            let due = *self
                .missed
                .entry(node.clone())
                .or_insert_with(|| now.max(fair) + self.options.lease.mul_f64(rand::rng().random_range(0.0..0.5)));
            if now >= due {
                (self.on_gone)(node);
                // Again later: its last commits may not have reached this node yet.
                self.missed.insert(node.clone(), now + self.options.lease * 2);
            }
        }
        *self.roster.0.lock() = roster;
    }

    /// Orphan rooms: all their nodes are gone, or restarted under another name.
    fn sweep(&self) -> impl Future<Output = ()> + Send + 'static {
        let (nodes, options) = (Arc::clone(&self.nodes), self.options);
        let (roster, on_orphan) = (self.roster.clone(), Arc::clone(&self.on_orphan));
        async move {
            match nodes.may_sweep(options.sweep_every * 2).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return tracing::debug!(%error, "no sweep"),
            }
            let sweep = match nodes.find_orphans(options.quiet).await {
                Ok(sweep) => sweep,
                Err(error) => return tracing::warn!(%error, "rooms could not be swept"),
            };
            metrics::gauge!(names::CLUSTER_ROOMS).set(sweep.rooms as f64);
            for room in sweep.orphans {
                tracing::info!(roomId = %room, "no node follows this room: it is looked after here now");
                metrics::counter!(names::ROOMS_ADOPTED).increment(1);
                // A panic of one room must not end the sweep of the others.
                let _ = AssertUnwindSafe(on_orphan(room, roster.get().alive)).catch_unwind().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_gone_is_told_once_and_one_that_was_stopped_or_gone_before_is_not() {
        let node = |name: &str| NodeId::parse(name).unwrap();
        let roster = |gone: &[&str]| Roster {
            gone: gone.iter().map(|name| node(name)).collect(),
            reports: [
                (node("stopped"), r#"{"draining":true}"#.to_owned()),
                (node("killed"), r#"{"draining":false}"#.to_owned()),
            ]
            .into(),
            ..Roster::default()
        };
        let mut losses = LoggedLosses::default();
        assert_eq!(losses.of(&roster(&["before"])), []);
        assert_eq!(losses.of(&roster(&["before", "killed"])), [node("killed")]);
        for _ in 0..3 {
            assert_eq!(losses.of(&roster(&["before", "killed", "stopped"])), []);
        }
        assert_eq!(losses.of(&roster(&[])), []);
        assert_eq!(
            losses.of(&roster(&["before", "killed"])),
            [node("before"), node("killed")],
            "it was back meanwhile"
        );
    }
}
