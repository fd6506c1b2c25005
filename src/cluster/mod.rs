//! This node among the others of a cluster: leases and reports ([`ClusterNodes`]), the watch over them
//! ([`LeaseWatch`]), the outbox's way into the database ([`Drainer`]), and room time ([`RoomTimeKeeper`]).
//!
//! Each takes the link to Redis and the node's id; none knows the log.

mod drainer;
mod roster;
mod time;
mod watch;

pub use drainer::{DrainOptions, Drainer};
pub use roster::{Census, ClusterNodes, Roster, Sweep};
pub use time::RoomTimeKeeper;
pub use watch::{LeaseWatch, NodeReport, SharedRoster, WatchOptions};
