//! Values as Redis holds them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use redis::{FromRedisValue, ParsingError, Value};

use crate::commit::Snapshot;
use crate::domain::{Head, RoomId};

/// The id of a stream's entry, `ms-count`: ascending, and beginning with the time at which it was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct StreamId(u64, u64);

impl StreamId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (ms, count) = text.split_once('-')?;
        Some(Self(ms.parse().ok()?, count.parse().ok()?))
    }

    pub(crate) fn at_millis(millis: u64) -> Self {
        Self(millis, 0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromRedisValue for StreamId {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let text = String::from_redis_value(value)?;
        Self::parse(&text).ok_or_else(|| format!("{text} is no stream entry").into())
    }
}

/// `epoch.seq`.
pub(super) fn head_text(head: Head) -> String {
    format!("{}.{}", head.epoch, head.seq)
}

pub(crate) fn parse_head(text: &[u8]) -> Option<Head> {
    let (epoch, seq) = std::str::from_utf8(text).ok()?.split_once('.')?;
    Some(Head { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? })
}

/// The dot tells stored fields from the log's own (`@head`).
pub(super) fn stored_field(field: &str) -> String {
    format!(".{field}")
}

/// A room of its hash; `None`: there is none, or it has ended.
pub(crate) fn snapshot(room: &RoomId, hash: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Option<Snapshot>, ParsingError> {
    let mut head = None;
    let mut fields = BTreeMap::new();
    for (field, value) in hash {
        match &field[..] {
            b"@end" => return Ok(None),
            b"@head" => head = parse_head(&value),
            [b'.', name @ ..] => {
                let name = std::str::from_utf8(name).map_err(|_| format!("a field of {room} is not text"))?;
                fields.insert(name.to_owned(), Bytes::from(value));
            }
            _ => {}
        }
    }
    Ok(head.map(|head: Head| Snapshot { room: room.clone(), head, fields }))
}

/// At least 1: a life of 0 ms is an error to Redis.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
