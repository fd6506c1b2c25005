//! Positions, rates and addresses of films.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::Host;

use super::{ErrorCode, Invalid, Limits};

/// A position in a film, s: finite, not negative, at most `MAX_POSITION_SECS`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaTime(f64);

impl MediaTime {
    pub const ZERO: Self = Self(0.0);

    /// Refuses a number that is not finite, negative, or too large.
    pub fn parse(seconds: f64, limits: &Limits) -> Result<Self, Invalid> {
        if seconds.is_finite() && (0.0..=limits.position_secs as f64).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(Invalid::new(ErrorCode::OutOfRange, format!("a position must be 0-{} s", limits.position_secs)))
        }
    }

    /// `self` moved by `seconds`, not before the start. If the sum isn't finite, `self`.
    pub fn moved(self, seconds: f64) -> Self {
        let moved = self.0 + seconds;
        if moved.is_finite() { Self(moved.max(0.0)) } else { self }
    }

    pub fn seconds(self) -> f64 {
        self.0
    }
}

/// The playback rate: 0.25–4.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(f64);

impl Rate {
    pub const NORMAL: Self = Self(1.0);

    /// Refuses a rate that players don't support.
    pub fn parse(rate: f64) -> Result<Self, Invalid> {
        if (0.25..=4.0).contains(&rate) {
            Ok(Self(rate))
        } else {
            Err(Invalid::new(ErrorCode::OutOfRange, "rate must be 0.25-4"))
        }
    }

    pub fn factor(self) -> f64 {
        self.0
    }
}

/// The address of a film: https, a file of this server, or plain http on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaUrl(Arc<str>);

/// The path of this server's own films. A film's address must not make every viewer's browser call the API.
const OWN_FILMS: &str = "/media/";

impl MediaUrl {
    /// Accepts only addresses that every viewer's browser may request without a click:
    ///
    /// * `https://` and a host that [`UrlPolicy`] admits, without user name and password;
    /// * `http://` and a loopback host, where the server itself is bound to loopback, so that all viewers are on it;
    /// * a path below `/media/`, which clients resolve against the server's own base address.
    pub fn parse(text: &str, policy: &UrlPolicy, limits: &Limits) -> Result<Self, Invalid> {
        if text.len() as u64 > limits.url_bytes {
            return Err(Invalid::new(ErrorCode::OutOfRange, format!("a url may have {} bytes", limits.url_bytes)));
        }
        let refuse = |why: &str| Err(Invalid::new(ErrorCode::BadUrl, why));
        if text.starts_with('/') {
            return own_film(text).map_or_else(|| refuse("not a film of this server"), |path| Ok(Self(path.into())));
        }
        let Ok(url) = url::Url::parse(text) else { return refuse("not a url") };
        let Some(host) = url.host() else { return refuse("the url has no host") };
        match url.scheme() {
            "https" => {}
            "http" if policy.loopback && is_loopback(&host) => {}
            _ => return refuse("only https urls are relayed"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("a url with a user name or password is not relayed");
        }
        if !policy.admits(&host) {
            return refuse("that host is not on this server's list");
        }
        Ok(Self(url.as_str().into()))
    }

    /// Normalised (WHATWG URL).
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The normalised path, query and fragment of a file below [`OWN_FILMS`].
fn own_film(text: &str) -> Option<String> {
    // The base is a name that no address can have: `//host/` and `/\\host/` would change it.
    let base = url::Url::parse("https://server.invalid/").ok()?;
    let url = base.join(text).ok().filter(|url| url.origin() == base.origin())?;
    let path = &url[url::Position::BeforePath..];
    path.starts_with(OWN_FILMS).then(|| path.to_owned())
}

/// The hosts that films may come from (`ALLOWED_MEDIA_HOSTS`).
///
/// Hosts that only a viewer's own machine or network can reach (loopback, private, link-local, cloud metadata, names
/// without a dot) are refused unless the list names them: a film's address must not make guests' browsers call their
/// routers. WHATWG parsing has turned integer, octal and hexadecimal spellings into addresses before. A public name
/// that resolves to a private address passes: the server resolves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPolicy {
    listed: Vec<HostPattern>,
    /// Any public host: the list is empty, or holds `*`.
    any_public: bool,
    loopback: bool,
}

impl Default for UrlPolicy {
    fn default() -> Self {
        Self::any()
    }
}

impl UrlPolicy {
    pub fn any() -> Self {
        Self::new(Vec::new(), false)
    }

