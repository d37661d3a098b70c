//! How a member of a group is picked for a new session.
//! Pure: never reads a clock, a socket or a backend's state; everything it depends on is a parameter.
//!
//! A [`Table`] is built once for a set of members and weights and asked for every session. When health changes, no new
//! table is needed: it asks whether a member is eligible before it returns it. A member of weight 0 is in no table, so
//! nothing can pick it.

mod best;
mod contest;
mod least_connections;
mod lookup;
mod power_of_two;
mod pressure;
mod random;
mod round_robin;
mod schedule;
mod source_hash;
mod table;
mod turns;

#[cfg(test)]
mod testing;

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;

use crate::base::rng::Rng;

pub use table::Table;

/// The algorithms by their config names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn, in proportion to weight, smoothly interleaved.
    RoundRobin,
    /// The fewest sessions per weight.
    LeastConnections,
    /// The less loaded of two drawn by weight.
    PowerOfTwo,
    /// By the client's address, consistently.
    SourceHash,
    /// Drawn at random, each member in proportion to its weight.
    Random,
}

impl Algorithm {
    /// Every algorithm, the default first.
    pub const ALL: [Self; 5] =
        [Self::RoundRobin, Self::LeastConnections, Self::PowerOfTwo, Self::SourceHash, Self::Random];

    /// Returns the word for it in flags, config, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::PowerOfTwo => "power_of_two",
            Self::SourceHash => "source_hash",
            Self::Random => "random",
        }
    }

    /// Returns whether the table should be built anew when a member goes down or is taken out. A hash table should not:
    /// that would move clients of other members too, while skipping the member moves only its own.
    pub const fn table_respects_health(self) -> bool {
        !matches!(self, Self::SourceHash)
    }

    /// Returns whether an absent member (down or taken out) keeps its place in the table, so that the others keep
    /// theirs.
    pub const fn table_keeps_absent(self) -> bool {
        matches!(self, Self::SourceHash | Self::RoundRobin)
    }
}

/// A member as a table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Stable over restarts: the hash of its name.
    pub identity: u64,
    /// Share of the sessions; 0 is never picked.
    pub weight: u16,
}

/// The present state of the members.
pub trait Members {
    /// Returns whether the member may be picked for this session.
    fn is_eligible(&self, member: usize) -> bool;
    /// Returns the number of its sessions, connecting ones included.
    fn load(&self, member: usize) -> u32;
    /// Returns the stamp left by the last claim; 0 before the first.
    fn stamp(&self, member: usize) -> u64;
    /// Replaces the stamp by `next` and returns true; returns false and changes nothing when the stamp is no longer
    /// `seen`, because another worker has claimed the member meanwhile.
    fn claim(&self, member: usize, seen: u64, next: u64) -> bool;
}

/// The inputs of one pick.
pub struct Pick<'a> {
    /// Shared by all workers: counts the turns of a pool.
    pub cursor: &'a AtomicU64,
    /// Index of the worker that picks.
    pub worker: usize,
    /// The address that `source_hash` hashes; other algorithms ignore it.
    pub client: IpAddr,
    /// The generator of the worker that picks, used by the algorithms that draw.
    pub rng: &'a mut Rng,
}
