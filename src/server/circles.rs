//! Refuses sessions that would open sessions without end.

use crate::base::address::Address;
use crate::config::is_circle_at_home;
use crate::config::model::{Config, OwnSocket, Resolved};
use crate::server::StartError;
use crate::sys;

/// Fails when a dial would end at a socket of this process: at a listener each session would open the next one, even
/// after every client has left; and the admin API would be open to every client of a listener. The check of the
/// configuration finds all cases but those of the unspecified address, which accepts at every present address of this
/// machine.
pub(super) fn refuse_circles(config: &Config) -> Result<(), StartError> {
    for (pool, backend) in config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |b| (pool, b))) {
        if let Some(socket) = circle_at(&backend.address, config)? {
            let (pool, backend, address) = (pool.name.clone(), backend.name.clone(), backend.address.clone());
            return Err(StartError::Circle { pool, backend, address, socket });
        }
    }
    // Of the addresses of a host, those that are ours are left out.
    for Resolved { pool, source, found } in &config.hosts {
        let mut first = None;
        for address in found.iter().flatten() {
            match circle_at(address, config)? {
                Some(socket) => _ = first.get_or_insert((address, socket)),
                None => {
                    first = None;
                    break;
                }
            }
        }
        if let Some((address, socket)) = first {
            let (pool, backend, address) = (pool.clone(), source.clone(), address.clone());
            return Err(StartError::Circle { pool, backend, address, socket });
        }
    }
    Ok(())
}

/// Returns the socket of ours at which a dial to `address` ends, because it is an address of this machine.
fn circle_at(address: &Address, config: &Config) -> Result<Option<OwnSocket>, StartError> {
    let Address::Ip(ip) = address;
    let is_met = |socket: &OwnSocket| is_circle_at_home(address, socket.bind());
    let Some(socket) = config.own_sockets().find(is_met) else { return Ok(None) };
    let is_own = sys::is_own_address(ip.ip())
        .map_err(|error| StartError::System { what: "list the addresses of this machine", error })?;
    Ok(is_own.then_some(socket))
}
