//! The running state as a configuration: the settings of the file, with what was changed at run time put into them.
//! What no key can express becomes a remark.

use std::collections::HashMap;
use std::sync::Arc;

use log::LevelFilter;

use crate::config::Remarks;
use crate::config::discover::{Discover, Etcd, Http, Kind, ListFile, host_of};
use crate::config::model::{self, Config};
use crate::control::membership::notes::Note;
use crate::control::membership::origin::{Origin, Registration};
use crate::control::membership::placement::Placement;
use crate::control::status::ControlState;
use crate::pool::{Admin, Backend, BackendId, Pool, Snapshot};

/// What runs, taken out of the state, which must not be locked while ten thousand backends are put together.
pub(super) struct Facts {
    config: Arc<Config>,
    snapshot: Arc<Snapshot>,
    process: Vec<String>,
    /// Of backends that are not only as the file has them.
    backends: HashMap<BackendId, Fact>,
}

/// What is known of one backend besides its atomics.
#[derive(Default)]
struct Fact {
    origin: Origin,
    placed: Option<Placement>,
}

impl Facts {
    /// Returns what is in `state`; `level` is that of the log.
    pub(super) fn of(state: &ControlState, level: LevelFilter) -> Self {
        let notes = state.notes.iter();
        let known = notes.filter(|(_, note)| !matches!(note.origin, Origin::File) || note.placed.is_some());
        let fact = |note: &Note| Fact { origin: note.origin.clone(), placed: note.placed.clone() };
        Self {
            config: Arc::clone(&state.config),
            snapshot: Arc::clone(&state.snapshot),
            process: of_process(state, level),
            backends: known.map(|(id, note)| (*id, fact(note))).collect(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.snapshot.epoch
    }
}

/// Returns the configuration that would run what runs, and remarks about what it cannot express.
pub(super) fn running(facts: &Facts) -> (Config, Remarks) {
    let mut config = Config::clone(&facts.config);
    let mut remarks = Remarks { process: facts.process.clone(), ..Remarks::default() };
    for pool in &mut config.pools {
        let Some(runs) = facts.snapshot.pool_named(&pool.name) else { continue };
        let configured: HashMap<&str, &model::Backend> =
            pool.backends.iter().map(|backend| (backend.name.as_str(), backend)).collect();
        let first = pool.backends.first().filter(|_| pool.discover.is_empty());
        let mut folded = Folded { pool: runs, configured, remarks: &mut remarks };
        pool.backends = folded.backends(&facts.backends, first);
        pool.discover.iter_mut().for_each(|source| fold_host(source, runs));
    }
    (config, remarks)
}

/// Gives a host name of the file the weight that all its addresses have.
fn fold_host(source: &mut Discover, runs: &Pool) {
    let Kind::Host(host) = &mut source.kind else { return };
    let its = runs.backends.iter().filter(|backend| host_of(&backend.name) == Some(&host.backend));
    let mut weights = its.map(|backend| backend.plain_weight());
    if let Some(first) = weights.next()
        && weights.all(|weight| weight == first)
    {
        host.weight = first;
    }
}

fn of_process(state: &ControlState, level: LevelFilter) -> Vec<String> {
    let file = state.file.as_deref().unwrap_or("none, only flags");
    let mut remarks =
        vec![format!("The state of epoch {} as a file; its own file: {file}.", state.snapshot.epoch)];
    remarks.push("What runs and no key expresses is a comment.".to_owned());
    if has_relative_path(&state.config) {
        remarks.push("Paths that are relative are so to the folder in which l4lb was started.".to_owned());
    }
    remarks.extend(state.pending.iter().map(|pending| format!("restart pending: {}", pending.change)));
    if level != state.config.global.log_level {
        remarks.push(format!("log level at present: {}", level.as_str().to_ascii_lowercase()));
    }
    let paused =
        state.pauses.iter().map(|(name, pause)| format!("listener {name:?} is paused by {}", pause.by));
    remarks.extend(paused);
    remarks.extend(state.ready_fail.as_ref().map(|who| format!("ready-fail is on, set by {who}")));
    remarks
}

fn has_relative_path(config: &Config) -> bool {
    let admin = [&config.admin.token_file, &config.admin.read_token_file, &config.admin.state_file];
    let sources = config.pools.iter().flat_map(|pool| &pool.discover);
    let of_sources = sources.filter_map(|source| match &source.kind {
        Kind::Dns(_) | Kind::Host(_) => None,
        Kind::File(ListFile { path, format: _ }) => Some(path),
        Kind::Http(Http { url: _, tls: _, token_file }) => token_file.as_ref(),
        Kind::Etcd(Etcd { cluster, .. }) => cluster.login.as_ref().map(|(_, file)| file),
    });
    let announce = config.announce.as_ref().and_then(|announce| announce.cluster.login.as_ref());
    let fleet = config.fleet.as_ref().and_then(|fleet| fleet.cluster.login.as_ref());
    let of_sources = of_sources.chain(announce.into_iter().chain(fleet).map(|(_, file)| file));
    let access_log = config.global.access_log.as_ref().map(|file| &file.path);
    let mut paths = admin.into_iter().flatten().chain(of_sources).chain(access_log);
    paths.any(|path| path.is_relative())
}

/// One pool as it runs.
struct Folded<'a> {
    pool: &'a Pool,
    /// Its backends in the configuration, by their names.
    configured: HashMap<&'a str, &'a model::Backend>,
    remarks: &'a mut Remarks,
}

impl Folded<'_> {
    /// Returns the backends that the file would list: where it must list one, `first` if all were removed.
    fn backends(
        &mut self,
        facts: &HashMap<BackendId, Fact>,
        first: Option<&model::Backend>,
    ) -> Vec<model::Backend> {
        let (mut listed, mut leased) = (Vec::new(), Vec::new());
        let nothing = Fact::default();
        for (settings, backend) in self.pool.settings.backends.iter().zip(&self.pool.backends) {
            let note = facts.get(&backend.id).unwrap_or(&nothing);
            let folded = model::Backend { weight: backend.plain_weight(), ..settings.clone() };
            let placed = note.placed.as_ref();
            let placed = placed.map(|set| format!("{} set at run time by {}", set.words(), set.who));
            match &note.origin {
                Origin::File => {
                    self.remark_on_weight(backend);
                    if let Some(set) = &note.placed {
                        let (words, who, says) = (set.words(), &set.who, set.says_words());
                        let what = format!("{words} set at run time by {who}, the configuration has {says}");
                        self.remark(backend, what);
                    }
                }
                Origin::Registered(registration) if registration.lease().is_some() => {
                    leased.push((folded, backend, registration));
                    continue;
                }
                Origin::Registered(registration) => {
                    self.remark(backend, format!("registered at run time by {}", registration.who));
                }
                Origin::Discovered(known) => {
                    let mut set = overrides(backend);
                    set.extend(placed);
                    if backend.plain_weight() != known.weight {
                        set.push(format!("weight {} set at run time", backend.plain_weight()));
                    }
                    if !set.is_empty() {
                        let set = set.join(", ");
                        self.remark_on_pool(format!("{} of {}: {set}", backend.name, known.source));
                    }
                    continue;
                }
            }
            self.remark_on_overrides(backend);
            listed.push(folded);
        }
        // No file without a backend is valid, so there the lease becomes a comment and the backend stays.
        let keeps_leased = first.is_some() && listed.is_empty();
        for (folded, backend, registration) in leased {
            let lease = lease_words(registration);
            if keeps_leased {
                self.remark(backend, format!("registered with a lease by {lease}; here it has none"));
                self.remark_on_overrides(backend);
                listed.push(folded);
            } else {
                let model::Backend { name, address, weight, .. } = folded;
                let what =
                    format!("{name} at {address}, weight {weight}, is registered with a lease by {lease}");
                self.remark_on_pool(what);
            }
        }
        if let Some(first) = first.filter(|_| listed.is_empty()) {
            let what =
                "all its backends were removed at run time; a file needs one: the first, without sessions";
            self.remark_on_pool(what.to_owned());
            listed.push(model::Backend { weight: 0, ..first.clone() });
        }
        listed
    }

