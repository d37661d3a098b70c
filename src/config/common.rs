//! What balancers of one fleet have in common.

use std::net::Ipv4Addr;

use super::model::{Config, Listener};
use super::show::OfFleet;
use crate::base::hash::hash;

impl Config {
    /// Returns a number that is the same for all balancers with the same settings. What belongs to one machine does not
    /// count: `[global]` and `[admin]`, its names and addresses, and the addresses of its listeners, of which their
    /// ports count.
    pub fn common_hash(&self) -> u64 {
        let mut common = self.clone();
        if let Some(announce) = &mut common.announce {
            announce.name.clear();
            announce.addresses.clear();
        }
        if let Some(fleet) = &mut common.fleet {
            fleet.name.clear();
        }
        common.listeners.iter_mut().for_each(without_address);
        hash(OfFleet(&common).to_string().as_bytes(), 0)
    }
}

fn without_address(listener: &mut Listener) {
    // One without a name is called by its address.
    if listener.name == listener.bind.to_string() {
        listener.name = format!(":{}", listener.bind.port());
    }
    listener.bind.set_ip(Ipv4Addr::UNSPECIFIED.into());
}
