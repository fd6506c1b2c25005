//! Two nodes on one Redis and one PostgreSQL: what crossing over costs, beside the least that it can cost.
//!
//! * Ticks: the sender is on the first node, every second member on the other. In turn with them, at the same rate, two
//!   bare datagram relays that Redis joins, and a PUBLISH of the same size that arrives at a subscriber through it.
//! * A command: PLAY_PAUSE to ACK, and how many calls of Redis it takes, beside one EVALSHA that appends as much.
//! * The audit: rows a second into PostgreSQL, while a backlog that was held up is drained.
//! * How the cost grows with the nodes: [`by_nodes`](super::by_nodes).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tandem::telemetry::names;

use super::by_nodes;
use super::clock;
use super::cluster::Cluster;
use super::link::Carrier;
use super::population::histogram;
use super::report::{Report, Spread, Table, thousands};
use super::run::{Outcome, Pace, Times, measure, millis, percentiles};
use super::server::Launch;
use super::stores::{self, Stores};
use super::wire::Kind;

/// Members of a room, in turn on the two nodes.
const MEMBERS: usize = 6;
/// Rooms of the tick run, and messages a second of each.
const ROOMS: usize = 10;
const HERTZ: f64 = 20.0;
/// Rooms that make the audit's backlog: many, so that commits don't wait for one another.
const BUSY_ROOMS: usize = 200;
const TABLE: &str = "room_events";
/// Waiting for the audit.
const PATIENCE: Duration = Duration::from_secs(120);

/// All of them.
pub(crate) async fn nodes(launch: &Launch, stores: &Stores, pairs: usize, times: Times) -> Result<Report> {
    let nodes = Cluster::start(launch, stores, 2).await?;
    // First: the members of the others leave rooms behind, whose grace times end in commits of both nodes at once.
    let (commands, command_table) = commands(&nodes, stores, times).await?;
    let (ticks, tick_table) = ticks(&nodes, launch, stores, pairs, times).await?;
    let (audit, audit_table) = audit(&nodes, stores, times).await?;
    nodes.stop().await?;
    let (growth, growth_table) = by_nodes::growth(launch, stores, times).await?;
    Ok(Report {
        name: "nodes",
        json: json!({"ticks": ticks, "commands": commands, "audit": audit, "growth": growth}),
        tables: vec![
            (
                format!("Ticks from one node to the other: {ROOMS} rooms of {MEMBERS}, {HERTZ} Hz, WebTransport"),
                tick_table,
            ),
            ("A control command, PLAY_PAUSE to ACK".to_owned(), command_table),
            ("The audit: a backlog that PostgreSQL was kept from taking, then drained".to_owned(), audit_table),
            (by_nodes::caption(), growth_table),
        ],
        plots: Vec::new(),
    })
}

/// The load of the tick runs on two nodes.
async fn tick_run(nodes: &Cluster, carrier: Carrier, times: Times) -> Result<Outcome> {
    let population = nodes.population(carrier, Kind::Tick, ROOMS, MEMBERS).await?;
    let outcome = measure(&population, &nodes.all(), Pace::Rate(HERTZ), times).await?;
    population.disconnect_all().await;
    Ok(outcome)
}

/// The ways of one run.
struct Ways {
    tandem: Outcome,
    bare: Outcome,
    publish: Histogram<u64>,
}

impl Ways {
    /// To members on the other node, tandem's in units of the bare relays'.
    fn beside_relays(&self, percent: f64) -> f64 {
        millis(&self.tandem.elsewhere, percent) / millis(&self.bare.elsewhere, percent)
    }
}

/// The median way to members on the other node, ms.
fn whole(of: &Outcome) -> f64 {
    millis(&of.elsewhere, 50.0)
}

/// By how much it is longer than that to members on the same node, ms.
fn added(of: &Outcome) -> f64 {
    whole(of) - of.latency(50.0)
}

