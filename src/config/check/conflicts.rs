//! Conflicts between parts that are correct by themselves: names and addresses used twice, sessions in a circle.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::admin::AdminDraft;
use super::names::HostDraft;
use super::pool::PoolDraft;
use crate::base::address::Address;
use crate::config::discover::Host;
use crate::config::model::{Listener, OwnSocket};
use crate::config::parse::report::{Placed, Report, Scope, Spot};

/// Reports every conflict between the parts.
pub(super) fn report(
    listeners: &[Placed<Listener>],
    pools: &[PoolDraft],
    admin: &AdminDraft,
    report: &mut Report,
) {
    same_names(listeners.iter().map(|part| (part, part.item.name.as_str(), part.item.bind)), report);
    let mut pool_names = HashMap::new();
    for PoolDraft { pool, scope, name_at, backends, hosts } in pools {
        if let Some(first) = first_with(&mut pool_names, pool.name.clone(), name_at) {
            taken("name", &pool.name, first, (scope, name_at), report);
        }
        let all = backends.iter().chain(hosts.iter().map(|host| &host.like));
        same_names(all.map(|part| (part, part.item.name.as_str(), &part.item.address)), report);
        let mut addresses = HashMap::new();
        for Placed { item, scope, address_at, .. } in backends {
            let Address::Ip(address) = item.address;
            let address = canonical(address).to_string();
            if let Some(first) = first_with(&mut addresses, address.clone(), address_at) {
                taken("address", &address, first, (scope, address_at), report);
            }
        }
        for HostDraft { like, source, .. } in hosts {
            if let Some(first) = first_with(&mut addresses, source.label(), &like.address_at) {
                let host = source.as_host().map(Host::target).unwrap_or_default();
                taken("address", &host, first, (&like.scope, &like.address_at), report);
            }
        }
    }
    let by_port = by_port(listeners);
    overlaps(&by_port, report);
    admin_sockets(&by_port, admin, report);
    let listeners = listeners.iter().map(|part| (OwnSocket::Listener(part.item.bind), &part.address_at));
    circles(&own_by_port(listeners.chain(admin.sockets())), pools, report);
}

/// Reports each name that an earlier part has too, unless both only repeat one address: that is worth one message.
fn same_names<'a, T: 'a, A: PartialEq + Copy>(
    parts: impl Iterator<Item = (&'a Placed<T>, &'a str, A)>,
    report: &mut Report,
) {
    let mut seen = HashMap::new();
    for (part, name, address) in parts {
        let Some((first, first_address)) = first_with(&mut seen, name.to_string(), (part, address)) else {
            continue;
        };
        let is_given = part.is_named() || first.is_named();
        if is_given || address != first_address {
            taken("name", name, &first.name_at, (&part.scope, &part.name_at), report);
        }
    }
}

/// Returns the value first put under `key`, if any; otherwise puts `value` there. An empty key stands in for a wrong
/// one and equals no other.
fn first_with<V: Copy>(seen: &mut HashMap<String, V>, key: String, value: V) -> Option<V> {
    if key.is_empty() {
        return None;
    }
    match seen.entry(key) {
        Entry::Occupied(first) => Some(*first.get()),
        Entry::Vacant(vacant) => {
            vacant.insert(value);
            None
        }
    }
}

fn taken(key: &str, value: &str, first: &Spot, (scope, spot): (&Scope, &Spot), report: &mut Report) {
    let first = report.see(first, spot);
    report.add(scope, spot, format_args!("{key}: {value} is taken{first}"));
}

/// Listeners by port, without those for which the kernel chooses one.
type ByPort<'a> = HashMap<u16, Vec<&'a Placed<Listener>>>;

fn by_port(listeners: &[Placed<Listener>]) -> ByPort<'_> {
    let mut by_port = ByPort::new();
    for listener in listeners.iter().filter(|listener| listener.item.bind.port() != 0) {
        by_port.entry(listener.item.bind.port()).or_default().push(listener);
    }
    by_port
}

fn overlaps(by_port: &ByPort, report: &mut Report) {
    for listeners in by_port.values() {
        for (index, listener) in listeners.iter().enumerate() {
            let bind = listener.item.bind;
            let Some(first) = listeners[..index].iter().find(|first| is_overlap(bind, first.item.bind))
            else {
                continue;
            };
            let name = first.item.bind;
            let pointer = report.see(&first.address_at, &listener.address_at);
            report.add(
                &listener.scope,
                &listener.address_at,
                format_args!("bind: {bind} overlaps {name}{pointer}"),
            );
        }
    }
}

