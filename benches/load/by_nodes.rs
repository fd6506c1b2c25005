//! How the cost of a delivery grows with the nodes that a room's members are on: the same rooms, the same rate, the
//! members on one node, on two, … Every tick is published once, whatever the number of nodes, and comes to each of the
//! others once.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::link::Carrier;
use super::report::{Table, thousands};
use super::run::{Pace, Times, measure, millis, percentiles};
use super::server::Launch;
use super::stores::Stores;
use super::wire::Kind;

const NODES: [usize; 4] = [1, 2, 3, 5];
const ROOMS: usize = 20;
const MEMBERS: usize = 10;
const HERTZ: f64 = 10.0;

pub(crate) fn caption() -> String {
    format!(
        "The members of a room on more and more nodes: {ROOMS} rooms of {MEMBERS}, ticks over WebTransport, {HERTZ} Hz"
    )
}

pub(crate) async fn growth(launch: &Launch, stores: &Stores, times: Times) -> Result<(Value, Table)> {
    let mut table = Table::new(&[
        "nodes",
        "deliveries/s",
        "µs a delivery, all nodes",
        "µs a delivery, Redis",
        "p50 ms, same node",
        "p50 ms, others",
        "p99 ms, others",
        "lost",
    ]);
    let mut values = Vec::new();
    for count in NODES {
        let cluster = Cluster::start(launch, stores, count).await?;
        let population = cluster.population(Carrier::WebTransport, Kind::Tick, ROOMS, MEMBERS).await?;
        let (redis, heard) = (redis_cpu(stores).await?, population.received());
        let outcome = measure(&population, &cluster.all(), Pace::Rate(HERTZ), times).await?;
        // Redis says what it used, not when: over the whole run, then, and all that arrived in it.
        let redis = 1e6 * (redis_cpu(stores).await? - redis) / (population.received() - heard) as f64;
        population.disconnect_all().await;
        cluster.stop().await?;
        let micros = 1e6 * outcome.cpu.total() / outcome.deliveries as f64;
        let elsewhere = |percent| match outcome.elsewhere.len() {
            0 => "–".to_owned(),
            _ => format!("{:.3}", millis(&outcome.elsewhere, percent)),
        };
        table.row(vec![
            count.to_string(),
            thousands(outcome.rate()),
            format!("{micros:.1}"),
            format!("{redis:.1}"),
            format!("{:.3}", outcome.latency(50.0)),
            elsewhere(50.0),
            elsewhere(99.0),
            outcome.lost.to_string(),
        ]);
        values.push(json!({
            "nodes": count, "micros": micros, "redisMicros": redis, "sameNodeMs": percentiles(&outcome.latencies),
            "otherNodeMs": percentiles(&outcome.elsewhere), "lost": outcome.lost,
        }));
        eprintln!("members on {count} nodes: {micros:.1} µs a delivery, and {redis:.1} of Redis");
    }
    Ok((values.into(), table))
}

/// CPU time that Redis has used so far, s.
async fn redis_cpu(stores: &Stores) -> Result<f64> {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(&mut stores.redis().await?).await?;
    let of = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse::<f64>().ok()).with_context(|| format!("Redis tells no {name}"))
    };
    Ok(of("used_cpu_user")? + of("used_cpu_sys")?)
}
