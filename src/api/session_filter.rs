//! Which sessions a request wants, and in which order.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The parameters that select sessions.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SessionFilter {
    /// Only sessions through this pool.
    pub pool: Option<String>,
    /// Only sessions on this backend. With `*` or `?` in it a pattern, of names or addresses: `a*`, `*/10.0.0.7:80`.
    pub backend: Option<String>,
    /// Only sessions of this client address, IPv4 or IPv6 without port, or of clients in a network like `10.0.0.0/8`.
    #[param(example = "10.0.0.0/8")]
    pub client: Option<String>,
    /// Most rows to return, 1..=1000 [default: 100]. A page may hold fewer though more follow.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// The order of the rows, all on one page: with `limit` the first of them. Without it that of their places.
    #[param(inline)]
    pub sort: Option<SessionSort>,
    /// `next` of the previous page.
    #[param(pattern = r"^[0-9]{1,9}\.[0-9]{1,9}$")]
    pub from: Option<String>,
    /// Ended sessions instead of open ones: of the last 1,024 of each worker, newest first, on one page.
    pub ended: Option<bool>,
    /// Only sessions that ended for this reason.
    pub reason: Option<String>,
    /// Only sessions that ended within this time, such as `5m` or `1h30m`.
    pub since: Option<String>,
}

/// The order of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionSort {
    /// Those that have moved most bytes first.
    Bytes,
    /// The oldest first.
    Age,
    /// Those without a byte for the longest time first.
    Idle,
    /// By pool and backend.
    Backend,
    /// By the address of the client.
    Client,
}

impl SessionSort {
    /// Returns the word for it in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Idle => "idle",
            Self::Backend => "backend",
            Self::Client => "client",
        }
    }
}
