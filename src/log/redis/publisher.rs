//! The ephemeral lane to Redis: a queue, and a task that puts its messages on the connection.
//!
//! Pipelining: the task sends on without waiting for an answer, which says nothing that it needs; otherwise a tick
//! would be as late as the ones before it. Pipelines under way are bounded, so a Redis that doesn't answer fills the
//! queue, and then messages are dropped and counted. While there is no connection the task itself waits for one:
//! pipelines that each waited would be sent in any order, and the offer of a call must not come after its candidates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::redis::{LinkConnection, LinkRequest, Partition, RedisLink};
use crate::telemetry::names;

/// Ephemeral messages that wait for the connection.
const QUEUE: usize = 4096;
/// Messages of one pipeline.
const BATCH: usize = 256;
/// Pipelines that wait for their answer.
const UNDER_WAY: usize = 16;
/// Pause after a failed attempt at a connection; it doubles.
const RETRY: Duration = Duration::from_millis(20);
const RETRY_MOST: Duration = Duration::from_secs(1);

pub(super) struct Publication {
    pub(super) partition: Partition,
    pub(super) channel: String,
    pub(super) message: Vec<u8>,
}

/// The sending end of the queue.
pub(super) struct Publisher(mpsc::Sender<Publication>);

impl Publisher {
    pub(super) fn new() -> (Self, mpsc::Receiver<Publication>) {
        let (sender, publications) = mpsc::channel(QUEUE);
        (Self(sender), publications)
    }

    /// Never waits: a message that finds the queue full is dropped.
    pub(super) fn publish(&self, publication: Publication) {
        if self.0.try_send(publication).is_err() {
            dropped(1);
        }
    }
}

/// Sends what was queued, in order, until the sending end is dropped.
pub(super) async fn run(link: Arc<RedisLink>, mut publications: mpsc::Receiver<Publication>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            count = publications.recv_many(&mut batch, BATCH), if under_way.len() < UNDER_WAY => {
                if count == 0 {
                    return;
                }
            }
            Some(()) = under_way.next() => continue,
        }
        let mut retry = RETRY;
        let connection = loop {
            match link.connection().await {
                Ok(connection) => break connection,
                Err(error) => tracing::debug!(%error, "ephemeral messages wait for a connection"),
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY_MOST);
        };
        let cluster = link.is_cluster();
        // A pipeline goes to one shard. Within a partition the order stays.
        let mut pipelines: BTreeMap<Option<Partition>, redis::Pipeline> = BTreeMap::new();
        for Publication { partition, channel, message } in batch.drain(..) {
            let pipeline = pipelines.entry(cluster.then_some(partition)).or_default();
            pipeline.cmd(link.publish_command()).arg(channel).arg(message).ignore();
        }
        for pipeline in pipelines.into_values() {
            let mut sending = Box::pin(send(Arc::clone(&link), connection.clone(), pipeline));
            // The first poll writes it to the connection: here, so that the order stays.
            if futures_util::poll!(sending.as_mut()).is_pending() {
                under_way.push(sending);
            }
        }
    }
}

async fn send(link: Arc<RedisLink>, connection: LinkConnection, pipeline: redis::Pipeline) {
    if let Err(error) = link.once_through(connection, &LinkRequest::Pipeline(&pipeline)).await {
        dropped(pipeline.len() as u64);
        tracing::debug!(%error, "ephemeral messages are lost");
    }
}

fn dropped(count: u64) {
    metrics::counter!(names::EPHEMERAL_DROPPED, "direction" => "out").increment(count);
}
