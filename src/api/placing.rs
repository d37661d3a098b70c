//! The address and the tier that operators set of backends, whatever lists them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an operator sets over the file, a registration or a source until it is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlacingKey {
    /// The address to dial.
    Address,
    /// The tier.
    Priority,
}

/// The address and the tier that an operator has set of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Placed {
    /// The address that the file, the registration or the source has; `null` where none was set in its place.
    pub address_before: Option<String>,
    /// The tier there; `null` where none was set in its place.
    pub priority_before: Option<u8>,
    /// The last requester.
    pub by: String,
    /// When that was.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

impl Placed {
    /// Returns what was set, in words: `address set by uid 0 since 2026-01-02T03:04:05Z in place of 10.0.0.1:80`.
    pub fn words(&self) -> String {
        let Self { address_before, priority_before, by, since } = self;
        let address = address_before.as_ref().map(|address| ("address", address.clone()));
        let priority = priority_before.map(|priority| ("priority", format!("priority {priority}")));
        let (what, before): (Vec<_>, Vec<_>) = address.into_iter().chain(priority).unzip();
        let (what, before) = (what.join(" and "), before.join(", "));
        format!("{what} set by {by} since {since:.0} in place of {before}")
    }
}
