//! The hub's interface to a session.
//!
//! The hub calls a [`Subscriber`] while it holds the room's lock, in the order of the room's events. An implementation
//! therefore encodes, queues and returns; it never blocks.

use std::cell::OnceCell;
use std::time::Duration;

use bytes::Bytes;

use super::delivery::{
    DigestDelivery, EventDelivery, Joined, Notice, Reply, RosterDelivery, StatusDelivery, TickDelivery,
};
use crate::domain::{CloseCode, Head};
use crate::room::{ChatLine, Room};

/// A session's receiving end.
pub trait Subscriber: RoomDelivery + SessionControl + SessionMeasurements + Send + Sync + 'static {}

impl<T: RoomDelivery + SessionControl + SessionMeasurements + Send + Sync + 'static> Subscriber for T {}

/// Takes the messages of a room.
pub trait RoomDelivery {
    /// The whole state: the first message of a membership, and the answer to REQUEST_SYNC.
    fn state(&self, room: &Room, joined: &Joined<'_>);
    /// A committed event.
    fn event(&self, delivery: &EventDelivery<'_>);
    /// Joins and leaves that are told as one message. A subscriber that has none for them takes each as an event.
    fn roster(&self, delivery: &RosterDelivery<'_>) {
        let RosterDelivery { room, events, now, .. } = *delivery;
        for (head, event) in events {
            self.event(&EventDelivery { room, event, head: *head, now, encoded: OnceCell::new() });
        }
    }
    /// An uncommitted message.
    fn notice(&self, notice: &Notice<'_>);
    /// A position report; replaces a waiting one of the same slot.
    fn tick(&self, delivery: &TickDelivery);
    /// A member's own measurements; replaces waiting ones of the same slot.
    fn status(&self, delivery: &StatusDelivery);
    /// How a large room does; replaces a waiting one.
    fn digest(&self, delivery: &DigestDelivery);
    /// An earlier CHAT, with the head at which it was committed.
    fn replay(&self, head: Head, line: &ChatLine);
    /// The message of an event, which [`message`](Self::message) gives to the whole audience. `None`: the event has no
    /// message, or this subscriber encodes none.
    fn encode(&self, _delivery: &EventDelivery<'_>) -> Option<Bytes> {
        None
    }
    /// The same of joins and leaves that are told as one message.
    fn encode_roster(&self, _delivery: &RosterDelivery<'_>) -> Option<Bytes> {
        None
    }
    /// The whole state as a message for the whole audience.
    fn encode_state(&self, _room: &Room, _joined: &Joined<'_>) -> Option<Bytes> {
        None
    }
    /// A message that another subscriber has encoded.
    fn message(&self, _message: &Bytes) {}
    /// The outcome of a command that carried a reference, or was refused.
    fn reply(&self, reply: Reply<'_>);
}

/// Ends the session, or tests whether its peer is alive.
pub trait SessionControl {
    /// Ends the session, after what is queued for it.
    fn close(&self, code: CloseCode, reason: &str);
    /// Holds back what is queued from now on for this long, together with what waits already.
    fn hold(&self, _time: Duration) {}
    /// Pings the peer; without a frame from it within 1.5 s the session ends.
    fn probe(&self);
}

/// Measurements of the session's connection.
pub trait SessionMeasurements {
    /// The round trip to plan with, once there is one: with a retransmission, where packets were lost lately.
    fn rtt(&self) -> Option<Duration>;
    /// Whether a signal of `_bytes` fits: signals of single members may fill half of the outbox, so that they never
    /// cause the overflow that ends the session.
    fn has_room(&self, _bytes: usize) -> bool {
        true
    }
    /// Bytes queued for the peer.
    fn waiting_bytes(&self) -> usize {
        0
    }
}
