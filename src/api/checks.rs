//! The last results of checks, and the override of what they find.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The last result of one check of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckResult {
    /// The name of the check; `health` is that of `[pool.health]`.
    pub name: String,
    /// Whether it has passed; `null` before its first result.
    pub passed: Option<bool>,
    /// Why it has failed, in words.
    pub reason: Option<String>,
    /// Time of the first result like this.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// The certificate that the backend has last shown, if the check is over TLS.
    #[serde(default)]
    pub certificate: Option<Certificate>,
}

/// The certificate of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// The names that it is for, at most eight; its subject if it has none.
    pub names: Vec<String>,
    /// The number of all its names.
    pub names_total: u64,
    /// The end of its validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
}

impl Certificate {
    /// Returns its first name and its last day.
    pub fn words(&self) -> String {
        let name = self.names.first().map_or("", String::as_str);
        let more = match self.names_total.saturating_sub(1) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("certificate for {name}{more} until {}", self.not_after.strftime("%F"))
    }
}

/// Returns what the checks of a backend have found: of several the last result of each, of a single one the
/// `health_reason`, which is the result that has changed the health.
pub fn findings(checks: &[CheckResult], health_reason: Option<&str>) -> Option<String> {
    if checks.len() < 2 {
        return health_reason.map(str::to_owned);
    }
    let words = checks.iter().map(|CheckResult { name, passed, reason, .. }| match passed {
        None => format!("{name} not checked yet"),
        Some(true) => format!("{name} passed"),
        Some(false) => format!("{name} failed: {}", reason.as_deref().unwrap_or_default()),
    });
    Some(words.collect::<Vec<_>>().join(", "))
}

/// An operator's setting of a backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthOverride {
    /// The health to set; `auto` leaves it to the checks again.
    pub health: OverrideTo,
}

/// An operator's setting of a backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverrideTo {
    /// Up, whatever its checks find.
    Up,
    /// Down, whatever its checks find.
    Down,
    /// The result of the checks, as without a setting.
    Auto,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_checks_each_is_named() {
        let check = |name: &str, passed, reason: Option<&str>| CheckResult {
            name: name.into(),
            passed,
            reason: reason.map(str::to_owned),
            since: None,
            certificate: None,
        };
        let one = [check("health", Some(true), None)];
        assert_eq!(findings(&one, Some("check passed")).as_deref(), Some("check passed"));
        assert_eq!(findings(&[], None), None);
        let three =
            [one[0].clone(), check("app", Some(false), Some("connection refused")), check("db", None, None)];
        assert_eq!(
            findings(&three, None).as_deref(),
            Some("health passed, app failed: connection refused, db not checked yet")
        );
    }
}
