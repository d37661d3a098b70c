//! The first message of a PostgreSQL client, without which a server says nothing: a request for encryption, or the
//! startup message itself; or a ClientHello, with `sslnegotiation=direct`.

use super::progress::Progress;

/// The length of the requests for encryption.
pub const REQUEST_LEN: usize = 8;
/// The request for TLS, as it is sent to a server.
pub const SSL_REQUEST: [u8; REQUEST_LEN] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];
/// The answer to a request for encryption that is granted.
pub const GRANTED: u8 = b'S';
/// The answer to one that is refused.
pub const REFUSED: u8 = b'N';

/// Length and code.
const HEAD: usize = 8;
/// The longest startup message that servers accept.
const STARTUP_MAX: u32 = 10_000;
const HANDSHAKE_RECORD: u8 = 22;

/// The number that stands where others have the major version of the protocol.
const SPECIAL: u16 = 1234;
const CANCEL: u16 = 5678;
const SSL: u16 = 5679;
const GSS: u16 = 5680;
/// Process and key.
const CANCEL_LEN_MIN: u32 = 16;
const VERSIONS: [u16; 2] = [2, 3];

/// What a client begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It asks for TLS and waits for one byte. The request is taken.
    SslRequest,
    /// It asks for encryption by GSSAPI and waits for one byte. The request is taken.
    GssRequest,
    /// A TLS record. Nothing is taken.
    DirectTls,
    /// A startup message without encryption. Nothing is taken.
    Startup,
    /// A request to cancel what another connection does, without encryption. Nothing is taken.
    Cancel,
}

/// The reason why bytes are no first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpeningFault {
    /// No client of PostgreSQL begins so.
    NotPostgres,
    /// A message of a wrong length.
    Length,
    /// A request or a version that is not known.
    Unknown,
}

impl OpeningFault {
    /// Returns it in plain words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotPostgres => "the first bytes are of no client of PostgreSQL",
            Self::Length => "the first message of PostgreSQL has a wrong length",
            Self::Unknown => "an unknown or repeated request, or an unknown version of PostgreSQL",
        }
    }
}

/// Returns what `bytes` begin with. Of requests for encryption the message is taken, of others nothing.
pub fn parse(bytes: &[u8]) -> Progress<Opening, OpeningFault> {
    match bytes {
        [HANDSHAKE_RECORD, ..] => return Progress::Done(Opening::DirectTls, 0),
        // No message is so long that its first two bytes count.
        [first, ..] if *first != 0 => return Progress::Refused(OpeningFault::NotPostgres),
        [_, second, ..] if *second != 0 => return Progress::Refused(OpeningFault::NotPostgres),
        _ => {}
    }
    let Some(&[a, b, c, d, major_high, major_low, minor_high, minor_low]) = bytes.first_chunk::<HEAD>()
    else {
        return Progress::More(if bytes.is_empty() { 1 } else { HEAD - bytes.len() });
    };
    let len = u32::from_be_bytes([a, b, c, d]);
    let major = u16::from_be_bytes([major_high, major_low]);
    let minor = u16::from_be_bytes([minor_high, minor_low]);
    let (opening, lengths, taken) = match (major, minor) {
        (SPECIAL, SSL) => (Opening::SslRequest, 8..=8, REQUEST_LEN),
        (SPECIAL, GSS) => (Opening::GssRequest, 8..=8, REQUEST_LEN),
        (SPECIAL, CANCEL) => (Opening::Cancel, CANCEL_LEN_MIN..=STARTUP_MAX, 0),
        (major, _) if VERSIONS.contains(&major) => (Opening::Startup, 8..=STARTUP_MAX, 0),
        _ => return Progress::Refused(OpeningFault::Unknown),
    };
    if lengths.contains(&len) {
        Progress::Done(opening, taken)
    } else {
        Progress::Refused(OpeningFault::Length)
    }
}
