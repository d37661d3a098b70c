//! Warns about settings that are valid but hardly intended.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::check::conflicts::is_circle;
use super::discover::Discover;
use super::model::{BackendCheck, Check, Config, Listener, Pool};
use super::routing::Routing;
use crate::admission::{Access, Rule};
use crate::base::address::Address;

/// Returns the warnings about `config`, one line each.
pub fn warnings(config: &Config) -> Vec<String> {
    let used: HashSet<usize> = config.listeners.iter().flat_map(Listener::pools).collect();
    let mut found = config.notes.clone();
    for listener in &config.listeners {
        if is_unscoped(listener.bind) {
            found.push(format!("listener {:?}: bind: {}", listener.name, unscoped(listener.bind)));
        }
        if listener.access.as_deref().is_some_and(refuses_all) {
            let what = "allow: its files have no network: every client is refused";
            found.push(format!("listener {:?}: {what}", listener.name));
        }
        let of_routes = listener.routing.iter().flat_map(Routing::warnings);
        found.extend(of_routes.map(|warning| format!("listener {:?}: {warning}", listener.name)));
    }
    for (index, pool) in config.pools.iter().enumerate() {
        if !used.contains(&index) {
            found.push(format!("pool {:?}: no listener serves it", pool.name));
        }
        found.extend(of_header(index, pool, config));
        found.extend(of_backends(pool));
        found.extend(of_hosts(pool, config));
    }
    found
}

/// Returns the TLVs that are never written, because no listener of the pool learns what is in them.
fn of_header(index: usize, pool: &Pool, config: &Config) -> Option<String> {
    let proxy = pool.proxy_protocol.as_ref()?;
    let wanted = [("authority", proxy.authority), ("alpn", proxy.alpn)];
    let wanted: Vec<&str> = wanted.into_iter().filter_map(|(tlv, is_set)| is_set.then_some(tlv)).collect();
    let mut listeners = config.listeners.iter().filter(|listener| listener.pools().any(|pool| pool == index));
    let reads =
        |listener: &Listener| listener.routing.as_ref().is_some_and(|routing| routing.reads.is_some());
    let is_served = listeners.clone().next().is_some();
    if wanted.is_empty() || !is_served || listeners.any(reads) {
        return None;
    }
    let (name, wanted) = (&pool.name, wanted.join(" and "));
    Some(format!("pool {name:?}: proxy_protocol: tlvs: {wanted} never written: no listener of it has tls"))
}

/// Returns the addresses of host names that get no session: the first backend at an address has it, and none is this
/// process itself.
fn of_hosts(pool: &Pool, config: &Config) -> Vec<String> {
    let resolved = config.hosts.iter().filter(|resolved| resolved.pool == pool.name);
    let mut found_at: HashMap<&str, &[Address]> = resolved
        .map(|resolved| (resolved.source.as_str(), resolved.found.as_deref().unwrap_or_default()))
        .collect();
    let mut taken: HashMap<&Address, &str> =
        pool.backends.iter().map(|backend| (&backend.address, backend.name.as_str())).collect();
    let mut found = Vec::new();
    for (host, label) in pool.discover.iter().filter_map(|source| Some((source.as_host()?, source.label()))) {
        let scope = format!("pool {:?}: backend {:?}", pool.name, host.backend);
        for address in found_at.remove(label.as_str()).unwrap_or_default() {
            let other = *taken.entry(address).or_insert(&host.backend);
            if other != host.backend {
                found.push(format!("{scope}: {address} is left out, it is that of backend {other:?}"));
            } else if let Some(own) = config.own_sockets().find(|own| is_circle(address, own.bind())) {
                found.push(format!("{scope}: {address} is left out, it is {own}"));
            }
        }
    }
    found
}

