//! The last five minutes, second by second.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Event;

/// The last five minutes, and the latest events. Every list of figures has one per sample, oldest first; `null` where
/// there was nothing to compare with: in the first sample of a pool or listener, and of a pool when backends have
/// joined or left.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// Times of the samples.
    #[schema(value_type = Vec<String>)]
    pub times: Vec<Timestamp>,
    /// Seconds that each sample covers. More than about one after a pause of the process.
    pub seconds: Vec<f64>,
    /// All sessions together; `failures` are failed dials.
    pub totals: Series,
    /// Sessions that ended, by reason. Reasons that did not occur are left out.
    pub closed: BTreeMap<String, Vec<Option<u32>>>,
    /// Half of the connects to backends took less, in seconds.
    pub connect_p50: Vec<Option<f64>>,
    /// 99 of 100 connects to backends took less, in seconds.
    pub connect_p99: Vec<Option<f64>>,
    /// The pools that there are now, at most 128; `failures` are failed dials.
    pub pools: Vec<NamedSeries>,
    /// The listeners that there are now, at most 128; `failures` are sessions that failed.
    pub listeners: Vec<NamedSeries>,
    /// The latest 100 events, oldest first.
    pub events: Vec<Event>,
}

/// What was counted in each sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Series {
    /// Open sessions at the time of the sample.
    pub sessions: Vec<Option<u32>>,
    /// New sessions; of a pool, sessions given to its backends.
    pub opened: Vec<Option<u32>>,
    /// Failed dials or sessions.
    pub failures: Vec<Option<u32>>,
    /// Bytes written to backends. Those of long sessions are counted every five seconds.
    pub to_backend: Vec<Option<u64>>,
    /// Bytes written to clients.
    pub to_client: Vec<Option<u64>>,
}

/// The series of one pool or listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamedSeries {
    /// Its name.
    pub name: String,
    /// What was counted in each sample.
    #[serde(flatten)]
    pub series: Series,
}
