//! Where connections come from: the listeners of this worker, and the sessions that other workers hand over.
//!
//! In reading order: `listener_slot` is one listener, `listeners` knows which of them is next, `accept` takes a
//! connection, `listening` opens and closes listeners.

pub(super) mod accept;
mod listener_slot;
pub(super) mod listeners;
pub(super) mod listening;
