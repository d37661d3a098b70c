//! The line that the log has of a session that is over.

use std::net::SocketAddr;

use log::kv::{ToValue, Value};

use crate::base::slots::Key;
use crate::session::{Side, Summary};
use crate::sys::Kernel;
use crate::worker::{Slot, Worker};

impl<K: Kernel> Worker<K> {
    /// Writes the line, if there is one. Returns the address that the backend was dialed from, which costs a call: nobody asks for
    /// it where no line is written.
    pub(super) fn log_end(&mut self, key: Key, slot: &Slot<K>, summary: &Summary) -> Option<SocketAddr> {
        if !log::log_enabled!(target: "l4lb::session", log::Level::Info) {
            return None;
        }
        let listener = &slot.listener.settings.name;
        let pool = &self.snapshot.pool(slot.listener.pool).settings.name;
        let backend = slot.backend_to_tell();
        let source = source(&mut self.kernel, slot);
        let session = self.id_of(key);
        let connect_ms = summary.connect_time.map(|span| span.as_micros() as f64 / 1_000.0);
        log::info!(
            target: "l4lb::session",
            session:%,
            listener:%,
            pool:%,
            backend = backend.map(|backend| backend.name.as_str()),
            backend_address = backend.map(|backend| Shown(backend.address)),
            client:% = slot.client_address,
            source = source.map(Shown),
            to_backend = summary.to_backend,
            to_client = summary.to_client,
            connect_ms,
            duration_ms = summary.duration.as_micros() as f64 / 1_000.0,
            retries = summary.retries,
            reason:% = summary.reason.as_str(),
            code:% = summary.code(),
            reset_by = summary.reset_by.map(Side::as_str),
            half_closed_by = summary.half_closed_by.map(Side::as_str);
            "session"
        );
        source
    }
}

/// An address in a field that a line may lack.
struct Shown(SocketAddr);

impl ToValue for Shown {
    fn to_value(&self) -> Value<'_> {
        Value::from_display(&self.0)
    }
}

/// The address that the backend is dialed from, as the kernel has it.
pub(super) fn source<K: Kernel>(kernel: &mut K, slot: &Slot<K>) -> Option<SocketAddr> {
    kernel.local_address(slot.backend.as_ref()?).ok()
}