async fn ticks(
    nodes: &Cluster,
    launch: &Launch,
    stores: &Stores,
    pairs: usize,
    times: Times,
) -> Result<(Value, Table)> {
    let mut table = Table::new(&["run", "what", "p50 ms", "p99 ms", "max ms", "messages", "lost"]);
    let (mut runs, mut values) = (Vec::new(), Vec::new());
    for run in 1..=pairs {
        let tandem = tick_run(nodes, Carrier::WebTransport, times).await?;
        let relays = Cluster::bare(launch, stores).await?;
        let bare = tick_run(&relays, Carrier::Bare, times).await?;
        relays.stop().await?;
        let ways = Ways { tandem, bare, publish: publish(stores, times).await? };
        for (name, of, lost) in [
            ("tandem, same node", &ways.tandem.latencies, Some(ways.tandem.lost)),
            ("tandem, other node", &ways.tandem.elsewhere, None),
            ("bare relays, same node", &ways.bare.latencies, Some(ways.bare.lost)),
            ("bare relays, other node", &ways.bare.elsewhere, None),
            ("PUBLISH → SUBSCRIBE", &ways.publish, None),
        ] {
            let at = |percent| format!("{:.3}", millis(of, percent));
            let lost = lost.map_or("–".to_owned(), |lost| lost.to_string());
            let cells = [run.to_string(), name.to_owned(), at(50.0), at(99.0), at(100.0), of.len().to_string(), lost];
            table.row(cells.into());
        }
        values.push(json!({
            "ticks": ways.tandem.json(), "bareTicks": ways.bare.json(), "rawMs": percentiles(&ways.publish),
        }));
        runs.push(ways);
    }
    let spread = |of: fn(&Ways) -> f64| Spread::of(runs.iter().map(of).collect());
    let in_publishes =
        |of: fn(&Ways) -> f64| Spread::of(runs.iter().map(|ways| of(ways) / millis(&ways.publish, 50.0)).collect());
    let mut json = json!({"runs": values, "goal": 1.3});
    for (key, name, spread) in [
        ("relaysP50", "tandem / bare relays, other node, p50 (goal ≤ 1.3)", spread(|ways| ways.beside_relays(50.0))),
        ("relaysP99", "tandem / bare relays, other node, p99", spread(|ways| ways.beside_relays(99.0))),
        ("crossingP50", "what crossing adds / PUBLISH, p50 (goal ≤ 1.3)", in_publishes(|ways| added(&ways.tandem))),
        ("wholeP50", "the whole way / PUBLISH, p50", in_publishes(|ways| whole(&ways.tandem))),
        ("bareWholeP50", "the bare relays' whole way / PUBLISH, p50", in_publishes(|ways| whole(&ways.bare))),
    ] {
        let mut row = vec!["all".to_owned(), format!("{name}: {}", spread.text(2))];
        row.resize(7, "–".to_owned());
        table.row(row);
        json[key] = spread.json();
    }
    Ok((json, table))
}

/// A bare client publishes to a bare subscriber, as often as the rooms' ticks cross over.
async fn publish(stores: &Stores, times: Times) -> Result<Histogram<u64>> {
    const CHANNEL: &str = "load:raw";
    let client = stores.client()?;
    let mut subscriber = client.get_async_pubsub().await?;
    subscriber.subscribe(CHANNEL).await?;
    let mut arrivals = subscriber.on_message();
    let mut publisher = stores.redis().await?;
    let (mut latencies, every) = (histogram()?, Duration::from_secs_f64(1.0 / (ROOMS as f64 * HERTZ)));
    let start = tokio::time::Instant::from_std(clock::now());
    let count = (times.window.as_secs_f64() / every.as_secs_f64()) as u32;
    let sending = async {
        for index in 0..count {
            tokio::time::sleep_until(start + every * index).await;
            // As large as a relayed tick: its sender, its session, the tick.
            let payload = format!("{:>120}", clock::micros());
            redis::cmd("PUBLISH").arg(CHANNEL).arg(payload).query_async::<()>(&mut publisher).await?;
        }
        anyhow::Ok(())
    };
    let hearing = async {
        for _ in 0..count {
            let message = arrivals.next().await.context("the subscription ended")?;
            let sent: u64 = message.get_payload::<String>()?.trim().parse()?;
            latencies.saturating_record(clock::micros().saturating_sub(sent).max(1));
        }
        anyhow::Ok(())
    };
    tokio::try_join!(sending, hearing)?;
    Ok(latencies)
}

async fn commands(nodes: &Cluster, stores: &Stores, times: Times) -> Result<(Value, Table)> {
    let population = nodes.population(Carrier::WebSocket, Kind::Play, ROOMS, MEMBERS).await?;
    let before = (nodes.counter(names::COMMITS).await, nodes.counter(names::COMMIT_CONFLICTS).await);
    let outcome = measure(&population, &nodes.all(), Pace::Rate(2.0), times).await?;
    let commits = nodes.counter(names::COMMITS).await - before.0;
    let conflicts = nodes.counter(names::COMMIT_CONFLICTS).await - before.1;
    population.disconnect_all().await;
    let raw = evalsha(stores, times).await?;
    // Each is one call of one script; one that meets a conflict is called again.
    let calls = (commits + conflicts) / commits;
    let mut table = Table::new(&["what", "p50 ms", "p99 ms", "calls of Redis"]);
    let at = |of: &Histogram<u64>, percent| format!("{:.3}", millis(of, percent));
    let row = |name: &str, of: &Histogram<u64>, calls: String| vec![name.to_owned(), at(of, 50.0), at(of, 99.0), calls];
    let each = format!("{calls:.3} ({commits} commits, {conflicts} conflicts)");
    table.row(row("PLAY_PAUSE → ACK", &outcome.ack_latencies, each));
    table.row(row("PLAY_PAUSE → member on the other node", &outcome.elsewhere, "–".to_owned()));
    table.row(row("a bare EVALSHA that writes, appends, publishes", &raw, "1".to_owned()));
    let json = json!({
        "outcome": outcome.json(), "commits": commits, "conflicts": conflicts, "bareEvalshaMs": percentiles(&raw),
    });
    Ok((json, table))
}

