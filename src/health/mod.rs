//! Active health checks, without the sockets: requests, answers, and changes of a backend's state.
//!
//! Owns three decisions. [`Probe`] runs one check as a conversation and ends with its result; [`Verdict`] counts
//! results until they change a state; [`next_delay`] returns the wait before the next check. Never opens, reads or
//! closes a socket, never reads a clock and never holds a timer: a worker must do what
//! [`Conversation::next_step`] returns, report the outcome, and keep the deadline.

mod agent;
mod answer;
mod cause;
mod conversation;
mod exchange;
mod expected;
mod probe;
mod protocols;
mod recording;
mod schedule;
mod verdict;

pub use agent::{AgentExchange, AgentFault, LINE_LEN_MAX, Mistake, Said, agent_target};
pub use answer::ANSWER_MAX;
pub use cause::{Cause, Place, ProbeStep, Quoted, first_line};
pub use conversation::{Conversation, Step};
pub use expected::{Expected, may_go_on, printable};
pub use probe::{Probe, target};
pub use recording::Moment;
pub use schedule::{Timing, around, first_delay, next_delay, part_of};
pub use verdict::Verdict;
