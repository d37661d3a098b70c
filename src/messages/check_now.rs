//! Checks of one backend that an operator wants at once: the order of the admin thread, and what was found. They run on
//! a thread of their own, and change nothing that workers know.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::base::address::Address;
use crate::base::time::Instant;
use crate::config::model::{BackendCheck, Pool};
use crate::messages::report::Reports;
use crate::tls::Certificate;

/// What becomes of the answer: what each check has found, or why none could run.
pub type Reply = Box<dyn FnOnce(io::Result<Vec<Found>>) + Send>;

/// An order to run all checks of a backend, one after the other.
pub struct CheckNow {
    /// What to check.
    pub subject: Subject,
    /// Gets what was found; it must not block.
    pub reply: Reply,
}

/// A backend to check.
pub struct Subject {
    /// The settings of its pool.
    pub pool: Arc<Pool>,
    /// Its name.
    pub backend: String,
    /// The address that sessions dial.
    pub address: Address,
    /// What is special about its checks.
    pub own: BackendCheck,
    /// By way of which programs are ordered.
    pub reports: Reports,
    /// No check may take longer.
    pub until: Instant,
}

impl fmt::Debug for CheckNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Order to check {}/{}", self.subject.pool.name, self.subject.backend)
    }
}

/// What one check has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its name, if its pool has several.
    pub name: Option<String>,
    /// Its type, as in the configuration.
    pub kind: &'static str,
    /// The address of the check.
    pub target: Address,
    /// Its result.
    pub finding: Finding,
    /// How long it took to the result.
    pub took: Duration,
    /// The most that it might have taken.
    pub limit: Duration,
    /// The certificate that it was shown, if it is over TLS.
    pub certificate: Option<Certificate>,
    /// What happened, in order.
    pub acts: Vec<Act>,
    /// How many more there were.
    pub left_out: usize,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The backend is well.
    Passed,
    /// It is not, for this reason.
    Failed(String),
    /// The check came to no result, for this reason, which means nothing for the backend.
    Undecided(String),
}

/// One thing that happened in a check. Its text is safe to print, and without the content of variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// When it was over, counted from the start of the check.
    pub at: Duration,
    /// The kind of it.
    pub kind: ActKind,
    /// The beginning of the bytes, escaped; or words.
    pub text: String,
    /// The number of all bytes; 0 where there are none.
    pub len: u64,
    /// Whether the text leaves some of them out.
    pub is_cut: bool,
}

/// The kind of an [`Act`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActKind {
    /// The connection is established.
    Connected,
    /// The header of the PROXY protocol is sent.
    Header,
    /// The TLS handshake is complete.
    Secured,
    /// These bytes are sent.
    Sent,
    /// These bytes were received.
    Received,
    /// It waits for this.
    Expected,
    /// This program was run.
    Ran,
    /// It has printed this.
    Printed,
}
