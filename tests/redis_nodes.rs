//! Nodes that watch each other over one Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/redis_node.rs"]
mod redis_node;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/waiting.rs"]
mod waiting;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use commits::{EPOCH, created, room};
use futures_util::future::{BoxFuture, pending, ready};
use proxy::Proxy;
use redis_node::RedisNode;
use redis_server::{RedisServer, Shell, options};
use tandem::clock::Clock;
use tandem::cluster::{LeaseWatch, SharedRoster, WatchOptions};
use tandem::domain::{Head, NodeId, RoomId};
use tandem::log::{Log, Outcome};
use tokio::sync::mpsc;
use tokio::time::Instant;
use waiting::{DEADLINE, until, within};

const LEASE: Duration = Duration::from_secs(1);
/// Partitions of the log, each of which a sweep asks for.
const PARTITIONS: u64 = 64;

/// Found by the chaos run: far from Redis, a node was called dead while it looked.
#[tokio::test]
async fn the_lease_is_renewed_while_a_far_node_asks_every_partition_for_orphans() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let mut shell = server.shell().await;
    proxy.delay(Duration::from_millis(10));
    let _a = Node::at("a", &proxy, Duration::ZERO, |_| Box::pin(ready(()))).await;
    let mut leases = BTreeSet::new();
    within(async {
        loop {
            let asked = shell.calls("zcard").await;
            let lease = lease_of("a", &mut shell).await;
            match shell.calls("zcard").await {
                _ if asked == 0 => {}
                PARTITIONS.. => break,
                // All between the first partition and the last.
                _ => _ = leases.insert(lease),
            }
        }
    })
    .await;
    assert!(leases.len() > 2, "renewed to {leases:?}");
}

#[tokio::test]
async fn the_lease_is_renewed_while_orphans_are_taken_in() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let mut shell = server.shell().await;
    let (say, mut found) = mpsc::channel(1);
    let on_orphan = move |room| -> BoxFuture<'static, ()> {
        let _ = say.try_send(room);
        Box::pin(pending())
    };
    let a = Node::at("a", &proxy, Duration::ZERO, on_orphan).await;
    let outcome = a.log.commit(created(&room("friday"), Head::default(), EPOCH)).await;
    assert!(matches!(outcome, Ok(Outcome::Committed)), "{outcome:?}");
    assert_eq!(within(found.recv()).await, Some(room("friday")));
    let first = lease_of("a", &mut shell).await;
    until(async || lease_of("a", &mut shell).await > first).await;
}

/// Found by the chaos run: nodes whose Redis had been away saw each other's leases run out for that reason alone.
#[tokio::test]
async fn a_node_that_was_blind_itself_calls_nobody_dead_before_it_has_looked_for_a_whole_lease() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let mut a = Node::at("a", &proxy, DEADLINE, |_| Box::pin(ready(()))).await;
    let b = RedisNode::at("b", server.options()).await;
    let b_is_alive = || a.roster.get().alive.contains(&node_id("b"));
    // Long enough to have seen it for more than a lease.
    let start = a.beats();
    until(async || {
        b.nodes.beat(LEASE, DEADLINE).await.unwrap();
        b_is_alive() && a.beats() > start + 6
    })
    .await;

    proxy.cut();
    // The first beat that was begun after the cut has failed when the next one is.
    let before = a.beats();
    until(async || a.beats() > before + 1).await;
    until(async || b.nodes.roster(DEADLINE).await.unwrap().gone.contains(&node_id("b"))).await;
    assert!(b_is_alive(), "as a saw it last");
    let healed = Clock::instant();
    proxy.heal();

    let (node, at) = within(a.gone.recv()).await.unwrap();
    assert_eq!(node, node_id("b"), "it is dead, and found to be");
    // However slow the machine is, never earlier.
    assert!(at - healed >= LEASE, "judged after {:?}", at - healed);
}

/// A node behind a proxy that does nothing but watch.
struct Node {
    log: RedisNode,
    roster: SharedRoster,
    beats: Arc<AtomicUsize>,
    /// Nodes that it called dead, and when.
    gone: mpsc::Receiver<(NodeId, Instant)>,
}

impl Node {
    async fn at(
        name: &str,
        proxy: &Proxy,
        sweep_every: Duration,
        on_orphan: impl Fn(RoomId) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        let log = RedisNode::at(name, options(&format!("redis://{}", proxy.address()))).await;
        let options = WatchOptions {
            lease: LEASE,
            remember: DEADLINE,
            farewell: Duration::ZERO,
            sweep_every,
            quiet: Duration::ZERO,
        };
        let (say, gone) = mpsc::channel(16);
        let beats = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&beats);
        let roster = LeaseWatch::start(
            Arc::clone(&log.nodes),
            options,
            Box::new(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                "{}".to_owned()
            }),
            move |node| _ = say.try_send((node.clone(), Clock::instant())),
            move |room, _| on_orphan(room),
            &log.tracker,
            log.stop.clone(),
        );
        Self { log, roster, beats, gone }
    }

    /// How many it has begun.
    fn beats(&self) -> usize {
        self.beats.load(Ordering::SeqCst)
    }
}

/// When that node's lease runs out, as Redis has it.
async fn lease_of(name: &str, shell: &mut Shell) -> u64 {
    let lease: Option<f64> = shell.ask(&format!("ZSCORE tandem:{{nodes}}:leases {name}")).await;
    lease.unwrap_or_default() as u64
}

fn node_id(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}
