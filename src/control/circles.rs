//! Finds backends added at run time that are this process itself: each session would open the next.

use crate::base::address::Address;
use crate::config::model::OwnSocket;
use crate::config::{is_circle, is_circle_at_home};
use crate::sys::is_own_address;

/// Returns the one of `sockets` at which a dial to `address` would end, if any.
pub(super) fn circle_with(
    address: &Address,
    mut sockets: impl Iterator<Item = OwnSocket> + Clone,
) -> Option<OwnSocket> {
    let is_own = || {
        let Address::Ip(ip) = address;
        is_own_address(ip.ip()).unwrap_or_else(|error| {
            log::warn!(error:%; "cannot list the addresses of this machine");
            false
        })
    };
    let mut all = sockets.clone();
    let at_home = || all.find(|socket| is_circle_at_home(address, socket.bind())).filter(|_| is_own());
    sockets.find(|socket| is_circle(address, socket.bind())).or_else(at_home)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::own_addresses;

    #[test]
    fn every_address_of_this_machine_is_met_at_a_wildcard_listener() {
        let any = [OwnSocket::Metrics("0.0.0.0:80".parse().unwrap())];
        let own = own_addresses().unwrap();
        for ip in own.into_iter().filter(std::net::IpAddr::is_ipv4) {
            assert_eq!(circle_with(&(ip, 80).into(), any.into_iter()), Some(any[0]), "{ip}");
            assert_eq!(circle_with(&(ip, 81).into(), any.into_iter()), None, "another port");
        }
        assert_eq!(circle_with(&([192, 0, 2, 1], 80).into(), any.into_iter()), None);
    }
}
