//! The attacks that were tried on the first product, against the real binary on loopback, each bounded in time and
//! number, with two bystanders whose messages are measured.
//!
//! `./test abuse` plays them all and prints a table. Three kinds of windows take turns: a quiet one, one in which a
//! second server of the same build is attacked, and one in which the bystanders' own server is. Attacker and victims
//! share the machine's cores, so the second window shows the attack's cost to other processes of the machine; the third
//! shows what the server lets it cost its own members. The ratio of these two 99th percentiles must not exceed
//! [`MOST`]. The run fails too when an attack reaches its goal. `cargo test` doesn't play them: what is refused purely
//! is tested where it is refused (`tests/session.rs`, `tests/e2e/abuse.rs`, `quota/`, `hub/`, `session/budget.rs`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/half_open.rs"]
mod half_open;
#[path = "../support/postgres.rs"]
mod postgres_server;
#[path = "../support/redis.rs"]
mod redis_server;
#[path = "../support/whole_server.rs"]
mod support;

mod attacker;
mod attacks;
mod bystander;
mod redis_filled;

use std::time::Duration;

use bystander::{Bystanders, p99};
use futures_util::future::BoxFuture;
use support::server::{Place, TestProcess};
use tandem::clock::Clock;
use tokio::time::Instant;

/// One window.
const WINDOW: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
const MOST: f64 = 1.5;

/// Attacks until then, and says what came of it. `Err`: it reached its goal.
type Attack = for<'a> fn(&'a Target, Instant) -> BoxFuture<'a, Result<String, String>>;

/// The server under attack.
pub(crate) struct Target {
    pub(crate) place: Place,
    pub(crate) pid: u32,
    /// Number of the attack, so that names don't repeat.
    pub(crate) round: usize,
}

const ATTACKS: &[(&str, Attack)] = &[
    ("13 ghosts: two JOINs on one session, then a reset", attacks::ghosts),
    ("14a/b films: 20 hosts of one address change the film", attacks::films),
    ("14c offers: bursts against a slow reader", attacks::offers),
    ("14c customs: bursts into a room of 30", attacks::customs),
    ("14d thief: a v2 host under fire is claimed", attacks::thief),
    ("15 QUIC: handshakes that are never finished", attacks::handshakes),
    ("16 JOINs of ever new addresses", attacks::addresses),
    ("17 PINs: JOINs that are cancelled, SET_PIN without pause", attacks::pins),
    ("18 films in other people's networks", attacks::networks),
    ("19 a room is filled by members who don't stay, seeks by guests without a player", attacks::spoilers),
    ("20 HTTP: short links, /ready, Host, empty fragments", attacks::http),
];

#[test]
#[ignore = "minutes, and measures: ./test abuse"]
fn attacks_reach_nothing_and_bystanders_hardly_notice() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (bystanders_runtime, attackers_runtime) = (runtime(), runtime());
    let only = std::env::vars().find(|(name, _)| name == "ATTACK").map(|(_, value)| value);
    let mut failed = Vec::new();
    println!(
        "| attack | outcome | p99 quiet, ms | p99 while another server is attacked, ms | p99 attacked, ms | ratio |"
    );
    println!("|---|---|--:|--:|--:|--:|");
    for (name, attack) in ATTACKS.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| name.starts_with(only))) {
        let played = bystanders_runtime.block_on(play(attackers_runtime.handle().clone(), *attack));
        let ratio = played.attacked / played.beside;
        let (outcome, reached) = match played.outcome {
            Ok(said) => (said, false),
            Err(said) => (format!("**REACHED**: {said}"), true),
        };
        let Played { quiet, beside, attacked, .. } = played;
        println!("| {name} | {outcome} | {quiet:.1} | {beside:.1} | {attacked:.1} | {ratio:.2} |");
        if reached || ratio > MOST {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// 99th percentiles in ms, and what came of the attack: `Err` if it reached its goal in any round.
struct Played {
    quiet: f64,
    /// While the second server was attacked.
    beside: f64,
    attacked: f64,
    outcome: Result<String, String>,
}

async fn play(attackers: tokio::runtime::Handle, attack: Attack) -> Played {
    let ((server, _data), (decoy, _decoy_data)) = (start().await, start().await);
    let mut bystanders = Bystanders::meet(&server.place()).await;
    let (mut quiet, mut beside, mut attacked) = (Vec::new(), Vec::new(), Vec::new());
    let mut outcomes = Vec::new();
    // Everything is warm after it.
    bystanders.measure(Clock::instant() + Duration::from_millis(500)).await;
    for round in 0..ROUNDS {
        quiet.extend(bystanders.measure(Clock::instant() + WINDOW).await);
        let mut order = [(&decoy, &mut beside, false), (&server, &mut attacked, true)];
        if round % 2 == 1 {
            order.reverse();
        }
        for (victim, latencies, counts) in order {
            let target = Target { place: victim.place(), pid: victim.pid(), round };
            let until = Clock::instant() + WINDOW;
            // On threads of its own: what it costs its own process is not the bystanders'.
            let attacking = attackers.spawn(async move { attack(&target, until).await });
            latencies.extend(bystanders.measure(until).await);
            let outcome = attacking.await.unwrap();
            if counts {
                outcomes.push(outcome);
            }
        }
    }
    let outcome = outcomes.into_iter().reduce(|before, outcome| before.and(outcome)).unwrap();
    Played { quiet: p99(quiet), beside: p99(beside), attacked: p99(attacked), outcome }
}

/// A server, and its folder: in memory where that is possible, because what the disk of this machine does is not what
/// is measured.
async fn start() -> (TestProcess, tempfile::TempDir) {
    let memory = std::path::Path::new("/dev/shm");
    let data = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let data_dir = data.path().join("data");
    let settings =
        [("MEMBER_GRACE_SECS", "2"), ("LOG_LEVEL", "warn"), ("DATA_DIR", data_dir.to_str().expect("a path of text"))];
    (TestProcess::start(&settings).await, data)
}
