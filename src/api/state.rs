//! The state of a backend.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The administrative state of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Admin {
    /// It serves, as far as its health allows.
    Ready,
    /// No new sessions; open ones finish, checks continue.
    Drain,
    /// No new sessions; open ones finish, checks pause.
    Maint,
}

impl Admin {
    /// Returns the word for it, as it is written in the API and in commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// The health of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No check has decided yet; eligible for new sessions.
    Unknown,
    /// Eligible for new sessions as far as its checks go.
    Up,
    /// Not eligible, unless the pool tries anyway when all are down.
    Down,
}

impl Health {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}
