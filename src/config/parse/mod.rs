//! From a file to its text, and from text to its mirror: which tables and keys there are, each with its place. Knows
//! nothing of types, ranges or defaults; those are `check`'s, which adds to the same report.

mod document;
pub(super) mod file;
pub(super) mod include;
pub(super) mod label;
mod named;
pub(super) mod raw;
pub(super) mod report;
mod variables;
