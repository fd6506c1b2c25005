//! The hub: replicas of the rooms that have a session on this node, and the road from a command to everybody's outbox.

pub mod outlet;
