//! The web pages that may open sessions: those of `ALLOWED_ORIGINS`, and the server's own.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::ORIGIN;
use http::uri::Authority;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Clock;

/// Refusals are logged at most once in this time, with their number.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);
/// Characters of an origin that are logged.
const SHOWN_CHARS: usize = 100;

/// The origins that may open a session. Sessions don't use cookies, so the check keeps other sites from using this
/// server, not from impersonating its users. A client that is no browser sends no origin and is admitted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginPolicy {
    any: bool,
    exact: HashSet<String>,
    /// With `://`. A browser extension has a different origin in each installation, so extensions are allowed by
    /// scheme.
    schemes: Vec<String>,
}

/// An entry of the list is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` is not an origin: write https://host[:port], scheme://*, or *")]
pub struct OriginError {
    pub entry: String,
}

impl OriginPolicy {
    pub fn any() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Reads a list separated by commas or spaces.
    pub fn parse(list: &str) -> Result<Self, OriginError> {
        let mut policy = Self::default();
        for entry in list.split([',', ' ']).filter(|entry| !entry.is_empty()) {
            policy.allow(entry)?;
        }
        Ok(policy)
    }

    pub fn allows(&self, origin: &str) -> bool {
        if self.any {
            return true;
        }
        let origin = origin.to_ascii_lowercase();
        self.exact.contains(&origin) || self.schemes.iter().any(|scheme| origin.starts_with(scheme))
    }

    fn allow(&mut self, entry: &str) -> Result<(), OriginError> {
        let bad = || OriginError { entry: entry.to_owned() };
        if entry == "*" {
            self.any = true;
            return Ok(());
        }
        let lower = entry.to_ascii_lowercase();
        let (scheme, host) = lower.split_once("://").ok_or_else(bad)?;
        let scheme_char = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(scheme_char) {
            return Err(bad());
        }
        if host == "*" {
            self.schemes.push(format!("{scheme}://"));
            return Ok(());
        }
        // Browsers send the origin in canonical form: without the scheme's default port and without a path.
        let url = url::Url::parse(&lower).map_err(|_| bad())?;
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        if host.contains('*') || !bare || !url.username().is_empty() || url.host_str().is_none_or(str::is_empty) {
            return Err(bad());
        }
        let origin = url.origin();
        let text = if origin.is_tuple() { origin.ascii_serialization() } else { format!("{scheme}://{host}") };
        self.exact.insert(text.trim_end_matches('/').to_owned());
        Ok(())
    }
}

/// The policy, with the addresses of a running server.
#[derive(Debug, Clone)]
pub struct OriginGuard {
    policy: OriginPolicy,
    /// `PUBLIC_HOST`.
    public_host: Option<String>,
    ports: Vec<u16>,
    complaints: Arc<Mutex<Complaints>>,
}

#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    /// Refusals since `last`.
    unsaid: u64,
}

impl From<OriginPolicy> for OriginGuard {
    fn from(policy: OriginPolicy) -> Self {
        Self::new(policy, None, Vec::new())
    }
}

impl OriginGuard {
    /// `ports`: those that the server listens on. Its page may come from any of them.
    pub fn new(policy: OriginPolicy, public_host: Option<String>, ports: Vec<u16>) -> Self {
        Self { policy, public_host, ports, complaints: Arc::default() }
    }

    /// Whether a request with these headers, sent to `asked`, may open a session. A refusal is logged, at most once in
    /// [`COMPLAIN_EVERY`].
    pub fn admits(&self, headers: &HeaderMap, asked: Option<&Authority>) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let (origin, fits) = match (origins.next(), origins.next()) {
            (None, _) => return true,
            (Some(origin), None) => {
                let text = origin.to_str().unwrap_or_default();
                (text, self.policy.allows(text) || self.is_own(text, asked))
            }
            (Some(_), Some(_)) => ("several", false),
        };
        if !fits {
            self.complain(origin);
        }
        fits
    }

    /// Whether the origin is this server's own page. Its host is the one that the request was sent to, or
    /// `PUBLIC_HOST`. Its port is the request's, one of the server's (the page came over TCP, the session goes over
    /// UDP), or 443 of a proxy in front.
    fn is_own(&self, origin: &str, asked: Option<&Authority>) -> bool {
        let Ok(origin) = url::Url::parse(origin) else { return false };
        let (Some(host), Some(port), "http" | "https") =
            (origin.host_str(), origin.port_or_known_default(), origin.scheme())
        else {
            return false;
        };
        let asked_port =
            asked.map(|asked| asked.port_u16().unwrap_or(if origin.scheme() == "https" { 443 } else { 80 }));
        let asked_host = asked.is_some_and(|asked| same_host(host, asked.host()));
        let public = self.public_host.as_deref().is_some_and(|public| same_host(host, public));
        let own_port = self.ports.contains(&port) || (origin.scheme() == "https" && port == 443);
        (asked_host && asked_port == Some(port)) || ((asked_host || public) && own_port)
    }

    fn complain(&self, origin: &str) {
        let mut complaints = self.complaints.lock();
        complaints.unsaid += 1;
        let now = Clock::instant();
        if complaints.last.is_some_and(|last| now - last < COMPLAIN_EVERY) {
            return;
        }
        let refused = std::mem::take(&mut complaints.unsaid);
        complaints.last = Some(now);
        let origin: String = origin.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect();
        tracing::warn!(origin, refused, "a page of an origin that ALLOWED_ORIGINS does not list was refused");
    }
}