    /// `listed` empty: any public host. `loopback`: the server is bound to loopback, so its viewers are on this
    /// machine.
    pub fn new(mut listed: Vec<HostPattern>, loopback: bool) -> Self {
        let any_public = listed.is_empty() || listed.contains(&HostPattern::any());
        listed.retain(|pattern| *pattern != HostPattern::any());
        Self { listed, any_public, loopback }
    }

    /// The hosts named in the list.
    pub fn listed(&self) -> &[HostPattern] {
        &self.listed
    }

    pub fn any_public(&self) -> bool {
        self.any_public
    }

    /// Whether loopback hosts are admitted, over plain http too.
    pub fn loopback(&self) -> bool {
        self.loopback && self.any_public
    }

    fn admits(&self, host: &Host<&str>) -> bool {
        let text = host.to_string();
        let name = text.strip_suffix('.').unwrap_or(&text);
        if self.listed.iter().any(|pattern| pattern.matches(name)) {
            return true;
        }
        self.any_public && if is_loopback(host) { self.loopback } else { is_public(host) }
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => matches!(name.strip_suffix('.').unwrap_or(name), "localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.to_canonical().is_loopback(),
    }
}

/// Suffixes that are never delegated in the public DNS, or belong to private networks (RFC 6761, 6762, 8375, and
/// customs of routers and companies).
const LOCAL_SUFFIXES: [&str; 13] = [
    "localhost",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "localdomain",
    "home.arpa",
    "invalid",
    "test",
    "onion",
];

fn is_public(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            let local =
                |suffix: &&str| name.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            name.contains('.') && !LOCAL_SUFFIXES.iter().any(local)
        }
        Host::Ipv4(address) => is_public_v4(*address),
        Host::Ipv6(address) => is_public_v6(*address),
    }
}

/// Not in IANA's special-purpose registry as unreachable from outside.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || a == 0
        || a >= 240
        // RFC 6598, shared by carriers.
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        // RFC 2544, benchmarks.
        || (a == 198 && b & 0xfe == 18);
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // ::, ::1, IPv4-compatible and IPv4-mapped.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => high != 0 && v4(high, low),
        // NAT64 and 6to4 embed the IPv4 address that is reached.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => v4(high, low),
        // Network-specific NAT64, Teredo.
        [0x64, 0xff9b, ..] | [0x2001, 0, ..] => false,
        // Unique local, link-local, site-local, multicast.
        [first, ..] => first & 0xfe00 != 0xfc00 && first & 0xff80 != 0xfe80 && first & 0xff00 != 0xff00,
    }
}

