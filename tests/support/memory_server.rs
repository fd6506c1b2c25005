//! A node over a log in memory: sessions on it need no socket, so a test can run them under paused time.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;

use tandem::clock::Clock;
use tandem::domain::{Limits, NodeId, RoomTime, UrlPolicy};
use tandem::hub::{Hub, HubParts};
use tandem::log::memory::MemoryLog;
use tandem::protocol::Rules;
use tandem::quota::{AddressBudgets, MemoryQuotas, Quotas};
use tandem::session::transport::Transport;
use tandem::session::{self, Services, SessionCounts};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::memory_transport::{MemoryClient, pair};

pub(crate) struct MemoryServer {
    pub(crate) services: Services,
    pub(crate) tracker: TaskTracker,
    /// Keeps the log alive.
    _log: MemoryLog,
}

impl MemoryServer {
    /// With quotas and rates, as in production.
    pub(crate) fn new(limits: Limits) -> Self {
        let quotas: Arc<dyn Quotas> = Arc::new(MemoryQuotas::new((&limits).into()));
        Self::start(limits, Some(quotas))
    }

    /// Without either: a test may send as fast as it can.
    pub(crate) fn without_rates(limits: Limits) -> Self {
        Self::start(limits, None)
    }

    fn start(limits: Limits, quotas: Option<Arc<dyn Quotas>>) -> Self {
        let (tracker, node) = (TaskTracker::new(), NodeId::parse("node-1").unwrap());
        let log = MemoryLog::new(None, Vec::new(), &tracker);
        let clock = Clock::starting_at(RoomTime::from_millis(1_795_000_000_000));
        let rates = quotas.is_some();
        let hub = Hub::start(HubParts {
            node: node.clone(),
            clock: clock.clone(),
            limits: Arc::new(limits.clone()),
            quotas,
            log: log.attach(node),
            tracker: tracker.clone(),
            stop: CancellationToken::new(),
        });
        let services = Services {
            hub,
            clock,
            rates,
            addresses: AddressBudgets::new(&limits),
            rules: Arc::new(Rules { limits, urls: UrlPolicy::any() }),
            stop: CancellationToken::new(),
            counts: SessionCounts::default(),
        };
        Self { services, tracker, _log: log }
    }

    pub(crate) fn connect(&self) -> MemoryClient {
        let (transport, client) = pair();
        self.serve(transport);
        client
    }

    /// Runs a session over this transport.
    pub(crate) fn serve(&self, transport: impl Transport + 'static) {
        self.tracker.spawn(session::run(transport, self.services.clone(), ()));
    }
}
