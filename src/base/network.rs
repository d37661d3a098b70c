//! A range of IP addresses, as people write it: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// What a text must be that names a network.
pub const EXPECTED: &str = "must be an IP address or a network like 10.0.0.0/8 or 2001:db8::/32";

/// Text that names no network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{expected}, got {0:?}", expected = EXPECTED)]
pub struct NoNetwork(String);

impl Network {
    /// Returns whether `address` is in it; an IPv4 address in the form of IPv6 is the IPv4 address.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
            (own, other) => masked(own, self.prefix) == masked(other, self.prefix),
        }
    }

    /// Returns whether all addresses of `other` are in it.
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    /// Returns the number of first bits that all of its addresses share.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Returns its first and its last address, of the same family.
    pub fn bounds(self) -> (IpAddr, IpAddr) {
        match self.address {
            IpAddr::V4(v4) => {
                let others = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                let [first, last] = [v4.to_bits() & !others, v4.to_bits() | others].map(Ipv4Addr::from_bits);
                (first.into(), last.into())
            }
            IpAddr::V6(v6) => {
                let others = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                let [first, last] = [v6.to_bits() & !others, v6.to_bits() | others].map(Ipv6Addr::from_bits);
                (first.into(), last.into())
            }
        }
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: bits(address) }
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let parse = || {
            let (address, prefix) = match text.split_once('/') {
                Some((address, prefix)) => (address.parse::<IpAddr>().ok()?, Some(prefix)),
                None => (text.parse::<IpAddr>().ok()?, None),
            };
            let Some(prefix) = prefix else { return Some(Self::from(address)) };
            let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix = prefix.parse().ok().filter(|&prefix| digits && prefix <= bits(address))?;
            // Of clients only the canonical form is known.
            let is_mapped = address.is_ipv6() && address.to_canonical().is_ipv4();
            (!is_mapped).then_some(Self { address, prefix })
        };
        parse().ok_or_else(|| NoNetwork(text.to_owned()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, prefix } = self;
        if *prefix == bits(*address) { write!(f, "{address}") } else { write!(f, "{address}/{prefix}") }
    }
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Returns the first `prefix` bits of an address, aligned to the left.
fn masked(address: IpAddr, prefix: u8) -> u128 {
    let (value, bits) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (Ipv6Addr::to_bits(v6), 128),
    };
    debug_assert!(prefix <= bits, "checked where it was parsed");
    value & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_with_its_first_bits() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("192.0.2.6/31", "192.0.2.7", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "1.2.3.4", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), expected, "{network} {address}");
        }
    }

    #[test]
    fn a_network_covers_those_with_its_first_bits_and_more() {
        for (wide, narrow, expected) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.0.0.0/8", "10.0.0.1", true),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("10.0.0.0/8", "11.0.0.0/16", false),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::/32", true),
        ] {
            let [wide, narrow]: [Network; 2] = [wide, narrow].map(|text| text.parse().unwrap());
            assert_eq!(wide.covers(narrow), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn the_bounds_of_a_network_are_its_first_and_last_address() {
        for (network, first, last) in [
            ("10.1.2.3/8", "10.0.0.0", "10.255.255.255"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("2001:db8::/127", "2001:db8::", "2001:db8::1"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::1", "::1", "::1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.bounds(), (first.parse().unwrap(), last.parse().unwrap()), "{network}");
        }
    }

    #[test]
    fn a_network_is_shown_as_it_was_written() {
        for text in ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn text_that_is_no_network_is_refused() {
        for text in [
            "",
            "10",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "a/8",
            "::ffff:1.2.3.4/96",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork(text.to_owned())), "{text}");
        }
    }
}
