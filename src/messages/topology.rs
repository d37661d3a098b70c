//! The machine's side of a configuration, as the control thread requests it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::model::Config;
use crate::messages::discovery::Listed;
use crate::messages::reload::Refused;
use crate::pool::Snapshot;

/// A configuration that was read again, before it has sockets.
pub struct Read {
    /// What was read.
    pub config: Config,
    /// Its files and the addresses of the admin API; `None` for a dry run.
    pub opened: Option<Opened>,
    /// The first answers that it must not run without.
    pub listed: Vec<Listed>,
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration read (to be applied: {})", self.opened.is_some())
    }
}

/// The result of opening the sockets of a configuration.
#[derive(Debug)]
pub struct Loaded {
    /// A configuration to run, or why it must not run.
    pub result: Result<Loadable, Refused>,
}

/// A configuration that can be run.
#[derive(Debug)]
pub struct Loadable {
    /// The configuration that runs once the change is committed.
    pub config: Config,
    /// Its opened resources; `None` for a dry run.
    pub staged: Option<Box<dyn StagedChange>>,
    /// The first answers that it must not run without.
    pub listed: Vec<Listed>,
}

/// The machine's side of a configuration: listening sockets and worker threads. The control thread requests changes
/// through this trait and never sees them.
pub trait Site: Send + Sync {
    /// Opens and starts the resources of `config` that the process does not have yet, and uses none of them. All or
    /// nothing: an error leaves everything unchanged. Waits for the last change to settle, for some seconds at most, so
    /// it must not be called by a thread that others wait for. Calls must not overlap.
    fn prepare(&self, config: &Config, opened: Opened) -> Result<Box<dyn StagedChange>, Refused>;

    /// Fails when a process started with `config` would fail because of keys that need a restart. Opens nothing. May
    /// wait long for a disk or a directory service.
    fn preflight(&self, config: &Config) -> Result<(), Refused>;

    /// Opens the files that `config` names, and the addresses of the admin API; uses none of them. Also fails when
    /// [`Site::preflight`] does, and may wait as long.
    fn open(&self, config: &Config) -> Result<Opened, Refused>;

    /// Returns the addresses of the listeners; a port chosen by the kernel is the actual one.
    fn addresses(&self) -> Vec<SocketAddr>;

    /// Must be called before the workers are drained: from then on connections begin at sockets that outlive the
    /// process, if there are any.
    fn drain(&self);
}

/// Starts to use what was opened for a configuration. If dropped uncalled, it is closed again.
pub type Opened = Box<dyn FnOnce() + Send>;

/// The resources prepared for a configuration. Dropping it closes them.
pub trait StagedChange: Send + fmt::Debug {
    /// Makes the new sockets listen, so that clients may connect from now on. Must be called when nothing else is in
    /// the way, right before [`StagedChange::commit`]. Fails when another socket was faster. Never waits.
    fn listen(&self) -> Result<(), Refused>;

    /// Uses the resources from `snapshot` on, which must be that of the prepared configuration and must be published to
    /// all workers next, retiring ones included. Never waits.
    fn commit(self: Box<Self>, snapshot: &Arc<Snapshot>);
}
