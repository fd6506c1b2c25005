//! Puts tandem under load, and the bare relays beside it: `cargo bench --bench load -- ratio`.
//!
//! A load is rooms full of members ([`population`]) whose first one sends, at a rate or in a closed loop ([`run`]).
//! Servers run in processes of their own ([`server`]), so that their CPU time and memory are theirs alone ([`proc`]).
//! The bare relays ([`relay_raw`], [`relay_ws`], [`relay_quic`]) are this same program, started again: they do nothing
//! but fan out, and so they are the limit that every figure is a ratio to ([`ratio`]). Clients are written for this
//! purpose ([`ws`], [`quic`]): they share the machine with the server, and must cost little. `docs/PERFORMANCE.md` says
//! what came out.

#![allow(unreachable_pub, reason = "a program of its own")]

mod all;
mod args;
mod by_nodes;
mod clock;
mod cluster;
mod crowd;
mod growth;
mod idle;
mod join_burst;
mod link;
mod nodes;
#[path = "../support/plot.rs"]
mod plot;
mod population;
mod proc;
mod quic;
mod ratio;
mod relay_quic;
mod relay_raw;
mod relay_ws;
mod relays;
mod report;
mod run;
mod scenario;
mod server;
mod stores;
mod wire;
mod ws;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::ArgMatches;

fn main() -> ExitCode {
    // `cargo bench` and `cargo test --benches` add words of their own.
    let mut words = std::env::args().filter(|word| word != "--bench" && word != "--test").peekable();
    let program = words.next().unwrap_or_default();
    if words.peek().is_none() {
        // No order is no load: this is what `cargo test --all-targets` runs.
        let _ = args::command().print_help();
        return ExitCode::SUCCESS;
    }
    let matches = args::command().get_matches_from(std::iter::once(program).chain(words));
    match dispatch(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(matches: &ArgMatches) -> Result<()> {
    proc::raise_open_files();
    let Some((name, matches)) = matches.subcommand() else { return Ok(()) };
    // A relay gets the runtime that tandem has; the load one thread, and one core.
    if let relay @ ("relay-ws" | "relay-quic") = name {
        let address = matches.get_one("address").copied().unwrap_or(([127, 0, 0, 1], 0).into());
        ensure!(std::net::SocketAddr::ip(&address).is_loopback(), "{address} is not a loopback address");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(async {
            if relay == "relay-ws" {
                return match matches.get_one::<String>("by").map(String::as_str) {
                    Some("axum") => relay_ws::serve(address, false).await,
                    Some("axum-tasks") => relay_ws::serve(address, true).await,
                    _ => relay_raw::serve(address).await,
                };
            }
            relay_quic::serve(address, matches.get_one::<String>("redis-url").map(String::as_str)).await
        });
    }
    if matches.get_flag("pin") {
        scenario::leave_the_last_core()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        match name {
            "run" => scenario::one(matches).await,
            "ratio" => scenario::ratios(matches).await,
            "all" => all::all(matches).await,
            figure => scenario::figure(figure, matches).await,
        }
    })?;
    if !report.tables.is_empty() {
        println!("{}\n\n{}", proc::machine(), report.text());
    }
    match matches.get_one::<PathBuf>("json") {
        Some(file) => {
            report::write_plots(file.parent().unwrap_or(Path::new("")), &report)?;
            report::write_json(file, report.json)
        }
        None => Ok(()),
    }
}
