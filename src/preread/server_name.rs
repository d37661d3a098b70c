//! The names of servers that a route is for: one name, or all below one.

use std::fmt;
use std::str::FromStr;

use super::client_hello::NAME_MAX;

/// The longest label of a name.
const LABEL_MAX: usize = 63;
const WILDCARD: &str = "*.";

/// A name, or all names below one. Lower case, without a dot at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerName {
    /// This name alone.
    Exact(Box<str>),
    /// All names with one label or more before this one.
    Below(Box<str>),
}

/// Text that is no name of a server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a name like \"a.example.com\", or \"*.example.com\" for all names below one, got {0:?}")]
pub struct NoName(pub(super) String);

impl FromStr for ServerName {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        let (kind, name): (fn(Box<str>) -> Self, &str) = match text.strip_prefix(WILDCARD) {
            Some(name) => (Self::Below, name),
            None => (Self::Exact, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        // Names of other alphabets are sent in their ASCII form (RFC 5890).
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_label = |label: &str| (1..=LABEL_MAX).contains(&label.len()) && label.bytes().all(fits);
        let is_name = name.len() <= NAME_MAX && name.split('.').all(is_label);
        if is_name { Ok(kind(name.into_boxed_str())) } else { Err(NoName(text.to_owned())) }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "{WILDCARD}{name}"),
        }
    }
}
