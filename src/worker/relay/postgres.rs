//! The request for TLS to a backend of PostgreSQL.
//!
//! A client shows its hello only once TLS was granted, so the balancer grants it (`encryption`), and only then can choose
//! a backend, which it has to ask for the same. That is a part of the dial: until the backend has granted it nothing of the
//! client is read, so the next backend can be dialed where one refuses.

use std::io;

use crate::base::slots::Key;
use crate::preread::postgres::{GRANTED, SSL_REQUEST};
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::core::Core;
use crate::worker::proxy_header;
use crate::worker::relay::header;
use crate::worker::relay::slot::{Origin, Request};
use crate::worker::relay::{Relay, Slot};

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
