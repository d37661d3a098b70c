//! What a client must send before a backend is chosen: a header of the PROXY protocol, where its listener reads one.
//!
//! The bytes are looked at where they are, in the kernel, and taken only as far as the header goes, once it is whole. So
//! what follows it is read by the relay, and nothing is held for a client whose header comes in pieces.

use std::io;
use std::net::SocketAddr;

use crate::base::time::Instant;
use crate::config::proxy::Welcome;
use crate::pool::Listener;
use crate::preread::{HEADER_MAX, Header, Progress, parse_proxy};
use crate::session::{CloseReason, Outcome, Session, Timeouts};
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::relay::Slot;
use crate::worker::relay::buffers::Buffers;
use crate::worker::relay::slot::{Front, Origin};

/// Returns the session of a client that was accepted from this peer.
pub(super) fn session(listener: &Listener, timeouts: Timeouts, peer: SocketAddr, now: Instant) -> Session {
    let settings = &listener.settings;
    match &settings.proxy_protocol {
        Some(proxy) if proxy.welcome(peer.ip()) == Welcome::Header => {
            Session::opening(timeouts, now, settings.preread)
        }
        Some(_) | None => Session::new(timeouts, now),
    }
}

/// Looks at what has come from a client, and takes its header once that is whole. `may_end`: it may have ended its
/// stream.
pub(super) fn preread<K: Kernel>(
    kernel: &mut K,
    (socket, may_end): (&K::Socket, bool),
    buffers: &mut Buffers,
    stats: &WorkerStats,
    origin: &mut Origin,
) -> Outcome {
    let room = &mut buffers.room_to_look()[..HEADER_MAX];
    // Asked before the peek, which then returns all that ever comes.
    let has_ended = may_end && kernel.has_ended(socket);
    let there = match kernel.peek(socket, room) {
        Ok(0) => return Outcome::Eof,
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Outcome::WouldBlock,
        Err(error) => return Outcome::Failed(error.kind()),
    };
    match parse_proxy(&room[..there]) {
        Progress::More(_) if has_ended => Outcome::Eof,
        Progress::More(_) => Outcome::WouldBlock,
        Progress::Refused(refusal) => {
            log::debug!(peer:% = origin.peer(), why = refusal.as_str(); "a client is refused");
            Outcome::Refused(CloseReason::ProxyBad)
        }
        Progress::Done(header, len) => match take(kernel, socket, &mut room[..len]) {
            Ok(()) => {
                stats.on_header_taken(len, header == Header::Local);
                *origin = Origin::Front(Box::new(Front { peer: origin.peer(), header }));
                Outcome::Done
            }
            Err(error) => Outcome::Failed(error.kind()),
        },
    }
}

/// Reads bytes that a peek has returned.
fn take<K: Kernel>(kernel: &mut K, socket: &K::Socket, mut room: &mut [u8]) -> io::Result<()> {
    while !room.is_empty() {
        match kernel.read(socket, room)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => room = &mut room[bytes..],
        }
    }
    Ok(())
}

impl<K: Kernel> Slot<K> {
    /// Returns the reason of an end as it is reported: a check of a balancer in front may end by a reset.
    pub(super) fn reported(&self, reason: CloseReason) -> CloseReason {
        let is_local = self.origin.header() == Some(Header::Local);
        let by_client = matches!(reason, CloseReason::ClientGone | CloseReason::ClientReset);
        let [to_backend, _] = self.session.given();
        if is_local && by_client && to_backend == 0 { CloseReason::Done } else { reason }
    }
}
