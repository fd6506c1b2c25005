//! The client of a request, and the address by which it reached this server.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, header};

use super::{BasePath, HttpServices, host};
use crate::transport::Public;
use crate::transport::proxies::TrustedProxies;

/// The client of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The peer's address, or the one that trusted proxies report.
    pub address: IpAddr,
    /// Whether the request came over TLS, here or at a trusted proxy.
    pub secure: bool,
    /// Host, and port if given, of the request.
    pub authority: Option<Authority>,
    /// The path under which the client sees this server: the prefix that a trusted proxy has stripped
    /// (`X-Forwarded-Prefix`), else `BASE_PATH`.
    pub prefix: String,
}

impl Caller {
    pub fn of(parts: &Parts, proxies: &TrustedProxies, base: &BasePath) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip().to_canonical());
        let asked =
            || parts.uri.authority().cloned().or_else(|| host::parse(first(&parts.headers, header::HOST.as_str())?));
        // No proxy stands before the public port, so forwarding headers are not read there.
        if parts.extensions.get::<Public>().is_some() {
            return Self { address: peer, secure: true, authority: asked(), prefix: base.as_str().to_owned() };
        }
        if !proxies.trusts(peer) {
            return Self { address: peer, secure: false, authority: asked(), prefix: base.as_str().to_owned() };
        }
        let prefix = first(&parts.headers, "x-forwarded-prefix").and_then(|path| BasePath::parse(path).ok());
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
        let host = first(&parts.headers, "x-forwarded-host").and_then(host::parse);
        Self {
            address: proxies.client(peer, forwarded),
            secure: first(&parts.headers, "x-forwarded-proto")
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            authority: host.or_else(asked),
            prefix: prefix.as_ref().unwrap_or(base).as_str().to_owned(),
        }
    }

    /// The scheme, with `s` over TLS, and the authority.
    pub(super) fn base_url(&self, scheme: &str) -> Option<String> {
        let authority = self.authority.as_ref()?;
        Some(format!("{scheme}{}://{authority}", if self.secure { "s" } else { "" }))
    }
}

fn first<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()?.split(',').next().map(str::trim)
}

impl FromRequestParts<Arc<HttpServices>> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, http: &Arc<HttpServices>) -> Result<Self, Infallible> {
        Ok(Self::of(parts, &http.proxies, &http.public.base_path))
    }
}
