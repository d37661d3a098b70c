//! The protocols that a client offers for what TLS carries (RFC 7301), in the order of its preference.

use std::fmt;

/// The longest text that is shown.
const SHOWN_MAX: usize = 64;

/// A list of protocols. None of them is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alpn {
    /// As it is sent: one byte of length before each.
    list: Box<[u8]>,
}

impl Alpn {
    /// Returns the list in the form in which it is sent, without its own length; `None` when it is malformed or has no
    /// protocol.
    pub fn from_list(list: Vec<u8>) -> Option<Self> {
        let mut rest = &list[..];
        while let Some((len, behind)) = rest.split_first() {
            let len = usize::from(*len);
            rest = behind.get(len..).filter(|_| len > 0)?;
        }
        (!list.is_empty()).then(|| Self { list: list.into_boxed_slice() })
    }

    /// Returns the protocols, the preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.list[..];
        std::iter::from_fn(move || {
            let (len, behind) = rest.split_first()?;
            let (protocol, behind) = behind.split_at_checked(usize::from(*len))?;
            rest = behind;
            Some(protocol)
        })
    }

    /// Returns the list as it is sent, without its own length.
    pub fn as_list(&self) -> &[u8] {
        &self.list
    }

    /// Returns whether the client offers none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// The protocols with commas between them, escaped, as far as they fit.
impl fmt::Display for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut len = 0;
        for (protocol, number) in self.iter().zip(0..) {
            let comma = if number > 0 { "," } else { "" };
            let protocol = protocol.escape_ascii();
            len += comma.len() + protocol.clone().count();
            if len > SHOWN_MAX {
                return write!(f, "{comma}...");
            }
            write!(f, "{comma}{protocol}")?;
        }
        Ok(())
    }
}
