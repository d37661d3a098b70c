//! Resolves the names of registered backends without delaying other requests. The threads are started with the process:
//! at the limit of threads a lease can still be renewed.

use std::io;

use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::problem::Problem;
use crate::base::address::Address;
use crate::config::{Invalid, Target};
use crate::control::Standby;
use crate::sys;

/// Names resolved at the same time. A name without an answer occupies a thread for some ten seconds (resolv.conf(5)).
const RESOLVERS: usize = 4;
/// Names that may wait: each belongs to a client, of which each listener has fewer.
const NAMES_MAX: usize = 128;

/// The threads that resolve names.
#[derive(Clone)]
pub(super) struct Resolvers(Standby);

impl Resolvers {
    pub(super) fn start() -> io::Result<Self> {
        Standby::start("l4lb-resolver", RESOLVERS, NAMES_MAX).map(Self)
    }

    /// Returns the address of `target`. An unknown name is the client's mistake; a lack of resources here is not.
    pub(super) async fn resolve(&self, target: Target) -> Result<Address, Problem> {
        let unavailable =
            |what: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("address: {target}: {what}"));
        let (sender, resolved) = oneshot::channel();
        let wanted = target.clone();
        let is_taken = self.0.try_run(move || {
            // The client may have given up while it waited.
            if !sender.is_closed() {
                let _gone = sender.send(look_up(&wanted));
            }
        });
        if !is_taken {
            return Err(unavailable("too many names are being resolved"));
        }
        match resolved.await {
            Ok(Ok(address)) => Ok(address),
            Ok(Err(Failure { what, is_of_this_machine: true })) => {
                log::warn!(target:%, error = what; "admin: cannot resolve a name");
                Err(unavailable(&what))
            }
            Ok(Err(Failure { what, .. })) => Err(Problem::bad(format!("address: {what}"))),
            Err(_) => Err(unavailable("the threads that resolve names have ended")),
        }
    }
}

struct Failure {
    what: String,
    /// getaddrinfo(3), EAI_SYSTEM: a call has failed, for want of a descriptor or of memory.
    is_of_this_machine: bool,
}

fn look_up(target: &Target) -> Result<Address, Failure> {
    let mut is_of_this_machine = false;
    let mut resolve = |name: &str| {
        sys::look_up(name).inspect_err(|error| is_of_this_machine = error.raw_os_error().is_some())
    };
    let resolved = target.resolve(&mut resolve);
    resolved.map_err(|Invalid(what)| Failure { what, is_of_this_machine })
}
