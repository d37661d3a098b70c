//! Reasons why a configuration cannot run on this machine.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::base::address::Address;
use crate::config::fd_budget::LimitError;
use crate::config::model::{Listener, OwnSocket};
use crate::control::admin::AdminError;
use crate::control::membership::state_file::StateFileError;
use crate::messages::reload::Refused;
use crate::server::activation::Mismatch;
use crate::sys;

/// Why the process could not start, with nothing left running; or why it cannot apply a new configuration, with
/// everything unchanged.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that another process listens on.
    #[error("listener {name:?}: cannot listen on {bind}: address in use, held by {holder}")]
    InUse {
        /// Name of the listener in the configuration.
        name: String,
        /// The configured address of the listener.
        bind: SocketAddr,
        /// The process that could hold it.
        holder: String,
    },
    /// A backend that is one of the process's own sockets.
    #[error("pool {pool:?}: backend {backend:?}: {address} is {socket}")]
    Circle {
        /// Name of the pool that lists the backend.
        pool: String,
        /// Name of the backend within the pool.
        backend: String,
        /// The address that the backend resolves to.
        address: Address,
        /// The socket of this process at that address.
        socket: OwnSocket,
    },
    /// Any other error that prevents listening.
    #[error("listener {name:?}: cannot listen on {bind}: {error}{hint}")]
    Listen {
        /// Name of the listener in the configuration.
        name: String,
        /// The configured address of the listener.
        bind: SocketAddr,
        /// A remedy, if one is known.
        hint: &'static str,
        /// The error of the call. Not a `source`: the message holds it, and `main` prints the sources behind it.
        error: io::Error,
    },
    /// Workers or listeners removed by the last change are still there.
    #[error("{what}: the last change is still in progress, try again later")]
    Unsettled {
        /// The workers or listeners that are left, in words.
        what: String,
    },
    /// The state file of an earlier process cannot be read.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The sources that must answer first have not.
    #[error("{}", .0.join("; "))]
    Discovery(Vec<String>),
    /// A socket was passed for a listener that it does not fit.
    #[error(transparent)]
    Passed(#[from] Mismatch),
    /// More sockets were passed for a listener than there are workers.
    #[error(
        "listener {name:?}: {passed} sockets were passed for it, each needs a worker, and workers is {workers}"
    )]
    FewWorkers {
        /// Name of the listener in the configuration.
        name: String,
        /// Number of sockets that were passed for it.
        passed: usize,
        /// The configured number of workers.
        workers: usize,
    },
    /// Root privileges cannot be dropped.
    #[error("cannot become user {user:?}: {error}")]
    Account {
        /// The value of `global.user`.
        user: String,
        /// The error of the call.
        error: io::Error,
    },
    /// The access log cannot be written.
    #[error("access_log: cannot open {}: {error}", path.display())]
    AccessLog {
        /// The path of the file that cannot be used.
        path: PathBuf,
        /// The error of the call.
        error: io::Error,
    },
    /// The admin API cannot be where it is configured.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The limit of open files does not allow what is configured.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// A system call that the process cannot do without.
    #[error("cannot {what}: {error}")]
    System {
        /// The attempted action, as a verb and its object.
        what: &'static str,
        /// The error of the call.
        error: io::Error,
    },
}

impl StartError {
    /// Returns whether the process or the machine has run out of a resource, so that the same may succeed later.
    /// clone(2): EAGAIN for want of a thread.
    fn is_shortage(&self) -> bool {
        match self {
            Self::Listen { error, .. } | Self::System { error, .. } => {
                sys::is_exhausted(error) || error.kind() == io::ErrorKind::WouldBlock
            }
            // Name servers may answer by then.
            Self::Unsettled { .. } | Self::Discovery(_) => true,
            Self::InUse { .. }
            | Self::Circle { .. }
            | Self::State(_)
            | Self::Passed(_)
            | Self::FewWorkers { .. }
            | Self::Account { .. }
            | Self::AccessLog { .. }
            | Self::Admin(_)
            | Self::Limits(_) => false,
        }
    }
}

impl From<StartError> for Refused {
    fn from(error: StartError) -> Self {
        Self { errors: vec![error.to_string()], is_for_now: error.is_shortage() }
    }
}

/// Returns a function that wraps the error of a system call.
pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::System { what, error }
}

/// Returns why `listener` cannot listen.
pub(super) fn refused(listener: &Listener, error: io::Error) -> StartError {
    let (name, bind) = (listener.name.clone(), listener.bind);
    if error.kind() == io::ErrorKind::AddrInUse {
        return StartError::InUse { name, bind, holder: sys::holder_of(bind) };
    }
    StartError::Listen { name, bind, hint: hint(&error, bind, sys::has_given_up_root()), error }
}

/// Returns a remedy for not being able to listen on `bind`, or an empty text.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours")]
fn hint(error: &io::Error, bind: SocketAddr, has_given_up_root: bool) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied if bind.port() < 1024 && has_given_up_root => {
            "; a port below 1024 needs root, which is given up for good (user): start it again, as root"
        }
        io::ErrorKind::PermissionDenied if bind.port() < 1024 => {
            "; a port below 1024 needs root or CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_reported_as_given_up_only_where_it_was() {
        use io::ErrorKind::{AddrNotAvailable, PermissionDenied};
        for (kind, port, has_given_up_root, expected) in [
            (PermissionDenied, 98, true, "given up for good"),
            (PermissionDenied, 98, false, "or CAP_NET_BIND_SERVICE"),
            (AddrNotAvailable, 98, true, "no interface"),
        ] {
            let hint = hint(&kind.into(), ([127, 0, 0, 1], port).into(), has_given_up_root);
            assert!(hint.contains(expected), "{hint}");
        }
        assert_eq!(hint(&PermissionDenied.into(), ([127, 0, 0, 1], 9090).into(), true), "");
    }
}
