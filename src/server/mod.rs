//! Starts the workers and the control thread and waits for them: the only module that sees both. `topology` owns
//! listeners and workers and applies new configurations to them; `listeners` owns the listening sockets, `threads` the
//! threads, `circles` refuses sessions without end, `activation` assigns the sockets passed by the service manager,
//! `watchdog` reports to it.

mod activation;
mod circles;
mod error;
mod listeners;
mod signals;
mod threads;
mod topology;
mod watchdog;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use crate::config::model::{Config, Global};
use crate::control::admin::{self, AdminListeners};
use crate::control::discovery::first::first_answers;
use crate::control::membership::kept::Kept;
use crate::control::membership::listed::listed_in;
use crate::control::membership::persist::{self, Restored};
use crate::control::membership::saving::StateFile;
use crate::control::membership::state_file::Contents;
use crate::control::{CommandChecks, Control, LOADER_THREADS, Standby, View, Workers};
use crate::messages::check_now::CheckNow;
use crate::messages::command::{Command, StopReason};
use crate::messages::discovery::Listed;
use crate::messages::reload::{Answer, Look, Mode, Refused, ReloadReport, ReloadRequest, Source};
use crate::messages::report::{Report, Reports};
use crate::messages::topology::StagedChange;
use crate::pool::{Backend, Snapshot};
use crate::stats::{Share, Totals};
use crate::sys::{self, Clock, Inherited, Linux};
use crate::worker;

pub use error::StartError;
use error::system;
pub use signals::{Actions, Signals};
use topology::ServerSite;
pub use watchdog::{Watchdog, Watched};

/// The file that a configuration came from.
pub struct ConfigFile {
    /// The path of the file, for logs and the API.
    pub name: String,
    /// Reads the configuration again; called at each reload.
    pub source: Source,
    /// Compares the files with those that were read; the watch calls it.
    pub look: Look,
}

/// A running load balancer. Dropping it does not stop it; see [`Running::terminate`] and [`Running::wait`].
pub struct Running {
    /// The addresses of the listeners of the first configuration, in its order.
    pub addresses: Vec<SocketAddr>,
    /// The addresses of the admin API.
    pub admin: admin::Addresses,
    control: JoinHandle<io::Result<()>>,
    reports: Reports,
    view: Arc<View>,
    site: Arc<ServerSite>,
}

impl Running {
    /// Does what SIGTERM does: drains; the second call stops at once.
    pub fn terminate(&self) {
        self.reports.send_waiting(Report::Terminate);
    }

    /// Returns the public view of the control thread's state.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Reads a configuration from `source`, applies it or predicts its changes, and waits until the workers have their
    /// commands. An error changes nothing.
    pub fn reload(&self, source: Source, mode: Mode) -> Result<ReloadReport, Vec<String>> {
        let (answer, answered) = sync_channel(1);
        // The requester waits for the answer.
        let answer: Answer = Box::new(move |report| _ = answer.send(report));
        let request = ReloadRequest {
            who: "the process".into(),
            source: Some(source),
            mode,
            answer: Some(answer),
            listening: None,
        };
        self.reports.send_waiting(Report::ReloadRequest(request));
        let answer = answered.recv().unwrap_or_else(|_| Err(Refused::for_now("the process ends")));
        answer.map_err(|refused| refused.errors)
    }

    /// Returns the present address of the listener with that name.
    pub fn address_of(&self, listener: &str) -> Option<SocketAddr> {
        self.site.address_of(listener)
    }

    /// Returns the counters of all workers, present and past.
    pub fn workers(&self) -> &Workers {
        &self.site.workers
    }

    /// Returns the workers as the watchdog sees them.
    pub fn watched(&self) -> Watched {
        Watched::new(Arc::clone(&self.site.workers))
    }

    /// Returns the counters of all workers together.
    pub fn totals(&self) -> Totals {
        totals(&self.site.workers)
    }

    /// Returns each worker's part of the work so far, by index as long as all are those of the start.
    pub fn shares(&self) -> impl Iterator<Item = Share> {
        self.site.workers.counters().into_iter().map(|(_, stats)| Share::of(&stats))
    }

    /// Returns the listeners, pools and backends of the current epoch.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.view.state().snapshot)
    }

    /// Returns all backends. Those of the first configuration are in its order.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.snapshot().backends().cloned().collect()
    }

    /// Waits until everything has stopped; returns the final counters.
    pub fn wait(self) -> io::Result<Totals> {
        let result = self.control.join().map_err(|_| io::Error::other("the control thread panicked"))?;
        self.site.hand_back();
        if let Some(admin) = self.site.admin_listeners.get() {
            admin.finish_answers();
        }
        if let Some(Err(error)) = self.site.admin_listeners.get().map(AdminListeners::remove_socket_file) {
            log::warn!(error:%; "cannot remove the admin socket");
        }
        result.map(|()| totals(&self.site.workers))
    }
}

fn totals(workers: &Workers) -> Totals {
    let counters = workers.counters();
    Totals::of(counters.iter().map(|(_, stats)| stats.as_ref()))
}

/// Starts `config` and returns once every listener listens.
pub fn start(config: &Config) -> Result<Running, StartError> {
    start_service(config, None, Inherited::default(), |_| Ok(()))
}

