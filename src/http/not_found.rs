//! The answer for a path that leads nowhere: a page for people, JSON for programs below `/api/`, one line for all others.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Http, error};

/// The page, among the assets.
const PAGE: &str = "404.html";

/// Browsers that navigate ask for HTML by name; scripts, images and command-line programs don't.
pub(super) fn not_found(http: &Http, headers: &HeaderMap) -> Response {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let wants_html = lines.flat_map(|line| line.split(',')).any(|kind| kind.trim().starts_with("text/html"));
    match (http.assets)(PAGE).filter(|_| wants_html) {
        Some(page) => {
            let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type))];
            (StatusCode::NOT_FOUND, kind, page.bytes).into_response()
        }
        None => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    }
}

/// For a path below `/api/`.
pub(super) fn no_such_endpoint() -> Response {
    error(StatusCode::NOT_FOUND, "Not found")
}
