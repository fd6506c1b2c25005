//! The host of a request: malformed hosts are refused, and diagnostics are served only under the server's own names.
//!
//! DNS rebinding: the owner of `evil.example` resolves it to 127.0.0.1, and then a page of that origin may read answers
//! of a server there. Its requests still carry `Host: evil.example`, so `/status` and `/metrics` check the name.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri, Version};

/// Suffixes that nobody can register in the public DNS (RFC 6761, RFC 6762, RFC 9476, Kubernetes' services).
const INTERNAL: [&str; 4] = [".localhost", ".local", ".internal", ".svc"];

/// Refuses a request with an invalid target (RFC 9110 §7.2): two Host fields, user information, or two different names
/// in a request of HTTP/2 or HTTP/3.
pub(super) fn check(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<(), &'static str> {
    let mut fields = headers.get_all(HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (_, Some(_)) => return Err("more than one Host\n"),
        (Some(value), None) => {
            let parsed = value.to_str().ok().and_then(parse);
            Some(parsed.ok_or("the Host is no host name and port\n")?)
        }
        (None, None) => None,
    };
    if let Some(target) = uri.authority() {
        let target = parse(target.as_str()).ok_or("the request's target is no host name and port\n")?;
        // In HTTP/1.1 an absolute target replaces Host (RFC 9112 §3.2.2).
        let must_agree = version > Version::HTTP_11;
        if must_agree && field.is_some_and(|field| !field.as_str().eq_ignore_ascii_case(target.as_str())) {
            return Err("two different hosts\n");
        }
    }
    Ok(())
}

/// Parses a host with an optional port, and nothing else: the value is sent back to clients.
pub(super) fn parse(text: &str) -> Option<Authority> {
    text.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
}

/// Whether diagnostics are served under this name: an address, `localhost`, a name outside the public DNS, or the
/// configured one.
pub(super) fn is_own(host: &str, configured: Option<&str>) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
    let is_address = bare.parse::<std::net::Ipv4Addr>().is_ok() || bare.parse::<Ipv6Addr>().is_ok();
    let has_one_label = !host.contains('.') && !host.is_empty();
    is_address
        || has_one_label
        || INTERNAL.iter().any(|ending| host.ends_with(ending))
        || configured.is_some_and(|configured| host.eq_ignore_ascii_case(configured))
}

#[cfg(test)]
mod tests {
    use super::is_own;

    #[test]
    fn names_that_nobody_can_register_are_the_server_s_own() {
        let own = |host| is_own(host, Some("watch.example.org"));
        for name in [
            "127.0.0.1",
            "[::1]",
            "192.168.1.7",
            "localhost",
            "LOCALHOST",
            "tandem-a",
            "nas.local",
            "tandem.default.svc",
            "tandem.default.svc.cluster.local",
            "watch.example.org",
            "watch.example.org.",
        ] {
            assert!(own(name), "{name}");
        }
        for name in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "example.org"] {
            assert!(!own(name), "{name}");
        }
    }
}
