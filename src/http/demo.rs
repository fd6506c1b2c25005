//! The demo page, embedded in the binary, with entity tags and ranges (for the film).

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use rust_embed::RustEmbed;

use super::HttpState;
use super::not_found::{no_such_endpoint, not_found};

/// Finds a file by its path (`app/main.js`).
pub type Assets = Arc<dyn Fn(&str) -> Option<Asset> + Send + Sync>;

#[derive(Debug, Clone)]
pub struct Asset {
    pub bytes: Bytes,
    pub content_type: &'static str,
    /// With the quotes.
    pub etag: String,
}

#[derive(RustEmbed)]
#[folder = "web-demo/"]
#[exclude = "node_modules/*"]
#[exclude = "*/node_modules/*"]
#[exclude = "test*/*"]
#[exclude = "*/test*/*"]
#[exclude = "*.test.js"]
#[exclude = "screenshots/*"]
#[exclude = "*package.json"]
#[exclude = "*package-lock.json"]
#[exclude = "*tsconfig.json"]
#[exclude = ".*"]
struct Files;

/// The files embedded in this binary. A debug build reads them from the source tree.
pub fn embedded() -> Assets {
    Arc::new(|path| {
        let file = Files::get(path)?;
        let bytes = match file.data {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        let hash: String = file.metadata.sha256_hash()[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Asset { bytes, content_type: content_type(path), etag: format!("\"{hash}\"") })
    })
}

/// Browsers load scripts, styles and WebAssembly only with the right type.
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json; charset=utf-8",
        "txt" | "md" => "text/plain; charset=utf-8",
        "vtt" => "text/vtt; charset=utf-8",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "webm" => "video/webm",
        "mp4" => "video/mp4",
        "wasm" => "application/wasm",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

pub(super) async fn serve(State(http): HttpState, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response();
    }
    if uri.path().starts_with("/api/") {
        return no_such_endpoint();
    }
    let path = uri.path().trim_start_matches('/');
    let path = if path.is_empty() || path.ends_with('/') { format!("{path}index.html") } else { path.to_owned() };
    // A debug build reads a directory, so paths with `..` or hidden names are refused.
    if path.split('/').any(|part| part.starts_with('.')) {
        return not_found(&http, uri.path(), &headers);
    }
    let asset = (http.assets)(&path);
    let mut response =
        asset.map_or_else(|| not_found(&http, uri.path(), &headers), |asset| respond(asset, &method, &headers));
    // Pages of other origins import the client and show the film.
    if path.starts_with("client/") || path.starts_with("media/") {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    response
}

fn respond(asset: Asset, method: &Method, headers: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    if let Ok(etag) = HeaderValue::from_str(&asset.etag) {
        out.insert(header::ETAG, etag);
    }
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // File names carry no version, so browsers revalidate each time; the entity tag makes that cheap.
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if text(headers, header::IF_NONE_MATCH).is_some_and(|tags| matches(tags, &asset.etag)) {
        out.remove(header::CONTENT_TYPE);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let length = asset.bytes.len() as u64;
    let unchanged = text(headers, header::IF_RANGE).is_none_or(|tag| tag == asset.etag);
    let range = text(headers, header::RANGE).filter(|_| method == Method::GET && unchanged);
    match range.map_or(Range::Whole, |range| Range::parse(range, length)) {
        Range::Whole => *response.body_mut() = asset.bytes.into(),
        Range::Part(part) => {
            set(&mut response, header::CONTENT_RANGE, &format!("bytes {}-{}/{length}", part.start(), part.end()));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            // Both ends lie inside the file, whose length is a usize.
            *response.body_mut() = asset.bytes.slice(*part.start() as usize..=*part.end() as usize).into();
        }
        Range::Outside => {
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{length}"));
            response.headers_mut().remove(header::CONTENT_TYPE);
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        }
    }
    response
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// If-None-Match compares weakly.
fn matches(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[derive(Debug, PartialEq)]
enum Range {
    Whole,
    Part(RangeInclusive<u64>),
    Outside,
}

impl Range {
    /// A single range is served. Several ranges, or an invalid one, are answered with the whole file, as RFC 9110 §14.2
    /// allows.
    fn parse(header: &str, length: u64) -> Self {
        let Some((first, last)) = header.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
            return Self::Whole;
        };
        let (first, last) = (first.trim(), last.trim());
        let bounds = match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => (first, last),
            (Ok(first), Err(_)) if last.is_empty() => (first, u64::MAX),
            (Err(_), Ok(0)) if first.is_empty() => return Self::Outside,
            (Err(_), Ok(suffix)) if first.is_empty() => (length.saturating_sub(suffix), u64::MAX),
            _ => return Self::Whole,
        };
        if bounds.0 >= length { Self::Outside } else { Self::Part(bounds.0..=bounds.1.min(length - 1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_file() {
        for (header, expected) in [
            ("bytes=0-3", Range::Part(0..=3)),
            ("bytes=8-", Range::Part(8..=9)),
            ("bytes=8-99", Range::Part(8..=9)),
            ("bytes=-4", Range::Part(6..=9)),
            ("bytes=-99", Range::Part(0..=9)),
            ("bytes=10-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=5-2", Range::Whole),
            ("bytes=0-1,4-5", Range::Whole),
            ("bytes=--1", Range::Whole),
            ("bytes=-", Range::Whole),
            ("lines=1-2", Range::Whole),
            ("bytes=99999999999999999999-", Range::Whole),
        ] {
            assert_eq!(Range::parse(header, 10), expected, "{header}");
        }
        assert_eq!(Range::parse("bytes=0-", 0), Range::Outside);
    }

    #[test]
    fn tests_and_tools_of_the_demo_are_not_in_the_binary() {
        let names: Vec<_> = Files::iter().map(Cow::into_owned).collect();
        assert!(names.contains(&"app/qr.js".to_owned()), "{names:?}");
        let unwanted =
            |name: &&String| name.contains("test") || name.contains("node_modules") || name.contains("package");
        assert_eq!(names.iter().find(unwanted), None);
    }
}
