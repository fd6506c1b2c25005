//! A room's history, for its members.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{HttpState, Unavailable, error};
use crate::domain::{Head, ResumeToken, RoomId, UserId};
use crate::repository::EventRow;

const DEFAULT_LIMIT: u32 = 100;
const LARGEST_LIMIT: u32 = 1000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    user_id: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    room_id: RoomId,
    events: Vec<Line>,
    /// `after` of the next request; absent when this page was the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    epoch: u64,
    seq: u64,
    kind: String,
    user_id: Option<String>,
    /// Room time in milliseconds.
    at: i64,
    data: Box<RawValue>,
}

pub(super) async fn events(
    State(http): HttpState,
    Path(room): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Unavailable> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
    let Some(token) = token else {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return Ok((challenge, error(StatusCode::UNAUTHORIZED, "a member's resume token is needed")).into_response());
    };
    let (Ok(room), Ok(user)) = (RoomId::parse(&room), UserId::parse(asked.user_id.as_deref().unwrap_or_default()))
    else {
        return Ok(error(StatusCode::BAD_REQUEST, "roomId and userId are needed"));
    };
    let Some(after) = asked.after.as_deref().map_or(Some(Head::default()), head) else {
        return Ok(error(StatusCode::BAD_REQUEST, "after is the `next` of an earlier answer"));
    };
    let limit = asked.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, LARGEST_LIMIT);
    // A missing room gets the same answer, so that room names can't be probed.
    if !http.backend.authorize_member(&room, &user, &token).await? {
        return Ok(error(StatusCode::FORBIDDEN, "not a member of this room"));
    }
    let rows = http.backend.events(&room, after, limit).await?;
    let next =
        rows.last().filter(|_| rows.len() == limit as usize).map(|row| format!("{}.{}", row.head.epoch, row.head.seq));
    let events = rows.into_iter().map(line).collect::<Result<_, _>>()?;
    Ok(Json(Page { room_id: room, events, next }).into_response())
}

fn line(row: EventRow) -> Result<Line, Unavailable> {
    let data = RawValue::from_string(row.data).map_err(|error| Unavailable(format!("a stored event: {error}")))?;
    Ok(Line {
        epoch: row.head.epoch,
        seq: row.head.seq,
        kind: row.kind,
        user_id: row.user,
        at: row.at.as_millis(),
        data,
    })
}

fn bearer(value: &str) -> Option<ResumeToken> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| ResumeToken::presented(token.trim()))
}

/// `epoch.seq`.
fn head(text: &str) -> Option<Head> {
    let (epoch, seq) = text.split_once('.')?;
    Some(Head { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? })
}
