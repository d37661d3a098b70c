//! What clients of a listener begin with that reads headers of the PROXY protocol: mostly what they must, sometimes not,
//! and some come from elsewhere.
//!
//! Cases 122 and 123.

use std::net::{IpAddr, SocketAddr};

use l4lb::config::proxy::{ProxyIn, Welcome};
use l4lb::session::Side;
use l4lb::stats::RefuseReason;
use l4lb::sys::Token;

use crate::conn::{Conn, Descriptor, Nanos};
use crate::network::{Net, client_address, front_address, listed_address};

/// The address that the clients of balancers in front have connected to.
pub(crate) const DESTINATION: ([u8; 4], u16) = ([198, 51, 100, 7], 443);
/// Lists of a listener: of those in 192.160.0.0/12, only the first [`ALLOWED`] addresses are admitted.
pub(crate) const LISTS: &str = "allow = [\"0.0.0.0/0\", \"192.160.0.0/30\"]\ndeny = [\"192.160.0.0/12\"]\n";
const ALLOWED: usize = 4;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// A deadline is rounded up to a tick, and falls due in the first turn after it.
const TICK: Nanos = 1_000_000;

/// What a header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// There is none.
    #[default]
    Nothing,
    /// It names the client.
    Client,
    /// It names none.
    Unknown,
    /// It stands for no client.
    Local,
    /// It is no header.
    Bad,
    /// It never ends.
    Cut,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Greeting {
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
}

impl Greeting {
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The greeting of that client. `is_good`: it has to be served.
    fn of(id: usize, is_good: bool) -> Self {
        let SocketAddr::V4(source) = client_address(id) else { panic!("clients have IPv4") };
        let (ip, port) = DESTINATION;
        let line = |text: String| text.into_bytes();
        let v1 = || {
            let to = IpAddr::from(ip);
            line(format!("PROXY TCP4 {} {to} {} {port}\r\n", source.ip(), source.port()))
        };
        let v2 = || {
            let ips = [source.ip().octets(), ip].concat();
            [SIGNATURE, &[0x21, 0x11, 0, 12], &ips, &source.port().to_be_bytes(), &port.to_be_bytes()]
                .concat()
        };
        let cut = |bytes: Vec<u8>| bytes[..id / 16 % bytes.len()].to_vec();
        let (kind, bytes) = match id / 2 % 12 {
            _ if is_good => (Kind::Client, v2()),
            0..3 => (Kind::Client, v2()),
            3..6 => (Kind::Client, v1()),
            6 => (Kind::Unknown, line("PROXY UNKNOWN whatever\r\n".into())),
            7 => (Kind::Unknown, [SIGNATURE, &[0x21, 0, 0, 3, 4, 0, 0]].concat()),
            8 => (Kind::Local, [SIGNATURE, &[0x20, 0, 0, 0]].concat()),
            9 => (Kind::Bad, line("PROXY TCP4 192.0.2.1 198.51.100.7 1 65536\r\n".into())),
            10 => (Kind::Bad, [SIGNATURE, &[0x22, 0x11, 0, 12]].concat()),
            _ => (Kind::Cut, cut(if id.is_multiple_of(4) { v1() } else { v2() })),
        };
        Self { kind, bytes }
    }
}

impl Net {
    /// The address of a client's socket.
    pub(crate) fn peer_address(&self, id: usize) -> SocketAddr {
        match &self.conns[id] {
            conn if conn.is_listed => listed_address(id),
            conn if conn.is_behind => front_address(id),
            _ => client_address(id),
        }
    }

    /// Why that client has to be refused, if it has to.
    pub(crate) fn refusal(&self, id: usize) -> Option<RefuseReason> {
        if self.conns[id].is_listed && id >> 4 >= ALLOWED {
            return Some(RefuseReason::Denied);
        }
        (self.welcome(id) == Welcome::Reject).then_some(RefuseReason::ProxyUntrusted)
    }

    /// The way in which listeners treat that client.
    pub(crate) fn welcome(&self, id: usize) -> Welcome {
        let welcome = |proxy: &ProxyIn| proxy.welcome(self.peer_address(id).ip());
        self.listens_behind.as_ref().map_or(Welcome::Plain, welcome)
    }

    /// A client that has just connected begins as it must, or not.
    pub(crate) fn greet(&mut self, id: usize) {
        let conn = &mut self.conns[id];
        conn.is_listed = self.has_lists && !self.peers_behave && id % 8 == 3;
        conn.is_behind =
            self.listens_behind.is_some() && !conn.is_listed && (self.peers_behave || !id.is_multiple_of(8));
        if self.welcome(id) != Welcome::Header {
            return;
        }
        let greeting = Greeting::of(id, self.peers_behave);
        let conn = &mut self.conns[id];
        let is_cut = greeting.kind == Kind::Cut;
        conn.peer.sends(greeting.len() + if is_cut { 0 } else { conn.peer.total });
        conn.greeting = greeting;
    }

    /// The address that logs have of a client.
    pub(crate) fn reported_address(&self, id: usize) -> SocketAddr {
        let conn = &self.conns[id];
        let is_named = conn.greeting.kind == Kind::Client && conn.has_greeted();
        if is_named { client_address(id) } else { self.peer_address(id) }
    }

    /// Panics when `worker` waits for too long for a header.
    pub(crate) fn check_openings(&self, worker: usize, patience: Nanos) {
        for &id in &self.live {
            let conn = &self.conns[id];
            let is_client = matches!(conn.token, Some(Token::Session(_, Side::Client)));
            let is_ours = is_client && conn.worker == worker && conn.descriptor == Descriptor::Open;
            if is_ours && conn.greeting.kind != Kind::Nothing && !conn.has_greeted() {
                let over = (self.now - conn.moved).saturating_sub(patience);
                assert!(over < TICK, "#{id}: a header is {over} ns overdue: {conn:?}");
            }
        }
    }
}

impl Conn {
    /// Whether its header was taken.
    pub(crate) fn has_greeted(&self) -> bool {
        self.greeting.kind != Kind::Nothing
            && self.read >= self.greeting.len()
            && self.greeting.kind != Kind::Cut
    }
}
