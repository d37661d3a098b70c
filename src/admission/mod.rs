//! Decides which clients a listener admits, as a function of what it is given.
//!
//! [`access`] has the networks that are allowed and denied; `prefixes` finds the one that decides. Does no I/O.

pub mod access;
mod prefixes;

pub use access::{Access, Decision, Item, ListFile, Rule};