    fn remark_on_weight(&mut self, backend: &Backend) {
        let says = self.configured.get(backend.name.as_str());
        let says = says.map(|listed| listed.weight).filter(|&weight| weight != backend.plain_weight());
        if let Some(says) = says {
            self.remark(backend, format!("weight was set at run time, the configuration has {says}"));
        }
    }

    fn remark_on_overrides(&mut self, backend: &Backend) {
        for what in overrides(backend) {
            self.remark(backend, what);
        }
    }

    fn remark(&mut self, backend: &Backend, what: String) {
        let place = (self.pool.settings.name.clone(), backend.name.clone());
        self.remarks.backends.entry(place).or_default().push(what);
    }

    fn remark_on_pool(&mut self, what: String) {
        self.remarks.pools.entry(self.pool.settings.name.clone()).or_default().push(what);
    }
}

/// Returns what operators have set of a backend that no key expresses.
fn overrides(backend: &Backend) -> Vec<String> {
    let admin = backend.operator_admin();
    let admin = (admin != Admin::Ready).then(|| format!("is in {}, set at run time", admin.as_str()));
    let health = backend.health_override();
    let health = health.map(|health| format!("health is {}, set at run time", health.as_str()));
    admin.into_iter().chain(health).collect()
}

fn lease_words(registration: &Registration) -> String {
    let holders = registration.holds.len();
    let others = if holders > 1 { format!(" and {} more", holders - 1) } else { String::new() };
    format!("{}{others}", registration.who)
}
