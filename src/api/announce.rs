//! The records by which clients find a process in DNS.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The records that `[announce]` keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Announce {
    /// The name below which the listeners are.
    pub domain: String,
    /// The label of this process below those of its listeners.
    pub name: String,
    /// `kept`, `withdrawn`, or `failing` while the records are not as they should be.
    pub state: String,
    /// Time of the last change of `state`; `null` before the first one.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Why it is failing.
    pub note: Option<String>,
    /// Records that are kept.
    pub records: u64,
    /// The listeners.
    pub listeners: Vec<AnnouncedListener>,
}

/// A listener that has records, or should have none now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AnnouncedListener {
    /// Its name in the configuration.
    pub listener: String,
    /// Its name in DNS, which it shares with the listeners of that name of other processes.
    pub name: String,
    /// Why it should have no record, in words; `null` while it should.
    pub why_not: Option<String>,
}
