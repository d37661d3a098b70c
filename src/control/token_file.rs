//! Reads a token from a file that no other user may read. A message never has the token in it.

use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::sys;

/// A shorter token could be guessed.
const TOKEN_LEN_MIN: usize = 16;
/// Most bytes read from a file: the token is in its first line.
const FILE_LEN_MAX: u16 = 16 << 10;

/// Returns the first line of a file that no other user may read.
pub(super) fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut file = sys::open_private(path)?.take(FILE_LEN_MAX.into());
    // Allocated at its final size: growing would leave copies of the token behind.
    let mut text = Zeroizing::new(String::with_capacity(FILE_LEN_MAX.into()));
    file.read_to_string(&mut text)?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.len() < TOKEN_LEN_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = format!("needs a first line of at least {TOKEN_LEN_MIN} printable characters");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_that_others_may_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "0123456789abcdef\nanything").unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(*read(file.path()).unwrap(), "0123456789abcdef");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(file.path()).is_err());
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(file.path(), "short").unwrap();
        assert!(read(file.path()).is_err());
    }
}
