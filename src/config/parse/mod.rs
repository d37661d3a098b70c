//! From text to its mirror: which tables and keys there are, each with its place in the file. Knows nothing of types, ranges
//! or defaults; those are [`check`](super::check)'s, which reports to the same [`report::Report`].

pub(super) mod raw;
pub(super) mod report;
