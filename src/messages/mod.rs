//! Messages between threads: commands to a worker, which they wake, and reports to the control thread.
//! Every queue is bounded. A worker never waits for one: what does not fit is dropped and counted, and the reader finds
//! the truth in the atomics of the backends.
//!
//! No worker sleeps over a command. It is put in first, and the worker is woken then; the worker empties its mailbox
//! behind every wait. What was there when the wait returned is read in that turn, because a turn reads as many as a
//! mailbox holds; what came later wakes later, and ends the next wait.
//!
//! A message shows its reader all that its sender did before: of [`Publish`](command::Command::Publish) the whole snapshot,
//! of [`Health`](report::Report::Health) the new health, of [`Stopped`](report::Report::Stopped) the last count of every
//! counter.

pub mod command;
pub mod mailbox;
pub mod query;
pub mod reload;
pub mod report;
pub mod request;
pub mod topology;
