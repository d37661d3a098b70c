//! The tokens of clients over TCP: one for full access, and one for everything but changes.

use std::io::{self, Read};
use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::config::model::Admin;
use crate::sys;

/// A shorter token could be guessed.
const TOKEN_LEN_MIN: usize = 16;
/// Most bytes read from a file: the token is in its first line.
const FILE_LEN_MAX: u16 = 16 << 10;

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
            Token::read(file).map_err(named)
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
    /// Returns the first line of a file that no other user may read.
    fn read(path: &Path) -> io::Result<Self> {
        let mut file = sys::open_private(path)?.take(FILE_LEN_MAX.into());
        // Allocated at its final size: growing would leave copies of the token behind.
        let mut text = Zeroizing::new(String::with_capacity(FILE_LEN_MAX.into()));
        file.read_to_string(&mut text)?;
        let token = text.lines().next().unwrap_or_default().trim();
        if token.len() < TOKEN_LEN_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid(format!(
                "needs a first line of at least {TOKEN_LEN_MIN} printable characters"
            )));
        }
        Ok(Self(Zeroizing::new(token.to_owned())))
    }

    fn is(&self, shown: &str) -> bool {
        shown.as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn a_token_that_others_may_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "0123456789abcdef\nanything").unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(*Token::read(file.path()).unwrap().0, "0123456789abcdef");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Token::read(file.path()).is_err());
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(file.path(), "short").unwrap();
        assert!(Token::read(file.path()).is_err());
    }
}
