//! A server that a configuration lists at its address, and the next one by a host name, or the reverse: the backend is
//! NAME and NAME@IP in turn, and what operators have set of it goes along. Its sessions stay where they are, see `drain`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::address::Address;
use crate::config::Config;
use crate::config::discover::{Discover, Host, host_of};
use crate::control::control_loop::ControlLoop;
use crate::control::membership::origin::RuntimeOverrides;
use crate::control::membership::state_file::SavedAuthor;
use crate::pool::{Backend, BackendId, Snapshot};

/// The weights that were said of the addresses of hosts.
pub(in crate::control) type SaidOfHosts = HashMap<BackendId, u16>;

impl ControlLoop {
    /// Remembers what was set of backends at an address that `merged` lists by a host name: it holds for that address of
    /// the host, and for no other. Returns the weights that were said of addresses of hosts. Must be called before the
    /// pools change.
    pub(in crate::control) fn remember_of_hosts(&mut self, merged: &Config) -> SaidOfHosts {
        let running = Arc::clone(&self.control.snapshot);
        let registrations = &self.control.kept.registrations;
        let of_hosts = running.backends().filter(|backend| host_of(&backend.name).is_some());
        let said =
            of_hosts.filter_map(|known| Some((known.id, registrations.discovery_of(known.id)?.weight)));
        let said_of_hosts = said.collect();
        for next in &merged.pools {
            let Some(pool) = self.control.snapshot.pool_named(&next.name) else { continue };
            let hosts: HashMap<&str, &Host> = next
                .discover
                .iter()
                .filter_map(Discover::as_host)
                .map(|host| (host.backend.as_str(), host))
                .collect();
            if hosts.is_empty() {
                continue;
            }
            let file = self.control.config.pools.iter().find(|listed| listed.name == next.name);
            let listed = file.into_iter().flat_map(|file| &file.backends);
            let said: HashMap<&str, u16> =
                listed.map(|backend| (backend.name.as_str(), backend.weight)).collect();
            let registrations = &mut self.control.kept.registrations;
            let state = self.control.view.state();
            for backend in &pool.backends {
                let name = backend.name.as_str();
                let (Some(&said), Some(&host)) = (said.get(name), hosts.get(name)) else { continue };
                let says = host.weight;
                if registrations.discovery_of(backend.id).is_some() {
                    continue;
                }
                let set = RuntimeOverrides::of(backend, said).kept(said, says);
                let author = state.notes.get(&backend.id).and_then(SavedAuthor::of);
                registrations.remember(&next.name, &host.name_at(&backend.address), says, set, author);
            }
        }
        said_of_hosts
    }

    /// Sets what operators have set of backends that leave on those of `next` that come in their place, at the same address
    /// under the other name. Must be called before `next` is shown.
    pub(in crate::control) fn hand_over(&mut self, next: &Snapshot, said_of_hosts: &SaidOfHosts) {
        let running = &self.control.snapshot;
        let registrations = &mut self.control.kept.registrations;
        let mut state = self.control.view.state();
        for pool in &next.pools {
            let Some(before) = running.pools.iter().find(|before| before.id == pool.id) else { continue };
            let leaving = before.backends.iter().filter(|backend| next.backend(backend.id).is_none());
            let leaving: HashMap<&Address, &Backend> =
                leaving.map(|backend| (&backend.address, &**backend)).collect();
            let new = pool.backends.iter().filter(|backend| running.backend(backend.id).is_none());
            for backend in new.filter(|backend| backend.is_resolved()) {
                let Some(former) = leaving.get(&backend.address) else { continue };
                let says = backend.plain_weight();
                match said_of_hosts.get(&former.id) {
                    Some(&said) if host_of(&former.name) == Some(backend.name.as_str()) => {
                        let set = RuntimeOverrides::of(former, said).kept(said, says);
                        set.put_on(backend);
                        backend.set_weight(set.weight_over(says));
                        let author = state.notes.get(&former.id).and_then(|note| note.admin_set.clone());
                        state.notes.entry(backend.id).or_default().admin_set = author;
                        // From now on it is set of the name in the file; the next reload takes it from there.
                        registrations.forget_remembered(&pool.settings.name, &former.name);
                    }
                    // All else was remembered of its new name.
                    None if host_of(&backend.name) == Some(former.name.as_str()) => {
                        backend.override_health(former.health_override());
                    }
                    Some(_) | None => continue,
                }
                if !self.changed.contains(&pool.id) {
                    self.changed.push(pool.id);
                }
            }
        }
    }
}
