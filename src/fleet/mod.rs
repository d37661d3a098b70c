//! What the balancers of a fleet publish, and what one knows of all of them. Does no I/O and reads no clock; the thread of
//! `control::fleet` puts the keys and watches those of the others.
//!
//! `record` has the keys and their values, `known` what is known of all balancers.

pub mod record;

pub mod known;
