//! The ClientHello of TLS (RFC 8446): the name of the server that a client asks for, and the protocols that it offers.
//!
//! Two layers that know nothing of each other: records, and the handshake message that is cut into them at any byte,
//! even within its own head. Reading stops once both answers are known, so what follows may be missing. Nothing is
//! consumed: the hello is read again by the server.

use super::alpn::Alpn;
use super::progress::Progress;

/// The longest hello that is read, with the heads of its records.
pub const HELLO_MAX: usize = 16 * 1024;
/// The longest name of a server.
pub const NAME_MAX: usize = 255;

const RECORD_HEAD: usize = 5;
const RECORD_MAX: usize = 16 * 1024;
const HANDSHAKE_RECORD: u8 = 22;
/// Records that no client begins with: change of cipher, alert, application data, heartbeat.
const OTHER_RECORDS: [u8; 4] = [20, 21, 23, 24];
const MAJOR_VERSION: u8 = 3;
const MINOR_VERSION_MAX: u8 = 0x0F;

const HANDSHAKE_HEAD: usize = 4;
const CLIENT_HELLO: u8 = 1;
const RANDOM: usize = 32;
const SESSION_ID_MAX: usize = 32;

const SERVER_NAME: usize = 0;
const HOST_NAME: usize = 0;
const ALPN: usize = 16;

/// The shortest hello: one cipher, one compression, no extensions.
const LEN_MIN: usize = RECORD_HEAD + HANDSHAKE_HEAD + 2 + RANDOM + 1 + 4 + 2;

/// What a hello says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The name of the server: lower case, without a dot at its end. With an encrypted hello (RFC 9849) it is the public
    /// name, because the other one cannot be read.
    pub server_name: Option<Box<str>>,
    /// The protocols that the client offers.
    pub alpn: Alpn,
}

/// The reason why bytes are no hello that can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloFault {
    /// The first bytes are those of another protocol.
    NotTls,
    /// A hello of SSL 2.
    Ssl2,
    /// A record that is no part of a handshake, of an unknown version or of a wrong length.
    Record,
    /// A handshake that begins with another message.
    OtherMessage,
    /// Longer than [`HELLO_MAX`].
    TooLong,
    /// A part that does not end where it must.
    Length,
    /// The name of the server is empty, too long or has characters that no name has.
    Name,
    /// An extension or a name that there may be only one of.
    Twice,
}

impl HelloFault {
    /// Returns it in plain words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotTls => "the first bytes are no TLS",
            Self::Ssl2 => "a hello of SSL 2",
            Self::Record => "a TLS record that is no part of a hello",
            Self::OtherMessage => "the first message of TLS is no hello",
            Self::TooLong => "the hello is too long",
            Self::Length => "a length in the hello is wrong",
            Self::Name => "the server name in the hello is no name",
            Self::Twice => "the hello names two servers or has an extension twice",
        }
    }
}

/// Returns the hello with which `bytes` begin, and how many of them were read.
pub fn parse(bytes: &[u8]) -> Progress<ClientHello, HelloFault> {
    if let Err(stop) = looks_like_tls(bytes) {
        return stop.into();
    }
    let mut records = Records { bytes, at: 0, left: 0 };
    match hello(&mut records) {
        Ok(hello) => Progress::Done(hello, records.at),
        Err(stop) => stop.into(),
    }
}

/// Why reading ends before the hello does.
enum Stop {
    Missing(usize),
    Fault(HelloFault),
}

impl<T> From<Stop> for Progress<T, HelloFault> {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Missing(least) => Self::More(least),
            Stop::Fault(fault) => Self::Refused(fault),
        }
    }
}

impl From<HelloFault> for Stop {
    fn from(fault: HelloFault) -> Self {
        Self::Fault(fault)
    }
}