/// Same as [`start`], with the listening sockets of `inherited`; SIGHUP reads the configuration again from `origin`.
/// `when_listening` is called before any session, when everything that needs root or may wait long is done and root is
/// given up; its error ends the start.
/// wait for long, and before any session; what is reported from then on is done.
pub fn start_service(
    config: &Config,
    file: Option<ConfigFile>,
    inherited: Inherited,
    when_listening: impl FnOnce(Reports) -> Result<(), StartError>,
) -> Result<Running, StartError> {
    debug_assert!(
        sys::sigpipe_is_ignored().unwrap_or(true),
        "a write to a dead connection would end the process"
    );
    let open_files = sys::raise_open_files_limit().map_err(system("read the limit of open files"))?;
    let pipe_bytes = sys::pipe_bytes_max(config.global.user.is_some()).unwrap_or_else(|error| {
        log::warn!(error:%; "cannot read the limit on pipes, so none is assumed");
        None
    });
    for note in &config.notes {
        log::warn!(note; "configuration");
    }
    let (reports, inbox) = Reports::new();
    let site = Arc::new(ServerSite::new(config, open_files, pipe_bytes, reports.clone()));
    let staged = Box::new(site.prepare(config, inherited.into_sockets(), Box::new(|| {}))?);
    let admin = admin::open(&config.admin)?;
    give_up_root(&config.global, &admin)?;
    let mut answered = first_answers(config, |_, _| false).map_err(StartError::Discovery)?;
    answered.extend(config.hosts.iter().map(Listed::of_host));
    let (snapshot, kept, listed) = restore(config, answered, &reports)?;
    when_listening(reports.clone())?;
    staged.start_listening()?;
    staged.commit(&snapshot);
    let config = Arc::new(config.clone());
    let (file, source, look) = match file {
        Some(ConfigFile { name, source, look }) => (Some(name), Some(source), Some(look)),
        None => (None, None, None),
    };
    let view = Arc::new(View::new(&config, file, Arc::clone(&snapshot), Arc::clone(&site.workers)));
    kept.show(&view);
    let loader =
        Standby::start("l4lb-reload", LOADER_THREADS, LOADER_THREADS).map_err(system("start a thread"))?;
    let programs = CommandChecks::start().map_err(system("start a thread"))?;
    let control = Control {
        kept,
        listed,
        snapshot,
        workers: Arc::clone(&site.workers),
        reports: reports.clone(),
        inbox,
        config: Arc::clone(&config),
        source,
        look,
        loader,
        programs,
        site: Arc::new(Arc::clone(&site)),
        admin_sockets: admin.addresses().listeners().collect(),
        view: Arc::clone(&view),
        drain_timeout: config.global.drain_timeout,
    };
    let at = admin.addresses();
    // Before the control thread, so that every reload reaches the listeners.
    let listeners = admin.start(&config.admin, Arc::clone(&view), reports.clone(), check_now)?;
    let is_first = site.admin_listeners.set(listeners).is_ok();
    debug_assert!(is_first, "a process starts once");
    let control = thread::Builder::new().name("l4lb-control".into()).spawn(|| control.run());
    let control = control.map_err(|error| {
        for member in &*site.workers.members() {
            member.mailbox.post(Command::Stop(StopReason::AtOnce));
        }
        system("start a thread")(error)
    })?;
    let addresses = config.listeners.iter().filter_map(|listener| site.address_of(&listener.name)).collect();
    Ok(Running { addresses, admin: at, control, reports, view, site })
}

/// Runs checks for an operator, on the present thread.
fn check_now(order: CheckNow) {
    match Linux::new() {
        Ok(mut kernel) => worker::check_now(&mut kernel, order),
        Err(error) => (order.reply)(Err(error)),
    }
}

/// Returns the first snapshot: the configuration, the run-time changes that the last process had saved, and what
/// sources list: those that have answered, and those that begin with what the last process had saved of them.
fn restore(
    config: &Config,
    mut listed: Vec<Listed>,
    reports: &Reports,
) -> Result<(Arc<Snapshot>, Kept, Vec<Listed>), StartError> {
    let now = (Clock::of_process().now(), sys::timestamp());
    let Some(path) = &config.admin.state_file else {
        let Restored { snapshot, registrations, .. } =
            persist::restore(Vec::new(), Vec::new(), &listed, config, now);
        return Ok((Arc::new(snapshot), Kept::new(registrations, HashMap::new(), None), listed));
    };
    let Contents { backends, sources, placed, refused } = Contents::read(path)?;
    listed.extend(listed_in(sources, config, now.1));
    for refused in &refused {
        log::warn!(path:% = path.display(), refused:%; "state_file: invalid entry ignored");
    }
    if !refused.is_empty() {
        match Contents::keep_refused(path) {
            Ok(kept) => log::warn!(path:% = kept.display(); "state_file: kept as it was read"),
            Err(error) => {
                log::warn!(path:% = path.display(), error:%; "state_file: cannot keep it as it was read");
            }
        }
    }
    let reports = reports.clone();
    // When there is no room, the control thread is awake and will look.
    let on_end = move || _ = reports.try_send(Report::StateWritten);
    let file =
        StateFile::start(path.clone(), on_end).map_err(system("start the thread of the state file"))?;
    let Restored { snapshot, registrations, authors, left_out } =
        persist::restore(backends, placed, &listed, config, now);
    for left_out in left_out {
        log::warn!(path:% = path.display(), left_out:%; "state_file: entry not restored");
    }
    log::info!(path:% = path.display(), registered = registrations.iter().count(); "state_file: restored");
    Ok((Arc::new(snapshot), Kept::new(registrations, authors, Some(file)), listed))
}

/// Becomes the configured user in all threads, and gives that user the files it must own.
fn give_up_root(global: &Global, admin: &admin::Opened) -> Result<(), StartError> {
    let Some(account) = &global.user else { return Ok(()) };
    let was_root = sys::is_root();
    admin.give_to(account)?;
    let (user, group) = (&account.user, account.group.as_deref());
    sys::become_account(account).map_err(|error| StartError::Account { user: user.clone(), error })?;
    if was_root {
        log::info!(user:%, group; "root privileges dropped, no capability left");
    }
    Ok(())
}
