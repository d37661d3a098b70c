//! The sockets and threads of the process, and how they follow a new configuration: resources are opened first, all or
//! nothing, and used only then.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::config;
use crate::config::fd_budget::FdBudget;
use crate::config::model::{Config, Global};
use crate::control::admin::{AdminListeners, Swap};
use crate::control::membership::state_file::Contents;
use crate::control::{Member, Workers};
use crate::logging;
use crate::messages;
use crate::messages::reload::Refused;
use crate::messages::report::{Reports, WorkerId};
use crate::messages::topology::Opened;
use crate::pool::{Listener, Snapshot};
use crate::server::circles::refuse_circles;
use crate::server::error::{StartError, system};
use crate::server::listeners::{self, Group, Need, Retiring, Socket};
use crate::server::threads::{seed, spawn_worker};
use crate::stats::WorkerStats;
use crate::sys::{self, Clock, Kernel, Linux, Passed};
use crate::worker::{
    self, Admission, Assignment, GroupId, Listening, Peers, RETIRE_GRACE, Shared, Worker, WorkerEndpoints,
};

/// The next change waits at most this long for the last one to settle: retired sockets are closed after
/// [`RETIRE_GRACE`], unless their queue cannot be served.
const SETTLE_MAX: Duration = RETIRE_GRACE.saturating_mul(4);
/// How often that is checked.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// At most this many listeners may be retiring when the next change is made; with more it waits. They hold descriptors
/// that no configuration accounts for.
const RETIRING_MAX: usize = 64;

type WorkerHandle = worker::WorkerHandle<Socket, <Linux as Kernel>::Socket>;
type Assigned = Assignment<Socket, <Linux as Kernel>::Socket>;

/// The sockets and threads. See the module.
pub(super) struct ServerSite {
    pub(super) workers: Arc<Workers>,
    admission: Arc<Admission>,
    reports: Reports,
    /// The limit that everything must fit into.
    open_files: u64,
    pipe_bytes: Option<u64>,
    /// Settings that do not change in a running process.
    pin: bool,
    busy_poll: Duration,
    state_file: Option<PathBuf>,
    state: Mutex<State>,
    /// The listeners of the admin API; empty until they are open.
    pub(super) admin_listeners: OnceLock<AdminListeners>,
}

#[derive(Default)]
struct State {
    groups: Vec<Group>,
    /// Ids are never reused.
    next_group: u32,
    retiring: Vec<Retiring>,
    /// Passed sockets that no listener uses now.
    unused: Vec<Passed<Socket>>,
    /// The serving workers, by index.
    handles: Vec<WorkerHandle>,
    /// Held by the workers that have not taken their last assignment yet.
    ticket: Weak<()>,
}

/// The resources prepared for a configuration.
pub(super) struct ServerChange {
    site: Arc<ServerSite>,
    config: Config,
    needs: Vec<Need>,
    pending: Vec<PendingWorker>,
    sessions_max: usize,
    checks_max: usize,
    pipes_max: usize,
    pipe_len: usize,
    opened: Opened,
}

/// A worker with a thread that waits for its first assignment, or ends without it.
struct PendingWorker {
    handle: WorkerHandle,
    start: SyncSender<(WorkerId, Start)>,
}

/// The start message of a worker.
struct Start {
    id: WorkerId,
    stats: Arc<WorkerStats>,
    assignment: Assigned,
    snapshot: Arc<Snapshot>,
}

impl ServerSite {
    /// Returns a site without sockets and threads.
    pub(super) fn new(config: &Config, open_files: u64, pipe_bytes: Option<u64>, reports: Reports) -> Self {
        let Global { pin, busy_poll, .. } = &config.global;
        Self {
            workers: Arc::default(),
            admission: Arc::new(Admission::new(0)),
            reports,
            open_files,
            pipe_bytes,
            pin: *pin,
            busy_poll: *busy_poll,
            state_file: config.admin.state_file.clone(),
            state: Mutex::default(),
            admin_listeners: OnceLock::new(),
        }
    }

