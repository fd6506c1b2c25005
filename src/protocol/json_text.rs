//! Free JSON that only clients interpret (offers, candidates, CUSTOM payloads): parsed and rewritten when it arrives,
//! parsed again when it leaves. Receivers therefore get JSON that every parser reads alike: no repeated names in an
//! object, no lone surrogates, no number beyond f64, no deep nesting.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::domain::{ErrorCode, Invalid};

/// Rewrites a JSON value as compact text of at most `max_bytes`. serde_json's own limit on nesting (128) holds.
pub(super) fn rewrite(name: &str, raw: &str, max_bytes: u64) -> Result<String, Invalid> {
    let mut out = Vec::with_capacity(raw.len());
    let mut input = serde_json::Deserializer::from_str(raw);
    let outcome = Rewrite(&mut out).deserialize(&mut input).and_then(|()| input.end());
    // serde's errors name a place and a rule, never the text.
    outcome.map_err(|error| Invalid::new(ErrorCode::BadMessage, format!("`{name}`: {error}")))?;
    if out.len() as u64 > max_bytes {
        return Err(Invalid::new(ErrorCode::TooBig, format!("`{name}` may have {max_bytes} bytes")));
    }
    String::from_utf8(out).map_err(|_| Invalid::new(ErrorCode::BadMessage, format!("`{name}` is not text")))
}

/// JSON text as a value inside a message. It was checked on arrival, perhaps by another node or an older version: text
/// that isn't one JSON value is written as null.
pub(super) struct Embedded<'a>(pub(super) &'a str);

impl Serialize for Embedded<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(self.0) {
            Ok(value) => value.serialize(out),
            Err(_) => out.serialize_unit(),
        }
    }
}

struct Rewrite<'o>(&'o mut Vec<u8>);

impl Rewrite<'_> {
    fn scalar<E: Error>(self, value: impl Serialize) -> Result<(), E> {
        serde_json::to_writer(self.0, &value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Rewrite<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rewrite<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.push(b'[');
        let mut first = true;
        loop {
            // The comma is written before the next element is known to exist, and removed if it doesn't.
            let mark = self.0.len();
            if !first {
                self.0.push(b',');
            }
            if seq.next_element_seed(Rewrite(self.0))?.is_none() {
                self.0.truncate(mark);
                break;
            }
            first = false;
        }
        self.0.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        self.0.push(b'{');
        while let Some(name) = map.next_key::<String>()? {
            if !names.is_empty() {
                self.0.push(b',');
            }
            Rewrite(self.0).scalar(&name)?;
            if !names.insert(name) {
                return Err(A::Error::custom("a name stands twice in an object"));
            }
            self.0.push(b':');
            map.next_value_seed(Rewrite(self.0))?;
        }
        self.0.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_json_is_written_anew_without_blanks() {
        let text = rewrite("payload", " { \"a\" : [ 1 , 2.5 , -3 , null , true , \"x\\u0041\" , [ ] , { } ] } ", 100);
        assert_eq!(text.unwrap(), r#"{"a":[1,2.5,-3,null,true,"xA",[],{}]}"#);
    }

    #[test]
    fn what_parsers_read_differently_is_refused() {
        let nest = "[".repeat(200) + &"]".repeat(200);
        let cases =
            ["1e999", r#""\ud800""#, r#"{"a":1,"a":2}"#, r#"{"\ud800":1}"#, "nul", "[1,]", "1 2", nest.as_str()];
        for raw in cases {
            assert_eq!(rewrite("payload", raw, 1000).unwrap_err().code, ErrorCode::BadMessage, "{raw}");
        }
    }

    #[test]
    fn size_counts_after_rewriting() {
        assert_eq!(rewrite("payload", "[1,      2]", 5).unwrap(), "[1,2]");
        assert_eq!(rewrite("payload", "[1,2]", 4).unwrap_err().code, ErrorCode::TooBig);
    }

    #[test]
    fn text_that_is_not_json_leaves_as_null() {
        assert_eq!(serde_json::to_string(&Embedded(r#"{"a":1}"#)).unwrap(), r#"{"a":1}"#);
        for broken in ["", "{", r#"1,"type":"FORGED""#, "[1] [2]"] {
            assert_eq!(serde_json::to_string(&Embedded(broken)).unwrap(), "null");
        }
    }
}
