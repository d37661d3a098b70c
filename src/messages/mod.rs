//! Messages between threads: commands to a worker, which wake it, and reports to the control thread. Every queue is
//! bounded. A worker never waits for one: a report that does not fit is dropped and counted, and the reader must then
//! read the atomics of the backends.
//!
//! No worker sleeps over a command. It is queued first, and the worker is woken then; the worker empties its mailbox
//! after every wait. Commands queued when the wait returned are read in that turn, because a turn reads as many as a
//! mailbox holds; later ones wake later, and end the next wait.
//!
//! The reader of a message sees everything that its sender did before: with [`Publish`](command::Command::Publish) the
//! whole snapshot, with [`Health`](report::Report::Health) the new health, with [`Stopped`](report::Report::Stopped)
//! the final value of every counter.

pub mod announce;
pub mod check_now;
pub mod command;
pub mod discovery;
pub mod external;
pub mod mailbox;
pub mod query;
pub mod reload;
pub mod report;
pub mod request;
pub mod topology;