/// The least that a commit can cost: one script that writes, appends and publishes, and does nothing else.
async fn evalsha(stores: &Stores, times: Times) -> Result<Histogram<u64>> {
    let script = redis::Script::new(
        "redis.call('HSET', KEYS[1], 'f', ARGV[1]) redis.call('XADD', KEYS[2], 'MAXLEN', 1000, '*', 'f', ARGV[1]) \
         redis.call('PUBLISH', KEYS[3], ARGV[1]) return 1",
    );
    let (mut redis, mut latencies, payload) = (stores.redis().await?, histogram()?, "x".repeat(400));
    let start = clock::now();
    while clock::now().duration_since(start) < times.window {
        let sent = clock::micros();
        let mut call = script.key("load:hash");
        let call = call.key("load:stream").key("load:channel").arg(&payload);
        call.invoke_async::<()>(&mut redis).await?;
        latencies.saturating_record(clock::micros().saturating_sub(sent).max(1));
        clock::pause(Duration::from_millis(20)).await;
    }
    Ok(latencies)
}

async fn audit(nodes: &Cluster, stores: &Stores, times: Times) -> Result<(Value, Table)> {
    let mut database = stores.database().await?;
    let before = at_rest(&mut database).await?;
    let events = nodes.counter(names::COMMIT_EVENTS).await;
    // Writers wait for the end of this transaction.
    let mut holder = stores.database().await?;
    let mut hold = holder.begin().await?;
    sqlx::raw_sql("LOCK TABLE room_events IN SHARE MODE").execute(&mut *hold).await?;
    let population = nodes.population(Carrier::WebSocket, Kind::Play, BUSY_ROOMS, 2).await?;
    let outcome = measure(&population, &nodes.all(), Pace::Closed(16), times).await?;
    let expected = before + (nodes.counter(names::COMMIT_EVENTS).await - events) as u64;
    let held = stores::count(&mut database, TABLE).await?;
    hold.rollback().await?;
    let released = clock::now();
    // The drainer looks again at its own times: the clock runs from the first row that comes.
    let (mut first, mut last) = (None, (held, released));
    while last.0 < expected && clock::now().duration_since(released) < PATIENCE {
        clock::pause(Duration::from_millis(20)).await;
        let rows = stores::count(&mut database, TABLE).await?;
        if rows > last.0 {
            last = (rows, clock::now());
            first.get_or_insert(last);
        }
    }
    population.disconnect_all().await;
    let (rows, end) = last;
    ensure!(rows >= expected, "of {expected} audit rows only {rows} have come");
    let (early, begin) = first.context("no audit row was held up")?;
    let seconds = end.duration_since(begin).as_secs_f64();
    let per_second = (rows - early) as f64 / seconds;
    let waited = begin.duration_since(released).as_secs_f64();
    let commands = outcome.rate() / 2.0;
    let mut table =
        Table::new(&["rows held up", "first after s", "the rest in s", "rows/s", "goal", "commands/s while held up"]);
    table.row(vec![
        thousands((rows - held) as f64),
        format!("{waited:.2}"),
        format!("{seconds:.2}"),
        thousands(per_second),
        "≥ 20,000".to_owned(),
        thousands(commands),
    ]);
    let json = json!({
        "rows": rows - held, "firstAfterSeconds": waited, "seconds": seconds, "rowsPerSecond": per_second,
        "commandsPerSecond": commands, "goal": 20_000,
    });
    Ok((json, table))
}

/// Waits until no more rows come, and counts them.
async fn at_rest(database: &mut PgConnection) -> Result<u64> {
    let started = clock::now();
    let mut last = (0, started);
    while clock::now().duration_since(last.1) < Duration::from_secs(2) {
        ensure!(clock::now().duration_since(started) < PATIENCE, "the audit does not come to rest");
        let rows = stores::count(database, TABLE).await?;
        if rows != last.0 {
            last = (rows, clock::now());
        }
        clock::pause(Duration::from_millis(100)).await;
    }
    Ok(last.0)
}