/// Fails where these bytes are of another protocol, where they are of no valid record of TLS, and where they are too few.
fn looks_like_tls(bytes: &[u8]) -> Result<(), Stop> {
    let missing = |least| Err(Stop::Missing(least));
    match *bytes {
        [] => missing(LEN_MIN),
        [HANDSHAKE_RECORD] => missing(LEN_MIN - 1),
        [HANDSHAKE_RECORD, MAJOR_VERSION, ..] => Ok(()),
        [first, MAJOR_VERSION, ..] if OTHER_RECORDS.contains(&first) => Err(HelloFault::Record.into()),
        [first] if OTHER_RECORDS.contains(&first) => missing(1),
        // Two bytes of length, the message, the version: SSL 2 itself, or TLS offered in a hello of SSL 2.
        [0x80..=0xFF, _, CLIENT_HELLO, 0 | MAJOR_VERSION, ..] => Err(HelloFault::Ssl2.into()),
        [0x80..=0xFF] | [0x80..=0xFF, _] | [0x80..=0xFF, _, CLIENT_HELLO] => missing(1),
        [..] => Err(HelloFault::NotTls.into()),
    }
}

/// The bytes of a handshake, out of the records that carry it.
struct Records<'a> {
    bytes: &'a [u8],
    /// The place of the next byte.
    at: usize,
    /// What is left of the record that it is in.
    left: usize,
}

impl<'a> Records<'a> {
    /// Takes the next piece that is in one record and has at most `len` bytes. At least one is there.
    fn piece(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        if self.left == 0 {
            self.open(len)?;
        }
        if self.at >= HELLO_MAX {
            return Err(HelloFault::TooLong.into());
        }
        let there = &self.bytes[self.at..self.bytes.len().min(HELLO_MAX)];
        let piece = &there[..len.min(self.left).min(there.len())];
        if piece.is_empty() {
            return Err(Stop::Missing(len));
        }
        self.at += piece.len();
        self.left -= piece.len();
        Ok(piece)
    }

    /// Reads the head of the next record. `len` bytes of its handshake are wanted.
    fn open(&mut self, len: usize) -> Result<(), Stop> {
        if self.at + RECORD_HEAD >= HELLO_MAX {
            return Err(HelloFault::TooLong.into());
        }
        let head = &self.bytes[self.at..];
        let is_wrong = |at: usize, allowed: std::ops::RangeInclusive<u8>| {
            head.get(at).is_some_and(|byte| !allowed.contains(byte))
        };
        if is_wrong(0, HANDSHAKE_RECORD..=HANDSHAKE_RECORD)
            || is_wrong(1, MAJOR_VERSION..=MAJOR_VERSION)
            || is_wrong(2, 0..=MINOR_VERSION_MAX)
        {
            return Err(HelloFault::Record.into());
        }
        let Some(&[.., high, low]) = head.first_chunk::<RECORD_HEAD>() else {
            return Err(Stop::Missing(RECORD_HEAD - head.len() + len));
        };
        self.left = usize::from(u16::from_be_bytes([high, low]));
        if !(1..=RECORD_MAX).contains(&self.left) {
            return Err(HelloFault::Record.into());
        }
        self.at += RECORD_HEAD;
        Ok(())
    }
}

/// A part of the hello with a length of its own, which nothing within it may cross.
struct Part<'a, 'b> {
    records: &'b mut Records<'a>,
    left: usize,
}

impl<'a> Part<'a, '_> {
    /// Gives `len` bytes to `take`, in pieces.
    fn pieces(&mut self, len: usize, mut take: impl FnMut(&'a [u8])) -> Result<(), Stop> {
        self.left = self.left.checked_sub(len).ok_or(HelloFault::Length)?;
        let mut missing = len;
        while missing > 0 {
            let piece = self.records.piece(missing)?;
            missing -= piece.len();
            take(piece);
        }
        Ok(())
    }

    fn skip(&mut self, len: usize) -> Result<(), Stop> {
        self.pieces(len, |_| {})
    }

    /// Reads a number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<usize, Stop> {
        let mut number = 0;
        self.pieces(N, |piece| {
            number = piece.iter().fold(number, |number, byte| (number << 8) | usize::from(*byte));
        })?;
        Ok(number)
    }

    /// Begins a part whose length is in the next `N` bytes.
    fn part<const N: usize>(&mut self) -> Result<Part<'a, '_>, Stop> {
        let len = self.number::<N>()?;
        self.left = self.left.checked_sub(len).ok_or(HelloFault::Length)?;
        Ok(Part { records: &mut *self.records, left: len })
    }

    /// Reads the rest of it.
    fn rest(mut self) -> Result<Vec<u8>, Stop> {
        let mut rest = Vec::with_capacity(self.left);
        self.pieces(self.left, |piece| rest.extend_from_slice(piece))?;
        Ok(rest)
    }

    /// Skips the rest of it.
    fn end(mut self) -> Result<(), Stop> {
        self.skip(self.left)
    }
}

