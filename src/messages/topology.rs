//! What a configuration needs of this machine, as the control thread asks for it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::model::Config;
use crate::messages::reload::Refused;
use crate::pool::Snapshot;

/// What came of reading the configuration again.
#[derive(Debug)]
pub struct Loaded {
    /// What it says, or why it is not to be run.
    pub result: Result<Loadable, Refused>,
}

/// A configuration that can be run.
#[derive(Debug)]
pub struct Loadable {
    /// What it says.
    pub config: Config,
    /// What it needs; `None` when it is not to be run.
    pub staged: Option<Box<dyn StagedChange>>,
}

/// What a configuration needs of this machine: sockets that listen, and threads that serve. The control thread asks for
/// it and never sees it.
pub trait Site: Send + Sync {
    /// Opens and starts what `config` needs and the process does not have yet, and uses none of it. All or nothing: an
    /// error leaves everything as it was. Waits for what was changed last to be over, for some seconds at most, so it
    /// is not to be called by a thread that others wait for. One at a time.
    fn prepare(&self, config: &Config, opened: Opened) -> Result<Box<dyn StagedChange>, Refused>;

    /// Fails when a process that is started with `config` would fail for what it says of keys that take a restart. Opens
    /// nothing. May wait for a disk or a directory service for long.
    fn foresee(&self, config: &Config) -> Result<(), Refused>;

    /// Opens the files that `config` names, and the addresses of operators; uses none of it. Fails also when
    /// [`Site::foresee`] does, and may wait as long.
    fn open(&self, config: &Config) -> Result<Opened, Refused>;

    /// Returns where the listeners listen; a port that the kernel has chosen is the one that it chose.
    fn addresses(&self) -> Vec<SocketAddr>;

    /// The workers are told to drain next: connections begin at sockets that outlive the process, where there are some.
    fn drain(&self);
}

/// Puts to use what was opened for a configuration. Dropped, it is closed again.
pub type Opened = Box<dyn FnOnce() + Send>;

/// What was prepared for a configuration. Dropping it takes it away again.
pub trait StagedChange: Send + fmt::Debug {
    /// The sockets that were opened for it begin to listen, so from now on clients come: to be called when nothing else is
    /// in its way, right before [`StagedChange::commit`]. An error says that somebody else was faster. Never waits.
    fn listen(&self) -> Result<(), Refused>;

    /// Uses it from `snapshot` on, which runs the configuration that it was prepared for and is to be published to all
    /// workers next: also to those that leave. Never waits.
    fn commit(self: Box<Self>, snapshot: &Arc<Snapshot>);
}
