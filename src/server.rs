//! Starts the workers and the control thread and waits for them: the only file that sees both.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::base::hash::hash;
use crate::config::limits::{FdBudget, LimitError};
use crate::config::model::{Config, Listener};
use crate::control::admin::{self, AdminError};
use crate::control::{Control, View};
use crate::mailbox::{Command, Mailbox, Report, Reports, StopReason};
use crate::pool::{self, Backend, Snapshot};
use crate::stats::{Share, Totals, WorkerStats};
use crate::sys::{self, Kernel, Linux};
use crate::worker::{Admission, Crew, Shared, Worker};

/// Why the process could not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that another process listens on.
    #[error("listener {name:?}: cannot listen on {bind}: address in use, held by {holder}")]
    InUse {
        /// The listener.
        name: String,
        /// Its address.
        bind: SocketAddr,
        /// Who could hold it.
        holder: String,
    },
    /// A backend that is one of our own listeners.
    #[error("pool {pool:?}: backend {backend:?}: {address} is our own listener {bind}")]
    Circle {
        /// The pool.
        pool: String,
        /// The backend.
        backend: String,
        /// Its address.
        address: SocketAddr,
        /// The address of the listener.
        bind: SocketAddr,
    },
    /// Any other reason not to be able to listen.
    #[error("listener {name:?}: cannot listen on {bind}: {error}{hint}")]
    Listen {
        /// The listener.
        name: String,
        /// Its address.
        bind: SocketAddr,
        /// What to do about it, if anything is known.
        hint: &'static str,
        /// The error of the call. Not a `source`: the message holds it, and `main` prints the sources behind it.
        error: io::Error,
    },
    /// The admin API cannot be where it is configured.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The limit of open files does not allow what is configured.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// A system call that the process cannot do without.
    #[error("cannot {what}: {error}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The error of the call.
        error: io::Error,
    },
}

/// A running load balancer. Dropping it changes nothing; see [`Running::terminate`] and [`Running::wait`].
pub struct Running {
    /// Where each listener listens, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Where the admin API can be reached.
    pub admin: admin::Addresses,
    control: JoinHandle<io::Result<()>>,
    reports: Reports,
    snapshot: Arc<Snapshot>,
    stats: Vec<Arc<WorkerStats>>,
}

impl Running {
    /// What SIGTERM does: drains, and the second time stops at once.
    pub fn terminate(&self) {
        self.reports.send_surely(Report::Terminate);
    }

    /// Where signals are reported to.
    pub fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// The counters of all workers together.
    pub fn totals(&self) -> Totals {
        Totals::of(self.stats.iter().map(Arc::as_ref))
    }

    /// What part of the work each worker has done so far, by index.
    pub fn shares(&self) -> impl Iterator<Item = Share> {
        self.stats.iter().map(|stats| Share::of(stats))
    }

    /// All backends, in the order of the configuration.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.snapshot.backends()
    }

    /// Waits until everything has stopped; returns the counters at the end.
    pub fn wait(self) -> io::Result<Totals> {
        let result = self.control.join().map_err(|_| io::Error::other("the control thread panicked"))?;
        if let Some(socket) = &self.admin.socket {
            // Gone already: whoever has taken it away has done our work.
            let _gone = std::fs::remove_file(socket);
        }
        let totals = Totals::of(self.stats.iter().map(Arc::as_ref));
        result.map(|()| totals)
    }
}

