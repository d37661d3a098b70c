//! The administrative state of a backend.

/// The administrative state of a backend, the mildest first: of what several parties ask for, the strictest holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admin {
    /// It serves, as far as its health allows.
    Ready,
    /// No new sessions; open ones finish, and checks continue.
    Drain,
    /// No new sessions; open ones finish, and checks pause. Its health stays unchanged.
    Maint,
}

impl Admin {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Maint];

    /// Returns the word for it in commands, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// Returns the state that is stored as this number.
    pub const fn of(stored: u8) -> Self {
        match stored {
            x if x == Self::Ready as u8 => Self::Ready,
            x if x == Self::Drain as u8 => Self::Drain,
            _ => Self::Maint,
        }
    }
}
