//! A node: a hub at the log, and the sessions that it serves.

use std::sync::Arc;

use crate::memory_transport::{MemoryClient, pair};
use tandem::clock::Clock;
use tandem::domain::{Limits, NodeId, RoomTime};
use tandem::hub::{Hub, HubParts};
use tandem::protocol::Rules;
use tandem::quota::AddressBudgets;
use tandem::session::{self, Services, SessionCounts};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::counting_log::{CountingLog, Tally};
use super::faulty_log::FaultyMemoryLog;

/// An ordinary day.
const DAY: i64 = 1_795_000_000_000;

pub(crate) struct Node {
    pub(crate) name: NodeId,
    pub(crate) hub: Hub,
    services: Services,
    tracker: TaskTracker,
    stop: CancellationToken,
    sessions: Vec<AbortHandle>,
}

impl Node {
    /// `skew`: how far its clock is off, ms. `elapsed`: since the day began.
    pub(crate) fn start(
        name: &str,
        log: &FaultyMemoryLog,
        limits: &Limits,
        skew: i64,
        elapsed: std::time::Duration,
        tally: &Tally,
    ) -> Self {
        let name = NodeId::parse(name).unwrap();
        let clock = Clock::starting_at(RoomTime::from_millis(DAY + skew) + elapsed);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let hub = Hub::start(HubParts {
            node: name.clone(),
            clock: clock.clone(),
            limits: Arc::new(limits.clone()),
            quotas: None,
            log: Arc::new(CountingLog { inner: log.attach(name.clone()), tally: tally.clone() }),
            tracker: tracker.clone(),
            stop: stop.clone(),
        });
        let services = Services {
            hub: hub.clone(),
            rules: Arc::new(Rules { limits: limits.clone(), ..Rules::default() }),
            clock,
            rates: false,
            addresses: AddressBudgets::new(&Limits::default()),
            stop: CancellationToken::new(),
            counts: SessionCounts::default(),
        };
        Self { name, hub, services, tracker, stop, sessions: Vec::new() }
    }

    pub(crate) fn now(&self) -> RoomTime {
        self.services.clock.now()
    }

    /// A client's connection.
    pub(crate) fn connect(&mut self) -> MemoryClient {
        let (transport, wire) = pair();
        let session = self.tracker.spawn(session::run(transport, self.services.clone(), ()));
        self.sessions.push(session.abort_handle());
        wire
    }

    /// Runs something on the node.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(work);
    }

    /// The process dies: whatever it was about to say stays unsaid.
    pub(crate) fn crash(self, log: &FaultyMemoryLog) -> NodeId {
        // The log takes the next process of that name for the node from now on; this one can't even finish a sentence.
        drop(log.attach(self.name.clone()));
        self.stop.cancel();
        self.sessions.iter().for_each(AbortHandle::abort);
        self.name
    }
}