    /// See [`messages::topology::Site::prepare`]. Also listens on the `passed` sockets.
    pub(super) fn prepare(
        self: &Arc<Self>,
        config: &Config,
        passed: Vec<Passed>,
        opened: Opened,
    ) -> Result<ServerChange, StartError> {
        let budget = FdBudget::of(config, self.open_files, self.pipe_bytes);
        let sessions_max = budget.sessions_max(config)?;
        log::info!("{budget}");
        refuse_circles(config)?;
        self.settle(config)?;
        let workers = config.global.workers.get();
        let passed = listeners::match_passed(config, passed)?;
        let mut state = self.state();
        state.unused.extend(passed);
        let needs = listeners::open(config, &state.groups, &state.retiring, &state.unused)?;
        let pending =
            (state.handles.len()..workers).map(|index| self.spawn(index)).collect::<Result<_, _>>()?;
        Ok(ServerChange {
            site: Arc::clone(self),
            config: config.clone(),
            needs,
            pending,
            sessions_max,
            pipes_max: usize::try_from(budget.pipes).unwrap_or(usize::MAX) / workers,
            pipe_len: budget.pipe_len,
            opened,
            checks_max: usize::try_from(budget.checks_per_worker).unwrap_or(usize::MAX),
        })
    }

    /// See [`messages::topology::Site::preflight`].
    fn preflight(&self, config: &Config) -> Result<(), StartError> {
        // Of all listeners: what is prepared lacks those that are paused.
        refuse_circles(config)?;
        if let Some(account) = &config.global.user {
            let user = || account.user.clone();
            sys::check_account(account).map_err(|error| StartError::Account { user: user(), error })?;
        }
        if let Some(path) =
            config.admin.state_file.as_ref().filter(|&path| self.state_file.as_ref() != Some(path))
        {
            Contents::read(path)?;
        }
        Ok(())
    }

    /// See [`messages::topology::Site::open`].
    fn open(&self, config: &Config) -> Result<Opened, StartError> {
        self.preflight(config)?;
        let logs = logging::open(&config.global);
        let logs = logs.map_err(|(path, error)| StartError::AccessLog { path, error })?;
        let admin_listeners = self
            .admin_listeners
            .get()
            .map(|admin_listeners| admin_listeners.open(&config.admin))
            .transpose()?;
        Ok(Box::new(move || {
            logs.begin();
            admin_listeners.into_iter().for_each(Swap::begin);
        }))
    }

    /// Returns the address of the listener with that name.
    pub(super) fn address_of(&self, listener: &str) -> Option<SocketAddr> {
        self.state().groups.iter().find(|group| group.name == listener).map(|group| group.address)
    }

    /// Leaves the passed sockets to the next process. Must be called once no worker is left.
    pub(super) fn hand_back(&self) {
        let state = self.state();
        state.groups.iter().for_each(Group::hand_back);
        for Passed { address, socket, .. } in &state.unused {
            if let Err(error) = sys::hand_back(socket) {
                log::error!(address:%, error:%; "cannot hand back a socket");
            }
        }
    }

    /// Waits until no retiring part is in the way of `config`.
    fn settle(&self, config: &Config) -> Result<(), StartError> {
        let clock = Clock::start();
        let deadline = clock.now() + SETTLE_MAX;
        while let Some(what) = self.state().addresses_in_use(config) {
            if clock.now() >= deadline {
                return Err(StartError::Unsettled { what });
            }
            thread::park_timeout(RETRY_INTERVAL);
        }
        Ok(())
    }

    /// Returns a thread for the worker with that index.
    fn spawn(&self, index: usize) -> Result<PendingWorker, StartError> {
        let kernel = Linux::new().map_err(system("create an epoll instance"))?.with_busy_poll(self.busy_poll);
        let (handle, endpoints) = WorkerHandle::new(index, &kernel.waker());
        let (start, opened) = sync_channel(1);
        let (reports, admission) = (self.reports.clone(), Arc::clone(&self.admission));
        let run = move |start: Start| run_worker(kernel, endpoints, start, reports, admission);
        spawn_worker(index, self.pin, self.reports.clone(), opened, run).map_err(system("start a thread"))?;
        Ok(PendingWorker { handle, start })
    }

    /// No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl messages::topology::Site for Arc<ServerSite> {
    fn prepare(
        &self,
        config: &Config,
        opened: Opened,
    ) -> Result<Box<dyn messages::topology::StagedChange>, Refused> {
        Ok(Box::new(ServerSite::prepare(self, config, Vec::new(), opened)?))
    }

