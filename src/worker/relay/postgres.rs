//! The requests of PostgreSQL for TLS: of a client, and to its backend.
//!
//! A client shows its hello only once TLS was granted, so the balancer grants it, and only then can choose a backend,
//! which it has to ask for the same. That is a part of the dial: until the backend has granted it nothing of the client
//! is read, so the next backend can be dialed where one refuses.

use std::io;

use crate::base::slots::Key;
use crate::preread::Progress;
use crate::preread::postgres::{Opening, OpeningFault, REQUEST_LEN, SSL_REQUEST, parse};
use crate::session::{CloseReason, Outcome};
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::core::Core;
use crate::worker::proxy_header;
use crate::worker::relay::buffers::Buffers;
use crate::worker::relay::header;
use crate::worker::relay::opening::{Look, take};
use crate::worker::relay::slot::{Encryption, Origin, Request};
use crate::worker::relay::{Relay, Slot};

const GRANTED: u8 = b'S';
const REFUSED: u8 = b'N';

/// Takes the requests of a client for encryption, and answers them: TLS is granted, GSSAPI refused. Fails unless a hello
/// is to be read next; without encryption a client counts as refused for naming no server.
pub(super) fn answer<K: Kernel>(
    kernel: &mut K,
    look: &Look<'_, K::Socket>,
    buffers: &mut Buffers,
    stats: &WorkerStats,
    origin: &mut Origin,
) -> Result<(), Outcome> {
    // At most one request for each.
    while origin.encryption() != Encryption::Granted {
        let room = &mut buffers.room_to_look()[..REQUEST_LEN];
        let opening = match look.parse(kernel, room, parse) {
            Ok(Progress::Done(opening, _)) => opening,
            Ok(Progress::Refused(OpeningFault::NotPostgres)) => {
                return Err(Outcome::Refused(CloseReason::NoSni));
            }
            Ok(Progress::Refused(fault)) => return Err(refuse(origin, fault)),
            // No server would answer a client that has ended its stream behind a request.
            Err(Outcome::Eof) if origin.encryption() == Encryption::Unasked => {
                return Err(Outcome::Refused(CloseReason::NoSni));
            }
            Ok(Progress::More(_)) => return Err(Outcome::WouldBlock),
            Err(outcome) => return Err(outcome),
        };
        let (encryption, answer) = match opening {
            Opening::SslRequest => (Encryption::Granted, GRANTED),
            Opening::GssRequest if origin.encryption() == Encryption::Unasked => {
                (Encryption::Refused, REFUSED)
            }
            Opening::GssRequest => return Err(refuse(origin, OpeningFault::Unknown)),
            Opening::DirectTls => return Ok(()),
            Opening::Startup | Opening::Cancel => return Err(Outcome::Refused(CloseReason::NoSni)),
        };
        // Before the request is taken: where there is no room, it is found again.
        match kernel.write(look.socket, &[answer]) {
            Ok(bytes) => stats.on_negotiation_given(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Outcome::NoRoom),
            Err(error) => return Err(Outcome::Failed(error.kind())),
        }
        if let Err(error) = take(kernel, look.socket, room) {
            return Err(Outcome::Failed(error.kind()));
        }
        stats.on_negotiation_taken(REQUEST_LEN);
        origin.opened().encryption = encryption;
    }
    Ok(())
}

fn refuse(origin: &Origin, fault: OpeningFault) -> Outcome {
    log::debug!(peer:% = origin.peer(), why = fault.as_str(); "a client is refused");
    Outcome::Refused(CloseReason::HelloBad)
}

impl<K: Kernel> Relay<K> {
    /// The backend of a client that was granted TLS is connected: asks it for the same.
    pub(super) fn ask_for_tls(&mut self, core: &mut Core<K>, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        let first = match core.snapshot.pool(slot.pool).settings.proxy_protocol {
            Some(proxy) => {
                let mut room = [0; proxy_header::LEN_MAX];
                let len = header::write(core, key, slot, &proxy, &mut room);
                core.stats.on_header(len);
                room[..usize::from(len)].to_vec()
            }
            None => Vec::new(),
        };
        let (bytes, header) = ([&first, &SSL_REQUEST[..]].concat(), first.len());
        slot.origin.opened().request = Some(Request { bytes, written: 0, header });
        self.await_tls(core, key);
    }

    /// Writes the rest of the request to the backend, and reads its answer, as far as that goes now.
    pub(super) fn await_tls(&mut self, core: &mut Core<K>, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        match negotiate(&mut core.kernel, &core.stats, slot) {
            Ok(false) => {}
            Ok(true) => {
                slot.origin.take_request();
                self.on_dialed(core, key);
                self.drive(core, key);
            }
            Err(error) => self.on_dial_failed(core, key, &error),
        }
    }
}

/// Returns whether the backend has granted TLS, or is still to answer. Fails when it refuses or is gone.
fn negotiate<K: Kernel>(kernel: &mut K, stats: &WorkerStats, slot: &mut Slot<K>) -> io::Result<bool> {
    let (Origin::Opened(opened), Some(backend)) = (&mut slot.origin, &slot.backend) else { return Ok(false) };
    let Some(request) = &mut opened.request else { return Ok(false) };
    let would_block = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    while request.written < request.bytes.len() {
        match kernel.write(backend, &request.bytes[request.written..]) {
            Ok(bytes) => {
                stats.on_negotiation_given(bytes - bytes.min(request.unwritten_header()));
                request.written += bytes;
            }
            Err(error) if would_block(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    // One byte more than it may send: what is stuffed behind the answer was never encrypted (CVE-2021-23222).
    let mut answer = [0; 2];
    match kernel.read(backend, &mut answer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(bytes) => {
            stats.on_negotiation_taken(bytes);
            if answer[..bytes] == [GRANTED] { Ok(true) } else { Err(io::ErrorKind::InvalidData.into()) }
        }
        Err(error) if would_block(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
