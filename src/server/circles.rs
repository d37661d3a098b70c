//! Sessions that would open sessions without end.

use crate::config::is_circle_at_home;
use crate::config::model::{Config, Listener};
use crate::server::StartError;
use crate::sys;

/// An error if a dial would end at a listener of ours: each session would open the next, and that goes on when every
/// client has left. The configuration knows all such listeners but those of the unspecified address, which are met at
/// every address that this machine has now.
pub(super) fn refuse_circles(config: &Config) -> Result<(), StartError> {
    for (pool, backend) in config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |b| (pool, b))) {
        let address = backend.address;
        let is_met = |listener: &&Listener| is_circle_at_home(address, listener.bind);
        let Some(listener) = config.listeners.iter().find(is_met) else { continue };
        let own = sys::own_addresses()
            .map_err(|error| StartError::System { what: "list the addresses of this machine", error })?;
        if own.contains(&address.ip().to_canonical()) {
            let (pool, backend) = (pool.name.clone(), backend.name.clone());
            return Err(StartError::Circle { pool, backend, address, bind: listener.bind });
        }
    }
    Ok(())
}