fn of_backends(pool: &Pool) -> impl Iterator<Item = String> {
    let Pool { name, backends, discover, .. } = pool;
    let hosts = || discover.iter().filter_map(Discover::as_host);
    let weights = || backends.iter().map(|backend| backend.weight).chain(hosts().map(|host| host.weight));
    let weightless = (weights().next().is_some() && weights().all(|weight| weight == 0))
        .then(|| format!("pool {name:?}: all weights are 0: every client is turned away"));
    let tiers = || backends.iter().map(|backend| backend.priority).chain(hosts().map(|host| host.priority));
    let first = tiers().next().filter(|&first| first > 0);
    // Backends that a source lists may be before them.
    let has_sources = hosts().count() < discover.len();
    let is_lone_tier = !has_sources && tiers().all(|tier| Some(tier) == first);
    let lone_tier = first.filter(|_| is_lone_tier).map(|priority| {
        format!("pool {name:?}: all backends have priority {priority}: they serve as if none was set")
    });
    let unscoped = backends.iter().filter_map(move |backend| {
        let Address::Ip(address) = backend.address;
        let warning = || format!("pool {name:?}: backend {:?}: address: {}", backend.name, unscoped(address));
        is_unscoped(address).then(warning)
    });
    let is_unchecked = pool.health.check == Check::Off;
    let checks = backends.iter().map(|backend| (&backend.name, backend.check));
    let checks = checks.chain(hosts().map(|host| (&host.backend, host.check)));
    let special = checks.filter(move |(_, check)| is_unchecked && *check != BackendCheck::default());
    let unchecked = special.map(move |(backend, _)| {
        format!("pool {name:?}: backend {backend:?}: check: is ignored, the checks of its pool are off")
    });
    weightless.into_iter().chain(lone_tier).chain(unscoped).chain(unchecked)
}

fn refuses_all(access: &Access) -> bool {
    !access.items(Rule::Allow).is_empty() && access.networks(Rule::Allow) == 0
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
    use std::io;

    use super::*;
    use crate::config::{Overrides, parse};

    #[test]
    fn a_name_without_an_address_and_addresses_that_get_no_session_are_warnings() {
        let text = r#"
            [global]
            resolve = "keep_trying"
            [[listener]]
            bind = "127.0.0.1:80"
            [[pool]]
            name = "web"
            backend = [
                { address = "10.0.0.1:80", weight = 0 },
                { name = "a", address = "web.test:80" },
                { name = "b", address = "more.test:80" },
                { name = "c", address = "nobody.test:80" },
            ]
        "#;
        let mut resolve = |name: &str| match name {
            "web.test:80" => Ok(["10.0.0.1:80", "10.0.0.2:80"].map(|at| at.parse().unwrap()).into()),
            "more.test:80" => Ok(["10.0.0.2:80", "127.0.0.1:80"].map(|at| at.parse().unwrap()).into()),
            _ => Err(io::Error::other("no such host")),
        };
        let config = parse(text, "x.toml", &Overrides::default(), &mut resolve).unwrap();
        let expected = [
            "pool \"web\": backend \"c\": cannot resolve host \"nobody.test\": no such host: it is down until its name \
             resolves",
            "pool \"web\": backend \"a\": 10.0.0.1:80 is left out, it is that of backend \"10.0.0.1:80\"",
            "pool \"web\": backend \"b\": 10.0.0.2:80 is left out, it is that of backend \"a\"",
            "pool \"web\": backend \"b\": 127.0.0.1:80 is left out, it is our own listener 127.0.0.1:80",
        ];
        assert_eq!(warnings(&config), expected);
    }

    #[test]
    fn a_suspicious_but_valid_configuration_is_a_warning() {
        let text = r#"
            [[listener]]
            name = "in"
            bind = "[fe80::1]:80"
            pool = "web"
            tls = "passthrough"
            route = [
                { sni = ["a.test"], pool = "routed" },
                { sni = ["A.test."], client = ["10.0.0.0/8"], pool = "web" },
                { client = ["10.0.0.0/8"], pool = "web" },
            ]
            [[listener]]
            bind = ":81"
            pool = "deaf"
            [[pool]]
            name = "routed"
            backend = [{ address = ":86" }]
            [[pool]]
            name = "web"
            backend = [{ name = "a", address = "[fe80::2]:80", weight = 0 }, { address = ":82", weight = 0 }]
            proxy_protocol = { version = "v2", tlvs = ["authority"] }
            [[pool]]
            name = "deaf"
            backend = [{ address = ":87" }]
            proxy_protocol = { version = "v2", tlvs = ["alpn", "authority"] }
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
                "listener \"in\": route 2 is never taken: route 1 comes first for its clients",
                "pool \"web\": all weights are 0: every client is turned away",
                "pool \"web\": backend \"a\": address: [fe80::2]:80 is link-local and names no interface, write \
                 [fe80::2%eth0]:80",
                "pool \"deaf\": proxy_protocol: tlvs: authority and alpn never written: no listener of it has tls",
                "pool \"spare\": no listener serves it",
                "pool \"spare\": all backends have priority 15: they serve as if none was set",
                "pool \"unchecked\": no listener serves it",
                "pool \"unchecked\": backend \"b\": check: is ignored, the checks of its pool are off",
            ]
        );
    }
}
