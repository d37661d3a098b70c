//! Where connections come from: the listeners of this worker, and the sessions that other workers hand over.

pub(super) mod accept;
pub(super) mod listeners;
pub(super) mod listening;
