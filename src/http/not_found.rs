//! Answers to unknown paths: a page for browsers, JSON below `/api/`, one line for the rest.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{HttpServices, error};

/// The page, among the assets.
const PAGE: &str = "404.html";

/// `path`: of the request. Browsers accept HTML explicitly when they navigate; scripts, images and command-line
/// programs don't.
pub(super) fn not_found(http: &HttpServices, path: &str, headers: &HeaderMap) -> Response {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let wants_html = lines.flat_map(|line| line.split(',')).any(|kind| kind.trim().starts_with("text/html"));
    match (http.assets)(PAGE).filter(|_| wants_html) {
        Some(page) => {
            let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type))];
            (StatusCode::NOT_FOUND, kind, relative(&page.bytes, path)).into_response()
        }
        None => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    }
}

/// The relative path from `path` to the server's base. It stays within the path under which a proxy may have put the
/// server.
pub(super) fn way_up(path: &str) -> String {
    match path.trim_start_matches('/').matches('/').count() {
        0 => "./".to_owned(),
        depth => "../".repeat(depth),
    }
}

/// Rewrites the page's links, which begin with the root, for the depth of `path`.
fn relative(page: &Bytes, path: &str) -> Bytes {
    match std::str::from_utf8(page) {
        Ok(text) => text.replace("=\"/", &format!("=\"{}", way_up(path))).into(),
        Err(_) => page.clone(),
    }
}

pub(super) fn no_such_endpoint() -> Response {
    error(StatusCode::NOT_FOUND, "Not found")
}
