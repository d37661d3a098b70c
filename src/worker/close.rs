//! The single exit of a session: everything that it held goes back, and its summary is told.

use crate::base::slots::Key;
use crate::session::{CloseReason, End, Farewell, Side, Summary};
use crate::sys::Kernel;
use crate::worker::{Slot, Worker};

impl<K: Kernel> Worker<K> {
    /// Ends a session now, by a reset on both sides.
    pub(super) fn cut(&mut self, key: Key, reason: CloseReason) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        slot.session.cut(reason);
        if let Some(end) = slot.session.end() {
            self.close(key, end);
        }
    }

    /// Gives back everything that a session held.
    pub(super) fn close(&mut self, key: Key, end: End) {
        let Some(mut slot) = self.sessions.remove(key) else { return };
        if let Some((timer, _)) = slot.timer {
            self.wheel.cancel(timer);
        }
        for conduit in &mut slot.conduits {
            conduit.discard(&mut self.plumbing);
        }
        slot.count(&self.stats, self.index);
        let summary = slot.session.summary(end.reason, self.now);
        self.stats.on_closed(&summary);
        slot.listener.stats().of(self.index).on_closed(&summary);
        self.log_summary(key, &slot, &summary);
        self.record(key, &mut slot, summary);
        if let Some(lease) = slot.lease.take() {
            self.ports.on_freed(lease.backend().address);
            self.snapshot.release(lease, self.index);
        }
        self.part(slot.client, end.client);
        if let Some(backend) = slot.backend {
            self.dialed -= 1;
            self.part(backend, end.backend);
        }
        self.admission.leave(&slot.listener);
        self.crew.leave();
        self.freed = true;
    }

    fn part(&mut self, socket: K::Socket, farewell: Farewell) {
        match farewell {
            Farewell::Close => self.kernel.close(socket),
            Farewell::Reset => self.kernel.reset(socket),
        }
    }

    fn log_summary(&self, key: Key, slot: &Slot<K>, summary: &Summary) {
        if !log::log_enabled!(target: "l4lb::session", log::Level::Info) {
            return;
        }
        let listener = &slot.listener.settings.name;
        let pool = &self.snapshot.pool(slot.listener.pool).settings.name;
        let backend = slot.backend_to_tell().map(|backend| backend.name.as_str());
        let session = self.id_of(key);
        let connect_ms = summary.connect_time.map(|span| span.as_micros() as f64 / 1_000.0);
        log::info!(
            target: "l4lb::session",
            session:%,
            listener:%,
            pool:%,
            backend,
            client:% = slot.client_address,
            to_backend = summary.to_backend,
            to_client = summary.to_client,
            connect_ms,
            duration_ms = summary.duration.as_micros() as f64 / 1_000.0,
            retries = summary.retries,
            reason:% = summary.reason.as_str(),
            code:% = summary.code(),
            reset_by = summary.reset_by.map(Side::as_str);
            "session"
        );
    }
}
