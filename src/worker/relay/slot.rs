//! Everything that a worker holds for one session. Other parts of the worker read it; only the relay changes it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::time::Instant;
use crate::base::timer_wheel::TimerId;
use crate::messages::query::Asked;
use crate::pool::{Backend, BackendId, Choice, Lease, Listener, PoolId};
use crate::preread::client_hello::ClientHello;
use crate::preread::{Alpn, Header};
use crate::session::{CloseReason, Session};
use crate::sys::Kernel;
use crate::worker::relay::conduit::Conduit;
use crate::worker::relay::uncounted::Counting;

pub(in crate::worker) struct Slot<K: Kernel> {
    pub(super) session: Session,
    pub(super) client: K::Socket,
    pub(super) backend: Option<K::Socket>,
    /// The lease on the backend of `backend`.
    pub(super) lease: Option<Lease>,
    /// Why that lease; left behind where there is none any more, see [`Slot::choice`].
    pub(super) choice: Choice,
    /// By direction.
    pub(super) conduits: [Conduit<K::Pipe>; 2],
    /// The only timer of the session, and when it fires.
    pub(super) timer: Option<(TimerId, Instant)>,
    pub(super) origin: Origin,
    /// The version that accepted it.
    pub(super) listener: Arc<Listener>,
    pub(super) pool: PoolId,
    /// Backends that could not be dialed, and why the last one could not. Nearly always none.
    pub(super) failed: Option<Box<FailedDials>>,
    pub(super) queued: bool,
    /// Keepalive probes of the backend are enabled.
    pub(super) kept_alive: bool,
    pub(super) counting: Counting,
    /// Seconds from accept to the latest periodic line, or to when it was due.
    pub(super) line_age: u32,
}

/// The other end of the client's socket, the peer, and the client that it connects for.
pub(super) enum Origin {
    /// The peer is the client, and nothing is known of it, or nothing yet.
    Peer(SocketAddr),
    /// More is known. Few listeners ask for more, so the size of a session is that of the other case.
    Opened(Box<Opened>),
}

/// What a client has sent before its backend was chosen.
pub(super) struct Opened {
    pub(super) peer: SocketAddr,
    /// The peer is a balancer in front.
    pub(super) header: Option<Header>,
    /// Until its route is chosen.
    pub(super) hello: ClientHello,
    /// What is left of its hello then, for logs and answers.
    pub(super) asked: Option<Arc<Asked>>,
    /// The protocols that it offers, if the header to its backend may have them.
    pub(super) alpn: Option<Alpn>,
    pub(super) encryption: Encryption,
    /// What its backend is asked for first, while the answer is awaited.
    pub(super) request: Option<Request>,
}

/// What a client of PostgreSQL has asked for before its hello, and got as answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encryption {
    /// It has not asked.
    #[default]
    Unasked,
    /// It has asked for GSSAPI, which was refused.
    Refused,
    /// It has asked for TLS, which was granted: its backend has to grant it, too.
    Granted,
}

/// The request for TLS to a backend, behind the header of its pool.
pub(super) struct Request {
    pub(super) bytes: Vec<u8>,
    pub(super) written: usize,
    /// The length of the header.
    pub(super) header: usize,
}

impl Request {
    /// Returns the bytes of the header that were not written.
    pub(super) fn unwritten_header(&self) -> usize {
        self.header.saturating_sub(self.written)
    }
}

impl Opened {
    fn new(peer: SocketAddr) -> Self {
        let (hello, encryption) = (ClientHello::default(), Encryption::default());
        Self { peer, header: None, hello, asked: None, alpn: None, encryption, request: None }
    }
}

impl Origin {
    pub(super) fn peer(&self) -> SocketAddr {
        match self {
            Self::Peer(peer) => *peer,
            Self::Opened(opened) => opened.peer,
        }
    }

    /// Returns the header of the client, once that was taken.
    pub(super) fn header(&self) -> Option<Header> {
        match self {
            Self::Peer(_) => None,
            Self::Opened(opened) => opened.header,
        }
    }

