//! The addresses of this machine.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// Returns whether `ip`, mapped or not, is an address of this machine now.
pub fn is_own_address(ip: IpAddr) -> io::Result<bool> {
    Ok(own_addresses()?.contains(&ip.to_canonical()))
}

/// Returns the present addresses of all interfaces: getifaddrs(3).
pub fn own_addresses() -> io::Result<HashSet<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|interface| interface.address);
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Ok(addresses.filter_map(ip).collect())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn loopback_is_our_own_and_the_rest_of_the_world_is_not() {
        let own = own_addresses().unwrap();
        assert!(
            own.contains(&Ipv4Addr::LOCALHOST.into()) && own.contains(&Ipv6Addr::LOCALHOST.into()),
            "{own:?}"
        );
        // RFC 5737: an address of no machine.
        assert!(!own.contains(&Ipv4Addr::new(192, 0, 2, 1).into()), "{own:?}");
    }
}
