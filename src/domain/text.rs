//! Texts that users write.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ErrorCode, Invalid, Limits, visible};

/// A member's name: one line with at least one visible character, without invisible ones ([`visible`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Username(Arc<str>);

impl Username {
    /// Filters the text; refuses an empty or too long one.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, Invalid> {
        // Refused before the filter: a 60 KB name must cost nothing.
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

    /// Whether anything of the text is visible: v2 clients join with names of which nothing is left.
    pub fn is_visible(text: &str) -> bool {
        visible::is_visible(&visible::line(text))
    }

    /// The name of a member that gave none.
    pub fn guest() -> Self {
        Self("Guest".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text of a CHAT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChatText(Arc<str>);

impl ChatText {
    /// Filters the text; refuses a blank or too long one.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, Invalid> {
        let text = visible::lines(text);
        if !visible::is_visible(&text) {
            return Err(Invalid::new(ErrorCode::OutOfRange, "text must have a character that can be seen"));
        }
        Limits::check_chars("text", &text, limits.chat_chars)?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The namespace of a CUSTOM message, such as `org.example.poll`: 1–64 characters of `a–z 0–9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Namespace(Arc<str>);

impl Namespace {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(Invalid::new(ErrorCode::OutOfRange, "namespace must be 1-64 characters of a-z 0-9 . _ -"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}
