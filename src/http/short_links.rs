//! Short links, with v2's bodies. No path or query contains a PIN: a link carries it in the fragment, which browsers
//! don't send.
//!
//! A link outlives its room: as long as its row is kept, `/room/{id}` redirects to the page with the room's name, and
//! `&over=1` makes the page offer to open the room again.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use serde_json::json;

use super::not_found::{not_found, way_up};
use super::{Caller, HttpServices, HttpState, Unavailable, error};
use crate::domain::{RoomId, ShortId};

/// The target of a short link: `SHARE_URL_TEMPLATE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareUrl(String);

impl ShareUrl {
    /// Reads a template: an http(s) URL, or a path on this server, with `{room}` outside the host.
    pub fn parse(template: &str) -> Result<Self, String> {
        if !template.contains("{room}") {
            return Err("has no {room}".to_owned());
        }
        let local = template.starts_with('/') && !template.starts_with("//") && !template.starts_with("/\\");
        let origin = |room| url::Url::parse(&template.replace("{room}", room)).ok().map(|url| url.origin());
        let remote = origin("x").is_some_and(|with_x| with_x.is_tuple() && Some(with_x) == origin("y"));
        let http = template.starts_with("https://") || template.starts_with("http://");
        // The template is sent in a header without encoding.
        let printable = template.bytes().all(|b| b.is_ascii_graphic());
        if printable && (local || (http && remote)) {
            Ok(Self(template.to_owned()))
        } else {
            Err("is neither an http(s) URL nor a path, with {room} behind the host".to_owned())
        }
    }

    pub fn link(&self, room: &RoomId) -> String {
        let encoded: String = url::form_urlencoded::byte_serialize(room.as_str().as_bytes()).collect();
        self.0.replace("{room}", &encoded)
    }

    /// The target for a room that has ended. Only the demo page knows `over`; another site gets the plain address.
    fn link_to_ended(&self, room: &RoomId) -> String {
        let link = self.link(room);
        if self.0.starts_with('/') && self.0.contains("#room=") { format!("{link}&over=1") } else { link }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

pub(super) async fn mint(
    State(http): HttpState,
    caller: Caller,
    Path(room): Path<String>,
) -> Result<Response, Unavailable> {
    let Ok(room) = RoomId::parse(&room) else { return Ok(no_room()) };
    // Only live rooms get links, so a client can't fill the table with made-up names.
    if !http.backend.room_is_live(&room).await? {
        return Ok(no_room());
    }
    let short = http.backend.mint_short(&room).await?;
    let base = caller.base_url("http").unwrap_or_default();
    let link = format!("{base}{}/room/{}", caller.prefix, short.as_str());
    Ok(Json(json!({"shortId": short.as_str(), "roomId": room, "shortUrl": link})).into_response())
}

pub(super) async fn resolve(State(http): HttpState, Path(short): Path<String>) -> Result<Response, Unavailable> {
    Ok(match room_of(&http, &short).await? {
        Some((short, room)) => Json(json!({"roomId": room, "shortId": short.as_str()})).into_response(),
        None => no_room(),
    })
}

pub(super) async fn follow(
    State(http): HttpState,
    Path(short): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Unavailable> {
    redirect(&http, &short, &uri, &headers).await
}

/// v2's form, with the PIN in the path. The redirect drops the PIN, which would otherwise reach logs and histories.
pub(super) async fn follow_old(
    State(http): HttpState,
    Path((short, _pin)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Unavailable> {
    redirect(&http, &short, &uri, &headers).await
}

async fn redirect(http: &HttpServices, short: &str, uri: &Uri, headers: &HeaderMap) -> Result<Response, Unavailable> {
    let Some(short) = ShortId::parse(short) else { return Ok(not_found(http, uri.path(), headers)) };
    let known = match http.backend.resolve_short(&short).await? {
        Some(room) => Some(room),
        None => http.backend.recall_short(&short).await?,
    };
    let Some(room) = known else { return Ok(not_found(http, uri.path(), headers)) };
    let live = http.backend.room_is_live(&room).await?;
    let link = if live { http.share_url.link(&room) } else { http.share_url.link_to_ended(&room) };
    // Relative to the request: a proxy may show the server under a path.
    let link = link.strip_prefix("/#").map(|rest| format!("{}#{rest}", way_up(uri.path()))).unwrap_or(link);
    Ok((StatusCode::FOUND, [(header::LOCATION, link)]).into_response())
}

async fn room_of(http: &HttpServices, short: &str) -> Result<Option<(ShortId, RoomId)>, Unavailable> {
    let Some(short) = ShortId::parse(short) else { return Ok(None) };
    let room = http.backend.resolve_short(&short).await?;
    Ok(room.map(|room| (short, room)))
}

fn no_room() -> Response {
    error(StatusCode::NOT_FOUND, "Room not found")
}

#[cfg(test)]
mod tests {
    use super::ShareUrl;
    use crate::domain::RoomId;

    #[test]
    fn a_template_is_an_address_with_the_room_behind_its_host() {
        for right in ["/#room={room}", "https://www.netflix.com/?tandemRoom={room}", "http://localhost:3000/{room}"] {
            assert!(ShareUrl::parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "/#room=",
            "//evil.example/{room}",
            "/\\evil.example/{room}",
            "https://{room}.example/",
            "javascript:alert('{room}')",
            "https://a.example/\r\nx: {room}",
            "{room}",
        ] {
            assert!(ShareUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_room_is_percent_encoded() {
        let link = ShareUrl::parse("https://a.example/?r={room}").unwrap().link(&RoomId::parse("a:b@c.d_e-f").unwrap());
        assert_eq!(link, "https://a.example/?r=a%3Ab%40c.d_e-f");
    }
}
