//! The figures as a table and as JSON.

use std::fmt::Write as _;

use anyhow::Result;

use super::figures::Route;
use super::setup::{Measured, Setup};
use super::viewer::Carrier;

/// For people: one table a load and route, in Markdown.
pub(crate) fn table(setup: &Setup, measured: &[Measured]) -> String {
    let mut out = String::new();
    for load in &setup.loads {
        for route in Route::ALL {
            let _ = writeln!(out, "\n{}; {}. Ages in ms.\n", load.title, route.name());
            out += "| loss | transport | ticks | arrived | age p50 | p90 | p99 | p99.9 | max | p99 is | staleness p50 | p99 |\n";
            out += "|---|---|---|---|---|---|---|---|---|---|---|---|\n";
            for at_loss in measured.iter().filter(|measured| measured.load.name == load.name) {
                rows(&mut out, at_loss, route);
            }
        }
    }
    out += "\nPackets:\n";
    for Measured { load, loss_percent, packets, .. } in measured {
        let [down, up] = packets.map(|fates| {
            let all = fates.sent + fates.lost + fates.dropped;
            format!("{} of {all} lost, {} dropped", fates.lost, fates.dropped)
        });
        let _ = writeln!(out, "* {}, {loss_percent} %: down {down}; up {up}", load.name);
    }
    out
}

fn rows(out: &mut String, at_loss: &Measured, route: Route) {
    let Some(stream) = at_loss.of(Carrier::WebSocket, route) else { return };
    for (name, carrier) in [("WebTransport", Carrier::WebTransport), ("WebSocket", Carrier::WebSocket)] {
        let Some(point) = at_loss.of(carrier, route) else { return };
        let (age, stale) = (&point.age_ms, &point.staleness_ms);
        let ratio = match carrier {
            Carrier::WebTransport => format!("{:.1} × better", stream.age_ms.p99 / age.p99),
            Carrier::WebSocket => String::new(),
        };
        let _ = writeln!(
            out,
            "| {} % | {name} | {} | {:.1} % | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {ratio} | {:.0} | {:.0} |",
            point.loss_percent,
            point.expected,
            100.0 * point.arrived as f64 / point.expected as f64,
            age.p50,
            age.p90,
            age.p99,
            age.p999,
            age.max,
            stale.p50,
            stale.p99,
        );
    }
}

/// For machines.
pub(crate) fn json(setup: &Setup, measured: &[Measured]) -> Result<String> {
    let points: Vec<_> = measured.iter().flat_map(|at_loss| &at_loss.points).collect();
    let packets = measured.iter().map(|Measured { load, loss_percent, packets: [down, up], .. }| {
        serde_json::json!({ "load": load.name, "lossPercent": loss_percent, "down": down, "up": up })
    });
    let packets = Vec::from_iter(packets);
    let all = serde_json::json!({ "setup": setup, "points": points, "packets": packets });
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}