/// Compares host names without case; all names of the loopback interface are equal.
fn same_host(one: &str, other: &str) -> bool {
    fn bare(host: &str) -> &str {
        host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
    }
    let loopback = |host: &str| {
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let (one, other) = (bare(one), bare(other));
    one.eq_ignore_ascii_case(other) || (loopback(one) && loopback(other))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(origins: &[&'static str]) -> HeaderMap {
        origins.iter().map(|origin| (ORIGIN, HeaderValue::from_static(origin))).collect()
    }

    fn guard(list: &str) -> OriginGuard {
        OriginPolicy::parse(list).unwrap().into()
    }

    /// Listens on 4001 and 4433.
    fn served(public_host: Option<&str>) -> OriginGuard {
        let policy = OriginPolicy::parse("https://other.example").unwrap();
        OriginGuard::new(policy, public_host.map(str::to_owned), vec![4001, 4433])
    }

    fn own(guard: &OriginGuard, origin: &'static str, asked: &'static str) -> bool {
        guard.admits(&headers(&[origin]), Some(&Authority::from_static(asked)))
    }

    #[test]
    fn the_servers_own_page_is_let_in_whatever_the_list_says() {
        for (origin, asked) in [
            ("http://localhost:4001", "localhost:4001"),
            ("http://localhost:4001", "127.0.0.1:4433"),
            ("https://localhost:4433", "[::1]:4433"),
            ("http://192.168.1.5:4001", "192.168.1.5:4433"),
            ("https://Tandem.example", "tandem.example"),
            ("https://tandem.example", "tandem.example:443"),
            ("http://tandem.example", "tandem.example"),
            ("https://tandem.example", "tandem.example:4433"),
            ("https://tandem.example:8443", "tandem.example:8443"),
            ("https://[2001:db8::1]:4433", "[2001:db8::1]:4433"),
        ] {
            assert!(own(&served(None), origin, asked), "{origin} at {asked}");
        }
        assert!(own(&served(Some("tandem.example")), "https://tandem.example", "10.0.0.7:4001"));
    }

    #[test]
    fn a_page_of_another_host_or_port_is_not_the_servers_own() {
        for (origin, asked) in [
            ("https://evil.example", "tandem.example"),
            ("https://tandem.example.evil.example", "tandem.example"),
            ("http://localhost:3000", "localhost:4001"),
            ("http://tandem.example", "tandem.example:4433"),
            ("https://tandem.example:8443", "tandem.example:4433"),
            ("https://127.0.0.1:4433", "tandem.example:4433"),
            ("null", "tandem.example"),
            ("file://", "tandem.example"),
            ("chrome-extension://tandem.example", "tandem.example"),
        ] {
            assert!(!own(&served(None), origin, asked), "{origin} at {asked}");
        }
        assert!(!served(None).admits(&headers(&["https://tandem.example"]), None));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_logged_once_in_a_while_with_their_number() {
        let guard = served(None);
        let refuse = || assert!(!own(&guard, "https://evil.example", "tandem.example"));
        refuse();
        assert_eq!(guard.complaints.lock().unsaid, 0, "the first is said at once");
        (0..5).for_each(|_| refuse());
        assert_eq!(guard.complaints.lock().unsaid, 5);
        tokio::time::advance(COMPLAIN_EVERY).await;
        refuse();
        assert_eq!(guard.complaints.lock().unsaid, 0);
    }

    #[test]
    fn a_listed_origin_is_allowed_and_any_other_is_not() {
        let policy = OriginPolicy::parse("https://example.org, http://localhost:8080").unwrap();
        assert!(policy.allows("https://example.org"));
        assert!(policy.allows("HTTPS://EXAMPLE.ORG"));
        assert!(policy.allows("http://localhost:8080"));
        for other in ["http://example.org", "https://example.org:8443", "https://example.org.evil.net", "null", ""] {
            assert!(!policy.allows(other), "{other}");
        }
    }

    #[test]
    fn a_default_port_and_a_closing_slash_in_the_setting_make_no_difference() {
        let policy = OriginPolicy::parse("https://example.org:443/").unwrap();
        assert!(policy.allows("https://example.org"));
    }

    #[test]
    fn a_scheme_wildcard_allows_every_installation_of_an_extension() {
        let policy = OriginPolicy::parse("chrome-extension://* moz-extension://*").unwrap();
        assert!(policy.allows("chrome-extension://abcdefghijklmnop"));
        assert!(policy.allows("moz-extension://5d1c"));
        assert!(!policy.allows("https://example.org"));
        assert!(!policy.allows("chrome-extensionx://abc"));
    }

    #[test]
    fn one_installation_of_an_extension_can_be_listed() {
        let policy = OriginPolicy::parse("chrome-extension://abc").unwrap();
        assert!(policy.allows("chrome-extension://abc"));
        assert!(!policy.allows("chrome-extension://abcd"));
    }

    #[test]
    fn a_client_without_an_origin_is_no_browser_and_is_let_in() {
        assert!(guard("https://example.org").admits(&headers(&[]), None));
    }

    #[test]
    fn two_origins_in_one_request_are_refused() {
        let policy = guard("https://example.org");
        assert!(policy.admits(&headers(&["https://example.org"]), None));
        assert!(!policy.admits(&headers(&["https://example.org", "https://example.org"]), None));
    }

    #[test]
    fn what_is_no_origin_is_named_in_the_error() {
        for entry in
            ["example.org", "https://*.example.org", "https://example.org/path", "https://", "://x", "https://u@h"]
        {
            assert_eq!(OriginPolicy::parse(entry).unwrap_err().entry, entry);
        }
    }

    #[test]
    fn a_star_allows_everybody() {
        assert!(OriginPolicy::parse("*").unwrap().allows("null"));
    }
}
