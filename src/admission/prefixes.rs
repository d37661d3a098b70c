//! Finds the longest of many networks that has an address.
//!
//! Two networks are apart, or one is inside of the other. So the borders of all of them cut the addresses into ranges, in
//! each of which one network is the innermost. A search among the borders finds the range: no allocation, and seventeen
//! steps among 100,000 networks.

use std::net::IpAddr;

use crate::base::network::Network;

/// The networks of both families, by what their owner calls them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefixes {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl Prefixes {
    /// Returns the table of these networks, each with its name. Of two that are equal the first counts.
    pub(super) fn new(networks: impl Iterator<Item = (Network, u32)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, name) in networks {
            match network.bounds() {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    v4.push(Bounds { first: first.to_bits(), last: last.to_bits(), name });
                }
                (first, last) => {
                    let [first, last] = [first, last].map(bits_of_v6);
                    v6.push(Bounds { first, last, name });
                }
            }
        }
        Self { v4: Ranges::new(v4, |at| at.checked_add(1)), v6: Ranges::new(v6, |at| at.checked_add(1)) }
    }

    /// Returns the longest network that has this address.
    pub(super) fn find(&self, address: IpAddr) -> Option<u32> {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.find(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.find(v6.to_bits()),
        }
    }
}

fn bits_of_v6(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A network: its first address, its last one, and its name.
struct Bounds<T> {
    first: T,
    last: T,
    name: u32,
}

/// Where each range begins, and the innermost network in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<T> {
    starts: Vec<T>,
    names: Vec<Option<u32>>,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { starts: Vec::new(), names: Vec::new() }
    }
}

impl<T: Copy + Ord> Ranges<T> {
    /// `next` returns the address behind another one, unless that is the last.
    fn new(mut networks: Vec<Bounds<T>>, next: fn(T) -> Option<T>) -> Self {
        // The wider before those inside of it; equal ones stay in their order.
        networks.sort_by(|one, other| one.first.cmp(&other.first).then(other.last.cmp(&one.last)));
        networks.dedup_by(|later, earlier| (later.first, later.last) == (earlier.first, earlier.last));
        let mut ranges = Self::default();
        // The networks around the place that is reached.
        let mut around: Vec<Bounds<T>> = Vec::new();
        for network in networks {
            ranges.leave(&mut around, next, |last| last < network.first);
            ranges.begin(network.first, Some(network.name));
            around.push(network);
        }
        ranges.leave(&mut around, next, |_| true);
        ranges.starts.shrink_to_fit();
        ranges.names.shrink_to_fit();
        ranges
    }

    /// Ends the innermost networks as long as their last address `is_behind`.
    fn leave(
        &mut self,
        around: &mut Vec<Bounds<T>>,
        next: fn(T) -> Option<T>,
        is_behind: impl Fn(T) -> bool,
    ) {
        while let Some(inner) = around.pop_if(|inner| is_behind(inner.last)) {
            if let Some(start) = next(inner.last) {
                self.begin(start, around.last().map(|outer| outer.name));
            }
        }
    }

    /// A range begins; one that begins at the same address has no address.
    fn begin(&mut self, start: T, name: Option<u32>) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.names.pop();
        }
        self.starts.push(start);
        self.names.push(name);
    }

    fn find(&self, address: T) -> Option<u32> {
        let behind = self.starts.partition_point(|start| *start <= address);
        self.names[..behind].last().copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn naive(networks: &[Network], address: IpAddr) -> Option<u32> {
        let those = networks.iter().zip(0..).filter(|(network, _)| network.contains(address));
        // Of equal ones the first.
        those.min_by_key(|(network, _)| Reverse(network.prefix())).map(|(_, name)| name)
    }

    fn table(networks: &[Network]) -> Prefixes {
        Prefixes::new(networks.iter().copied().zip(0..))
    }

    fn addresses() -> impl Strategy<Value = IpAddr> {
        // Few values, so that networks nest and touch; the ends of both families too.
        let octet = || prop_oneof![Just(0), Just(255), 9_u8..12];
        let v4 = [octet(), octet(), octet(), octet()].prop_map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
        let v6 = (any::<bool>(), octet(), octet()).prop_map(|(is_last, one, other)| {
            let fill = if is_last { 255 } else { 0 };
            let mut octets = [fill; 16];
            octets[1] = one;
            octets[15] = other;
            IpAddr::from(Ipv6Addr::from(octets))
        });
        prop_oneof![v4, v6]
    }

    fn networks() -> impl Strategy<Value = Network> {
        (addresses(), 0..=128_u8).prop_map(|(address, prefix)| {
            let prefix = if address.is_ipv4() { prefix % 33 } else { prefix };
            format!("{address}/{prefix}").parse().expect("a network")
        })
    }

    proptest! {
        #[test]
        fn the_network_that_is_found_is_the_longest_that_has_the_address(
            networks in prop::collection::vec(networks(), 0..20),
            addresses in prop::collection::vec(addresses(), 1..20),
        ) {
            let table = table(&networks);
            let borders = networks.iter().flat_map(|network| <[IpAddr; 2]>::from(network.bounds()));
            for address in addresses.into_iter().chain(borders) {
                prop_assert_eq!(table.find(address), naive(&networks, address), "{}", address);
            }
        }
    }

    #[test]
    fn of_a_hundred_thousand_networks_each_is_found() {
        let network = |name: u32| -> Network {
            let address = Ipv4Addr::from_bits(name << 12);
            format!("{address}/{}", 20 + name % 12).parse().unwrap()
        };
        let table = Prefixes::new((0..100_000).map(|name| (network(name), name)));
        for name in 0..100_000 {
            let (first, last) = network(name).bounds();
            assert_eq!([first, last].map(|address| table.find(address)), [Some(name); 2]);
        }
        assert_eq!(table.find([255, 255, 255, 255].into()), None);
    }
}
