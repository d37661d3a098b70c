//! The sessions of this worker, from the dial to the last byte.

pub(super) mod buffers;
pub(super) mod byte_accounting;
pub(super) mod close;
pub(super) mod conduit;
pub(super) mod connect;
pub(super) mod drive;
pub(super) mod lent;
pub(super) mod lines;
pub(super) mod lost_wakeups;
pub(super) mod pipes;
pub(super) mod ports;
pub(super) mod stalled;
pub(super) mod waiting;
