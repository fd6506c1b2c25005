//! The figures as a table and as JSON.

use std::fmt::Write as _;

use anyhow::Result;

use super::figures::{Point, Route};
use super::run::{Measured, Setup};
use super::viewer::Carrier;

impl Measured {
    /// This transport over this route.
    pub(crate) fn of(&self, carrier: Carrier, route: Route) -> Option<&Point> {
        self.points.iter().find(|point| point.carrier == carrier && point.route == route)
    }
}

/// For people: one table a route, in Markdown.
pub(crate) fn table(setup: &Setup, measured: &[Measured]) -> String {
    let mut out = String::new();
    for route in Route::ALL {
        let _ =
            writeln!(out, "\nSender {}, {} ms round trip, seed {}:\n", route.name(), setup.round_trip_ms, setup.seed);
        out += "| loss | transport | ticks | arrived | age p50 | p99 | p99.9 | max | p99 ratio | staleness p50 | p99 | p99 ratio |\n";
        out += "|---|---|---|---|---|---|---|---|---|---|---|---|\n";
        for at_loss in measured {
            let (Some(datagrams), Some(stream)) =
                (at_loss.of(Carrier::WebTransport, route), at_loss.of(Carrier::WebSocket, route))
            else {
                continue;
            };
            for (name, point, other) in [("WebTransport", datagrams, Some(stream)), ("WebSocket", stream, None)] {
                let ratio = |of: fn(&Point) -> f64| {
                    other.map_or(String::new(), |other| format!("{:.1} × better", of(other) / of(point)))
                };
                let (age, stale) = (&point.age_ms, &point.staleness_ms);
                let _ = writeln!(
                    out,
                    "| {} % | {name} | {} | {:.1} % | {:.0} | {:.0} | {:.0} | {:.0} | {} | {:.0} | {:.0} | {} |",
                    point.loss_percent,
                    point.expected,
                    100.0 * point.arrived as f64 / point.expected as f64,
                    age.p50,
                    age.p99,
                    age.p999,
                    age.max,
                    ratio(|point| point.age_ms.p99),
                    stale.p50,
                    stale.p99,
                    ratio(|point| point.staleness_ms.p99),
                );
            }
        }
    }
    for at_loss in measured {
        let Some(point) = at_loss.points.first() else { continue };
        let [down, up] = at_loss.packets.map(|fates| {
            let all = fates.sent + fates.lost + fates.dropped;
            format!("{} of {all} packets lost, {} dropped", fates.lost, fates.dropped)
        });
        let _ = writeln!(out, "\n{} %: down {down}; up {up}", point.loss_percent);
    }
    out
}

/// For machines.
pub(crate) fn json(setup: &Setup, measured: &[Measured]) -> Result<String> {
    let points: Vec<_> = measured.iter().flat_map(|at_loss| &at_loss.points).collect();
    let packets: Vec<_> = measured
        .iter()
        .map(|at_loss| {
            serde_json::json!({
                "lossPercent": at_loss.points.first().map(|point| point.loss_percent),
                "down": at_loss.packets[0], "up": at_loss.packets[1],
            })
        })
        .collect();
    let all = serde_json::json!({ "setup": setup, "points": points, "packets": packets });
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}
