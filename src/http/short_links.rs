//! Short links, with v2's bodies. A PIN never stands in a path or query: a link carries it in its fragment, which no
//! server sees.
//!
//! A link outlives its room: as long as its row is kept, `/room/{id}` leads to the page with the room's name, and
//! `&over=1` tells the page that nobody is there, so that it can offer to open the room again.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use serde_json::json;

use super::not_found::{not_found, way_up};
use super::{Caller, HttpServices, HttpState, Unavailable, error};
use crate::domain::{RoomId, ShortId};

/// Where a short link leads: `SHARE_URL_TEMPLATE`.
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
        // It goes into a header as it stands.
        let printable = template.bytes().all(|b| b.is_ascii_graphic());
        if printable && (local || (http && remote)) {
            Ok(Self(template.to_owned()))
        } else {
            Err("is neither an http(s) URL nor a path, with {room} behind the host".to_owned())
        }
    }

    /// The address for a room.
    pub fn link(&self, room: &RoomId) -> String {
        let encoded: String = url::form_urlencoded::byte_serialize(room.as_str().as_bytes()).collect();
        self.0.replace("{room}", &encoded)
    }

    /// The address for a room that is over. Only the page knows the mark; another site gets the plain address.
    fn link_to_ended(&self, room: &RoomId) -> String {
        let link = self.link(room);
        if self.0.starts_with('/') && self.0.contains("#room=") { format!("{link}&over=1") } else { link }
    }

    /// The template.
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
    // Only a live room has a link, so nobody can fill the table with names of their own.
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

/// v2 put the PIN into the path. It is dropped: a redirect would hand it on to logs and histories.
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
    // The page itself, wherever a proxy has put this server.
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
