//! Every metric in one table: its name, kind, unit, labels and meaning. The table of `docs/OPERATIONS.md` and the help
//! texts of `/metrics` are made from it.

use std::fmt::Write as _;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// One line of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    /// One sentence for operators.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($konst:ident = $name:literal, $kind:ident, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        /// Constants for `metrics::counter!` and its like.
        pub mod names {
            $(#[doc = $help] pub const $konst: &str = $name;)*
        }

        /// Names of the constants, for the test that each is used.
        #[cfg(test)]
        const CONSTANTS: &[(&str, &str)] = &[$((stringify!($konst), $name),)*];

        /// Every metric, in the order of the documentation.
        pub const CATALOGUE: &[Metric] = &[
            $(Metric { name: $name, kind: MetricKind::$kind, unit: Unit::$unit, labels: &[$($label),*], help: $help },)*
        ];
    };
}

catalogue! {
    SESSIONS_ACTIVE = "tandem_sessions_active", Gauge, Count, ["transport", "dialect"], "Sessions open now.";
    SESSIONS_TOTAL = "tandem_sessions_total", Counter, Count, ["transport"], "Sessions that were opened.";
    SESSIONS_ENDED = "tandem_sessions_ended_total", Counter, Count, ["transport", "code"], "Sessions that ended, by closing code.";
    JOINS = "tandem_joins_total", Counter, Count, ["result"], "JOINs, by result: ok, or the error code.";
    FALLBACKS = "tandem_fallbacks_total", Counter, Count, ["reason"], "Sessions on WebSocket whose client says why not WebTransport: unsupported, not_offered, failed, slow, remembered, chosen, other; and WebTransport sessions that a WebKit client replaced by a fresh one, because WebKit never refills QUIC's credit for received data: credit.";
    RESUMES = "tandem_resumes_total", Counter, Count, ["outcome"], "JOINs that wanted a membership back: resumed, moved (to a fresh session of the same page, unseen by the others), replaced (a v2 client, without a token), too_late (the membership was over, it joined anew), token_invalid, refused.";
    MESSAGES_IN = "tandem_messages_in_total", Counter, Count, ["type"], "Messages that clients sent, by type.";
    MESSAGES_REFUSED = "tandem_messages_refused_total", Counter, Count, ["code"], "Messages that were answered with ERROR, by code.";
    COMMITS = "tandem_commits_total", Counter, Count, [], "Commits that the log took.";
    COMMIT_EVENTS = "tandem_commit_events_total", Counter, Count, [], "Events in those commits.";
    COMMIT_CONFLICTS = "tandem_commit_conflicts_total", Counter, Count, [], "Commits that were decided again, because another node was faster.";
    COMMIT_SECONDS = "tandem_commit_seconds", Histogram, Seconds, [], "Time from handing a commit to the log to its answer.";
    DELIVERIES = "tandem_deliveries_total", Counter, Count, ["class"], "Messages put into members' outboxes, by class: event, tick, digest, audience (viewers, whatever it is).";
    TICKS_RELAYED = "tandem_ticks_relayed_total", Counter, Count, [], "Position reports handed on to members.";
    TICKS_COALESCED = "tandem_ticks_coalesced_total", Counter, Count, [], "Position reports that replaced one which still waited.";
    SESSION_QUEUE_BYTES = "tandem_session_queue_bytes", Gauge, Bytes, [], "Bytes that wait in the members' outboxes, looked at every 5 s.";
    OUTBOX_OVERFLOWS = "tandem_outbox_overflows_total", Counter, Count, [], "Sessions ended because they did not read.";
    BUDGET_REFUSALS = "tandem_budget_refusals_total", Counter, Count, ["budget"], "Messages refused for their bytes, by whose budget was used up: session, pair, address, room; target: no room in the outbox of the member addressed.";
    RATE_PAUSES = "tandem_rate_pauses_total", Counter, Count, ["class"], "Times that a session's reads paused for its rate, by class: message, compact.";
    RESYNCS = "tandem_resyncs_total", Counter, Count, [], "Members told the whole room again because their node missed commits; 0 without a fault of Redis or the network.";
    PANICS = "tandem_panics_total", Counter, Count, ["file"], "Panics, by the source file in which they began; each is a fault of the server.";
    ROOMS_BROKEN = "tandem_rooms_broken_total", Counter, Count, [], "Rooms whose replica was dropped and read again after a panic; their members here come back.";
    LOG_FAILURES = "tandem_log_failures_total", Counter, Count, ["operation"], "Times that the log did not answer and clients heard UNAVAILABLE, by operation: commit, load, restore, subscribe.";
    GHOST_MEMBERS = "tandem_ghost_members_total", Counter, Count, [], "Live members found without the session that they name on this node, and disconnected; 0 is expected.";
    PIN_THROTTLES = "tandem_pin_throttles_total", Counter, Count, [], "JOINs refused unread, because of too many wrong PINs.";
    CLIENT_RTT = "tandem_client_rtt_seconds", Histogram, Seconds, [], "Round trips that members report.";
    CLIENT_DRIFT = "tandem_client_drift_seconds", Histogram, Seconds, [], "How far members report their players to be from the room, either way.";
    CLIENT_CLOCK_ERROR = "tandem_client_clock_error_seconds", Histogram, Seconds, [], "Error that members estimate of their room time, either way.";
    CLIENTS_BUFFERING = "tandem_client_buffering_reports_total", Counter, Count, [], "Reports of members whose players wait for data.";
    ROOMS = "tandem_rooms", Gauge, Count, [], "Live rooms on this node.";
    AUDIENCE = "tandem_audience", Gauge, Count, [], "Viewers of those rooms with a session on this node.";
    MEMBERS = "tandem_members", Gauge, Count, ["state"], "Members of those rooms, by state: live (with a session on this node), grace (their last session was on this node).";
    ROOMS_UNREADABLE = "tandem_rooms_unreadable", Gauge, Count, [], "Rooms with members here whose stored state this version can't read.";
    HANDSHAKE_FAILURES = "tandem_handshake_failures_total", Counter, Count, ["transport", "reason"], "Connections that never became a session.";
    QUIC_HANDSHAKES = "tandem_quic_handshakes_total", Counter, Count, ["outcome"], "QUIC handshakes; every outcome but ok and retry is a failure.";
    QUIC_HANDSHAKES_PENDING = "tandem_quic_handshakes_pending", Gauge, Count, [], "QUIC handshakes under way.";
    QUIC_CONNECTIONS = "tandem_quic_connections", Gauge, Count, [], "QUIC connections open, with and without a session.";
    PANICS_CONTAINED = "tandem_panics_contained_total", Counter, Count, ["in"], "Panics that cost one connection: in quic_connection. Each is a bug; one that would cost more ends the process.";
    WEBTRANSPORT_REQUESTS = "tandem_webtransport_requests_total", Counter, Count, ["outcome"], "WebTransport requests; every outcome but ok is a refusal.";
    WEBTRANSPORT_STREAMS_REFUSED = "tandem_webtransport_streams_refused_total", Counter, Count, ["reason"], "Streams of WebTransport clients that were reset.";
    DATAGRAMS_DROPPED = "tandem_datagrams_dropped_total", Counter, Count, ["direction", "reason"], "Datagrams not passed on.";
    CERTIFICATE_RELOADS = "tandem_certificate_reloads_total", Counter, Count, ["result"], "Certificates taken into use while running (ok), or found unusable (failed).";
    APPEND_SECONDS = "tandem_repository_append_seconds", Histogram, Seconds, [], "Time of one batch into the database.";
    APPEND_COMMITS = "tandem_repository_append_commits", Histogram, Count, [], "Commits in one batch into the database.";
    APPEND_FAILURES = "tandem_repository_append_failures_total", Counter, Count, [], "Batches that the database refused or did not answer.";
    EVENTS_PRUNED = "tandem_events_pruned_total", Counter, Count, [], "Audit events deleted for their age.";
    UNSAVED_ROOMS = "tandem_unsaved_rooms", Gauge, Count, [], "Rooms that go on in memory because the disk is full: what they do is stored when there is space.";
    BUS_ALIVE = "tandem_bus_alive", Gauge, Count, [], "1 while this node hears the other nodes through Redis.";
    BUS_CONNECTS = "tandem_bus_connects_total", Counter, Count, [], "Times that the bus came up; each but the first after a break.";
    BUS_OVERFLOWS = "tandem_bus_overflows_total", Counter, Count, [], "Times that so much waited from the bus that every room was loaded again.";
    BUS_LAG = "tandem_bus_lag_seconds", Histogram, Seconds, [], "Time from sending a probe through Redis to hearing it on the bus; while it is not heard, the time so far.";
    BUS_WAITING = "tandem_bus_waiting", Gauge, Count, [], "Reports from the bus that the rooms have not taken in yet, looked at with every probe.";
    BUS_GAPS = "tandem_bus_gaps_total", Counter, Count, ["cause"], "Rooms read again because something was missed: sequence (commits are missing), conflict (commits did not come within 5 s of a lost race), restored (another node wrote the room back), lost (the bus broke, overflowed, or Redis lost data).";
    EPHEMERAL_DROPPED = "tandem_ephemeral_dropped_total", Counter, Count, ["direction"], "Ephemeral messages between nodes that were lost: out (could not be sent), in (too much waited).";
    REDIS_DATA_LOSSES = "tandem_redis_data_losses_total", Counter, Count, [], "Times that Redis had lost its data.";
    ROOMS_RESTORED = "tandem_rooms_restored_total", Counter, Count, [], "Rooms written back to Redis, which had lost them: from this node's replicas, or from the database when it starts.";
    // Counts requeued commits; dashboards know it by this name.
    COMMITS_REQUEUED = "tandem_commits_remembered_total", Counter, Count, [], "Commits that Redis lost before the database had them, put into the outbox again.";
    OUTBOX_WAITING = "tandem_outbox_waiting", Gauge, Count, [], "Commits in Redis that the database doesn't have yet (on the node that drains).";
    OUTBOX_AGE = "tandem_outbox_age_seconds", Gauge, Seconds, [], "Age of the oldest of them.";
    OUTBOX_BYTES = "tandem_outbox_bytes", Gauge, Bytes, [], "Bytes of the outboxes in Redis, as the node that drains last counted.";
    OUTBOX_LOST = "tandem_outbox_lost_total", Counter, Count, [], "Commits that left the outbox before the database had them, because it was at its bound or Redis' memory was used up.";
    OUTBOX_UNREADABLE = "tandem_outbox_unreadable_total", Counter, Count, [], "Outbox entries that this version can't read.";
    CLOCK_OFFSET = "tandem_clock_offset_seconds", Gauge, Seconds, [], "How far Redis' clock is ahead of this machine's.";
    NODES = "tandem_nodes", Gauge, Count, [], "Nodes of the cluster whose lease runs.";
    CLUSTER_ROOMS = "tandem_cluster_rooms", Gauge, Count, [], "Live rooms in Redis (on the node that sweeps).";
    ROOMS_ADOPTED = "tandem_rooms_adopted_total", Counter, Count, [], "Rooms that no node followed, taken over by this one.";
    DRAIN_STATE = "tandem_drain_state", Gauge, Count, ["state"], "1 for the state of this node: serving, leaving (sessions end), committing (what was accepted), closing.";
    DRAIN_SESSIONS = "tandem_drain_sessions", Gauge, Count, [], "Sessions that a planned stop still waits for.";
    QUOTAS_ALONE = "tandem_quotas_alone_total", Counter, Count, [], "JOINs and PINs that this node counted alone, because Redis did not answer in time.";
    HTTP_REQUESTS = "tandem_http_requests_total", Counter, Count, ["status"], "HTTP requests, by class of their status.";
}