    /// Returns the answer to its requests for encryption.
    pub(super) fn encryption(&self) -> Encryption {
        match self {
            Self::Peer(_) => Encryption::Unasked,
            Self::Opened(opened) => opened.encryption,
        }
    }

    /// Returns the request to its backend, while the answer is awaited.
    pub(super) fn request(&self) -> Option<&Request> {
        match self {
            Self::Peer(_) => None,
            Self::Opened(opened) => opened.request.as_ref(),
        }
    }

    /// The same, which ends it.
    pub(super) fn take_request(&mut self) -> Option<Request> {
        match self {
            Self::Peer(_) => None,
            Self::Opened(opened) => opened.request.take(),
        }
    }

    /// Returns the place of what the client has sent.
    pub(super) fn opened(&mut self) -> &mut Opened {
        loop {
            match self {
                Self::Opened(opened) => return opened,
                Self::Peer(peer) => {
                    *self = Self::Opened(Box::new(Opened::new(*peer)));
                }
            }
        }
    }
}

pub(super) struct FailedDials {
    pub(super) tried: Vec<BackendId>,
    /// The last of them that is to blame, or the first that is not; it may have left its pool.
    pub(super) last: Arc<Backend>,
    pub(super) reason: CloseReason,
    /// Backends towards which no source port was left, or for which others wait already.
    pub(super) portless: Vec<(BackendId, SocketAddr)>,
    /// The epoch that it has waited for since the last of them failed.
    pub(super) awaited: Option<u64>,
}

impl<K: Kernel> Slot<K> {
    pub(in crate::worker) fn session(&self) -> &Session {
        &self.session
    }

    pub(in crate::worker) fn listener(&self) -> &Listener {
        &self.listener
    }

    pub(in crate::worker) fn pool(&self) -> PoolId {
        self.pool
    }

    /// The client that is balanced, and that logs and answers name: as its header says, or else the socket.
    pub(in crate::worker) fn client(&self) -> SocketAddr {
        match self.origin.header() {
            Some(Header::Client(addresses)) => addresses.source,
            Some(Header::Unknown | Header::Local) | None => self.origin.peer(),
        }
    }

    /// The balancer in front that has sent the header of the client.
    pub(in crate::worker) fn front(&self) -> Option<SocketAddr> {
        self.origin.header().map(|_| self.origin.peer())
    }

    /// What it has asked for, and its route.
    pub(in crate::worker) fn asked(&self) -> Option<&Arc<Asked>> {
        match &self.origin {
            Origin::Peer(_) => None,
            Origin::Opened(opened) => opened.asked.as_ref(),
        }
    }

    /// Returns the bytes of the header to its backend that are not written.
    pub(super) fn unwritten_header(&self) -> usize {
        let request = self.origin.request().map_or(0, Request::unwritten_header);
        request + usize::from(self.session.unwritten_preface())
    }

    /// Returns the backend that it is on, or else the last that could not be dialed.
    pub(in crate::worker) fn backend_to_report(&self) -> Option<&Arc<Backend>> {
        let failed = || self.failed.as_ref().map(|failed| &failed.last);
        self.lease.as_ref().map(Lease::backend).or_else(failed)
    }

    /// Backends that a dial has failed to.
    pub(in crate::worker) fn tried(&self) -> &[BackendId] {
        self.failed.as_ref().map_or(&[], |failed| &failed.tried)
    }

    /// Why it is on the backend that it is on.
    pub(in crate::worker) fn choice(&self) -> Option<Choice> {
        self.lease.as_ref().map(|_| self.choice)
    }

    /// The epoch in which it chose last, where the worker runs epoch `now`. One without a lease is between two choices,
    /// or found no backend a moment ago.
    pub(in crate::worker) fn epoch(&self, now: u64) -> u64 {
        self.choice().map_or(now, |choice| choice.epoch(now))
    }

    /// Returns the source address of the backend connection, as the kernel has it.
    pub(in crate::worker) fn source(&self, kernel: &mut K) -> Option<SocketAddr> {
        kernel.local_address(self.backend.as_ref()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Linux;

    #[test]
    fn an_idle_session_is_small() {
        assert!(size_of::<Slot<Linux>>() <= 352, "{} bytes", size_of::<Slot<Linux>>());
    }
}
