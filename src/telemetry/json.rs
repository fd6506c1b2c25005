//! One log line as one flat JSON object: time, level, node, the fields of its spans (session, room, user, correlation
//! id), and the event's own fields. Flat, so that a query for `roomId` finds it in spans and events; the innermost
//! wins.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The format, with the name of this node.
pub(super) struct Flat {
    pub(super) node: String,
}

impl<S> FormatEvent<S, JsonFields> for Flat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), time.into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.insert("nodeId".to_owned(), self.node.clone().into());
        line.insert("target".to_owned(), event.metadata().target().into());
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>().map(|fields| fields.fields.as_str());
            if let Some(Ok(Value::Object(fields))) = fields.map(serde_json::from_str) {
                // Fields such as `otel.name` are for the tracer only.
                line.extend(fields.into_iter().filter(|(name, _)| !name.starts_with("otel.")));
            }
        }
        event.record(&mut Fields(&mut line));
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

/// A text for people as JSON lines, for standard output, which a container's log holds too.
pub fn json_lines(node: &str, text: &str) -> String {
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let line = |message: &str| {
        let fields = ["timestamp", "level", "nodeId", "target", "message"];
        let line: Map<String, Value> = fields
            .into_iter()
            .map(str::to_owned)
            .zip([&time, "INFO", node, "tandem", message].map(Value::from))
            .collect();
        format!("{}\n", Value::Object(line))
    };
    text.lines().map(str::trim).filter(|text| !text.is_empty()).map(line).collect()
}

/// Collects an event's fields.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use serde_json::json;

    use super::*;
    use crate::telemetry::trace_dispatcher::of_this_test;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_flat_object_with_what_its_spans_know() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(Flat { node: "node-1".to_owned() })
            .with_writer(move || writer.clone())
            .finish();
        tracing::dispatcher::with_default(&of_this_test(subscriber), || {
            let session = tracing::info_span!("session", sessionId = "s-1", roomId = tracing::field::Empty);
            session.record("roomId", "friday\n\"");
            let _in_session = session.enter();
            let request = tracing::info_span!("request", otel.name = "CHAT", correlationId = "s-1#7");
            let _in_request = request.enter();
            tracing::info!(commits = 3_u64, error = %"no\nline", "two\nlines");
        });
        let text = String::from_utf8(sink.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut line: Value = serde_json::from_str(&text).unwrap();
        assert!(line["timestamp"].take().as_str().unwrap().ends_with('Z'));
        assert!(line["target"].take().as_str().unwrap().starts_with("tandem::"));
        let expected = json!({
            "timestamp": null, "target": null, "level": "INFO", "nodeId": "node-1", "sessionId": "s-1",
            "roomId": "friday\n\"", "correlationId": "s-1#7", "commits": 3, "error": "no\nline", "message": "two\nlines",
        });
        assert_eq!(line, expected);
    }
}
