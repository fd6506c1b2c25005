//! Files that the process may have open at once: every TCP connection is one.

use crate::transport::tcp::Descriptors;

/// Open for other things than clients' connections: databases, Redis, sockets of the listeners, certificates, the page.
const OWN: u64 = 128;
/// Kept for probes and diagnostics when all others are taken.
const PROBES: u64 = 64;

/// Raises the soft limit to the hard one, and returns what it is now. Many systems start a process with 1024, so that
/// old programs that use `select` keep working; the hard limit is what the administrator means.
pub(super) fn raise_limit() -> u64 {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files can't be raised");
            rlimit::Resource::NOFILE.get_soft().unwrap_or(1024)
        }
    }
}

/// The rest of them, for TCP connections.
pub(super) fn descriptors(limit: u64, sessions: u64) -> Descriptors {
    // A small limit is shared: half for connections, a part of these for probes.
    let total = limit.saturating_sub(OWN).max(limit / 2);
    let probes = PROBES.min(total / 4);
    let connections = total - probes;
    tracing::info!(open_files = limit, connections, "TCP connections that the limit of open files has place for");
    if connections < sessions {
        let advice = "raise the hard limit (ulimit -Hn, LimitNOFILE, --ulimit nofile), or lower MAX_SESSIONS";
        tracing::info!(connections, sessions, "fewer WebSocket sessions fit than MAX_SESSIONS: {advice}");
    }
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Descriptors::new(count(total), count(probes))
}
