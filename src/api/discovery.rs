//! Where backends come from, and the sources of those that come and go by themselves.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The origin of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The config file or a flag.
    Config,
    /// A request to this API.
    Api,
    /// A source that is asked again and again.
    Discovered,
}

/// A source of backends, and how asking it goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Discovery {
    /// The pool that it lists backends for.
    pub pool: String,
    /// Its name, which is the question, as in "dns:web.service.local:80", "file:/etc/web.json" or
    /// "http://127.0.0.1:8080/web.json".
    pub source: String,
    /// How asking went last: "found", "nothing", "failed", or "waiting" before the first answer.
    pub state: String,
    /// Since when it goes so.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// How long ago there was an answer last, in seconds.
    pub age: Option<f64>,
    /// In how many seconds it is asked next, if no failed dial makes that earlier; 0 while it is asked, null before the
    /// first answer.
    pub next: Option<f64>,
    /// Backends that are believed to be there.
    pub backends: u64,
    /// A note for the operator about the last answer.
    pub note: Option<String>,
    /// Backends that it lists and that are not in the pool on its behalf, and why.
    pub left_out: Vec<String>,
}

/// The present answer of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Discovered {
    /// The source as logs and metrics name it, such as `dns:web.test:80`.
    pub source: String,
    /// Why there is no answer, if there is none.
    pub error: Option<String>,
    /// A note for the operator about the answer.
    pub notes: Vec<String>,
    /// All backends of the answer, and what is known of the pool: "new", "there", or "gone" where the answer lacks one.
    pub backends: Vec<DiscoveredBackend>,
}

/// A backend of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DiscoveredBackend {
    /// Its name in the pool.
    pub name: String,
    /// The address and port that sessions dial.
    pub address: String,
    /// Share of new sessions, 0..=256.
    pub weight: u16,
    /// Its tier, 0..=15: serves only while no backend of a lower number is eligible.
    pub priority: u8,
    /// "new" if the pool does not have it, "there" if it does, "gone" if only the pool does.
    pub state: String,
}