fn hello(records: &mut Records<'_>) -> Result<ClientHello, Stop> {
    let mut message = Part { records, left: HELLO_MAX };
    if message.number::<1>()? != usize::from(CLIENT_HELLO) {
        return Err(HelloFault::OtherMessage.into());
    }
    let len = message.number::<3>()?;
    if len + HANDSHAKE_HEAD + RECORD_HEAD > HELLO_MAX {
        return Err(HelloFault::TooLong.into());
    }
    message.left = len;
    message.skip(2 + RANDOM)?;
    let session_id = message.part::<1>()?;
    if session_id.left > SESSION_ID_MAX {
        return Err(HelloFault::Length.into());
    }
    session_id.end()?;
    let ciphers = message.part::<2>()?;
    if ciphers.left < 2 || !ciphers.left.is_multiple_of(2) {
        return Err(HelloFault::Length.into());
    }
    ciphers.end()?;
    let compressions = message.part::<1>()?;
    if compressions.left == 0 {
        return Err(HelloFault::Length.into());
    }
    compressions.end()?;
    if message.left == 0 {
        return Ok(ClientHello::default());
    }
    let whole = message.left;
    let extensions = message.part::<2>()?;
    if extensions.left + 2 != whole {
        return Err(HelloFault::Length.into());
    }
    read_extensions(extensions)
}

fn read_extensions(mut extensions: Part<'_, '_>) -> Result<ClientHello, Stop> {
    let (mut name, mut alpn) = (None, None);
    while extensions.left > 0 && (name.is_none() || alpn.is_none()) {
        let kind = extensions.number::<2>()?;
        let extension = extensions.part::<2>()?;
        let is_second = match kind {
            SERVER_NAME => name.replace(server_name(extension)?).is_some(),
            ALPN => alpn.replace(protocols(extension)?).is_some(),
            // Unknown ones, and those that are sent only against servers that refuse unknown ones (RFC 8701).
            _ => {
                extension.end()?;
                false
            }
        };
        if is_second {
            return Err(HelloFault::Twice.into());
        }
    }
    Ok(ClientHello { server_name: name.flatten(), alpn: alpn.unwrap_or_default() })
}

/// Reads the list of names, of which one may be that of a host (RFC 6066).
fn server_name(mut extension: Part<'_, '_>) -> Result<Option<Box<str>>, Stop> {
    let whole = extension.left;
    let mut names = extension.part::<2>()?;
    if names.left == 0 || names.left + 2 != whole {
        return Err(HelloFault::Length.into());
    }
    let mut host = None;
    while names.left > 0 {
        let kind = names.number::<1>()?;
        let name = names.part::<2>()?;
        if kind != HOST_NAME {
            name.end()?;
        } else if host.is_some() {
            return Err(HelloFault::Twice.into());
        } else if !(1..=NAME_MAX).contains(&name.left) {
            return Err(HelloFault::Name.into());
        } else {
            host = Some(host_name(name.rest()?)?);
        }
    }
    Ok(host)
}

fn host_name(name: Vec<u8>) -> Result<Box<str>, Stop> {
    let mut name = String::from_utf8(name).map_err(|_| HelloFault::Name)?;
    if name.ends_with('.') {
        name.pop();
    }
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HelloFault::Name.into());
    }
    name.make_ascii_lowercase();
    Ok(name.into_boxed_str())
}

/// Reads the list of protocols (RFC 7301).
fn protocols(mut extension: Part<'_, '_>) -> Result<Alpn, Stop> {
    let whole = extension.left;
    let list = extension.part::<2>()?;
    if list.left + 2 != whole {
        return Err(HelloFault::Length.into());
    }
    Ok(Alpn::from_list(list.rest()?).ok_or(HelloFault::Length)?)
}
