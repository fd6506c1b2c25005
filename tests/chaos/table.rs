//! The long run, and its table.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::population::Size;
use super::scenario::{Report, Row};
use super::{network, nodes, stores};

const PAGE: &str = "docs/RELIABILITY.md";
const BEGIN: &str = "<!-- chaos -->\n";
const END: &str = "<!-- /chaos -->";

/// `./test chaos`: one fault after the other, each on a cluster of its own. `CHAOS_ONLY=stores` plays those with that
/// in their name, and writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: ./test chaos"]
async fn the_whole_run_with_its_table() {
    let size = Size::long();
    let mut scenarios: Vec<(&str, LocalBoxFuture<'_, Report>)> = vec![
        ("nodes::random_schedule", nodes::random_schedule(size).boxed_local()),
        ("nodes::started_together", nodes::started_together(size).boxed_local()),
        ("nodes::killed", nodes::killed(size).boxed_local()),
        ("nodes::rolling_restart", nodes::rolling_restart(size).boxed_local()),
        ("stores::redis_restarted", stores::redis_restarted(size).boxed_local()),
        ("stores::redis_restarted_empty", stores::redis_restarted_empty(size).boxed_local()),
        ("stores::redis_frozen", stores::redis_frozen(size).boxed_local()),
        ("stores::redis_emptied", stores::redis_emptied(size).boxed_local()),
        ("stores::sentinel_failover", stores::sentinel_failover(size).boxed_local()),
        ("stores::cluster_failover", stores::cluster_failover(size).boxed_local()),
        ("stores::postgres_restarted", stores::postgres_restarted(size).boxed_local()),
        ("network::node_and_redis", network::node_and_redis(size).boxed_local()),
        ("network::nodes_and_postgres", network::nodes_and_postgres(size).boxed_local()),
        ("network::members_and_nodes", network::members_and_nodes(size).boxed_local()),
    ];
    let only = std::env::vars().find(|(name, _)| name == "CHAOS_ONLY").map(|(_, only)| only);
    scenarios.retain(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only.as_str())));
    let mut table = format!("{}\n", Row::HEAD);
    let mut failures = 0;
    for (name, scenario) in scenarios {
        println!("{name}");
        match AssertUnwindSafe(scenario).catch_unwind().await {
            Ok(report) => table.push_str(&report.row.line()),
            Err(_) => failures += 1,
        }
    }
    println!("\n{table}");
    assert_eq!(failures, 0, "scenarios failed; the table of {PAGE} stays as it was");
    if only.is_none() {
        write(&table);
    }
}

fn write(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let text = std::fs::read_to_string(&path).unwrap();
    let start = text.find(BEGIN).unwrap() + BEGIN.len();
    let end = start + text[start..].find(END).unwrap();
    std::fs::write(&path, format!("{}{table}{}", &text[..start], &text[end..])).unwrap();
    println!("{PAGE} has it");
}
