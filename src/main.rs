//! `tandem`: options → run → exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use tandem::app::App;
use tandem::config::Config;
use tandem::config::cli::{self, CliCommand, CliError};
use tandem::panics;
use tandem::telemetry::{LogFormat, Metrics, init_logging, json_lines};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match cli::from_process() {
        Ok(CliCommand::Serve(config)) => serve(*config),
        Ok(CliCommand::CheckConfig(config)) => {
            print!("{config}");
            config.unknown.iter().for_each(|unknown| eprintln!("tandem: {unknown}"));
            Ok(())
        }
        Ok(CliCommand::Health(url)) => tandem::http::probe::ask(&url).map_err(anyhow::Error::msg),
        // `--help` and `--version` come this way too.
        Err(CliError::Usage(usage)) => usage.exit(),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Of several wrong settings each has its line.
            one_line(&error).lines().for_each(|line| eprintln!("tandem: {line}"));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes. Many have their cause's words in their own: once is enough.
fn one_line(error: &anyhow::Error) -> String {
    let causes = error.chain().map(ToString::to_string);
    causes.fold(String::new(), |line, cause| match line.as_str() {
        "" => cause,
        line if line.contains(&cause) => line.to_owned(),
        line => format!("{line}: {cause}"),
    })
}

#[tokio::main]
async fn serve(config: Config) -> anyhow::Result<()> {
    let logging = init_logging(&config.log_level, config.log_format, config.node.as_str(), config.otlp.as_ref())?;
    for unknown in &config.unknown {
        tracing::warn!("{unknown}");
    }
    if !config.rate_limits {
        tracing::warn!("RATE_LIMITS=off: anybody may flood this server");
    }
    let metrics = Metrics::install()?;
    // With JSON asked for, standard output is part of a log that machines read: no picture, no plain text.
    let json = (config.log_format == Some(LogFormat::Json)).then(|| config.node.to_string());
    panics::watch();
    let app = App::build(config, metrics).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    // Once it is announced, it can be told to stop.
    match json {
        Some(node) => say(&json_lines(&node, &app.announcement(false))),
        None => say(&app.announcement(std::io::stdout().is_terminal())),
    }
    let running = app.run(stopping);
    // A second signal ends at once: the first handler is used up by then.
    let (mut again, mut and_again) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let impatient = async {
        for _ in 0..2 {
            tokio::select! {
                _ = again.recv() => {}
                _ = and_again.recv() => {}
            }
        }
    };
    tokio::select! {
        outcome = running => {
            tokio::task::spawn_blocking(|| logging.finish()).await?;
            Ok(outcome?)
        }
        () = impatient => anyhow::bail!("stopped at once, at the second signal"),
    }
}

/// A closed standard output is ignored: the process that started the server may have stopped reading.
fn say(lines: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
}