    fn preflight(&self, config: &Config) -> Result<(), Refused> {
        Ok(ServerSite::preflight(self, config)?)
    }

    fn open(&self, config: &Config) -> Result<Opened, Refused> {
        Ok(ServerSite::open(self, config)?)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.state().groups.iter().map(|group| group.address).collect()
    }

    fn drain(&self) {
        self.state().groups.iter().for_each(Group::leave);
    }
}

impl State {
    /// Returns the part of the last changes that must be over before `config` can be prepared, if any.
    fn addresses_in_use(&mut self, config: &Config) -> Option<String> {
        if self.ticket.strong_count() > 0 {
            return Some("a worker has not taken up its work yet".into());
        }
        self.retiring.retain(Retiring::is_open);
        let grows = config.global.workers.get() > self.handles.len();
        let are_many = self.retiring.len() > RETIRING_MAX;
        let is_in_the_way = |retiring: &&Retiring| {
            if are_many {
                true
            } else if self.groups.iter().any(|group| group.id == retiring.group) {
                // New sockets would be numbered behind the retiring ones.
                grows
            } else {
                let overlaps =
                    |listener: &config::model::Listener| listeners::overlap(listener.bind, retiring.address);
                !retiring.is_hidden && config.listeners.iter().any(overlaps)
            }
        };
        let retiring = self.retiring.iter().find(is_in_the_way)?;
        Some(format!("listener {:?} on {} still serves its queue", retiring.name, retiring.address))
    }

    fn group(&mut self, id: GroupId) -> &mut Group {
        self.groups.iter_mut().find(|group| group.id == id).expect("changes are serialized")
    }

    fn new_group_id(&mut self) -> GroupId {
        let id = GroupId(self.next_group);
        self.next_group =
            self.next_group.checked_add(1).expect("fewer than 2^32 groups in the life of a process");
        id
    }

    /// Gives the sockets opened for `config` to the groups; returns each worker's listeners.
    fn regroup(
        &mut self,
        config: &Config,
        needs: Vec<Need>,
        snapshot: &Snapshot,
    ) -> Vec<Vec<Listening<Socket>>> {
        let workers = config.global.workers.get();
        let mut of_workers: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        let mut kept = Vec::with_capacity(needs.len());
        for (settings, need) in config.listeners.iter().zip(needs) {
            let is_it = |listener: &&Arc<Listener>| listener.settings.name == settings.name;
            let listener =
                snapshot.listeners.iter().find(is_it).expect("the snapshot runs this configuration");
            let tcp = config.pools[settings.pool].tcp;
            let (group, sockets) = match need {
                Need::New { address, sockets, .. } => {
                    let group = Group::new(self.new_group_id(), address, settings, tcp, &sockets);
                    (self.begin(group, config, settings), sockets)
                }
                Need::Passed { passed, beside } => {
                    let is_used = |unused: &Passed<Socket>| {
                        passed.iter().any(|passed| Arc::ptr_eq(&passed.socket, &unused.socket))
                    };
                    self.unused.retain(|unused| !is_used(unused));
                    let sockets = passed.iter().map(|passed| Arc::clone(&passed.socket));
                    let sockets = sockets.chain(beside.iter().cloned()).collect();
                    let group = Group::of_passed(self.new_group_id(), settings, tcp, passed, &beside);
                    (self.begin(group, config, settings), sockets)
                }
                Need::More { group: id, sockets } => {
                    let group = self.group(id);
                    group.serve(settings, tcp);
                    if !sockets.is_empty() {
                        group.extend(&sockets);
                    }
                    let retiring = group.shorten(workers);
                    self.retiring.extend(retiring);
                    (id, sockets)
                }
            };
            kept.push(group);
            let (with_socket, passed) = (self.group(group).len(), self.group(group).passed());
            let is_partial = with_socket < workers;
            if is_partial {
                let name = &settings.name;
                log::info!(listener:% = name, with_socket, workers;
                    "without SO_REUSEPORT of the same user, accept is balance");
            }
            // They are for the last of the workers that have one.
            let without = with_socket - sockets.len();
            let sockets = std::iter::repeat_with(|| None).take(without).chain(sockets.into_iter().map(Some));
            let sockets = sockets.chain(std::iter::repeat_with(|| None));
            for (index, (of_worker, socket)) in of_workers.iter_mut().zip(sockets).enumerate() {
                let (listener, is_beside) = (Arc::clone(listener), (1..=index).contains(&passed));
                of_worker.push(Listening { group, listener, socket, is_partial, is_beside });
            }
        }
        let (groups, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.groups).into_iter().partition(|group| kept.contains(&group.id));
        self.groups = groups;
        for group in gone {
            log::info!(listener:% = group.name, address:% = group.address;
                "listener removed, draining its accept queue");
            let passed = group.retire(&mut self.retiring);
            self.unused.extend(passed);
        }
        of_workers
    }

