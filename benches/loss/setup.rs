//! The options of a run, and its measurements.

use super::figures::{Point, Route};
use super::line::link::Fates;
use super::viewer::Carrier;

/// How often hosts and viewers tick.
#[derive(Debug, Clone, Copy, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// Number of rooms on each transport.
    pub(crate) rooms: usize,
    /// Members of a room at the far end; its host is beside the server.
    pub(crate) viewers: usize,
    pub(crate) host_hz: f64,
    pub(crate) viewer_hz: f64,
}

/// The options of a run.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Setup {
    pub(crate) loads: Vec<Load>,
    pub(crate) loss_percent: Vec<f64>,
    pub(crate) round_trip_ms: u64,
    pub(crate) jitter_ms: u64,
    pub(crate) megabits: u64,
    pub(crate) queue_bytes: usize,
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
}

/// A load at a loss, measured.
pub(crate) struct Measured {
    pub(crate) load: Load,
    pub(crate) loss_percent: f64,
    pub(crate) points: Vec<Point>,
    /// Packets to the viewers, then packets from them.
    pub(crate) packets: [Fates; 2],
}

impl Measured {
    /// This transport over this route.
    pub(crate) fn of(&self, carrier: Carrier, route: Route) -> Option<&Point> {
        self.points.iter().find(|point| point.carrier == carrier && point.route == route)
    }
}
