//! Positions, rates and addresses of films.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ErrorCode, Invalid, Limits};

/// A position in a film, s: finite, not negative, at most `MAX_POSITION_SECS`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaTime(f64);

impl MediaTime {
    /// The start of a film.
    pub const ZERO: Self = Self(0.0);

    /// Refuses what is not finite, negative, or too large.
    pub fn parse(seconds: f64, limits: &Limits) -> Result<Self, Invalid> {
        if seconds.is_finite() && (0.0..=limits.position_secs as f64).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(Invalid::new(ErrorCode::OutOfRange, format!("a position must be 0-{} s", limits.position_secs)))
        }
    }

    /// `self` moved by `seconds`, never before the start; a result that isn't finite stays where it was.
    pub fn moved(self, seconds: f64) -> Self {
        let moved = self.0 + seconds;
        if moved.is_finite() { Self(moved.max(0.0)) } else { self }
    }

    /// Seconds.
    pub fn seconds(self) -> f64 {
        self.0
    }
}

/// How fast the film runs: 0.25–4, 1 is normal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(f64);

impl Rate {
    /// Normal speed.
    pub const NORMAL: Self = Self(1.0);

    /// Refuses what no player does.
    pub fn parse(rate: f64) -> Result<Self, Invalid> {
        if (0.25..=4.0).contains(&rate) {
            Ok(Self(rate))
        } else {
            Err(Invalid::new(ErrorCode::OutOfRange, "rate must be 0.25-4"))
        }
    }

    /// The factor.
    pub fn factor(self) -> f64 {
        self.0
    }
}

/// The address of a film: https, its host on the operator's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaUrl(Arc<str>);

impl MediaUrl {
    /// Clients navigate to what is relayed here: only https passes (http on a loopback host too, which only the
    /// machine itself can reach, so that the demo's own film plays on a laptop), without user name and password.
    pub fn parse(text: &str, policy: &UrlPolicy, limits: &Limits) -> Result<Self, Invalid> {
        if text.len() as u64 > limits.url_bytes {
            return Err(Invalid::new(ErrorCode::OutOfRange, format!("a url may have {} bytes", limits.url_bytes)));
        }
        let refuse = |why: &str| Err(Invalid::new(ErrorCode::BadUrl, why));
        let Ok(url) = url::Url::parse(text) else { return refuse("not a url") };
        let Some(host) = url.host_str() else { return refuse("the url has no host") };
        let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return refuse("only https urls are relayed");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("a url with a user name or password is not relayed");
        }
        if !policy.admits(host) {
            return refuse("that host is not on this server's list");
        }
        Ok(Self(url.as_str().into()))
    }

    /// The text, normalised (WHATWG URL).
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which hosts films may come from.
#[derive(Debug, Clone, Default)]
pub struct UrlPolicy {
    /// Empty: any.
    pub hosts: Vec<HostPattern>,
}

impl UrlPolicy {
    /// Whether films of this host may be relayed.
    pub fn admits(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

/// `example.org` (that host) or `*.example.org` (its subdomains).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    /// Refuses what can't be a host name.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let fits = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
        fits.then(|| Self(text.to_ascii_lowercase()))
    }

    fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == self.0,
        }
    }
}
