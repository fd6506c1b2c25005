//! Films' addresses in the history: each is stored once, and events refer to it.
//!
//! An address has up to `MAX_URL_BYTES`, ten times the rest of an event, and people choose the same ones again. On the way in
//! it is taken out of the event's JSON, on the way out it is put back, so that readers see what was written.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::columns::readable;
use crate::commit::Commit;
use crate::domain::RoomTime;

/// The field of an event's JSON that holds the address.
const FIELD: &str = "url";

pub(super) type Hash = [u8; 32];

/// An event's data as it is stored.
pub(super) struct Data<'a> {
    pub(super) text: Cow<'a, str>,
    /// The address that was taken out.
    pub(super) url: Option<(Hash, String)>,
}

/// Takes the address out of an event's JSON.
pub(super) fn take(audit: &Bytes) -> Data<'_> {
    let text = readable(audit);
    if text.contains("\"url\"")
        && let Ok(Value::Object(mut fields)) = serde_json::from_str(&text)
        && fields.get(FIELD).is_some_and(Value::is_string)
        && let Some(Value::String(url)) = fields.remove(FIELD)
    {
        let hash = Sha256::digest(url.as_bytes()).into();
        return Data { text: Value::Object(fields).to_string().into(), url: Some((hash, url)) };
    }
    Data { text, url: None }
}

/// Puts the address back.
pub(super) fn give_back(data: String, url: Option<String>) -> String {
    match (url, serde_json::from_str(&data)) {
        (Some(url), Ok(Value::Object(mut fields))) => {
            fields.insert(FIELD.to_owned(), url.into());
            Value::Object(fields).to_string()
        }
        _ => data,
    }
}

/// The addresses of a batch, in the order of their hashes, with the time of the last event that has them.
pub(super) fn of(batch: &[Commit]) -> BTreeMap<Hash, (String, RoomTime)> {
    let mut all = BTreeMap::new();
    for entry in batch.iter().flat_map(|commit| commit.entries.iter()) {
        if let Some((hash, url)) = take(&entry.audit).url {
            let (_, used) = all.entry(hash).or_insert((url, entry.at));
            *used = entry.at.max(*used);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_out_of_an_event_and_goes_back_into_it() {
        let event = Bytes::from_static(br#"{"by":"ann","playback":{"at":1},"url":"https://example.org/film"}"#);
        let data = take(&event);
        assert_eq!(data.text, r#"{"by":"ann","playback":{"at":1}}"#);
        let (_, url) = data.url.unwrap();
        assert_eq!(url, "https://example.org/film");
        assert_eq!(give_back(data.text.into_owned(), Some(url)).as_bytes(), &event[..]);
    }

    #[test]
    fn what_has_no_address_stays_as_it_is() {
        for event in ["{\"url\":null}", "{\"url\":7}", "\"url\"", "{\"seq\":1}", "{broken \"url\""] {
            let audit = Bytes::from(event);
            let data = take(&audit);
            assert!(data.url.is_none(), "{event}");
            assert_eq!(give_back(data.text.into_owned(), None), event);
        }
    }
}
