//! This node among the others of a cluster.

mod watch;

pub use watch::{NodeWatch, Report, WatchOptions};
