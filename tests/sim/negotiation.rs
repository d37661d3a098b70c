//! What is said of encryption before a stream of PostgreSQL: the requests of a client, which the balancer answers, and
//! the answer of a backend to the same request. Both are taken and belong to no stream.
//!
//! Case 132.

use l4lb::preread::postgres::SSL_REQUEST;

use crate::conn::{Conn, Stage};
use crate::network::Net;
use crate::random::to_usize;
use crate::stream::Stream;

const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x30];
const REQUEST_LEN: u64 = 8;
const STARTUP: &[u8] = b"\0\0\0\x08\0\x03\0\0";
const CANCEL: &[u8] = b"\0\0\0\x10\x04\xD2\x16\x2E\0\0\0\x01\0\0\0\x02";

/// What a client of PostgreSQL begins with that wants no encryption, or is refused it.
pub(crate) const UNENCRYPTED: [&[u8]; 2] = [STARTUP, CANCEL];
/// A part of it never ends.
pub(crate) const CUT: &[u8] = &SSL_REQUEST;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Negotiation {
    /// Requests of a client, or the answer of a backend.
    pub(crate) bytes: Vec<u8>,
    /// A backend that sends more before it may.
    pub(crate) stuffs: bool,
    /// A worker has found more than the answer.
    pub(crate) is_stuffed: bool,
}

impl Negotiation {
    /// The requests of that client, with the answers to them.
    pub(crate) fn of_client(id: usize, is_good: bool) -> (Self, Vec<u8>) {
        let (bytes, answers): (Vec<u8>, &[u8]) = match id / 5 % 4 {
            _ if is_good => (SSL_REQUEST.to_vec(), b"S"),
            0 => (Vec::new(), b""),
            1 => ([GSS_REQUEST, SSL_REQUEST].concat(), b"NS"),
            _ => (SSL_REQUEST.to_vec(), b"S"),
        };
        (Self { bytes, ..Self::default() }, answers.to_vec())
    }

    /// A request that is refused, with that answer.
    pub(crate) fn of_gssapi() -> (Self, Vec<u8>) {
        (Self { bytes: GSS_REQUEST.to_vec(), ..Self::default() }, b"N".to_vec())
    }

    fn of_backend(id: usize, is_good: bool) -> Self {
        let answer: &[u8] = match id % 8 {
            _ if is_good => b"S",
            0 => b"N",
            1 => b"E",
            _ => b"S",
        };
        Self { bytes: answer.to_vec(), stuffs: !is_good && id % 8 == 2, is_stuffed: false }
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Net {
    /// The backend `id` is dialed for that client. Returns the request that it gets first.
    pub(crate) fn begin_negotiation(&mut self, id: usize, client: usize) -> Vec<u8> {
        let was_granted = self.conns[client].negotiation.bytes.ends_with(&SSL_REQUEST);
        if !was_granted {
            return Vec::new();
        }
        let negotiation = Negotiation::of_backend(id, self.peers_behave);
        let conn = &mut self.conns[id];
        conn.peer.sends(negotiation.len() + conn.peer.total);
        conn.negotiation = negotiation;
        SSL_REQUEST.to_vec()
    }
}

impl Conn {
    /// A backend is dialed for this client: the requests that were not answered by then belong to its stream.
    pub(crate) fn settle_negotiation(&mut self) {
        let taken = to_usize(self.read.saturating_sub(self.greeting.len())).min(self.negotiation.bytes.len());
        let rest = self.negotiation.bytes.split_off(taken);
        if rest.is_empty() {
            return;
        }
        self.header.truncate(taken / to_usize(REQUEST_LEN));
        let Stream::Begun(hello, stream) = self.stream else { panic!("it begins with a hello") };
        self.hello.len += rest.len() as u64;
        // Rare, and few bytes: such a beginning lives as long as the program.
        self.stream = Stream::Begun(Box::leak([&rest, hello].concat().into_boxed_slice()), stream);
    }

    /// Returns how many bytes it may have sent by now.
    pub(crate) fn may_have_sent(&self) -> u64 {
        let (received, expected) = (self.peer.received, self.header.len() as u64);
        match self.dialed_port {
            _ if self.negotiation.bytes.is_empty() => u64::MAX,
            None if received < expected => self.greeting.len() + REQUEST_LEN * (received + 1),
            Some(_) if received < expected => 0,
            Some(_) if received == expected && !self.negotiation.stuffs => self.negotiation.len(),
            None | Some(_) => u64::MAX,
        }
    }

    /// Returns whether this backend was asked for TLS, and has yet to grant it.
    pub(crate) fn has_yet_to_grant(&self) -> bool {
        let has_granted = self.negotiation.bytes == b"S" && self.read > 0 && !self.negotiation.is_stuffed;
        self.dialed_port.is_some() && !self.negotiation.bytes.is_empty() && !has_granted
    }

    /// Returns whether it has answered, and not by granting TLS.
    pub(crate) fn has_refused(&self) -> bool {
        self.has_yet_to_grant() && self.read > 0 && self.stage == Stage::Open
    }

    /// Returns whether it was answered, as a client, and has ended its stream without a whole hello.
    pub(crate) fn has_left_its_request(&self) -> bool {
        let was_answered = !self.negotiation.bytes.is_empty() && self.read > self.greeting.len();
        was_answered && self.fin_in && self.lacks_hello()
    }
}
