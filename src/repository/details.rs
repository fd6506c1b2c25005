//! What the history says of an event: `room_events.details`.
//!
//! The audit of an entry is JSON by contract, but whatever it is, it must not make the batch of everybody else fail:
//! PostgreSQL's `jsonb` refuses what is no JSON, numbers without bound, and the character U+0000. So bytes that can't
//! be read as JSON become a JSON string, and U+0000 becomes U+FFFD.
//!
//! The address of a film (`url`) has up to `MAX_URL_BYTES`, ten times the rest of an event, and people choose the same
//! films again. On the way in it is taken out of the JSON and stored once, in `media_urls`; on the way out it is put
//! back.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::columns::printable;
use crate::domain::RoomTime;

/// The field of an event's JSON that holds the address.
const FIELD: &str = "url";

/// An event's details as they are stored.
pub(super) struct Details {
    pub(super) json: String,
    /// The address that was taken out.
    pub(super) address: Option<Address>,
}

pub(super) struct Address {
    /// SHA-256.
    pub(super) hash: [u8; 32],
    pub(super) url: String,
}

impl Details {
    pub(super) fn of(audit: &Bytes) -> Self {
        let mut value = serde_json::from_slice(audit)
            .unwrap_or_else(|_| Value::String(printable(&String::from_utf8_lossy(audit)).into_owned()));
        if audit.windows(6).any(|six| six == b"\\u0000") {
            replace_zeros(&mut value);
        }
        let mut address = None;
        if let Value::Object(fields) = &mut value
            && fields.get(FIELD).is_some_and(Value::is_string)
            && let Some(Value::String(url)) = fields.remove(FIELD)
        {
            address = Some(Address { hash: Sha256::digest(url.as_bytes()).into(), url });
        }
        Self { json: value.to_string(), address }
    }
}

/// Stored details as the history shows them, the address put back.
pub(super) fn shown(json: String, url: Option<String>) -> String {
    // PostgreSQL writes jsonb with spaces and in an order of its own: parsed and written again it reads as in SQLite.
    let Ok(mut value) = serde_json::from_str(&json) else { return json };
    if let (Some(url), Value::Object(fields)) = (url, &mut value) {
        fields.insert(FIELD.to_owned(), url.into());
    }
    value.to_string()
}

/// The addresses of a batch, in the order of their hashes, each with the time of the last event that has it.
pub(super) fn addresses<'d>(
    events: impl Iterator<Item = (&'d Details, RoomTime)>,
) -> BTreeMap<&'d [u8], (&'d str, RoomTime)> {
    let mut all = BTreeMap::new();
    for (details, at) in events {
        if let Some(Address { hash, url }) = &details.address {
            let (_, used) = all.entry(&hash[..]).or_insert((url.as_str(), at));
            *used = at.max(*used);
        }
    }
    all
}

fn replace_zeros(value: &mut Value) {
    match value {
        Value::String(text) => *text = printable(text).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(replace_zeros),
        Value::Object(fields) => {
            let old = std::mem::take(fields);
            fields.extend(old.into_iter().map(|(name, mut value)| {
                replace_zeros(&mut value);
                (printable(&name).into_owned(), value)
            }));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_out_of_an_event_and_goes_back_into_it() {
        let event = Bytes::from_static(br#"{"by":"ann","playback":{"at":1},"url":"https://example.org/film"}"#);
        let details = Details::of(&event);
        assert_eq!(details.json, r#"{"by":"ann","playback":{"at":1}}"#);
        let url = details.address.unwrap().url;
        assert_eq!(url, "https://example.org/film");
        assert_eq!(shown(details.json, Some(url)).as_bytes(), &event[..]);
    }

    #[test]
    fn what_has_no_address_stays_as_it_is() {
        for event in ["{\"url\":null}", "{\"url\":7}", "\"url\"", "{\"seq\":1}"] {
            let details = Details::of(&Bytes::from(event));
            assert!(details.address.is_none(), "{event}");
            assert_eq!(shown(details.json, None), event);
        }
    }

    #[test]
    fn what_jsonb_refuses_is_stored_as_what_it_takes() {
        let zeros = r#"{"a\u0000":["b\u0000",{"c":"\\u0000"}],"url":"d\u0000"}"#;
        let details = Details::of(&Bytes::from(zeros));
        assert_eq!(details.json, "{\"a\u{FFFD}\":[\"b\u{FFFD}\",{\"c\":\"\\\\u0000\"}]}");
        assert_eq!(details.address.unwrap().url, "d\u{FFFD}");
        for odd in [&b"{broken"[..], b"\xff\0", b"[1e999999]", b"\"\\ud800\""] {
            let json = Details::of(&Bytes::copy_from_slice(odd)).json;
            assert!(json.starts_with('"') && !json.contains("\\u0000"), "{json}");
        }
    }
}