/// `example.org` (that host), `*.example.org` (its subdomains), or `*` (any public host).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::any());
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        let fits = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
        fits.then(|| Self(text.to_ascii_lowercase()))
    }

    fn any() -> Self {
        Self("*".to_owned())
    }

    /// In lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == self.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(list: &str, loopback: bool) -> UrlPolicy {
        UrlPolicy::new(list.split_whitespace().map(|host| HostPattern::parse(host).unwrap()).collect(), loopback)
    }

    fn passes(text: &str, policy: &UrlPolicy) -> bool {
        MediaUrl::parse(text, policy, &Limits::default()).is_ok()
    }

    /// Hosts that only a viewer's own machine or network reaches, in every spelling of a URL.
    const INSIDE: &[&str] = &[
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.127.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "192.0.0.8",
        "198.18.0.1",
        "198.19.255.255",
        "224.0.0.251",
        "240.0.0.1",
        "255.255.255.255",
        "3232235777",
        "0xc0a80101",
        "0300.0250.1.1",
        "192.168.257",
        "[::]",
        "[fe80::1]",
        "[fec0::1]",
        "[fd00::1]",
        "[fc00::1]",
        "[ff02::1]",
        "[::ffff:192.168.1.1]",
        "[::ffff:a00:1]",
        "[::10.0.0.1]",
        "[64:ff9b::192.168.1.1]",
        "[64:ff9b:1::1]",
        "[2002:c0a8:101::1]",
        "[2001:0:c0a8:101::1]",
        "router",
        "router.",
        "fritz.box.local",
        "nas.local",
        "NAS.LOCAL.",
        "metadata.google.internal",
        "printer.lan",
        "a.home",
        "x.home.arpa",
        "intranet",
        "wiki.corp",
        "a.localdomain",
    ];

    /// Hosts of the machine itself.
    const LOOPBACK: &[&str] = &[
        "localhost",
        "LOCALHOST",
        "localhost.",
        "127.0.0.1",
        "127.1",
        "127.8.8.8",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ];

    #[test]
    fn no_address_of_a_viewers_own_network_is_relayed() {
        for (list, loopback) in [("", false), ("", true), ("*", true), ("films.example *", false)] {
            for host in INSIDE {
                assert!(!passes(&format!("https://{host}/film"), &policy(list, loopback)), "{list} {host}");
                assert!(!passes(&format!("http://{host}/film"), &policy(list, loopback)), "{list} {host}");
            }
        }
        assert!(!passes("https://sub.localhost/film", &policy("", true)));
    }

    #[test]
    fn loopback_is_relayed_only_where_the_server_itself_is_bound_to_it() {
        for host in LOOPBACK {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://{host}:4001/film.webm");
                assert!(passes(&url, &policy("", true)), "{url}");
                assert!(!passes(&url, &policy("", false)), "{url}");
                assert!(!passes(&url, &policy("films.example", true)), "{url}");
            }
        }
    }

    #[test]
    fn public_hosts_are_relayed_over_https_alone() {
        for host in [
            "example.org",
            "example.org.",
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "[2606:4700::1111]",
            "xn--bcher-kva.example",
        ] {
            assert!(passes(&format!("https://{host}/film"), &UrlPolicy::any()), "{host}");
            assert!(!passes(&format!("http://{host}/film"), &UrlPolicy::any()), "{host}");
        }
    }

    #[test]
    fn a_listed_host_is_relayed_whatever_its_kind_and_a_star_keeps_the_public_ones() {
        let strict = policy("nas.local 192.168.1.5 *.films.example", false);
        let open = policy("* nas.local", false);
        for (url, by_strict, by_open) in [
            ("https://nas.local/film", true, true),
            ("https://nas.local./film", true, true),
            ("https://192.168.1.5/film", true, false),
            ("https://3232235781/film", true, false),
            ("https://a.films.example/film", true, true),
            ("https://films.example/film", false, true),
            ("https://router.local/film", false, false),
            ("http://nas.local/film", false, false),
        ] {
            assert_eq!((passes(url, &strict), passes(url, &open)), (by_strict, by_open), "{url}");
        }
    }

    #[test]
    fn a_film_of_this_server_is_named_by_its_path() {
        let parse = |text: &str| MediaUrl::parse(text, &policy("films.example", false), &Limits::default());
        assert_eq!(parse("/media/film.webm").unwrap().as_str(), "/media/film.webm");
        assert_eq!(parse("/media/a/../b c.webm?x=1#t=5").unwrap().as_str(), "/media/b%20c.webm?x=1#t=5");
        for other in [
            "/",
            "/media",
            "/api/short-id/x",
            "/media/../api/short-id/x",
            "/media/%2e%2e/ws",
            "//evil.example/media/x",
            "/\\evil.example/media/x",
            "media/film.webm",
            "",
        ] {
            assert_eq!(parse(other).unwrap_err().code, ErrorCode::BadUrl, "{other}");
        }
    }
}
