//! Warns about settings that are valid but hardly intended.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::model::{BackendCheck, Check, Config, Pool};
use crate::base::address::Address;

/// Returns the warnings about `config`, one line each.
pub fn warnings(config: &Config) -> Vec<String> {
    let used: HashSet<usize> = config.listeners.iter().map(|listener| listener.pool).collect();
    let mut found = config.notes.clone();
    for listener in &config.listeners {
        if is_unscoped(listener.bind) {
            found.push(format!("listener {:?}: bind: {}", listener.name, unscoped(listener.bind)));
        }
    }
    for (index, pool) in config.pools.iter().enumerate() {
        if !used.contains(&index) {
            found.push(format!("pool {:?}: no listener serves it", pool.name));
        }
        found.extend(of_backends(pool));
    }
    found
}

fn of_backends(pool: &Pool) -> impl Iterator<Item = String> {
    let Pool { name, backends, discover, .. } = pool;
    let are_all = |is: fn(&super::model::Backend) -> bool| !backends.is_empty() && backends.iter().all(is);
    let weightless = are_all(|backend| backend.weight == 0)
        .then(|| format!("pool {name:?}: all weights are 0: every client is turned away"));
    let first = backends.first().map(|first| first.priority).filter(|&first| first > 0);
    // Backends that a source lists may be before them.
    let is_lone_tier = discover.is_empty() && backends.iter().all(|backend| Some(backend.priority) == first);
    let lone_tier = first.filter(|_| is_lone_tier).map(|priority| {
        format!("pool {name:?}: all backends have priority {priority}: they serve as if none was set")
    });
    let unscoped = backends.iter().filter_map(move |backend| {
        let Address::Ip(address) = backend.address;
        let warning = || format!("pool {name:?}: backend {:?}: address: {}", backend.name, unscoped(address));
        is_unscoped(address).then(warning)
    });
    let is_unchecked = pool.health.check == Check::Off;
    let special = move |backend: &&super::model::Backend| backend.check != BackendCheck::default();
    let unchecked = backends.iter().filter(special).filter(move |_| is_unchecked).map(move |backend| {
        format!(
            "pool {name:?}: backend {:?}: check: is ignored, the checks of its pool are off",
            backend.name
        )
    });
    weightless.into_iter().chain(lone_tier).chain(unscoped).chain(unchecked)
}

/// Returns whether it is a link-local IPv6 address without a scope, which is ambiguous (RFC 4007).
fn is_unscoped(address: SocketAddr) -> bool {
    match address {
        SocketAddr::V6(v6) => v6.ip().is_unicast_link_local() && v6.scope_id() == 0,
        SocketAddr::V4(_) => false,
    }
}

fn unscoped(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("{address} is link-local and names no interface, write [{ip}%eth0]:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};

    #[test]
    fn a_suspicious_but_valid_configuration_is_a_warning() {
        let text = r#"
            [[listener]]
            name = "in"
            bind = "[fe80::1]:80"
            pool = "web"
            [[pool]]
            name = "web"
            backend = [{ name = "a", address = "[fe80::2]:80", weight = 0 }, { address = ":82", weight = 0 }]
            [[pool]]
            name = "spare"
            backend = [{ address = ":83", backup = true }]
            [[pool]]
            name = "unchecked"
            backend = [{ name = "b", address = ":84", check = { port = 1 } }, { address = ":85", check = {} }]
            health = { type = "off" }
        "#;
        let config = parse(text, "x.toml", &Overrides::default(), &mut |_| Ok(Vec::new())).unwrap();
        assert_eq!(
            warnings(&config),
            [
                "listener \"in\": bind: [fe80::1]:80 is link-local and names no interface, write [fe80::1%eth0]:80",
                "pool \"web\": all weights are 0: every client is turned away",
                "pool \"web\": backend \"a\": address: [fe80::2]:80 is link-local and names no interface, write \
                 [fe80::2%eth0]:80",
                "pool \"spare\": no listener serves it",
                "pool \"spare\": all backends have priority 15: they serve as if none was set",
                "pool \"unchecked\": no listener serves it",
                "pool \"unchecked\": backend \"b\": check: is ignored, the checks of its pool are off",
            ]
        );
    }
}
