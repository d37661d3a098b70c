//! Refuses sessions that would open sessions without end.

use crate::base::address::Address;
use crate::config::is_circle_at_home;
use crate::config::model::{Config, OwnSocket};
use crate::server::StartError;
use crate::sys;

/// Fails when a dial would end at a socket of this process: at a listener each session would open the next one, even
/// after every client has left; and the admin API would be open to every client of a listener. The check of the
/// configuration finds all cases but those of the unspecified address, which accepts at every present address of this
/// machine.
pub(super) fn refuse_circles(config: &Config) -> Result<(), StartError> {
    for (pool, backend) in config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |b| (pool, b))) {
        let address = &backend.address;
        let Address::Ip(ip) = address;
        let is_met = |socket: &OwnSocket| is_circle_at_home(address, socket.bind());
        let Some(socket) = config.own_sockets().find(is_met) else { continue };
        let is_own = sys::is_own_address(ip.ip())
            .map_err(|error| StartError::System { what: "list the addresses of this machine", error })?;
        if is_own {
            let (pool, backend) = (pool.name.clone(), backend.name.clone());
            return Err(StartError::Circle { pool, backend, address: address.clone(), socket });
        }
    }
    Ok(())
}
