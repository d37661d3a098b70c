//! Where a backend comes from, and what becomes of it: the file lists it or a request has registered it, operators
//! change it, and it leaves its pool.
//!
//! `origin` has the two answers, where a backend comes from and what operators have set of it, and the order between
//! them. `requests` does what operators ask for, `changes` what they set of one backend or of many. `leases` holds the
//! backends that were registered, and says which leases have ended; `lease_ends` does what follows. `discovered` puts
//! in what sources list. `merge` combines the file with what was changed at run time. `persist` takes that from what
//! runs into `kept`, and puts it back at a start, with what sources have `listed` before; `state_file` is its form on
//! the disk, which `saving` writes. `notes` is what is known of a backend besides its atomics; `remembered` what
//! operators have set of one that was discovered and has left; `renamed` takes it along where the file lists a server
//! under another name; `placement` the addresses and priorities that operators have set, which `placing` sets and
//! `place_notes` shows; `gone` undoes both of one that is not listed; `drain` follows the sessions of backends that have
//! left their pool.

mod changes;
pub(super) mod discovered;
pub(super) mod drain;
mod gone;
pub(crate) mod kept;
pub(super) mod lease_ends;
pub(super) mod leases;
pub mod listed;
pub(super) mod listing;
pub(super) mod merge;
pub(super) mod notes;
pub mod origin;
pub mod persist;
pub(in crate::control) mod place_notes;
pub(crate) mod placement;
mod placing;
mod remembered;
mod renamed;
pub(super) mod requests;
pub(crate) mod saving;
pub mod state_file;
