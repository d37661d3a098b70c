//! The header of the PROXY protocol that a backend reads before the first byte of its client, where the pool has one.
//!
//! It is rendered once the backend is connected, so a dial that fails has sent none, and the next backend gets its own.

use crate::base::slots::Key;
use crate::config::proxy::ProxyOut;
use crate::preread::{Addresses, Header};
use crate::session::Direction;
use crate::sys::Kernel;
use crate::worker::core::Core;
use crate::worker::proxy_header::{self, Hello};
use crate::worker::relay::slot::Origin;
use crate::worker::relay::{Relay, Slot};

impl<K: Kernel> Relay<K> {
    /// Puts the header into the conduit of a session with a connected backend, if there is one. The session must be
    /// driven at once: the scratch has it.
    pub(super) fn begin_with_header(&mut self, core: &mut Core<K>, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        let Some(proxy) = core.snapshot.pool(slot.pool).settings.proxy_protocol else { return };
        debug_assert!(!slot.queued, "a session is queued for bytes only");
        let buffers = &mut self.buffers.buffers;
        let len = write(core, key, slot, &proxy, buffers.room());
        slot.conduits[Direction::ToBackend as usize].hold_header(usize::from(len), buffers);
        slot.session.on_preface(len);
        core.stats.on_header(len);
    }
}

/// Writes the header of a session into `room`. Returns its length.
pub(super) fn write<K: Kernel>(
    core: &mut Core<K>,
    key: Key,
    slot: &Slot<K>,
    proxy: &ProxyOut,
    room: &mut [u8],
) -> u16 {
    let addresses = slot.addresses(&mut core.kernel);
    let hello = match &slot.origin {
        Origin::Peer(_) => Hello::default(),
        Origin::Opened(opened) => Hello {
            server_name: opened.asked.as_ref().and_then(|asked| asked.sni.as_deref()),
            alpn: opened.alpn.as_ref(),
        },
    };
    proxy_header::write(room, proxy, addresses, core.id_of(key), hello)
}

impl<K: Kernel> Slot<K> {
    /// The client, and the address that it connected to: as the header that it sent has them, or else its socket.
    fn addresses(&self, kernel: &mut K) -> Addresses {
        if let Some(Header::Client(addresses)) = self.origin.header() {
            return addresses;
        }
        // Of a connection that has died the kernel may have forgotten it.
        let destination = kernel.local_address(&self.client).unwrap_or(self.listener.settings.bind);
        Addresses { source: self.client(), destination }
    }
}