/// Reports admin addresses that are those of listeners: the second one could not listen.
fn admin_sockets(by_port: &ByPort<'_>, admin: &AdminDraft, report: &mut Report) {
    for (socket, spot) in admin.sockets() {
        let (key, address) = match socket {
            OwnSocket::Listener(_) => continue,
            OwnSocket::Admin(address) => ("listen", address),
            OwnSocket::Metrics(address) => ("metrics", address),
        };
        let listeners = by_port.get(&address.port()).into_iter().flatten();
        for listener in listeners.filter(|listener| is_overlap(address, listener.item.bind)) {
            let pointer = report.see(&listener.address_at, spot);
            let scope = Scope::new(spot.clone(), "admin");
            let bind = listener.item.bind;
            report.add(
                &scope,
                spot,
                format_args!("{key}: {address} overlaps our own listener {bind}{pointer}"),
            );
        }
    }
}

/// The process's own sockets by port, each with the place of its address.
type OwnByPort<'a> = HashMap<u16, Vec<(OwnSocket, &'a Spot)>>;

fn own_by_port<'a>(sockets: impl Iterator<Item = (OwnSocket, &'a Spot)>) -> OwnByPort<'a> {
    let mut by_port = OwnByPort::new();
    for (socket, spot) in sockets {
        by_port.entry(socket.bind().port()).or_default().push((socket, spot));
    }
    by_port
}

/// Reports backends that are one of the process's own sockets. One bound to the unspecified address accepts at every
/// local address, of which only the loopback ones are known here.
fn circles(by_port: &OwnByPort, pools: &[PoolDraft], report: &mut Report) {
    let circle_at = |address: &Address| {
        let Address::Ip(address) = *address;
        let address = canonical(address);
        let mut sockets = by_port.get(&address.port()).into_iter().flatten();
        let found = sockets.find(|(socket, _)| is_circle(&address.into(), socket.bind()));
        found.map(|(socket, spot)| (address, socket, spot))
    };
    for backend in pools.iter().flat_map(|pool| &pool.backends) {
        if let Some((address, socket, spot)) = circle_at(&backend.item.address) {
            let pointer = report.see(spot, &backend.address_at);
            let what = format_args!("address: {address} is {socket}{pointer}");
            report.add(&backend.scope, &backend.address_at, what);
        }
    }
    // Of several addresses those that are ours are left out.
    for HostDraft { like, addresses, .. } in pools.iter().flat_map(|pool| &pool.hosts) {
        let all = addresses.as_deref().unwrap_or_default();
        let circles: Option<Vec<_>> = all.iter().map(circle_at).collect();
        if let Some(&(address, socket, spot)) = circles.as_ref().and_then(|circles| circles.first()) {
            let pointer = report.see(spot, &like.address_at);
            let what = format_args!("address: host resolves to {address}, which is {socket}{pointer}");
            report.add(&like.scope, &like.address_at, what);
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns whether two listeners of one port would take each other's clients.
pub fn is_overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip().to_canonical() == b.ip().to_canonical() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip())
}

/// Returns whether a dial to `address` ends at the listener at `bind`, as far as that is known without the addresses of
/// this machine.
pub fn is_circle(address: &Address, bind: SocketAddr) -> bool {
    let Address::Ip(address) = *address;
    let address = canonical(address);
    if address.port() != bind.port() {
        return false;
    }
    // connect(2) to the unspecified address goes to loopback.
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    ip == bind.ip().to_canonical() || (ip.is_loopback() && covers(bind.ip(), ip))
}

/// Returns whether a dial to `address` ends at the listener at `bind` if it is an address of this machine.
pub fn is_circle_at_home(address: &Address, bind: SocketAddr) -> bool {
    let Address::Ip(address) = *address;
    let ip = address.ip().to_canonical();
    bind.port() == address.port() && bind.ip().is_unspecified() && (bind.is_ipv6() || ip.is_ipv4())
}

/// Returns whether `wildcard` accepts clients of `ip`; the IPv6 one is dual-stack.
fn covers(wildcard: IpAddr, ip: IpAddr) -> bool {
    wildcard.is_unspecified() && (wildcard.is_ipv6() || ip.to_canonical().is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 80)
    }

    #[test]
    fn wildcards_overlap_what_they_cover() {
        for (a, b, expected) in [
            ("0.0.0.0", "127.0.0.1", true),
            ("0.0.0.0", "::", true),
            ("::", "127.0.0.1", true),
            ("::", "::1", true),
            ("0.0.0.0", "::1", false),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("0.0.0.0", "::ffff:127.0.0.1", true),
        ] {
            assert_eq!(is_overlap(ip(a), ip(b)), expected, "{a} and {b}");
            assert_eq!(is_overlap(ip(b), ip(a)), expected, "{b} and {a}");
        }
    }

    /// Case 57.
    #[test]
    fn a_dial_to_ourselves_is_a_circle() {
        for (address, bind, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "0.0.0.0", true),
            ("127.0.0.2", "0.0.0.0", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("::1", "::", true),
            ("127.0.0.1", "::", true),
            ("::", "::1", true),
            ("::1", "0.0.0.0", false),
            ("10.0.0.1", "0.0.0.0", false),
            ("10.0.0.1", "10.0.0.1", true),
        ] {
            assert_eq!(is_circle(&ip(address).into(), ip(bind)), expected, "{address} to {bind}");
        }
    }
}
