//! From what the viewers wrote down to figures.
//!
//! Two questions are asked of the same ticks:
//! * **Age**: how old was a tick when it came? A lost datagram never comes, and has no age.
//! * **Staleness**: how old was the newest tick that a viewer had, at any moment? Here every loss counts, and so does
//!   the time between two ticks.

use serde::Serialize;

use super::viewer::{Carrier, Told};

/// Between whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Route {
    /// From the member beside the server to one at the far end: the line once.
    Down,
    /// From one at the far end to another there: the line twice.
    UpAndDown,
}

impl Route {
    pub(crate) const ALL: [Self; 2] = [Self::Down, Self::UpAndDown];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Down => "from a host beside the server",
            Self::UpAndDown => "from one far member to another",
        }
    }
}

/// One transport under one load at one loss over one route.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Point {
    pub(crate) load: &'static str,
    pub(crate) loss_percent: f64,
    pub(crate) carrier: Carrier,
    pub(crate) route: Route,
    /// Ticks that were to arrive.
    pub(crate) expected: usize,
    pub(crate) arrived: usize,
    pub(crate) age_ms: Spread,
    pub(crate) staleness_ms: Spread,
    /// Ages, sorted, µs.
    #[serde(skip)]
    pub(crate) ages: Vec<i64>,
}

/// The shape of many numbers.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of sorted µs, in ms.
    fn of(sorted: &[i64]) -> Self {
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).map_or(f64::NAN, |micros| *micros as f64 / 1000.0)
        };
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) load: &'static str,
    pub(crate) loss_percent: f64,
    pub(crate) carrier: Carrier,
}

/// Reports of the members of one room.
pub(crate) struct Room<'a> {
    /// The host, beside the server.
    pub(crate) near: &'a [Told],
    pub(crate) far: &'a [Told],
}

pub(crate) fn point(place: Place, route: Route, rooms: &[Room<'_>]) -> Point {
    let (mut ages, mut stale, mut expected) = (Vec::new(), Vec::new(), 0);
    for room in rooms {
        let senders = match route {
            Route::Down => room.near,
            Route::UpAndDown => room.far,
        };
        for listener in room.far {
            for sender in senders.iter().filter(|sender| sender.slot != listener.slot) {
                expected += sender.sent.len();
                let heard = || listener.heard.iter().filter(|heard| heard.slot == sender.slot);
                ages.extend(heard().map(|heard| heard.came - heard.at));
                staleness(sender, heard().map(|heard| (heard.came, heard.at)).collect(), &mut stale);
            }
        }
    }
    ages.sort_unstable();
    stale.sort_unstable();
    let (age_ms, staleness_ms) = (Spread::of(&ages), Spread::of(&stale));
    let Place { load, loss_percent, carrier } = place;
    Point { load, loss_percent, carrier, route, expected, arrived: ages.len(), age_ms, staleness_ms, ages }
}

/// Age of the newest tick, sampled every ms while the sender ticked, from the first arrival on.
fn staleness(sender: &Told, mut came: Vec<(i64, i64)>, into: &mut Vec<i64>) {
    const EVERY: i64 = 1000;
    came.sort_unstable();
    let (Some(&(first, _)), Some(&last)) = (came.first(), sender.sent.last()) else { return };
    let (mut newest, mut next) = (i64::MIN, 0);
    for now in (first..last).step_by(EVERY as usize) {
        while let Some((_, at)) = came.get(next).filter(|(came, _)| *came <= now) {
            newest = newest.max(*at);
            next += 1;
        }
        into.push(now - newest);
    }
}
