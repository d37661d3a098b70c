//! Decisions of the lists of listeners about an address.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The address that is tested, and where.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AccessQuery {
    /// The address of a client, IPv4 or IPv6 without port.
    #[param(example = "192.0.2.1")]
    pub address: String,
    /// Only this listener; all of them otherwise.
    pub listener: Option<String>,
}

/// The decision of one listener about a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessDecision {
    /// The listener.
    pub listener: String,
    /// True when it admits the client.
    pub admitted: bool,
    /// False when it has no lists at all.
    pub has_lists: bool,
    /// The list with the network that decides, `allow` or `deny`; absent when no network has the address.
    pub rule: Option<String>,
    /// The network that decides, as it is written.
    pub network: Option<String>,
    /// The file that has it, unless it is in the configuration itself.
    pub file: Option<String>,
    /// The line in that file.
    pub line: Option<u32>,
}
