//! Finds backends added at run time that are this process itself: each session would open the next.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::net::IpAddr;

use crate::base::address::Address;
use crate::config::model::OwnSocket;
use crate::config::{is_circle, is_circle_at_home};
use crate::sys::own_addresses;

/// The addresses of this machine, asked of the kernel at most once, and only if an answer depends on them: a source may
/// list ten thousand backends.
#[derive(Default)]
pub(super) struct OwnAddresses(OnceCell<HashSet<IpAddr>>);

impl OwnAddresses {
    fn contains(&self, ip: IpAddr) -> bool {
        let all = self.0.get_or_init(|| {
            own_addresses().unwrap_or_else(|error| {
                log::warn!(error:%; "cannot list the addresses of this machine");
                HashSet::new()
            })
        });
        all.contains(&ip.to_canonical())
    }
}

/// Returns the one of `sockets` at which a dial to `address` would end, if any.
pub(super) fn circle_with(
    address: &Address,
    sockets: impl Iterator<Item = OwnSocket> + Clone,
) -> Option<OwnSocket> {
    circle_at(address, sockets, &OwnAddresses::default())
}

/// Same as [`circle_with`], where this machine has the addresses `own`.
pub(super) fn circle_at(
    address: &Address,
    mut sockets: impl Iterator<Item = OwnSocket> + Clone,
    own: &OwnAddresses,
) -> Option<OwnSocket> {
    let is_own = || {
        let Address::Ip(ip) = address;
        own.contains(ip.ip())
    };
    let mut all = sockets.clone();
    let at_home = || all.find(|socket| is_circle_at_home(address, socket.bind())).filter(|_| is_own());
    sockets.find(|socket| is_circle(address, socket.bind())).or_else(at_home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_this_machine_is_met_at_a_wildcard_listener() {
        let any = [OwnSocket::Metrics("0.0.0.0:80".parse().unwrap())];
        let own = own_addresses().unwrap();
        for ip in own.into_iter().filter(IpAddr::is_ipv4) {
            assert_eq!(circle_with(&(ip, 80).into(), any.into_iter()), Some(any[0]), "{ip}");
            assert_eq!(circle_with(&(ip, 81).into(), any.into_iter()), None, "another port");
        }
        assert_eq!(circle_with(&([192, 0, 2, 1], 80).into(), any.into_iter()), None);
    }

    /// Each backend of a list asked the kernel again.
    #[test]
    fn the_kernel_is_asked_once_for_many_backends_and_only_where_a_port_is_ours() {
        let any = [OwnSocket::Metrics("0.0.0.0:80".parse().unwrap())];
        let own = OwnAddresses::default();
        assert_eq!(circle_at(&([127, 0, 0, 1], 81).into(), any.into_iter(), &own), None);
        assert!(own.0.get().is_none(), "no listener has that port");
        let known = OwnAddresses(OnceCell::from(HashSet::from([IpAddr::from([192, 0, 2, 1])])));
        assert_eq!(circle_at(&([192, 0, 2, 1], 80).into(), any.into_iter(), &known), Some(any[0]));
        assert_eq!(circle_at(&([192, 0, 2, 2], 80).into(), any.into_iter(), &known), None);
    }
}
