//! Values as bytes: the elements of an outbox entry ([`super::outbox_entry`]), of a bus message (`log::redis`) and
//! of a relay (`hub::relay`).
//!
//! Numbers are big-endian; texts and byte strings carry a u32 length; an optional value is a byte 0 or 1 before it.

use bytes::{Buf, Bytes};

use crate::domain::{Head, RoomTime, UserId};

/// Bytes that this version did not write.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("it ends too early")]
    Short,
    #[error("version {0} is not known here")]
    Version(u8),
    #[error("{0} is not what it should be")]
    Wrong(&'static str),
    #[error("events: {0}")]
    Events(#[from] serde_json::Error),
}

pub(crate) struct ByteWriter(pub(crate) Vec<u8>);

impl ByteWriter {
    pub(crate) fn flag(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    pub(crate) fn count(&mut self, value: usize) {
        self.0.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
    }

    pub(crate) fn number(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn real(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn head(&mut self, value: Head) {
        self.0.extend_from_slice(&value.epoch.to_be_bytes());
        self.0.extend_from_slice(&value.seq.to_be_bytes());
    }

    pub(crate) fn time(&mut self, value: RoomTime) {
        self.0.extend_from_slice(&value.as_micros().to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.0.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// A text of at most 255 bytes, such as an id, with one byte of length. A longer one is written as an empty text.
    pub(crate) fn short(&mut self, value: &str) {
        let (length, value) = u8::try_from(value.len()).map_or((0, ""), |length| (length, value));
        self.0.push(length);
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(crate) fn optional<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Holds the bytes that are not read yet.
pub(crate) struct ByteReader(pub(crate) Bytes);

impl ByteReader {
    fn take(&mut self, count: usize) -> Result<Bytes, WireError> {
        if count > self.0.len() {
            return Err(WireError::Short);
        }
        Ok(self.0.split_to(count))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let array = *self.0.first_chunk().ok_or(WireError::Short)?;
        self.0.advance(N);
        Ok(array)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn flag(&mut self) -> Result<bool, WireError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Wrong("a flag")),
        }
    }

    /// The length of a list. Each element takes a byte at least, so a count beyond the bytes that are left is forged.
    pub(crate) fn count(&mut self) -> Result<usize, WireError> {
        let count = u32::from_be_bytes(self.array()?) as usize;
        if count > self.0.len() { Err(WireError::Short) } else { Ok(count) }
    }

    pub(crate) fn number(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn real(&mut self) -> Result<f64, WireError> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    pub(crate) fn head(&mut self) -> Result<Head, WireError> {
        Ok(Head { epoch: self.number()?, seq: self.number()? })
    }

    pub(crate) fn time(&mut self) -> Result<RoomTime, WireError> {
        Ok(RoomTime::from_micros(i64::from_be_bytes(self.array()?)))
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, WireError> {
        let count = self.count()?;
        self.take(count)
    }

    pub(crate) fn text(&mut self) -> Result<String, WireError> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| WireError::Wrong("a text"))
    }

    /// A text of [`ByteWriter::short`], as `parse` takes it; `None` of it is an error.
    pub(crate) fn short<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, WireError> {
        let length = usize::from(self.byte()?);
        let text = self.0.get(..length).ok_or(WireError::Short)?;
        let parsed = std::str::from_utf8(text).ok().and_then(parse).ok_or(WireError::Wrong("a name"))?;
        self.0.advance(length);
        Ok(parsed)
    }

    pub(crate) fn user(&mut self) -> Result<UserId, WireError> {
        UserId::parse(&self.text()?).map_err(|_| WireError::Wrong("a user"))
    }

    pub(crate) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }
}
