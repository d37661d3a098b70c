//! The tokens of clients over TCP: one for full access, and one for everything but changes.

use std::io;
use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::config::model::Admin;
use crate::control::token_file;

/// The access granted by a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Full,
    Read,
}

/// The accepted tokens. Their memory is wiped when they are dropped.
#[derive(Clone)]
pub(super) struct Tokens {
    full: Token,
    read: Option<Token>,
}

#[derive(Clone)]
struct Token(Zeroizing<String>);

impl Tokens {
    /// Reads the token files that `settings` name. Fails, naming the file, when one cannot be read, contains no token,
    /// or is accessible to others; and when both contain the same token.
    pub(super) fn read(settings: &Admin) -> io::Result<Self> {
        let read = |file: &Path| {
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
            token_file::read(file).map(Token).map_err(named)
        };
        let full = read(settings.token_file.as_deref().unwrap_or_else(|| "".as_ref()))?;
        let read_only = settings.read_token_file.as_deref().map(read).transpose()?;
        if read_only.as_ref().is_some_and(|token| *token.0 == *full.0) {
            return Err(invalid("read_token_file holds the token of token_file".into()));
        }
        Ok(Self { full, read: read_only })
    }

    /// Returns the access of a request with these headers. Takes the same time for any token.
    pub(super) fn access(&self, headers: &HeaderMap) -> Option<Access> {
        let shown = bearer(headers)?;
        let is_full = self.full.is(shown);
        let is_read = self.read.as_ref().is_some_and(|token| token.is(shown));
        match (is_full, is_read) {
            (true, _) => Some(Access::Full),
            (false, true) => Some(Access::Read),
            (false, false) => None,
        }
    }
}

/// Returns the token in `Authorization: Bearer TOKEN`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Token {
    fn is(&self, shown: &str) -> bool {
        shown.as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> HeaderMap {
        [(AUTHORIZATION, value.parse().unwrap())].into_iter().collect()
    }

    fn token(text: &str) -> Token {
        Token(Zeroizing::new(text.into()))
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let tokens = Tokens { full: token("0123456789abcdef"), read: Some(token("fedcba9876543210")) };
        for (value, expected) in [
            ("Bearer 0123456789abcdef", Some(Access::Full)),
            ("bearer 0123456789abcdef", Some(Access::Full)),
            ("Bearer fedcba9876543210", Some(Access::Read)),
            ("Bearer 0123456789abcde", None),
            ("Bearer 0123456789abcdefg", None),
            ("Basic 0123456789abcdef", None),
            ("0123456789abcdef", None),
            ("Bearer ", None),
        ] {
            assert_eq!(tokens.access(&shown(value)), expected, "{value:?}");
        }
        assert_eq!(tokens.access(&HeaderMap::new()), None);
    }
}