    /// Puts `group` to use for the listener that it was opened for.
    fn begin(&mut self, group: Group, config: &Config, listener: &config::model::Listener) -> GroupId {
        let (id, address) = (group.id, group.address);
        let (pool, workers) = (&config.pools[listener.pool].name, config.global.workers);
        log::info!(listener:% = listener.name, address:%, pool:%, workers; "listening");
        self.groups.push(group);
        id
    }
}

impl ServerChange {
    /// See [`messages::topology::StagedChange::listen`].
    pub(super) fn start_listening(&self) -> Result<(), StartError> {
        listeners::start_listening(&self.config, &self.needs)
    }
}

impl messages::topology::StagedChange for ServerChange {
    fn listen(&self) -> Result<(), Refused> {
        Ok(self.start_listening()?)
    }

    fn commit(self: Box<Self>, snapshot: &Arc<Snapshot>) {
        let Self { site, config, needs, pending, sessions_max, checks_max, pipes_max, pipe_len, opened } =
            *self;
        opened();
        let workers = config.global.workers.get();
        site.admission.limit(sessions_max);
        site.workers.set_sessions_max(sessions_max);
        let state = &mut *site.state();
        let mut listeners = state.regroup(&config, needs, snapshot);
        let (handles, starts): (Vec<_>, Vec<_>) =
            pending.into_iter().map(|PendingWorker { handle, start }| (handle, start)).unzip();
        let first_new = state.handles.len();
        let mailboxes = handles.iter().map(|handle| handle.mailbox.clone());
        let members = site.workers.change(workers, first_new, mailboxes);
        state.handles.extend(handles);
        let leaving = state.handles.split_off(workers);
        let peers = Peers::of(&state.handles);
        let ticket = Arc::new(());
        state.ticket = Arc::downgrade(&ticket);

        let assignment = |listeners| Assignment {
            epoch: snapshot.epoch,
            listeners,
            peers: peers.clone(),
            checks_max,
            pipes_max,
            pipe_len,
            ticket: Arc::clone(&ticket),
        };
        let of_new = listeners.split_off(first_new.min(workers));
        let stays = state.handles.iter().zip(listeners);
        for (handle, listeners) in stays.chain(leaving.iter().map(|handle| (handle, Vec::new()))) {
            let is_taken = handle.assign(assignment(listeners)).is_ok();
            debug_assert!(
                is_taken,
                "each worker has taken its last assignment before the next one is posted"
            );
        }
        for ((start, member), listeners) in starts.into_iter().zip(members).zip(of_new) {
            let Member { id, stats, .. } = member;
            let (assignment, snapshot) = (assignment(listeners), Arc::clone(snapshot));
            // Its thread waits for nothing else.
            let _ended = start.send((id, Start { id, stats, assignment, snapshot }));
        }
    }
}

impl fmt::Debug for ServerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a staged change for {} workers and {} listeners",
            self.config.global.workers,
            self.needs.len()
        )
    }
}

fn run_worker(
    kernel: Linux,
    endpoints: WorkerEndpoints<Socket, <Linux as Kernel>::Socket>,
    start: Start,
    reports: Reports,
    admission: Arc<Admission>,
) -> io::Result<()> {
    let Start { id, stats, assignment, snapshot } = start;
    let shared = Shared { id, reports, admission, stats, seed: seed(id) };
    Worker::new(kernel, endpoints, assignment, snapshot, shared).run()
}
