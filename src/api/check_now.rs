//! Checks of a backend that run because an operator asks for them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Certificate, Health};

/// What the checks of a backend have found just now. It changes nothing: neither the health of the backend nor its last
/// results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckRun {
    /// The pool of the backend.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// Whether all checks have passed; `null` when none has failed, and one came to no result.
    pub passed: Option<bool>,
    /// The health of the backend, as before.
    pub health: Health,
    /// Each check of the pool, in order. The workers end a round with the first that fails; here the others run too.
    pub checks: Vec<CheckDone>,
}

/// One check that has run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckDone {
    /// The name of the check; `health` is that of `[pool.health]`.
    pub name: String,
    /// Its type, as in the configuration.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address that it connects to, or that its program gets.
    pub address: String,
    /// Whether it has passed; `null` when it came to no result, which means nothing for the backend.
    pub passed: Option<bool>,
    /// Why it has not passed, in words.
    pub reason: Option<String>,
    /// How long it took to its result, in seconds.
    pub took: f64,
    /// The most that it might have taken, in seconds.
    pub limit: f64,
    /// The certificate that it was shown, if it is over TLS.
    pub certificate: Option<Certificate>,
    /// What happened, in order; at most 128 of it.
    pub exchange: Vec<Act>,
    /// How much more there was.
    pub left_out: u64,
}

/// One thing that happened in a check. Inside of TLS these are the plain bytes. In place of the content of a variable
/// that the configuration names is its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Act {
    /// When it was over, in seconds from the start of the check.
    pub at: f64,
    /// The kind of it.
    pub kind: ActKind,
    /// The first 1024 of the bytes, escaped on one line; or words, which may be none.
    pub text: String,
    /// The number of bytes; 0 for words.
    pub len: u64,
    /// Whether the text leaves some of them out.
    pub is_cut: bool,
}

/// The kind of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActKind {
    /// The connection is established.
    Connected,
    /// The header of the PROXY protocol is sent.
    Header,
    /// The TLS handshake is complete.
    Secured,
    /// Bytes are sent.
    Sent,
    /// Bytes were received.
    Received,
    /// The check waits for this.
    Expected,
    /// A program was run.
    Ran,
    /// It has printed something.
    Printed,
}

impl CheckRun {
    /// Returns whether all of `checks` have passed; `None` when none has failed, and one came to no result.
    pub fn passed(checks: &[CheckDone]) -> Option<bool> {
        if checks.iter().any(|check| check.passed == Some(false)) {
            return Some(false);
        }
        checks.iter().all(|check| check.passed == Some(true)).then_some(true)
    }
}
