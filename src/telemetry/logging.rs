//! Log lines: for people on a terminal, for machines elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Logging can't start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter can't be read.
    #[error("{0}")]
    Filter(String),
    /// It has started before.
    #[error("logging has started already")]
    Twice,
}

/// Reads `LOG_LEVEL`: a level, or a list such as `info,tandem::hub=debug`. A bare `debug` or `trace` means this server;
/// its libraries stay at `info` unless they are named (`debug,quinn=debug`).
pub fn parse_filter(text: &str) -> Result<EnvFilter, LoggingError> {
    // A word that is no level would be taken for the name of a module, and silence everything else.
    let is_level = |word: &str| !word.is_empty() && word.parse::<tracing::level_filters::LevelFilter>().is_ok();
    if let Some(word) = text.split(',').map(str::trim).find(|word| !word.contains(['=', '[']) && !is_level(word)) {
        return Err(LoggingError::Filter(format!("{word:?} is not one of error, warn, info, debug, trace, off")));
    }
    // Debugging the server is not debugging its libraries: theirs is asked for by name.
    let of_tandem = |word: &str| match word.trim() {
        detail @ ("debug" | "trace" | "DEBUG" | "TRACE") => format!("info,tandem={detail}"),
        other => other.to_owned(),
    };
    let directives: Vec<_> = text.split(',').map(of_tandem).collect();
    EnvFilter::try_new(directives.join(",")).map_err(|error| LoggingError::Filter(error.to_string()))
}

/// Sends log lines to standard error. `None`: pretty on a terminal, else JSON.
pub fn init_logging(level: &str, format: Option<LogFormat>) -> Result<(), LoggingError> {
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    let lines = tracing_subscriber::fmt().with_env_filter(parse_filter(level)?).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Pretty => lines.with_ansi(terminal).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|_| LoggingError::Twice)
}

#[cfg(test)]
mod tests {
    use super::parse_filter;

    #[test]
    fn a_misspelt_level_is_refused_rather_than_taken_for_a_module() {
        assert!(parse_filter("info").is_ok() && parse_filter("warn,tandem::hub=debug").is_ok());
        assert!(parse_filter("inof").unwrap_err().to_string().contains("inof"));
        assert!(parse_filter("info,tandem=loud").is_err());
        assert!(parse_filter("").is_err());
    }

    #[test]
    fn debug_means_this_server_and_its_libraries_only_by_name() {
        let read = |text| {
            let filter = parse_filter(text).unwrap().to_string();
            let mut directives: Vec<_> = filter.split(',').map(str::to_owned).collect();
            directives.sort();
            directives.join(",")
        };
        assert_eq!(read("debug"), "info,tandem=debug");
        assert_eq!(read("trace,quinn=debug"), "info,quinn=debug,tandem=trace");
        assert_eq!(read("warn"), "warn");
    }
}
