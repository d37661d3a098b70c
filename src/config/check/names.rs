//! Host names in `address`: each is a source, see [`Host`]. `localhost` is none, because it never moves: it is a backend
//! in the family in which something listens, and 127.0.0.1 where nothing knows it (RFC 6761, 6.3).

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use super::tls::Trust;
use crate::base::address::Address;
use crate::config::address::{Resolver, Target, is_local};
use crate::config::discover::{Discover, Host, Kind};
use crate::config::error::Invalid;
use crate::config::model::{Backend, Resolve};
use crate::config::parse::report::Placed;

/// Resolves the names of backends, and finds the authorities that their checks trust.
pub(super) struct Names<'r> {
    pub(super) resolve: Resolver<'r>,
    pub(super) policy: Resolve,
    pub(super) trust: Trust,
}

/// What a target is.
pub(super) enum Found {
    /// An address that does not change.
    At(Address),
    /// A host name with a port; its addresses, or why it has none.
    Host { name: String, port: u16, addresses: Result<Vec<Address>, String> },
}

impl Names<'_> {
    /// Returns what `target` is. Fails when it has no address and must have one.
    pub(super) fn find(&mut self, target: &Target) -> Result<Found, Invalid> {
        let Target::Host { host, port } = target else { return Ok(Found::At(target.resolve(self.resolve)?)) };
        if is_local(host) {
            let mut is_unasked = false;
            let found = target.resolve(&mut |name| {
                (self.resolve)(name).inspect_err(|error| is_unasked = error.kind() == ErrorKind::ResourceBusy)
            });
            return match found {
                Ok(address) => Ok(Found::At(address)),
                // It may be known, in another family: a reload would move the backend.
                Err(invalid) if is_unasked => Err(invalid),
                Err(_) => Ok(Found::At(Address::from((Ipv4Addr::LOCALHOST, *port)))),
            };
        }
        let addresses = match (target.addresses(self.resolve), self.policy) {
            (Ok(all), _) => Ok(all),
            (Err(Invalid(what)), Resolve::KeepTrying) => Err(what),
            (Err(invalid), Resolve::Require) => return Err(invalid),
        };
        Ok(Found::Host { name: host.clone(), port: *port, addresses })
    }
}

/// A backend at a host name.
pub(super) struct HostDraft {
    /// Each of its addresses is a backend like this one, which has none.
    pub(super) like: Placed<Backend>,
    pub(super) source: Discover,
    /// Its addresses, at least one; or why it has none.
    pub(super) addresses: Result<Vec<Address>, String>,
}

impl HostDraft {
    pub(super) fn new(
        like: Placed<Backend>,
        name: String,
        port: u16,
        addresses: Result<Vec<Address>, String>,
    ) -> Self {
        let Backend { name: backend, weight, priority, check, .. } = like.item.clone();
        let source = Discover::new(Kind::Host(Host { backend, name, port, weight, priority, check }));
        Self { like, source, addresses }
    }
}
