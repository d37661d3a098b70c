//! What has become of the records by which clients find this process.

/// The standing of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// There are none.
    Withdrawn,
    /// All that should be there are: so many.
    Kept(usize),
    /// They are not as they should be, for this reason. What was there lasts no longer than its lease.
    Failing(String),
}
