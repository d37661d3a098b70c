//! The single exit of a session: everything that it held goes back, and its summary is told.

use crate::base::address::Address;
use crate::base::slots::Key;
use crate::session::{CloseReason, End, Farewell};
use crate::sys::Kernel;
use crate::worker::Worker;

impl<K: Kernel> Worker<K> {
    /// Ends a session now, by a reset on both sides.
    pub(in crate::worker) fn cut(&mut self, key: Key, reason: CloseReason) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        slot.session.cut(reason);
        if let Some(end) = slot.session.end() {
            self.close(key, end);
        }
    }

    /// Gives back everything that a session held.
    pub(in crate::worker) fn close(&mut self, key: Key, end: End) {
        let Some(mut slot) = self.sessions.remove(key) else { return };
        if let Some((timer, _)) = slot.timer {
            self.wheel.cancel(timer);
        }
        for conduit in &mut slot.conduits {
            conduit.discard(&mut self.relay_buffers);
        }
        slot.count(&self.stats, self.index);
        let summary = slot.session.summary(end.reason, self.now);
        self.stats.on_closed(&summary);
        slot.listener.stats().of(self.index).on_closed(&summary);
        let source = self.log_end(key, &slot, &summary);
        self.record(key, &mut slot, summary, source);
        if let Some(lease) = slot.lease.take() {
            let Address::Ip(address) = lease.backend().address;
            self.ports.on_freed(address);
            self.snapshot.release(lease, self.index);
        }
        self.part(slot.client, end.client);
        if let Some(backend) = slot.backend {
            self.dialed -= 1;
            self.part(backend, end.backend);
        }
        self.admission.leave(&slot.listener);
        self.dispatcher.leave();
        self.freed = true;
    }

    fn part(&mut self, socket: K::Socket, farewell: Farewell) {
        match farewell {
            Farewell::Close => self.kernel.close(socket),
            Farewell::Reset => self.kernel.reset(socket),
        }
    }
}
