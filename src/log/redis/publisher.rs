//! The ephemeral lane to Redis: a queue, and a task that puts its messages on the connection.
//!
//! Batches: messages to one channel (a room's followers, or a node) that wait together leave as one PUBLISH, because
//! Redis, and every node that hears it, pays by the message. Their order within the channel stays.
//!
//! Pipelining: the task sends on without waiting for an answer, which says nothing that it needs; otherwise a tick
//! would be as late as the ones before it. Pipelines under way are bounded, so a Redis that doesn't answer fills the
//! queue, and then messages are dropped and counted. While there is no connection the task itself waits for one:
//! pipelines that each waited would be sent in any order, and the offer of a call must not come after its candidates.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::wire;
use crate::domain::{NodeId, RoomId};
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

/// A message to the nodes that follow the room, or to one node.
pub(super) struct Publication {
    pub(super) room: RoomId,
    pub(super) to: Option<NodeId>,
    pub(super) message: Bytes,
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
pub(super) async fn run(link: Arc<RedisLink>, node: NodeId, mut publications: mpsc::Receiver<Publication>) {
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
        let mut pipelines: BTreeMap<Option<Partition>, PublishPipeline> = BTreeMap::new();
        for message in group(batch.drain(..)) {
            let outgoing = pipelines.entry(cluster.then_some(message.partition)).or_default();
            outgoing.messages += message.len() as u64;
            let publish = outgoing.pipeline.cmd(link.publish_command());
            publish.arg(message.channel()).arg(message.encode(&node)).ignore();
        }
        for outgoing in pipelines.into_values() {
            let mut sending = Box::pin(send(Arc::clone(&link), connection.clone(), outgoing));
            // The first poll writes it to the connection: here, so that the order stays.
            if futures_util::poll!(sending.as_mut()).is_pending() {
                under_way.push(sending);
            }
        }
    }
}

/// Ephemeral messages to one channel, which leave as one PUBLISH.
struct ChannelBatch {
    partition: Partition,
    to: Option<NodeId>,
    messages: Vec<(RoomId, Bytes)>,
    bytes: usize,
}

impl ChannelBatch {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn channel(&self) -> String {
        match (&self.to, self.messages.first()) {
            (Some(node), _) => self.partition.node_channel(node),
            (None, Some((room, _))) => self.partition.channel(room),
            (None, None) => String::new(),
        }
    }

    fn encode(self, from: &NodeId) -> Vec<u8> {
        if self.to.is_some() {
            return wire::to_node(from, &self.messages);
        }
        let Some(room) = self.messages.first().map(|(room, _)| room.clone()) else { return Vec::new() };
        let messages: Vec<_> = self.messages.into_iter().map(|(_, message)| message).collect();
        wire::to_followers(from, &room, &messages)
    }
}

/// Groups messages by channel, in the order of the first one of each; a group that is full is followed by another.
fn group(publications: impl Iterator<Item = Publication>) -> Vec<ChannelBatch> {
    let mut batches: Vec<ChannelBatch> = Vec::new();
    let mut open: HashMap<(Partition, Option<NodeId>, Option<RoomId>), usize> = HashMap::new();
    for Publication { room, to, message } in publications {
        let partition = Partition::of(&room);
        let of_room = to.is_none().then(|| room.clone());
        let entry = open.entry((partition, to.clone(), of_room));
        let bytes = message.len() + room.as_str().len();
        if let Entry::Occupied(at) = &entry
            && let Some(batch) = batches.get_mut(*at.get())
            && batch.bytes + bytes <= wire::BATCH_BYTES
        {
            batch.messages.push((room, message));
            batch.bytes += bytes;
            continue;
        }
        entry.insert_entry(batches.len());
        batches.push(ChannelBatch { partition, to, messages: vec![(room, message)], bytes });
    }
    batches
}

/// A pipeline, and how many ephemeral messages it carries.
#[derive(Default)]
struct PublishPipeline {
    pipeline: redis::Pipeline,
    messages: u64,
}

async fn send(link: Arc<RedisLink>, connection: LinkConnection, outgoing: PublishPipeline) {
    let PublishPipeline { pipeline, messages } = outgoing;
    if let Err(error) = link.once_through(connection, &LinkRequest::Pipeline(&pipeline)).await {
        dropped(messages);
        tracing::debug!(%error, "ephemeral messages are lost");
    }
}

fn dropped(count: u64) {
    metrics::counter!(names::EPHEMERAL_DROPPED, "direction" => "out").increment(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(room: &str, to: Option<&str>, message: impl Into<Bytes>) -> Publication {
        let to = to.map(|node| NodeId::parse(node).unwrap());
        Publication { room: RoomId::parse(room).unwrap(), to, message: message.into() }
    }

    fn grouped(publications: Vec<Publication>) -> Vec<Vec<Bytes>> {
        let messages = |batch: ChannelBatch| batch.messages.into_iter().map(|(_, message)| message).collect();
        group(publications.into_iter()).into_iter().map(messages).collect()
    }

    #[test]
    fn messages_to_one_channel_leave_as_one_in_their_order() {
        let waiting = vec![
            publication("friday", None, "1"),
            publication("monday", None, "2"),
            publication("friday", Some("b"), "3"),
            publication("friday", None, "4"),
            publication("friday", Some("c"), "5"),
            publication("friday", Some("b"), "6"),
        ];
        assert_eq!(grouped(waiting), [vec!["1", "4"], vec!["2"], vec!["3", "6"], vec!["5"]]);
    }

    #[test]
    fn messages_to_a_node_about_rooms_of_one_partition_leave_as_one() {
        let names = (0..).map(|n| format!("room-{n}"));
        let partition = Partition::of(&RoomId::parse("friday").unwrap());
        let other = names.into_iter().find(|name| Partition::of(&RoomId::parse(name).unwrap()) == partition).unwrap();
        let waiting = vec![publication("friday", Some("b"), "1"), publication(&other, Some("b"), "2")];
        assert_eq!(grouped(waiting), [["1", "2"]]);
    }

    #[test]
    fn a_batch_that_is_full_is_followed_by_another_and_a_long_message_goes_alone() {
        let third = vec![b'x'; wire::BATCH_BYTES / 3];
        let waiting = (0..4).map(|_| publication("friday", None, third.clone())).collect();
        let counts = |batches: Vec<Vec<Bytes>>| batches.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(counts(grouped(waiting)), [2, 2]);
        let long = || publication("friday", None, vec![b'x'; 2 * wire::BATCH_BYTES]);
        assert_eq!(counts(grouped(vec![publication("friday", None, "1"), long(), long()])), [1, 1, 1]);
    }
}
