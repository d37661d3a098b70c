//! Measures this machine, and the requirements of a configuration.

use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread;

use crate::config::fd_budget::FdBudget;
use crate::config::model::{AdminSocket, Relay};
use crate::config::{BACKLOG, Config, default_admin_socket};
use crate::sys;

/// Settings of this machine. `None` where one cannot be read, such as those of the whole machine inside a container.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// The hard limit of open files.
    pub(crate) nofile: Option<u64>,
    /// net.core.somaxconn.
    pub(crate) somaxconn: Option<u64>,
    /// net.ipv4.tcp_migrate_req.
    pub(crate) migrate_req: Option<u64>,
    /// net.ipv4.ip_local_port_range.
    pub(crate) port_range: Option<(u64, u64)>,
    /// net.ipv4.ip_local_reserved_ports.
    pub(crate) reserved_ports: Option<Vec<RangeInclusive<u16>>>,
    /// Limit in bytes on this user's pipes together; the inner `None` is no limit.
    pub(crate) pipe_bytes: Option<Option<u64>>,
    /// fs.pipe-max-size.
    pub(crate) pipe_max_size: Option<u64>,
    /// net.ipv4.tcp_max_orphans.
    pub(crate) max_orphans: Option<u64>,
    /// net.ipv4.tcp_max_tw_buckets.
    pub(crate) max_time_wait: Option<u64>,
    /// fs.epoll.max_user_watches.
    pub(crate) max_watches: Option<u64>,
    /// net.netfilter.nf_conntrack_max; `None` also where connections are not tracked.
    pub(crate) conntrack_max: Option<u64>,
    /// The result of a splice.
    pub(crate) splice: Result<(), String>,
    /// The result of sharing a port.
    pub(crate) reuse_port: Result<(), String>,
    /// Number of processors that this process may use.
    pub(crate) processors: usize,
    /// The path of the admin socket, and whether it can be created; `None` when none is configured.
    pub(crate) admin_socket: Option<(PathBuf, Result<(), String>)>,
    /// The user with these limits.
    pub(crate) user: String,
    /// Whether this process has the rights of root.
    pub(crate) is_root: bool,
}

impl Figures {
    /// Returns the settings of this machine and of this process, which has the limits of the user that started it: a
    /// service has others. As root, capabilities that `config` drops are not counted.
    pub(crate) fn measure(config: Option<&Config>) -> Self {
        let setting = |name| sys::kernel_setting(name).ok().and_then(|words| words.first().copied());
        let is_to_drop = config.is_some_and(|config| config.global.user.is_some());
        let admin_socket = match config.map_or(&AdminSocket::Default, |config| &config.admin.socket) {
            AdminSocket::Off => None,
            AdminSocket::At(path) => Some((path.clone(), text_of(sys::can_write_into(folder_of(path))))),
            AdminSocket::Default => Some(match default_admin_socket(sys::is_root()) {
                Some(path) => {
                    // Its folder is created on demand.
                    let mut folders = path.ancestors().skip(1);
                    let folder = folders.find(|folder| folder.exists()).unwrap_or(&path);
                    let can_write = text_of(sys::can_write_into(folder));
                    (path, can_write)
                }
                None => ("/run/l4lb".into(), Err("this user has no run-time directory".into())),
            }),
        };
        Self {
            nofile: sys::open_files_max().ok(),
            somaxconn: setting("net/core/somaxconn"),
            migrate_req: setting("net/ipv4/tcp_migrate_req"),
            port_range: sys::kernel_setting("net/ipv4/ip_local_port_range").ok().and_then(
                |words| match words[..] {
                    [first, last] => Some((first, last)),
                    _ => None,
                },
            ),
            reserved_ports: sys::reserved_ports().ok(),
            pipe_bytes: sys::pipe_bytes_max(is_to_drop).ok(),
            pipe_max_size: setting("fs/pipe-max-size"),
            max_orphans: setting("net/ipv4/tcp_max_orphans"),
            max_time_wait: setting("net/ipv4/tcp_max_tw_buckets"),
            max_watches: setting("fs/epoll/max_user_watches"),
            conntrack_max: setting("net/netfilter/nf_conntrack_max"),
            splice: text_of(sys::try_splice()),
            reuse_port: text_of(sys::try_reuse_port()),
            processors: thread::available_parallelism().map_or(1, std::num::NonZero::get),
            admin_socket,
            user: sys::user_name(),
            is_root: sys::is_root(),
        }
    }
}

/// Returns the folder that a file of that name is created in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(".".as_ref())
}

fn text_of(result: io::Result<()>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}

/// The requirements of a configuration.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) workers: usize,
    /// The longest accept queue configured.
    pub(crate) backlog: u32,
    /// Most sessions at a time; an error when none are possible or fewer than configured.
    pub(crate) sessions: Result<usize, String>,
    pub(crate) splices: bool,
    /// Number of pipes, and the size of each; `None` when unknown.
    pub(crate) pipes: Option<(u64, usize)>,
    pub(crate) ports: BTreeSet<u16>,
    pub(crate) backends: usize,
    /// Whether a pool must splice at any cost.
    pub(crate) must_splice: bool,
    /// Whether the admin socket is required: one at the default place is optional.
    pub(crate) must_open_admin_socket: bool,
    /// Whether root is given up once the process listens.
    pub(crate) gives_up_root: bool,
}

impl Plan {
    /// Returns the plan of `config`, or of one listener and one backend with default settings.
    pub(crate) fn of(config: Option<&Config>, figures: &Figures) -> Self {
        let nofile = figures.nofile.unwrap_or(u64::MAX);
        let Some(config) = config else {
            return Self {
                workers: figures.processors,
                backlog: BACKLOG,
                sessions: Ok(usize::try_from(nofile / 2).unwrap_or(usize::MAX)),
                splices: true,
                pipes: None,
                ports: BTreeSet::new(),
                backends: 1,
                must_splice: false,
                must_open_admin_socket: false,
                gives_up_root: false,
            };
        };
        let budget = FdBudget::of(config, nofile, figures.pipe_bytes.flatten());
        let splices = config.global.splice && config.pools.iter().any(|pool| pool.relay != Relay::Copy);
        let backends: BTreeSet<_> =
            config.pools.iter().flat_map(|pool| &pool.backends).map(|backend| &backend.address).collect();
        Self {
            workers: config.global.workers.get(),
            backlog: config.listeners.iter().map(|listener| listener.backlog).max().unwrap_or(BACKLOG),
            sessions: budget.sessions_max(config).map_err(|error| error.to_string()),
            splices,
            pipes: splices.then_some((budget.pipes, budget.pipe_len)),
            ports: config.listeners.iter().map(|listener| listener.bind.port()).collect(),
            backends: backends.len(),
            must_splice: splices && config.pools.iter().any(|pool| pool.relay == Relay::Splice),
            must_open_admin_socket: matches!(config.admin.socket, AdminSocket::At(_)),
            gives_up_root: config.global.user.is_some(),
        }
    }
}