/// Starts what `config` says and returns once every listener listens.
pub fn start(config: &Config) -> Result<Running, StartError> {
    let system = |what| move |error| StartError::System { what, error };
    debug_assert!(
        sys::sigpipe_is_ignored().unwrap_or(true),
        "a write to a dead connection would end the process"
    );
    let open_files = sys::raise_open_files_limit().map_err(system("read the limit of open files"))?;
    let pipe_bytes = sys::pipe_bytes_max().unwrap_or_else(|error| {
        log::warn!(error:%; "cannot read what pipes may hold, so it will show");
        None
    });
    let budget = FdBudget::of(config, open_files, pipe_bytes);
    let sessions_max = budget.sessions_max(config)?;
    log::info!("{budget}");

    refuse_circles(config)?;
    let workers = config.global.workers.get();
    let snapshot = Arc::new(Snapshot::new(config));
    let (sockets, addresses) = listen_all(config, &snapshot)?;
    let admin = admin::open(&config.admin)?;
    let admission = Arc::new(Admission::new(sessions_max));
    let (reports, inbox) = Reports::new();
    let mut kernels = Vec::with_capacity(workers);
    for _ in 0..workers {
        let kernel = Linux::new().map_err(system("create an epoll instance"))?;
        kernels.push(kernel.with_busy_poll(config.global.busy_poll));
    }
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
        kernels.iter().map(|kernel| Mailbox::new(kernel.waker())).unzip();
    let mailboxes: Arc<[Mailbox]> = mailboxes.into();
    let (crew, arrivals) = Crew::new(kernels.iter().map(Linux::waker));
    let stats: Vec<Arc<WorkerStats>> = (0..workers).map(|_| Arc::default()).collect();

    let mut built = Vec::with_capacity(workers);
    let inboxes = inboxes.into_iter().zip(arrivals);
    for (((index, kernel), (inbox, arrivals)), sockets) in
        kernels.into_iter().enumerate().zip(inboxes).zip(sockets)
    {
        let shared = Shared {
            index,
            mailboxes: Arc::clone(&mailboxes),
            inbox,
            crew: Arc::clone(&crew),
            arrivals,
            reports: reports.clone(),
            snapshot: Arc::clone(&snapshot),
            admission: Arc::clone(&admission),
            pipes_max: usize::try_from(budget.pipes).unwrap_or(usize::MAX) / workers,
            pipe_len: budget.pipe_len,
            stats: Arc::clone(&stats[index]),
            seed: seed(index),
        };
        built.push(Worker::new(kernel, sockets, shared).map_err(system("watch the listeners"))?);
    }
    let stop_all = |error| {
        mailboxes.iter().for_each(|mailbox| _ = mailbox.post(Command::Stop(StopReason::AtOnce)));
        StartError::System { what: "start a thread", error }
    };
    for (index, worker) in built.into_iter().enumerate() {
        let run = || worker.run();
        spawn_worker(index, config.global.pin, reports.clone(), run).map_err(stop_all)?;
    }
    let view = Arc::new(View::new(Arc::new(config.clone()), None, Arc::clone(&snapshot), stats.clone()));
    let control = Control {
        view: Arc::clone(&view),
        snapshot: Arc::clone(&snapshot),
        mailboxes: Arc::clone(&mailboxes),
        reports: reports.clone(),
        inbox,
        stats: stats.clone(),
        drain_timeout: config.global.drain_timeout,
    };
    let control =
        thread::Builder::new().name("l4lb-control".into()).spawn(|| control.run()).map_err(stop_all)?;
    for (listener, address) in config.listeners.iter().zip(&addresses) {
        let pool = &config.pools[listener.pool].name;
        log::info!(listener:% = listener.name, address:%, pool:%, workers; "listening");
    }
    let at = admin.addresses();
    admin.start(view, reports.clone())?;
    Ok(Running { addresses, admin: at, control, reports, snapshot, stats })
}

/// Starts the thread of a worker. Its end is reported however it comes about: also by a panic, where the build unwinds.
fn spawn_worker(
    index: usize,
    pin: bool,
    reports: Reports,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name(format!("l4lb-worker-{index}")).spawn(move || {
        if pin {
            match sys::pin_thread(index) {
                Ok(processor) => log::info!(worker = index, processor; "pinned"),
                Err(error) => log::warn!(worker = index, error:%; "cannot pin the worker to a processor"),
            }
        }
        // Unwind-safe: nobody sees the worker again, and what others share with it are atomics and queues.
        let result = catch_unwind(AssertUnwindSafe(run));
        let result = result.unwrap_or_else(|_| Err(io::Error::other("it has panicked")));
        reports.send_surely(Report::Stopped { worker: index, result });
    })?;
    Ok(())
}

