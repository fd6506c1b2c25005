//! Values as bytes, and back: what [`super::record`] is made of.
//!
//! Numbers are big-endian; texts and byte strings carry a u32 length; an optional value is a byte 0 or 1 before it.

use bytes::Bytes;

use super::record::RecordError;
use crate::domain::{Head, RoomTime, UserId};

/// Writes.
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn flag(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    pub(super) fn count(&mut self, value: usize) {
        self.0.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
    }

    pub(super) fn head(&mut self, value: Head) {
        self.0.extend_from_slice(&value.epoch.to_be_bytes());
        self.0.extend_from_slice(&value.seq.to_be_bytes());
    }

    pub(super) fn time(&mut self, value: RoomTime) {
        self.0.extend_from_slice(&value.as_micros().to_be_bytes());
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.0.extend_from_slice(value);
    }

    pub(super) fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub(super) fn optional<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Reads what is left.
pub(super) struct Reader(pub(super) Bytes);

impl Reader {
    fn take(&mut self, count: usize) -> Result<Bytes, RecordError> {
        if count > self.0.len() {
            return Err(RecordError::Short);
        }
        Ok(self.0.split_to(count))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N)?);
        Ok(array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, RecordError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn flag(&mut self) -> Result<bool, RecordError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecordError::Wrong("a flag")),
        }
    }

    /// How many follow. Each takes a byte at least, so a count beyond what is left is a lie.
    pub(super) fn count(&mut self) -> Result<usize, RecordError> {
        let count = u32::from_be_bytes(self.array()?) as usize;
        if count > self.0.len() { Err(RecordError::Short) } else { Ok(count) }
    }

    pub(super) fn number(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn head(&mut self) -> Result<Head, RecordError> {
        Ok(Head { epoch: self.number()?, seq: self.number()? })
    }

    pub(super) fn time(&mut self) -> Result<RoomTime, RecordError> {
        Ok(RoomTime::from_micros(i64::from_be_bytes(self.array()?)))
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let count = self.count()?;
        self.take(count)
    }

    pub(super) fn text(&mut self) -> Result<String, RecordError> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| RecordError::Wrong("a text"))
    }

    pub(super) fn user(&mut self) -> Result<UserId, RecordError> {
        UserId::parse(&self.text()?).map_err(|_| RecordError::Wrong("a user"))
    }

    pub(super) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, RecordError>,
    ) -> Result<Option<T>, RecordError> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }
}