/// The catalogue as a table for the documentation.
pub fn markdown() -> String {
    let mut text = String::from("| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for Metric { name, kind, unit, labels, help } in CATALOGUE {
        let unit = if *unit == Unit::Count { "" } else { unit.as_str() };
        let _ = writeln!(text, "| `{name}` | {kind:?} | {unit} | {} | {help} |", labels.join(", "));
    }
    text
}

/// Gives the installed recorder kind, unit and help of each metric.
pub(super) fn describe() {
    for metric in CATALOGUE {
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
            MetricKind::Histogram => describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn every_metric_is_recorded_somewhere() {
        let source = |dir: &std::path::Path| -> String {
            let mut text = String::new();
            let mut dirs = vec![dir.to_owned()];
            while let Some(dir) = dirs.pop() {
                for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
                    match entry.path() {
                        path if path.is_dir() => dirs.push(path),
                        path if path.ends_with("telemetry/catalogue.rs") => {}
                        path => text.push_str(&std::fs::read_to_string(path).unwrap()),
                    }
                }
            }
            text
        };
        let source = source(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        for (constant, name) in CONSTANTS {
            assert!(source.contains(&format!("names::{constant}")), "{name} is in the table, but nothing records it");
        }
    }

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let mut seen = HashSet::new();
        for metric in CATALOGUE {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            assert!(metric.name.starts_with("tandem_"), "{}", metric.name);
            assert_eq!(metric.kind == MetricKind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert_eq!(metric.unit == Unit::Seconds, metric.name.ends_with("_seconds"), "{}", metric.name);
            assert_eq!(metric.unit == Unit::Bytes, metric.name.ends_with("_bytes"), "{}", metric.name);
            assert!(matches!(metric.unit, Unit::Seconds | Unit::Bytes | Unit::Count), "{}: a base unit", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn what_is_recorded_is_rendered_with_its_meaning() {
        let (recorder, metrics) = Metrics::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::counter!(names::JOINS, "result" => "ok").increment(2);
            metrics::histogram!(names::COMMIT_SECONDS).record(0.003);
        });
        let text = metrics.render();
        assert!(text.contains("# HELP tandem_joins_total JOINs, by result"), "{text}");
        assert!(text.contains("tandem_joins_total{result=\"ok\"} 2"), "{text}");
        assert!(text.contains("tandem_commit_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert!(metrics.values().contains(&("tandem_joins_total{result=\"ok\"}".to_owned(), 2.0)));
    }
}
