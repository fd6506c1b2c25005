//! Which web pages may open sessions.

use std::collections::HashSet;

use http::HeaderMap;
use http::header::ORIGIN;

/// The origins that may open a session. Nothing here uses cookies, so this keeps other people's pages from using this
/// server, not from impersonating its users; a client that is no browser sends no origin and is let in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginPolicy {
    any: bool,
    exact: HashSet<String>,
    /// With `://`: extensions have an origin per installation, so they are allowed by scheme.
    schemes: Vec<String>,
}

/// An entry of the list that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` is not an origin: write https://host[:port], scheme://*, or *")]
pub struct OriginError {
    /// The entry.
    pub entry: String,
}

impl OriginPolicy {
    /// Everybody.
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

    /// Whether a request with these headers may open a session.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(origin), None) => origin.to_str().is_ok_and(|origin| self.allows(origin)),
            (Some(_), Some(_)) => false,
        }
    }

    /// Whether this origin is on the list.
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
        // Browsers send the origin in its canonical form: without the scheme's default port, without a path.
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(origins: &[&'static str]) -> HeaderMap {
        origins.iter().map(|origin| (ORIGIN, HeaderValue::from_static(origin))).collect()
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
        assert!(OriginPolicy::parse("https://example.org").unwrap().admits(&headers(&[])));
    }

    #[test]
    fn two_origins_in_one_request_are_refused() {
        let policy = OriginPolicy::parse("https://example.org").unwrap();
        assert!(policy.admits(&headers(&["https://example.org"])));
        assert!(!policy.admits(&headers(&["https://example.org", "https://example.org"])));
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
