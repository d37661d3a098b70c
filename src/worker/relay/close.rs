//! The single exit of a session: its resources are given back, and its summary is counted and logged.

use std::net::SocketAddr;

use crate::base::address::Address;
use crate::base::slots::Key;
use crate::session::{CloseMode, CloseReason, End, Stage, Summary};
use crate::sys::Kernel;
use crate::worker::core::Core;
use crate::worker::inspect::flight_recorder::Record;
use crate::worker::relay::lines::log_end;
use crate::worker::relay::waiting::Shortage;
use crate::worker::relay::{Relay, Slot};

impl<K: Kernel> Relay<K> {
    /// Ends a session now, by a reset on both sides.
    pub(in crate::worker) fn cut(&mut self, core: &mut Core<K>, key: Key, reason: CloseReason) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        slot.session.cut(reason);
        if let Some(end) = slot.session.end() {
            self.close(core, key, end);
        }
    }

    /// Gives back everything that a session holds.
    pub(super) fn close(&mut self, core: &mut Core<K>, key: Key, end: End) {
        let Some(mut slot) = self.sessions.remove(key) else { return };
        if let Some((timer, _)) = slot.timer {
            core.wheel.cancel(timer);
        }
        for conduit in &mut slot.conduits {
            conduit.discard(&mut self.buffers);
        }
        slot.count(&core.stats, core.index);
        let summary = slot.session.summary(slot.reported(end.reason), core.now);
        if summary.stage == Stage::Preread {
            core.admission.leave_opening(&slot.listener);
        }
        core.stats.on_closed(&summary);
        core.stats.on_header_lost(slot.unwritten_header());
        slot.listener.stats().of(core.index).on_closed(&summary);
        let source = log_end(core, key, &slot, &summary);
        record(core, key, &mut slot, summary, source);
        if let Some(lease) = slot.lease.take() {
            let Address::Ip(address) = lease.backend().address;
            self.waiting.note_freed(Shortage::Port(address));
            core.release(lease);
        }
        close_socket(&mut core.kernel, slot.client, end.client);
        if let Some(backend) = slot.backend {
            self.dialed -= 1;
            close_socket(&mut core.kernel, backend, end.backend);
        }
        core.admission.leave(&slot.listener);
        core.dispatcher.leave();
        self.waiting.note_freed(Shortage::Resources);
        self.freed = true;
    }
}

fn close_socket<K: Kernel>(kernel: &mut K, socket: K::Socket, close_mode: CloseMode) {
    match close_mode {
        CloseMode::Close => kernel.close(socket),
        CloseMode::Reset => kernel.reset(socket),
    }
}

/// Remembers a session that is over.
fn record<K: Kernel>(
    core: &mut Core<K>,
    key: Key,
    slot: &mut Slot<K>,
    summary: Summary,
    source: Option<SocketAddr>,
) {
    let record = Record {
        key,
        place: core.recorder.place(&slot.listener, slot.pool, &core.snapshot),
        backend: slot.backend_to_report().cloned(),
        epoch: slot.epoch(core.snapshot.epoch),
        choice: slot.choice(),
        tried: slot.failed.take().map_or(Vec::new(), |failed| failed.tried),
        client: slot.client(),
        front: slot.front(),
        asked: slot.asked().cloned(),
        source,
        opened: slot.session.accepted_at(),
        summary,
    };
    core.recorder.push(record);
}
