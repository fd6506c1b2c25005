//! Log lines: for people on a terminal, for machines elsewhere.

use std::io::IsTerminal;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::json::Flat;
use super::otlp::{self, Otlp, OtlpError};

/// Name of the span of an HTTP request: the only span at `info` that is traced.
pub const REQUEST_SPAN: &str = "http";
/// Name of the span of a probe or a scrape: the only span at `debug` that is not traced.
pub const PROBE_SPAN: &str = "probe";

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Why logging can't start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("{0}")]
    Filter(String),
    #[error("logging has started already")]
    Twice,
    #[error(transparent)]
    Otlp(#[from] OtlpError),
}

/// Reads `LOG_LEVEL`: a level, or a list such as `info,tandem::hub=debug`. A bare `debug` or `trace` means this server;
/// its libraries stay at `info` unless they are named (`debug,quinn=debug`).
pub fn parse_filter(text: &str) -> Result<EnvFilter, LoggingError> {
    // `EnvFilter` takes a word that is no level for the name of a module, and would silence everything else.
    let is_level = |word: &str| !word.is_empty() && word.parse::<tracing::level_filters::LevelFilter>().is_ok();
    if let Some(word) = text.split(',').map(str::trim).find(|word| !word.contains(['=', '[']) && !is_level(word)) {
        return Err(LoggingError::Filter(format!("{word:?} is not one of error, warn, info, debug, trace, off")));
    }
    // Libraries are debugged only if they are named.
    let of_tandem = |word: &str| match word.trim() {
        detail @ ("debug" | "trace" | "DEBUG" | "TRACE") => format!("info,tandem={detail}"),
        other => other.to_owned(),
    };
    let directives: Vec<_> = text.split(',').map(of_tandem).collect();
    EnvFilter::try_new(directives.join(",")).map_err(|error| LoggingError::Filter(error.to_string()))
}

/// Flushes the traces at the end of the process.
#[must_use = "the last traces are sent by `finish`"]
#[derive(Debug)]
pub struct Logging {
    traces: Option<SdkTracerProvider>,
}

impl Logging {
    /// Sends the last traces, within [`otlp::FLUSH`](super::otlp). Blocks: not for async threads.
    pub fn finish(self) {
        if let Some(traces) = &self.traces {
            otlp::finish(traces);
        }
    }
}

/// Sends log lines to standard error, and traces to where `otlp` says. Format `None`: pretty on a terminal, else JSON.
/// Without `otlp` there is one filter for all, whose answers are kept at each place that logs: what is off costs a
/// load.
pub fn init_logging(
    level: &str,
    format: Option<LogFormat>,
    node: &str,
    otlp: Option<&Otlp>,
) -> Result<Logging, LoggingError> {
    let format = format.unwrap_or(if std::io::stderr().is_terminal() { LogFormat::Pretty } else { LogFormat::Json });
    let filter = parse_filter(level)?;
    let traces = otlp.map(|otlp| otlp::start(otlp, node)).transpose()?;
    let started = match &traces {
        None => tracing_subscriber::registry().with(filter).with(lines(format, node)).try_init(),
        Some(traces) => {
            let spans = tracing_opentelemetry::layer()
                .with_tracer(otlp::tracer(traces))
                .with_location(false)
                .with_threads(false)
                .with_tracked_inactivity(false)
                .with_filter(FilterFn::new(is_traced).with_max_level_hint(LevelFilter::DEBUG));
            tracing_subscriber::registry().with(lines(format, node).with_filter(filter)).with(spans).try_init()
        }
    };
    started.map_err(|_| LoggingError::Twice)?;
    Ok(Logging { traces })
}

/// Traced are the spans at `debug` (requests and commits, not probes), and of those at `info` only HTTP requests: the
/// others give log lines their fields.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    let traced = match *metadata.level() {
        Level::DEBUG => metadata.name() != PROBE_SPAN,
        _ => metadata.name() == REQUEST_SPAN,
    };
    traced && metadata.is_span() && metadata.target().starts_with("tandem")
}

fn lines<S>(format: LogFormat, node: &str) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Pretty => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => {
            layer.fmt_fields(JsonFields::new()).event_format(Flat { node: node.to_owned() }).with_ansi(false).boxed()
        }
    }
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