/// An error if a dial would end at a listener of ours: each session would open the next, and that goes on when every
/// client has left. The configuration knows all such listeners but those of the unspecified address, which are met at
/// every address that this machine has now.
fn refuse_circles(config: &Config) -> Result<(), StartError> {
    for (pool, backend) in config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |b| (pool, b))) {
        let (address, ip) = (backend.address, backend.address.ip().to_canonical());
        let is_met = |listener: &&Listener| {
            let bind = listener.bind;
            bind.port() == address.port() && bind.ip().is_unspecified() && (bind.is_ipv6() || ip.is_ipv4())
        };
        let Some(listener) = config.listeners.iter().find(is_met) else { continue };
        let own = sys::own_addresses()
            .map_err(|error| StartError::System { what: "list the addresses of this machine", error })?;
        if own.contains(&ip) {
            let (pool, backend) = (pool.name.clone(), backend.name.clone());
            return Err(StartError::Circle { pool, backend, address, bind: listener.bind });
        }
    }
    Ok(())
}

type Sockets = Vec<(Arc<pool::Listener>, <Linux as Kernel>::Listener)>;

/// For each worker a socket for each listener, and where they listen.
fn listen_all(config: &Config, snapshot: &Snapshot) -> Result<(Vec<Sockets>, Vec<SocketAddr>), StartError> {
    let workers = config.global.workers.get();
    let mut of_workers: Vec<Sockets> = (0..workers).map(|_| Vec::new()).collect();
    let mut addresses = Vec::with_capacity(config.listeners.len());
    // In the first epoch they are in the same order.
    for (listener, first) in config.listeners.iter().zip(&snapshot.listeners) {
        let refused = |error| refused(listener, error);
        let tcp = &config.pools[listener.pool].tcp;
        let sockets = sys::listen(listener.bind, workers, listener.backlog, tcp).map_err(refused)?;
        let address = sockets[0].local_addr().map_err(refused)?;
        addresses.push(address.as_socket().unwrap_or(listener.bind));
        for (of_worker, socket) in of_workers.iter_mut().zip(sockets) {
            of_worker.push((Arc::clone(first), socket));
        }
    }
    Ok((of_workers, addresses))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours")]
fn refused(listener: &Listener, error: io::Error) -> StartError {
    let (name, bind) = (listener.name.clone(), listener.bind);
    match error.kind() {
        io::ErrorKind::AddrInUse => StartError::InUse { name, bind, holder: sys::holder_of(bind) },
        io::ErrorKind::PermissionDenied if bind.port() < 1024 => {
            let hint = "; a port below 1024 needs CAP_NET_BIND_SERVICE";
            StartError::Listen { name, bind, hint, error }
        }
        io::ErrorKind::AddrNotAvailable => {
            let hint = "; no interface of this machine has that address";
            StartError::Listen { name, bind, hint, error }
        }
        _ => StartError::Listen { name, bind, hint: "", error },
    }
}

/// Random picks of two processes, and of two workers, should not be alike.
fn seed(worker: usize) -> u64 {
    hash(&std::process::id().to_ne_bytes(), u32::try_from(worker).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// It was never reported: whoever waited for the server waited forever.
    #[test]
    fn a_worker_that_panics_stops_the_server_with_an_error() {
        let kernels = [Linux::new().unwrap(), Linux::new().unwrap()];
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
            kernels.iter().map(|kernel| Mailbox::new(kernel.waker())).unzip();
        let (reports, inbox) = Reports::new();
        let control = Control {
            view: Arc::new(View::of_nothing()),
            snapshot: Arc::default(),
            mailboxes: mailboxes.into(),
            reports: reports.clone(),
            inbox,
            stats: Vec::new(),
            drain_timeout: Duration::from_secs(60),
        };
        let mut inboxes = inboxes.into_iter();
        let (doomed, other) = (inboxes.next().unwrap(), inboxes.next().unwrap());
        spawn_worker(0, false, reports.clone(), move || panic!("on purpose, with {doomed:?}")).unwrap();
        // The other one goes on until it is told to stop.
        let run = move || match other.recv() {
            Ok(Command::Stop(StopReason::AtOnce)) => Ok(()),
            command => panic!("{command:?}"),
        };
        spawn_worker(1, false, reports, run).unwrap();
        let (sender, ended) = std::sync::mpsc::channel();
        thread::spawn(move || sender.send(control.run()));
        let result = ended.recv_timeout(Duration::from_secs(30)).expect("the control thread ends");
        assert_eq!(result.unwrap_err().to_string(), "it has panicked");
    }
}
