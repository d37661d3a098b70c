//! What a client must send before a backend is chosen: a header of the PROXY protocol, and a hello of TLS, where its
//! listener reads them; `encryption` is what may come in between.
//!
//! The bytes are looked at where they are, in the kernel, and taken only as far as the header goes, once it is whole. So
//! what follows it, the hello too, is read by the relay, and nothing is held while a header comes in pieces.

use std::net::SocketAddr;

use crate::base::time::Instant;
use crate::config::model;
use crate::config::proxy::Welcome;
use crate::config::routing::{OnNoSni, Reads, Tls};
use crate::pool::Listener;
use crate::preread::client_hello::{self, HELLO_MAX, HelloFault};
use crate::preread::{HEADER_MAX, Header, Progress, parse_proxy};
use crate::session::{CloseReason, Outcome, Session, Timeouts};
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::relay::Slot;
use crate::worker::relay::buffers::Buffers;
use crate::worker::relay::encryption;
use crate::worker::relay::look::{Look, take};
use crate::worker::relay::slot::{Encryption, Origin};

/// Returns the session of a client that was accepted from this peer.
pub(super) fn session(listener: &Listener, timeouts: Timeouts, peer: SocketAddr, now: Instant) -> Session {
    if listener.awaits_more(peer.ip()) {
        Session::opening(timeouts, now, listener.settings.preread)
    } else {
        Session::new(timeouts, now)
    }
}

/// Looks at what has come from a client: takes its header once that is whole, and reads its hello, which stays.
pub(super) fn preread<K: Kernel>(
    kernel: &mut K,
    look: &Look<'_, K::Socket>,
    buffers: &mut Buffers,
    stats: &WorkerStats,
    (listener, origin): (&Listener, &mut Origin),
) -> Outcome {
    if awaits_header(listener, origin) {
        let outcome = take_header(kernel, look, buffers, stats, origin);
        if outcome != Outcome::Done {
            return outcome;
        }
    }
    let Some(reads) = listener.settings.routing.as_ref().and_then(|routing| routing.reads) else {
        return Outcome::Done;
    };
    let Reads { tls, on_no_sni } = reads;
    match tls {
        Tls::Passthrough => {}
        Tls::Postgres => match encryption::answer(kernel, look, buffers, stats, origin) {
            Ok(()) => {}
            Err(outcome) => return by(on_no_sni, look, outcome),
        },
    }
    by(on_no_sni, look, read_hello(kernel, look, buffers, origin))
}

fn awaits_header(listener: &Listener, origin: &Origin) -> bool {
    let proxy = listener.settings.proxy_protocol.as_ref();
    origin.header().is_none()
        && proxy.is_some_and(|proxy| proxy.welcome(origin.peer().ip()) == Welcome::Header)
}

fn take_header<K: Kernel>(
    kernel: &mut K,
    look: &Look<'_, K::Socket>,
    buffers: &mut Buffers,
    stats: &WorkerStats,
    origin: &mut Origin,
) -> Outcome {
    let room = &mut buffers.room_to_look()[..HEADER_MAX];
    match look.parse(kernel, room, parse_proxy) {
        Err(outcome) => outcome,
        Ok(Progress::More(_)) => Outcome::WouldBlock,
        Ok(Progress::Refused(refusal)) => {
            log::debug!(peer:% = origin.peer(), why = refusal.as_str(); "a client is refused");
            Outcome::Refused(CloseReason::ProxyBad)
        }
        Ok(Progress::Done(header, len)) => match take(kernel, look.socket, &mut room[..len]) {
            Ok(()) => {
                stats.on_header_taken(len, header == Header::Local);
                origin.opened().header = Some(header);
                Outcome::Done
            }
            Err(error) => Outcome::Failed(error.kind()),
        },
    }
}

/// Returns what becomes of a client by its listener, if it names no server.
fn by<S>(on_no_sni: OnNoSni, look: &Look<'_, S>, outcome: Outcome) -> Outcome {
    let is_silent = look.is_late && outcome == Outcome::WouldBlock;
    let is_nameless = is_silent || outcome == Outcome::Refused(CloseReason::NoSni);
    if is_nameless && on_no_sni == OnNoSni::Default { Outcome::Done } else { outcome }
}

/// Reads a hello without taking it. One without a name, and the bytes of another protocol, count as refused for that.
fn read_hello<K: Kernel>(
    kernel: &mut K,
    look: &Look<'_, K::Socket>,
    buffers: &mut Buffers,
    origin: &mut Origin,
) -> Outcome {
    let was_granted = origin.encryption() == Encryption::Granted;
    let room = &mut buffers.room_to_look()[..HELLO_MAX];
    match look.parse(kernel, room, client_hello::parse) {
        Ok(Progress::Done(hello, _)) => {
            let has_name = hello.server_name.is_some();
            origin.opened().hello = hello;
            if has_name { Outcome::Done } else { Outcome::Refused(CloseReason::NoSni) }
        }
        // No server would have another protocol, or an end, from a client that it has granted TLS.
        Err(Outcome::Eof) if !was_granted => Outcome::Refused(CloseReason::NoSni),
        Ok(Progress::Refused(HelloFault::NotTls)) if !was_granted => Outcome::Refused(CloseReason::NoSni),
        Ok(Progress::Refused(fault)) => {
            log::debug!(peer:% = origin.peer(), why = fault.as_str(); "a client is refused");
            Outcome::Refused(CloseReason::HelloBad)
        }
        Ok(Progress::More(_)) => Outcome::WouldBlock,
        Err(outcome) => outcome,
    }
}

/// Returns the timeouts of a session to this pool.
pub(super) fn timeouts(own: &model::Timeouts, pool: &model::Pool) -> Timeouts {
    Timeouts::new(own.connect, own.idle, own.half_close, pool.tcp.user_timeout)
}

impl<K: Kernel> Slot<K> {
    /// Returns the reason of an end as it is reported: a check of a balancer in front may end by a reset.
    pub(super) fn reported(&self, reason: CloseReason) -> CloseReason {
        let is_local =
            self.origin.header() == Some(Header::Local) && self.origin.encryption() == Encryption::Unasked;
        let by_client = matches!(reason, CloseReason::ClientGone | CloseReason::ClientReset);
        let [to_backend, _] = self.session.given();
        if is_local && by_client && to_backend == 0 { CloseReason::Done } else { reason }
    }
}
