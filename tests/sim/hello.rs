//! What clients of a listener begin with that reads hellos of TLS: mostly one, in records of any size, sometimes another
//! protocol, a part, or nothing. It is the beginning of their stream, so each byte of it has to reach their backend.
//!
//! Cases 130 and 131.

use l4lb::config::routing::OnNoSni;
use l4lb::preread::postgres::{self, Opening};
use l4lb::preread::{Progress, client_hello};
use l4lb::session::Side;
use l4lb::sys::Token;

use crate::conn::{Conn, Descriptor, Nanos};
use crate::greeting::Kind;
use crate::negotiation::{self, Negotiation, UNENCRYPTED};
use crate::network::Net;
use crate::random::to_usize;
use crate::stream::Stream;

/// A deadline is rounded up to a tick, and falls due in the first turn after it.
const TICK: Nanos = 1_000_000;

const NAMED: [&[u8]; 2] = [
    include_bytes!("../fuzz/corpus/hello/name-alpn"),
    include_bytes!("../fuzz/corpus/hello/one-byte-records"),
];
const NAMELESS: &[u8] = include_bytes!("../fuzz/corpus/hello/no-extensions");
const PLAIN: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const BAD: [&[u8]; 2] =
    [include_bytes!("../fuzz/corpus/hello/alert"), include_bytes!("../fuzz/corpus/hello/ssl2")];

/// What the first bytes of a client are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum First {
    /// Its listener reads none.
    #[default]
    Anything,
    /// A hello for a server.
    Named,
    /// A hello without a name.
    Nameless,
    /// Another protocol.
    Plain,
    /// A hello that is malformed.
    Bad,
    /// A hello that never ends.
    Cut,
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hello {
    pub(crate) first: First,
    pub(crate) len: u64,
}

impl Net {
    /// A client that has just connected, and has its greeting, begins with a hello, or not.
    pub(crate) fn begin_with_hello(&mut self, id: usize) {
        let conn = &mut self.conns[id];
        let is_refused = matches!(conn.greeting.kind, Kind::Bad | Kind::Cut);
        if self.reads_hellos.is_none() || is_refused {
            return;
        }
        let (first, bytes) = match id / 3 % 8 {
            _ if self.peers_behave => (First::Named, NAMED[id % 2]),
            0..3 => (First::Named, NAMED[id % 2]),
            3 => (First::Nameless, NAMELESS),
            4 => (First::Plain, PLAIN),
            5 => (First::Bad, BAD[id % 2]),
            _ => (First::Cut, NAMED[id % 2]),
        };
        let (first, bytes) = if self.is_postgres {
            conn.negotiate(id, self.peers_behave, first, bytes)
        } else {
            (first, bytes)
        };
        let len = bytes.len() as u64;
        let payload = conn.peer.total - conn.greeting.len();
        let greeting = conn.prefix();
        // One in three is silent.
        let cut = if id.is_multiple_of(3) { 0 } else { (id as u64 / 24) % (len / 2) };
        conn.peer.sends(greeting + if first == First::Cut { cut } else { len + payload });
        conn.hello = Hello { first, len };
        conn.stream = Stream::Begun(bytes, id as u64 + 1);
    }

    /// Panics when `worker` waits for too long for a hello that its client must send.
    pub(crate) fn check_hellos(&self, worker: usize, patience: Nanos) {
        if self.reads_hellos != Some(OnNoSni::Reject) {
            return;
        }
        for &id in &self.live {
            let conn = &self.conns[id];
            let is_client = matches!(conn.token, Some(Token::Session(_, Side::Client)));
            let is_ours = is_client && conn.worker == worker && conn.descriptor == Descriptor::Open;
            if is_ours && conn.lacks_hello() && conn.partner.is_none() {
                let over = (self.now - conn.opened).saturating_sub(patience);
                assert!(over < TICK, "#{id}: a hello is {over} ns overdue: {conn:?}");
            }
        }
    }
}

impl Conn {
    /// As a client of PostgreSQL, most ask for TLS before their hello. Returns what it begins its stream with.
    fn negotiate(
        &mut self,
        id: usize,
        is_good: bool,
        first: First,
        bytes: &'static [u8],
    ) -> (First, &'static [u8]) {
        let (mut begin, answers) = match first {
            First::Plain if id.is_multiple_of(2) => Negotiation::of_gssapi(),
            First::Plain => Default::default(),
            First::Cut if id.is_multiple_of(2) => Default::default(),
            First::Named | First::Nameless | First::Bad | First::Cut | First::Anything => {
                Negotiation::of_client(id, is_good)
            }
        };
        let asks = !begin.bytes.is_empty();
        (self.negotiation, self.header) = (std::mem::take(&mut begin), answers);
        match first {
            First::Plain => (first, UNENCRYPTED[id / 2 % 2]),
            First::Cut if id.is_multiple_of(2) => (first, negotiation::CUT),
            // Without a request they are of another protocol.
            First::Bad if !asks => (First::Plain, bytes),
            First::Bad if id.is_multiple_of(3) => (first, PLAIN),
            First::Bad | First::Named | First::Nameless | First::Cut | First::Anything => (first, bytes),
        }
    }

    /// Whether not all of the hello that it must begin with has come.
    pub(crate) fn lacks_hello(&self) -> bool {
        self.hello.first == First::Cut
            || self.hello.first != First::Anything && self.payload(self.arrived) < self.hello.len
    }

    /// A worker has looked at what has come. Of a client that has reset nothing follows.
    pub(crate) fn note_look(&mut self, is_postgres: bool) {
        if !self.dead || self.read < self.greeting.len() {
            return;
        }
        let mut bytes = vec![0; to_usize(self.unread()).min(client_hello::HELLO_MAX)];
        self.copy_to(self.read, &mut bytes);
        let is_hello = || matches!(client_hello::parse(&bytes), Progress::More(_));
        let was_granted = self.negotiation.len() > 0 && self.read >= self.prefix();
        self.has_left_its_hello |= match is_postgres && !was_granted {
            true => match postgres::parse(&bytes) {
                Progress::More(_) => true,
                Progress::Done(Opening::DirectTls, _) => is_hello(),
                Progress::Done(..) | Progress::Refused(_) => false,
            },
            false => is_hello(),
        };
    }

    /// Returns the bytes that it sends before it waits for any.
    pub(crate) fn opening_len(&self) -> u64 {
        (self.prefix() + self.hello.len).min(self.peer.total)
    }

    /// Returns whether the hello of this client, as far as it has come, may be turned away for that reason.
    pub(crate) fn is_turned_away(&self, reason: &str, is_late: bool) -> bool {
        let has_any = self.payload(self.arrived) > 0;
        match reason {
            "hello_bad" => self.hello.first == First::Bad && has_any,
            "no_sni" => match self.hello.first {
                First::Nameless | First::Plain if has_any => true,
                First::Anything => false,
                First::Nameless | First::Plain | First::Named | First::Bad | First::Cut => {
                    self.fin_in && !self.dead && self.lacks_hello()
                }
            },
            "preread_timeout" => is_late && self.lacks_hello(),
            _ => false,
        }
    }
}
