//! Names of backends that are registered, resolved without holding up other requests. The threads stand by: at the limit of
//! threads a lease can still be renewed.

use std::io;

use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::problem::Problem;
use crate::base::address::Address;
use crate::config::{Invalid, Target};
use crate::control::Standby;
use crate::sys;

/// Names that are resolved at a time. One that nobody answers for takes a thread for some ten seconds (resolv.conf(5)).
const RESOLVERS: usize = 4;
/// Names that wait for that: each belongs to a client, of which each door has fewer.
const NAMES_MAX: usize = 128;

/// The threads that resolve names.
#[derive(Clone)]
pub(super) struct Resolvers(Standby);

impl Resolvers {
    pub(super) fn start() -> io::Result<Self> {
        Standby::start("l4lb-resolver", RESOLVERS, NAMES_MAX).map(Self)
    }

    /// The address of `target`. A name that does not exist is the request's fault; what this machine lacks is not.
    pub(super) async fn resolve(&self, target: Target) -> Result<Address, Problem> {
        let unavailable =
            |what: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("address: {target}: {what}"));
        let (sender, resolved) = oneshot::channel();
        let wanted = target.clone();
        let is_taken = self.0.try_run(move || {
            // Whoever has asked may have given up while it waited.
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
