//! Active health checks, without the sockets: what a check says, what its answer means, when a backend changes state.
//!
//! Owns three decisions. [`Probe`] runs one check as a conversation and ends with its result; [`Verdict`] counts results
//! until they change a state; [`next_delay`] says how long to wait before the next check.
//! Never opens, reads or closes a socket, never reads a clock and never holds a timer: a worker does what
//! [`Probe::next_step`] asks for, reports back what became of it, and keeps the deadline.

mod answer;
mod cause;
mod probe;
mod schedule;
mod verdict;

pub use answer::ANSWER_MAX;
pub use cause::{Cause, Doing, Quoted};
pub use probe::{Probe, Step, target};
pub use schedule::{first_delay, next_delay};
pub use verdict::Verdict;
