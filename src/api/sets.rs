//! Changes of several backends in one step.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::placing::PlacingKey;
use super::{Admin, Backend, OverrideTo, whole};

/// Most names and patterns in one request.
pub const NAMES_MAX: usize = 256;
/// Most patterns among them: each is compared with all backends.
pub const PATTERNS_MAX: usize = 16;
/// Most bytes of a name or a pattern: those of a pool and of a backend, and as many stars.
pub const PATTERN_LEN_MAX: usize = 256;

/// A change of all backends that names and patterns select: of all or, when one name is unknown, of none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendsChange {
    /// `POOL/BACKEND`, or `BACKEND` where there is one pool. In either part `*` stands for any characters and `?` for
    /// any one; a pattern also selects backends by their address. A pattern must match at least one;
    /// at most 16 are patterns.
    #[schema(min_items = 1, max_items = 256, example = json!(["web/a*", "*/10.0.0.7:80"]))]
    pub backends: Vec<String>,
    /// Share of new sessions, 0..=256.
    #[schema(maximum = 256)]
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// The new administrative state; absent leaves it unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// The health to set, whatever checks find; `auto` leaves it to them again; absent leaves it unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<OverrideTo>,
    /// The address to dial in place of the one of the file, of the registration or of the source; one backend by its
    /// name. A host is resolved once. New sessions go there, open ones stay where they are.
    #[schema(example = "10.0.0.9:80", pattern = r"^(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]*):[0-9]+$")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The tier in place of that one, 0..=15.
    #[schema(maximum = 15)]
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// Settings of these requests to undo: the file, the registration or the source decides again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reset: Vec<PlacingKey>,
    /// Permits a pool to lose its last eligible backend, which several names or a pattern may not do otherwise.
    #[serde(default)]
    pub force: bool,
    /// Changes nothing: the answer says what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// The backends that were selected, in the order of the names; all addresses of a host name are one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackendsChanged {
    /// False for a dry run.
    pub applied: bool,
    /// Each backend, as it is now.
    pub backends: Vec<BackendChanged>,
    /// Those that are in no pool now, with what was undone of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<GoneChanged>,
    /// Why the change is not in the state file, if it should be; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_saved: Option<String>,
}

/// A backend of a set that is in no pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GoneChanged {
    /// The pool that it was in.
    pub pool: String,
    /// Its name there.
    pub name: String,
    /// What has changed, or would change, in words; empty where it is so already.
    pub changes: Vec<String>,
}

/// One backend of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackendChanged {
    /// The backend.
    #[serde(flatten)]
    pub backend: Backend,
    /// What has changed, or would change, in words; empty where it is so already.
    pub changes: Vec<String>,
}
