//! The pool of a session: that of its listener, or of the route that its client takes.
//!
//! It is chosen when all that a client must send first is there, by the listener as it is then: a reload meanwhile may
//! have moved it to another pool, whose backends are checked and cut where those of the former are no longer.

use std::sync::Arc;

use crate::base::slots::Key;
use crate::config::model;
use crate::messages::query::Asked;
use crate::pool::{PoolId, Snapshot};
use crate::preread::client_hello::ClientHello;
use crate::sys::Kernel;
use crate::worker::core::Core;
use crate::worker::relay::conduit::Conduit;
use crate::worker::relay::opening::timeouts;
use crate::worker::relay::slot::Origin;
use crate::worker::relay::{Relay, Slot};

impl<K: Kernel> Relay<K> {
    /// Takes a session of which all is known to its pool, and as far as it gets now.
    pub(super) fn begin(&mut self, core: &mut Core<K>, key: Key) {
        if let Some(slot) = self.sessions.get_mut(key) {
            route(slot, &core.snapshot);
        }
        self.proceed(core, key);
    }

    /// The same once the client has sent all that it must.
    pub(super) fn begin_opened(&mut self, core: &mut Core<K>, key: Key) {
        if let Some(slot) = self.sessions.get_mut(key) {
            take_present_listener(slot, &core.snapshot);
        }
        self.begin(core, key);
    }
}

/// Replaces the version of the listener that has accepted a session by the present one, unless it was removed.
fn take_present_listener<K: Kernel>(slot: &mut Slot<K>, snapshot: &Snapshot) {
    let Some(present) = snapshot.listener(slot.listener.id) else { return };
    if !Arc::ptr_eq(present, &slot.listener) {
        slot.listener = Arc::clone(present);
        lead(slot, snapshot, present.pool, &present.settings.timeouts);
    }
}

/// Leads a session to the pool of its route, if its listener has one for it.
fn route<K: Kernel>(slot: &mut Slot<K>, snapshot: &Snapshot) {
    let hello = match &mut slot.origin {
        Origin::Opened(opened) => std::mem::take(&mut opened.hello),
        Origin::Peer(_) => ClientHello::default(),
    };
    let listener = &slot.listener;
    let Some(routing) = &listener.settings.routing else { return };
    let route = routing.table.find(&hello, slot.client().ip());
    let led = route.map(|index| (listener.routes[index], routing.targets[index].timeouts));
    listener.on_routed(route);
    let ClientHello { server_name: sni, alpn } = hello;
    let offered = alpn;
    let alpn = (!offered.is_empty()).then(|| offered.to_string().into_boxed_str());
    let number = route.map(|index| index + 1);
    if sni.is_some() || alpn.is_some() || number.is_some() {
        slot.origin.opened().asked = Some(Arc::new(Asked { sni, alpn, route: number }));
    }
    if let Some((pool, own)) = led {
        lead(slot, snapshot, pool, &own);
    }
    let proxy = snapshot.pool(slot.pool).settings.proxy_protocol;
    if !offered.is_empty() && proxy.is_some_and(|proxy| proxy.alpn) {
        slot.origin.opened().alpn = Some(offered);
    }
}

/// Gives a session, which has no backend yet, this pool and these timeouts.
fn lead<K: Kernel>(slot: &mut Slot<K>, snapshot: &Snapshot, pool: PoolId, own: &model::Timeouts) {
    let settings = &snapshot.pool(pool).settings;
    slot.pool = pool;
    slot.session.on_routed(timeouts(own, settings));
    slot.conduits = [Conduit::new(settings.relay), Conduit::new(settings.relay)];
}
