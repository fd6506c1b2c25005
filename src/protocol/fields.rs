//! The fields of a client message: found in one pass over the text, parsed when the type is known.
//!
//! A flat set of borrowed slices instead of a struct per type: `type` and `ref` may come last, and an ERROR should name
//! them even if another field is wrong.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::json_text;
use crate::domain::{ErrorCode, Invalid, Limits, MediaTime, RoomTime, UserId};

/// Name and JSON text of a field.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageField<'a> {
    name: &'static str,
    raw: Option<&'a str>,
}

macro_rules! fields {
    ($($field:ident = $name:literal;)*) => {
        /// All fields of all client messages.
        #[derive(Debug)]
        pub(super) struct MessageFields<'a> {
            $(pub(super) $field: MessageField<'a>,)*
            /// The first repeated name: parsers differ in which occurrence counts, so the message is refused.
            pub(super) repeated: Option<&'static str>,
        }

        impl<'a> MessageFields<'a> {
            /// No field is read yet.
            pub(super) fn empty() -> Self {
                Self { $($field: MessageField { name: $name, raw: None },)* repeated: None }
            }

            fn by_name(&mut self, name: &str) -> Option<&mut MessageField<'a>> {
                match name {
                    $($name => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    kind = "type";
    reference = "ref";
    room_id = "roomId";
    user_id = "userId";
    username = "username";
    pin = "pin";
    protocol = "protocol";
    resume_token = "resumeToken";
    epoch = "epoch";
    last_seq = "lastSeq";
    fallback = "fallback";
    moves = "move";
    timestamp = "timestamp";
    enabled = "enabled";
    target_user_id = "targetUserId";
    control = "control";
    current_time = "currentTime";
    event_timestamp = "eventTimestamp";
    is_playing = "isPlaying";
    rate = "rate";
    target_time = "targetTime";
    gate_id = "gateId";
    url = "url";
    to = "to";
    offer = "offer";
    answer = "answer";
    candidate = "candidate";
    text = "text";
    namespace = "namespace";
    payload = "payload";
    state = "state";
    reason = "reason";
    duration = "duration";
    film = "film";
    gate = "gate";
    client_key = "clientKey";
    host_key = "hostKey";
    owner = "owner";
    role = "as";
    raised = "raised";
    decline = "decline";
}

impl<'a> MessageFields<'a> {
    /// Reads one JSON object. Fields that were read before an error stay.
    pub(super) fn read(&mut self, text: &'a str) -> Result<(), Invalid> {
        let mut input = serde_json::Deserializer::from_str(text);
        let outcome = self.deserialize(&mut input).and_then(|()| input.end());
        outcome.map_err(|error| match error.classify() {
            // serde's own sentence would repeat the client's text.
            serde_json::error::Category::Data => bad("not a JSON object"),
            _ => bad(format!("not JSON: {error}")),
        })?;
        match self.repeated {
            Some(name) => Err(bad(format!("`{name}` stands twice"))),
            None => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut MessageFields<'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut MessageFields<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(FieldName(name)) = map.next_key()? {
            let Some(field) = self.by_name(&name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = map.next_value::<&RawValue>()?.get();
            if field.raw.is_none() {
                field.raw = Some(value);
            } else {
                let name = field.name;
                self.repeated.get_or_insert(name);
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct FieldName<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> MessageField<'a> {
    /// The value of a required field.
    pub(super) fn must<T>(self, read: impl FnOnce(Self) -> Result<Option<T>, Invalid>) -> Result<T, Invalid> {
        read(self)?.ok_or_else(|| self.missing())
    }

    /// A string.
    pub(super) fn text(self) -> Result<Option<Cow<'a, str>>, Invalid> {
        let Some(raw) = self.present() else { return Ok(None) };
        let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Err(self.wrong("must be a string"));
        };
        // Without an escape the JSON text is the string: the pass over the object has checked the rest.
        if !inner.contains('\\') {
            return Ok(Some(Cow::Borrowed(inner)));
        }
        match serde_json::from_str(raw) {
            Ok(text) => Ok(Some(Cow::Owned(text))),
            Err(_) => Err(self.wrong("has an escape that stands for no character")),
        }
    }

    /// A string; an empty one counts as absent.
    pub(super) fn filled_text(self) -> Result<Option<Cow<'a, str>>, Invalid> {
        Ok(self.text()?.filter(|text| !text.is_empty()))
    }

    /// A required string or null.
    pub(super) fn text_or_null(self) -> Result<Option<Cow<'a, str>>, Invalid> {
        if self.raw.is_none() { Err(self.missing()) } else { self.text() }
    }

    /// true or false.
    pub(super) fn flag(self) -> Result<Option<bool>, Invalid> {
        match self.present() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.wrong("must be true or false")),
        }
    }

    /// A finite number.
    pub(super) fn number(self) -> Result<Option<f64>, Invalid> {
        let Some(raw) = self.numeric()? else { return Ok(None) };
        match serde_json::from_str::<f64>(raw) {
            // Adding 0 turns minus zero into zero, which would print as `-0.0`.
            Ok(number) if number.is_finite() => Ok(Some(number + 0.0)),
            _ => Err(self.out_of_range("is too large a number")),
        }
    }

    /// A whole number from 0 to `max`.
    pub(super) fn integer(self, max: u64) -> Result<Option<u64>, Invalid> {
        let Some(raw) = self.numeric()? else { return Ok(None) };
        match serde_json::from_str::<u64>(raw) {
            Ok(number) if number <= max => Ok(Some(number)),
            _ => Err(self.out_of_range(&format!("must be a whole number from 0 to {max}"))),
        }
    }

    /// A whole number of 32 bits, for counts of films and gates.
    pub(super) fn count(self) -> Result<Option<u32>, Invalid> {
        Ok(self.integer(u64::from(u32::MAX))?.and_then(|number| u32::try_from(number).ok()))
    }

    /// Any number, for values that are only returned. Anything else counts as absent.
    pub(super) fn lenient_number(self) -> Option<serde_json::Number> {
        serde_json::from_str(self.present()?).ok()
    }

    /// A position in a film, in seconds.
    pub(super) fn position(self, limits: &Limits) -> Result<Option<MediaTime>, Invalid> {
        self.number()?.map(|seconds| MediaTime::parse(seconds, limits)).transpose()
    }

    /// A position in milliseconds, as URL_CHANGE alone has it.
    pub(super) fn position_in_millis(self, limits: &Limits) -> Result<Option<MediaTime>, Invalid> {
        self.number()?.map(|millis| MediaTime::parse(millis / 1000.0, limits)).transpose()
    }

    /// A moment of room time. A number out of its range counts as absent: v2 clients send whatever their clock says.
    pub(super) fn moment(self) -> Result<Option<RoomTime>, Invalid> {
        let Some(raw) = self.numeric()? else { return Ok(None) };
        let millis = serde_json::from_str::<f64>(raw).ok().filter(|millis| *millis >= 0.0);
        Ok(millis.and_then(RoomTime::from_millis_f64))
    }

    /// A userId.
    pub(super) fn user(self) -> Result<Option<UserId>, Invalid> {
        self.text()?.map(|text| UserId::parse(&text)).transpose()
    }

    /// Any JSON except null, as compact text.
    pub(super) fn json(self, max_bytes: u64) -> Result<Option<String>, Invalid> {
        self.present().map(|raw| json_text::rewrite(self.name, raw, max_bytes)).transpose()
    }

    /// Any JSON, as compact text.
    pub(super) fn json_or_null(self, max_bytes: u64) -> Result<Option<String>, Invalid> {
        self.raw.map(|raw| json_text::rewrite(self.name, raw, max_bytes)).transpose()
    }

    /// The JSON text; null counts as absent.
    fn present(self) -> Option<&'a str> {
        self.raw.filter(|raw| *raw != "null")
    }

    /// The JSON text of a number.
    fn numeric(self) -> Result<Option<&'a str>, Invalid> {
        match self.present() {
            Some(raw) if !raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                Err(self.wrong("must be a number"))
            }
            raw => Ok(raw),
        }
    }

    fn missing(self) -> Invalid {
        bad(format!("`{}` is missing", self.name))
    }

    /// An error for a value of the wrong kind.
    pub(super) fn wrong(self, what: &str) -> Invalid {
        bad(format!("`{}` {what}", self.name))
    }

    fn out_of_range(self, what: &str) -> Invalid {
        Invalid::new(ErrorCode::OutOfRange, format!("`{}` {what}", self.name))
    }
}

fn bad(message: impl Into<String>) -> Invalid {
    Invalid::new(ErrorCode::BadMessage, message)
}
