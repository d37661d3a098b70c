//! Combines a running configuration with a new one: everything is taken over but the keys that need a restart.

use std::collections::HashMap;

use super::diff::{Change, Difference, Subject};
use super::model::{Admin, Config, Global, Host, UNRESOLVED};
use crate::base::address::Address;

/// Returns `wanted`, with the values of `running` for keys that need a restart. It differs from `running` in no such
/// key, and from `wanted` in nothing else.
pub fn settle(running: &Config, wanted: &Config) -> Config {
    let mut settled = wanted.clone();
    let Global { pin, busy_poll, user, .. } = &running.global;
    let Admin { socket, state_file, .. } = &running.admin;
    settled.global.pin = *pin;
    settled.global.busy_poll = *busy_poll;
    settled.global.user.clone_from(user);
    settled.admin.socket.clone_from(socket);
    settled.admin.state_file.clone_from(state_file);
    settled
}

/// Returns `wanted`, where a name that does not resolve now keeps its address from `running`: an unreachable name
/// server takes nothing out of service.
pub fn keep_addresses(running: &Config, mut wanted: Config) -> Config {
    let key = |host: &Host| (host.pool.clone(), host.backend.clone());
    let known: HashMap<_, &Host> = running.hosts.iter().map(|host| (key(host), host)).collect();
    for host in wanted.hosts.iter_mut().filter(|host| host.unresolved.is_some()) {
        let same = known.get(&key(host)).filter(|known| known.target == host.target);
        let address = same.and_then(|_| address_in(running, host)).filter(|address| *address != UNRESOLVED);
        let (Some(address), Some(pool)) =
            (address, wanted.pools.iter_mut().find(|pool| pool.name == host.pool))
        else {
            continue;
        };
        if pool.backends.iter().any(|other| other.address == address) {
            continue;
        }
        if let Some(backend) = pool.backends.iter_mut().find(|backend| backend.name == host.backend) {
            host.unresolved = None;
            let Host { pool, backend: name, .. } = host;
            wanted
                .notes
                .push(format!("pool {pool:?}: backend {name:?}: stays at {address}, where it resolved to"));
            backend.address = address;
        }
    }
    wanted
}

fn address_in(config: &Config, host: &Host) -> Option<Address> {
    let pool = config.pools.iter().find(|pool| pool.name == host.pool)?;
    pool.backends.iter().find(|backend| backend.name == host.backend).map(|backend| backend.address.clone())
}

impl Change {
    /// Returns the key that differs, behind its table: `admin.socket`; for something added or removed as a whole, its
    /// kind.
    pub fn key(&self) -> String {
        let key = match &self.difference {
            Difference::Key { key, .. } => *key,
            Difference::Added | Difference::Removed => return self.to_string(),
        };
        match &self.subject {
            Subject::Global => key.to_owned(),
            Subject::Admin => format!("admin.{key}"),
            Subject::Listener(name) => format!("listener {name:?}: {key}"),
            Subject::Pool(name) => format!("pool {name:?}: {key}"),
            Subject::Backend { pool, name } => format!("pool {pool:?}: backend {name:?}: {key}"),
            Subject::Check(pool, name) => format!("pool {pool:?}: check {name:?}: {key}"),
            Subject::Discover(pool, source) => format!("pool {pool:?}: discover {source:?}: {key}"),
        }
    }
}
