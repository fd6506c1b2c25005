//! Texts that people write.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ErrorCode, Invalid, Limits, visible};

/// What a member is called: one line, without what can't be seen ([`visible`]), with something that can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Username(Arc<str>);

impl Username {
    /// Trims and folds; refuses what is empty then, or too long.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, Invalid> {
        // Cut before the work, so that a 60 KB name costs nothing.
        if text.len() as u64 > limits.username_chars * 4 {
            return Err(Invalid::new(
                ErrorCode::OutOfRange,
                format!("username must have 1-{} characters", limits.username_chars),
            ));
        }
        let name = visible::line(text);
        if !visible::is_visible(&name) {
            return Err(Invalid::new(ErrorCode::OutOfRange, "username must have a character that can be seen"));
        }
        Limits::check_chars("username", &name, limits.username_chars)?;
        Ok(Self(name.into()))
    }

    /// Whether there is anything to see in it: v2 clients join with names of which nothing is left.
    pub fn is_visible(text: &str) -> bool {
        visible::is_visible(&visible::line(text))
    }

    /// For a member that gave none.
    pub fn guest() -> Self {
        Self("Guest".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a member says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChatText(Arc<str>);

impl ChatText {
    /// Takes out what can't be seen; refuses what is blank then, or too long.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, Invalid> {
        let text = visible::lines(text);
        if !visible::is_visible(&text) {
            return Err(Invalid::new(ErrorCode::OutOfRange, "text must have a character that can be seen"));
        }
        Limits::check_chars("text", &text, limits.chat_chars)?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whose CUSTOM message it is, such as `org.example.poll`: 1–64 characters of `a–z 0–9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Refuses anything else.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(Invalid::new(ErrorCode::OutOfRange, "namespace must be 1-64 characters of a-z 0-9 . _ -"))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
