//! Lines for another program: `benches/sync` puts browsers behind them.
//!
//! The conditions are the argument. Standard output gets one line of JSON with the namespaces and addresses as soon as
//! the lines lie; each line on standard input is answered by the counts of packets so far. When standard input ends
//! (its writer is gone, however it ended) or a signal comes, every process in the namespaces is killed and all of it is
//! taken away.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::line::link::Conditions;
use super::line::tunnel::{self, BothWays, End, LineSet};

pub(crate) const NAME: &str = "lines";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    seed: u64,
    lines: Vec<LineSpec>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineSpec {
    /// From the server.
    down: Way,
    up: Way,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Way {
    delay_ms: f64,
    jitter_ms: f64,
    /// 0.02 is two packets in a hundred.
    loss: f64,
    kbit: u64,
    queue_bytes: usize,
}

impl TryFrom<Way> for Conditions {
    type Error = anyhow::Error;

    fn try_from(way: Way) -> Result<Self> {
        if !(0.0..=1.0).contains(&way.loss) || way.kbit == 0 {
            bail!("a share of losses between 0 and 1 and a width above 0 are needed: {way:?}");
        }
        let millis = |value: f64| Duration::try_from_secs_f64(value / 1000.0);
        Ok(Self {
            delay: millis(way.delay_ms)?,
            jitter: millis(way.jitter_ms)?,
            loss: way.loss,
            rate: way.kbit * 125,
            queue: way.queue_bytes,
        })
    }
}

pub(crate) async fn keep(spec: &str) -> Result<()> {
    let Spec { seed, lines } = serde_json::from_str(spec).context("the lines are not understood")?;
    let conditions = lines
        .into_iter()
        .map(|LineSpec { down, up }| anyhow::Ok(BothWays { down: down.try_into()?, up: up.try_into()? }));
    let conditions = conditions.collect::<Result<Vec<_>>>()?;
    tunnel::sweep()?;
    let laid = LineSet::lay(&conditions, seed)?;
    let end = |end: End| serde_json::json!({ "namespace": end.namespace(), "address": end.address() });
    let far: Vec<_> = (0_u8..).take(conditions.len()).map(|number| end(End::Far(number))).collect();
    say(&serde_json::json!({ "near": end(End::Near), "far": far }))?;
    let (ask, mut asked) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("orders".to_owned())
        .spawn(move || std::io::stdin().lines().map_while(Result::ok).try_for_each(|_| ask.blocking_send(())))?;
    while asked.recv().await.is_some() {
        say(&serde_json::to_value(laid.fates())?)?;
    }
    Ok(())
}

/// One line, at once: the reader waits for it.
fn say(words: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{words}")?;
    Ok(out.flush()?)
}
