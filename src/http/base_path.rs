//! `BASE_PATH`: the path under which a proxy shows the server to its clients.
//!
//! A proxy may strip the prefix (nginx's `proxy_pass http://127.0.0.1:4001/;`, Traefik's StripPrefix) or pass it on.
//! Paths with and without the prefix lead to the same handlers, because probes and clients of `QUIC_PORT` don't send
//! it. Addresses in answers are relative to the request where that is possible, so a proxy that strips the prefix need
//! not tell.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use http::{HeaderValue, StatusCode, header};

/// Empty, or a path with a leading slash and no trailing one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(String);

impl BasePath {
    /// Reads a path: segments of letters, digits and `-._~`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = text.trim_matches('/');
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~' | b'/');
        let dots = |segment: &str| segment.is_empty() || segment == "." || segment == "..";
        if path.is_empty() {
            return Ok(Self::default());
        }
        if !text.starts_with('/') || !path.bytes().all(plain) || path.split('/').any(dots) {
            return Err("not a path such as /watch".to_owned());
        }
        Ok(Self(format!("/{path}")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Routes paths with and without the prefix. `/watch` redirects to `/watch/`, because the page's own addresses are
/// relative.
pub(super) fn mount<S: Clone + Send + Sync + 'static>(router: Router<S>, base: &BasePath) -> Router<S> {
    if base.0.is_empty() {
        return router;
    }
    let name = base.0.rsplit('/').next().unwrap_or_default();
    let slash = HeaderValue::try_from(format!("{name}/")).unwrap_or(HeaderValue::from_static("./"));
    let bare = base.0.clone();
    let to_directory = move |request: Request, next: Next| -> BoxFuture<'static, Response> {
        if request.uri().path() == bare {
            let location = [(header::LOCATION, slash.clone())];
            return Box::pin(async { (StatusCode::PERMANENT_REDIRECT, location).into_response() });
        }
        Box::pin(next.run(request))
    };
    // Outside of the nested router, which strips the prefix.
    router.clone().nest(&format!("{}/", base.0), router).layer(middleware::from_fn(to_directory))
}

#[cfg(test)]
mod tests {
    use super::BasePath;

    #[test]
    fn a_base_path_has_one_slash_in_front_and_none_behind() {
        for (text, expected) in
            [("/watch", "/watch"), ("/watch/", "/watch"), ("/a/b-1/", "/a/b-1"), ("/", ""), ("", "")]
        {
            assert_eq!(BasePath::parse(text).unwrap().as_str(), expected, "{text}");
        }
        for wrong in ["watch", "/wa tch", "/a//b", "/..", "/a/../b", "/{x}", "/a?b", "https://a.example/watch"] {
            assert!(BasePath::parse(wrong).is_err(), "{wrong}");
        }
    }
}
