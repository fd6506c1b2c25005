//! A member's player, as the member itself reports it (PLAYER).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ErrorCode, Invalid, MediaTime};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlayerState {
    /// No player: the member only chats, or has not sent PLAYER since it joined.
    #[default]
    None,
    /// The player reads the film's beginning.
    Loading,
    /// The player has the film and can seek in it.
    Ready,
    /// The player can't play the film.
    Failed,
}

impl PlayerState {
    /// Every state, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::None, Self::Loading, Self::Ready, Self::Failed];

    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }

    pub fn parse(word: &str) -> Result<Self, Invalid> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == word);
        known.ok_or_else(|| {
            Invalid::new(ErrorCode::BadMessage, "`state` must be `none`, `loading`, `ready` or `failed`")
        })
    }
}

/// Why a player failed, such as `decode`, or can't keep up, such as `slow`: a word for programs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlayerReason(Arc<str>);

impl PlayerReason {
    /// Accepts 1–32 characters of `A–Z a–z 0–9 . _ : -`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(Invalid::new(ErrorCode::OutOfRange, "reason must be 1-32 characters of A-Z a-z 0-9 . _ : -"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PlayerReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A member's player, for the room's film.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Player {
    pub state: PlayerState,
    /// Why it failed, if the member says so. Of a ready player: why it can't keep up with the film.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PlayerReason>,
    /// The film's length as this player knows it. Never 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<MediaTime>,
}

impl Player {
    /// A player in this state, with no reason and duration.
    pub fn of(state: PlayerState) -> Self {
        Self { state, ..Self::default() }
    }

    /// Whether it failed because the film is a live stream, which can't be kept in step.
    pub fn is_live(&self) -> bool {
        self.state == PlayerState::Failed && self.reason.as_ref().is_some_and(|reason| reason.as_str() == "live")
    }

    /// Whether it has the film, even if it can't keep up with it.
    pub fn is_ready(&self) -> bool {
        self.state == PlayerState::Ready
    }

    /// Whether a ready gate waits for it: a player that can't keep up would use up the deadline of every gate.
    pub fn is_awaited(&self) -> bool {
        self.is_ready() && self.reason.is_none()
    }
}
