//! The ephemeral lane's way to Redis: a queue, and a task that puts what is in it on the connection.
//!
//! It doesn't wait for one answer before it sends on: a tick would be as late as the ones before it, and the answer says
//! nothing that it needs. What is under way is bounded, so a Redis that stands still fills the queue, and then messages are
//! dropped, counted. While there is no connection the task itself waits for one: batches that each waited for it would go on
//! it in any order, and the offer of a call must not come after its candidates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::bus::Bus;
use super::keys::Partition;
use super::link::{Door, Link, Request};
use super::publish_command;
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

/// An ephemeral message on its way.
pub(super) struct Publication {
    pub(super) partition: Partition,
    pub(super) channel: String,
    pub(super) message: Vec<u8>,
}

/// The queue's end for those who publish.
pub(super) struct Publisher(mpsc::Sender<Publication>);

impl Publisher {
    pub(super) fn new() -> (Self, mpsc::Receiver<Publication>) {
        let (sender, publications) = mpsc::channel(QUEUE);
        (Self(sender), publications)
    }

    /// Never waits. What finds no place is dropped.
    pub(super) fn publish(&self, publication: Publication) {
        if self.0.try_send(publication).is_err() {
            dropped(1);
        }
    }
}

/// Sends what was queued, in order, until nobody can queue any more.
pub(super) async fn run(bus: Arc<Bus>, link: Arc<Link>, mut publications: mpsc::Receiver<Publication>) {
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
        let door = loop {
            match link.connection().await {
                Ok(door) => break door,
                Err(error) => tracing::debug!(%error, "ephemeral messages wait for a connection"),
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY_MOST);
        };
        let cluster = bus.is_cluster();
        // A pipeline goes to one shard. Within a partition the order stays.
        let mut pipelines: BTreeMap<Option<Partition>, redis::Pipeline> = BTreeMap::new();
        for Publication { partition, channel, message } in batch.drain(..) {
            let pipeline = pipelines.entry(cluster.then_some(partition)).or_default();
            pipeline.cmd(publish_command(cluster)).arg(channel).arg(message).ignore();
        }
        for pipeline in pipelines.into_values() {
            let mut sending = Box::pin(send(Arc::clone(&link), door.clone(), pipeline));
            // The first poll puts it on the connection: here, so that the order stays.
            if futures_util::poll!(sending.as_mut()).is_pending() {
                under_way.push(sending);
            }
        }
    }
}

async fn send(link: Arc<Link>, door: Door, pipeline: redis::Pipeline) {
    if let Err(error) = link.once_through(door, &Request::Pipeline(&pipeline)).await {
        dropped(pipeline.len() as u64);
        tracing::debug!(%error, "ephemeral messages are lost");
    }
}

fn dropped(count: u64) {
    metrics::counter!(names::EPHEMERAL_DROPPED, "direction" => "out").increment(count);
}
