//! The state that survives a restart: collected when it changes, and restored before anything runs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::{self, OverrideTo};
use crate::base::time::Instant;
use crate::config::model::{self, Config, HealthState, OwnSocket};
use crate::control::control_loop::ControlLoop;
use crate::control::membership::kept::{Kept, Waiting};
use crate::control::membership::leases::Registrations;
use crate::control::membership::listed::{add_listed, saved_source};
use crate::control::membership::merge::{Membership, Obstacle};
use crate::control::membership::notes::Note;
use crate::control::membership::origin::{Hold, Origin, Registration, RuntimeOverrides};
use crate::control::membership::placement::{Place, Placements, restored_placements, saved_placements};
use crate::control::membership::requests::BACKENDS_MAX;
use crate::control::membership::saving::{SaveProgress, StateFile};
use crate::control::membership::state_file::{
    Saved, SavedAuthor, SavedBackend, SavedHolder, SavedPlacement, SavedRegistration,
};
use crate::messages::discovery::Listed;
use crate::pool::{Admin, Backend, BackendId, Pool, Snapshot};
use crate::sys::{timestamp, unique_name};

/// Shortest time between two writes: backends that renew their leases change the file all the time.
const SAVE_PERIOD: Duration = Duration::from_secs(1);
/// How long an answer waits for the disk.
const SAVE_TIMEOUT: Duration = Duration::from_secs(5);

impl ControlLoop {
    /// Returns the time until the file must be written.
    pub(in crate::control) fn next_save(&self, now: Instant) -> Option<Duration> {
        let kept = &self.control.kept;
        kept.changed.then(|| if kept.is_due() { Duration::ZERO } else { kept.next_save - now })
    }

    /// Sends an answer once all requested changes are on the disk; it gets the reason if they are not.
    pub(in crate::control) fn answer_once_saved(
        &mut self,
        answer: impl FnOnce(Option<String>) + Send + 'static,
    ) {
        let Kept { file, asked, waiting, .. } = &mut self.control.kept;
        let progress = file.as_ref().map_or(SaveProgress::Written, |file| file.progress(*asked));
        match progress {
            SaveProgress::Written => self.answer(move || answer(None)),
            SaveProgress::Failing(reason) => self.answer(move || answer(Some(reason))),
            SaveProgress::Waiting => {
                let deadline = self.clock.now() + SAVE_TIMEOUT;
                waiting.push_back(Waiting { write: *asked, deadline, answer: Box::new(answer) });
            }
        }
    }

    /// Returns when the next answer stops waiting.
    pub(in crate::control) fn next_saving(&self) -> Option<Instant> {
        self.control.kept.waiting.front().map(|waiting| waiting.deadline)
    }

    /// Sends the answers to changes that are on the disk now, and those that have waited long enough.
    pub(in crate::control) fn end_saving(&mut self) {
        let now = self.clock.now();
        while let Some(Waiting { write, deadline, answer }) = self.control.kept.waiting.pop_front() {
            let Some(file) = &self.control.kept.file else { return };
            match file.progress(write) {
                SaveProgress::Waiting if now >= deadline => {
                    let reason = file.record_no_answer(SAVE_TIMEOUT);
                    self.answer(move || answer(Some(reason)));
                }
                SaveProgress::Written => self.answer(move || answer(None)),
                SaveProgress::Failing(reason) => self.answer(move || answer(Some(reason))),
                SaveProgress::Waiting => {
                    return self.control.kept.waiting.push_front(Waiting { write, deadline, answer });
                }
            }
        }
    }

    /// Writes the file if it is older than the running state, at a bounded rate.
    pub(in crate::control) fn save(&mut self) {
        if self.next_save(self.clock.now()).is_some_and(|wait| wait.is_zero()) {
            self.save_now();
        }
    }

    /// Writes the file for the last time, and waits for that as long as the end of the process may wait.
    pub(in crate::control) fn save_for_good(&mut self) {
        // A source may have answered since.
        let has_stale = self.sources.has_stale();
        if self.control.kept.changed || (has_stale && self.control.kept.file.is_some()) {
            self.save_now();
        }
        let is_saved = self.control.kept.file.as_ref().is_none_or(StateFile::close);
        if !is_saved {
            log::error!("state_file was not written: what has changed since the last time is lost");
        }
        let reason = (!is_saved).then(|| "the process has ended before".to_owned());
        for Waiting { answer, .. } in std::mem::take(&mut self.control.kept.waiting) {
            let reason = reason.clone();
            self.answer(move || answer(reason));
        }
        self.control.kept.file = None;
    }

    fn save_now(&mut self) {
        let now = self.clock.now();
        let (config, authors) = {
            let state = self.control.view.state();
            (Arc::clone(&state.config), authors_of(&state.notes))
        };
        let listed = self.listed_to_keep();
        let Kept { registrations, file, changed, next_save, .. } = &mut self.control.kept;
        if let Some(file) = file {
            let wall = timestamp();
            let backends = collect(&self.control.snapshot, &config, registrations, &authors, (now, wall));
            let sources = listed.into_iter().map(|listed| saved_source(listed, &config, wall));
            let placed = saved_placements(&registrations.placements);
            file.put(Saved::of(backends, sources.collect(), placed));
        }
        (*changed, *next_save) = (false, now + SAVE_PERIOD);
    }
}

/// The authors of the administrative states of backends.
pub(in crate::control) type Authors = HashMap<BackendId, SavedAuthor>;

fn authors_of(notes: &HashMap<BackendId, Note>) -> Authors {
    notes.iter().filter_map(|(id, note)| Some((*id, SavedAuthor::of(note)?))).collect()
}

/// Returns the differences from the present configuration; `now` is the time on both clocks.
pub(in crate::control) fn collect(
    snapshot: &Snapshot,
    config: &Config,
    registrations: &Registrations,
    authors: &Authors,
    now: (Instant, Timestamp),
) -> Vec<SavedBackend> {
    let remembered = registrations.all_remembered().map(|(pool, name, weight, set, author)| SavedBackend {
        pool: pool.to_owned(),
        name: name.to_owned(),
        weight,
        weight_set: set.weight,
        admin: admin_word(set.admin),
        admin_set: author.cloned(),
        health: health_word(set.health),
        registered: None,
    });
    // First those that have left: where a later process can remember no more, it forgets the first.
    let mut saved: Vec<SavedBackend> = remembered.collect();
    for pool in &snapshot.pools {
        let weights = configured_weights(config, pool);
        let settings = pool.settings.backends.iter();
        // What is set of a host without an address is set of its name, and remembered.
        for (backend, settings) in pool.backends.iter().zip(settings).filter(|(one, _)| one.is_resolved()) {
            let origin = registrations.origin_of(backend.id);
            let says = match &origin {
                Origin::File => weights.get(backend.name.as_str()).copied(),
                Origin::Registered(known) => Some(known.weight),
                Origin::Discovered(known) => Some(known.weight),
            };
            let Some(says) = says else { continue };
            let mut overrides = RuntimeOverrides::of(backend, says);
            if pool.settings.agent.is_none() {
                // That of the origin is over nothing then.
                overrides.weight = overrides.weight.filter(|&weight| weight != says);
            }
            let placed = registrations.placements.named(&pool.settings.name, &backend.name);
            let registered = match origin {
                Origin::File | Origin::Discovered(_) if overrides == RuntimeOverrides::default() => continue,
                Origin::File | Origin::Discovered(_) => None,
                Origin::Registered(known) => Some(SavedRegistration {
                    address: placed.map_or(&backend.address, |placed| &placed.says.address).clone(),
                    priority: placed.map_or(settings.priority, |placed| placed.says.priority),
                    who: known.who.clone(),
                    lease: known.lease().map(|end| now.1 + (end - now.0)),
                    holders: known.holds.iter().map(|hold| saved_holder(hold, now)).collect(),
                }),
            };
            saved.push(SavedBackend {
                pool: pool.settings.name.clone(),
                name: backend.name.clone(),
                weight: says,
                weight_set: overrides.weight,
                admin: admin_word(overrides.admin),
                admin_set: authors.get(&backend.id).filter(|_| overrides.admin != Admin::Ready).cloned(),
                health: health_word(overrides.health),
                registered,
            });
        }
    }
    saved
}

fn saved_holder(hold: &Hold, now: (Instant, Timestamp)) -> SavedHolder {
    let Hold { holder, is_known, weight, priority, end } = hold.clone();
    SavedHolder { holder, known: is_known, weight, priority, lease: now.1 + (end - now.0) }
}

fn configured_weights<'c>(config: &'c Config, pool: &Pool) -> HashMap<&'c str, u16> {
    let same = config.pools.iter().find(|configured| configured.name == pool.settings.name);
    let backends = same.into_iter().flat_map(|pool| &pool.backends);
    backends.map(|backend| (backend.name.as_str(), backend.weight)).collect()
}

/// The state to run first.
pub struct Restored {
    /// The configuration with the saved changes.
    pub snapshot: Snapshot,
    /// The leases of the restored backends that were registered.
    pub registrations: Registrations,
    /// The authors of the administrative states of the restored backends.
    pub authors: HashMap<BackendId, SavedAuthor>,
    /// The saved entries that are not restored, one line each.
    pub left_out: Vec<String>,
}

/// Restores the saved state, and what sources have `listed`, as far as they fit the present configuration; `now` is the
/// time on both clocks.
pub fn restore(
    saved: Vec<SavedBackend>,
    placed: Vec<SavedPlacement>,
    listed: &[Listed],
    config: &Config,
    now: (Instant, Timestamp),
) -> Restored {
    let (placements, left_out) = restored_placements(placed, &saved, config);
    let placed = placements.placed(config);
    let mut registrations = Registrations::with(placements);
    registrations.placements.follow(&placed, config, config);
    let config = &*placed.config;
    let snapshot = Snapshot::new(config);
    let mut restored = Restored { snapshot, registrations, authors: Authors::default(), left_out };
    restored.left_out.extend(placed.refusals());
    let sockets: Vec<OwnSocket> = config.own_sockets().collect();
    let mut of_pools: HashMap<String, Vec<SavedBackend>> = HashMap::new();
    let of_sources = of_sources(config);
    for backend in saved {
        let of_file = of_sources.get(backend.pool.as_str());
        if backend.registered.is_none() && of_file.is_some_and(|all| !all.contains(backend.name.as_str())) {
            // In the order of the file: of too many the first are forgotten.
            let overrides = overrides_of(&backend);
            let SavedBackend { pool, name, weight, admin_set, .. } = backend;
            restored.registrations.remember(&pool, &name, weight, overrides, admin_set);
            continue;
        }
        of_pools.entry(backend.pool.clone()).or_default().push(backend);
    }
    for pool in restored.snapshot.pools.clone() {
        let backends = of_pools.remove(&pool.settings.name).unwrap_or_default();
        let listed: Vec<&Listed> = listed.iter().filter(|listed| listed.pool == pool.settings.name).collect();
        if !backends.is_empty() || !listed.is_empty() {
            restored.put_back(&sockets, &pool, backends, &listed, now);
        }
    }
    for gone in of_pools.into_values().flatten() {
        restored.leave_out(&gone, "there is no such pool");
    }
    restored
}

/// Returns the pools that have sources, with the names of the backends that the configuration lists in each.
fn of_sources(config: &Config) -> HashMap<&str, HashSet<&str>> {
    let pools = config.pools.iter().filter(|pool| !pool.discover.is_empty());
    pools
        .map(|pool| {
            let names = pool.backends.iter().map(|backend| backend.name.as_str());
            (pool.name.as_str(), names.collect())
        })
        .collect()
}

impl Restored {
    fn put_back(
        &mut self,
        sockets: &[OwnSocket],
        configured: &Pool,
        saved: Vec<SavedBackend>,
        listed: &[&Listed],
        now: (Instant, Timestamp),
    ) {
        let (registered, known): (Vec<_>, Vec<_>) =
            saved.into_iter().partition(|backend| backend.registered.is_some());
        let mut members = Membership::listed(configured.settings.backends.clone(), sockets);
        let mut fitting: HashMap<String, (SavedBackend, Vec<Hold>)> = HashMap::new();
        for backend in registered {
            let placements = &mut self.registrations.placements;
            let added = add_registered(&mut members, placements, &backend, now).or_else(|why| {
                if placements.named(&backend.pool, &backend.name).is_none_or(|set| set.address.is_none()) {
                    return Err(why);
                }
                // Where it has registered itself it may fit.
                placements.forget_address(&backend.pool, &backend.name);
                add_registered(&mut members, placements, &backend, now)
            });
            match added {
                Ok(holds) => _ = fitting.insert(backend.name.clone(), (backend, holds)),
                Err(why) => self.leave_out(&backend, &why),
            }
        }
        let mut discovered =
            add_listed(&mut members, &configured.settings, &mut self.registrations.placements, listed);
        self.snapshot = self.snapshot.with_backends(configured.id, &members.into_backends());
        let pool = Arc::clone(self.snapshot.pool(configured.id));
        for backend in &pool.backends {
            if let Some(known) = discovered.remove(&backend.name) {
                let (_, author) = self.registrations.put_listed(&configured.settings.name, backend, known);
                self.authors.extend(author.map(|author| (backend.id, author)));
            }
            if let Some((saved, holds)) = fitting.remove(&backend.name) {
                let who = saved.registered.as_ref().map(|known| known.who.clone()).unwrap_or_default();
                self.registrations.put(backend.id, Registration { who, weight: saved.weight, holds });
                overrides_of(&saved).put_on(backend);
                self.authors.extend(author_of(&saved, backend));
            }
        }
        let by_name: HashMap<&str, &Arc<Backend>> =
            configured.backends.iter().map(|backend| (backend.name.as_str(), backend)).collect();
        for saved in known {
            match by_name.get(saved.name.as_str()) {
                Some(backend) => {
                    let (says, overrides) = (backend.plain_weight(), overrides_of(&saved));
                    let kept = overrides.kept(saved.weight, says);
                    backend.set_weight(kept.weight_over(says));
                    kept.put_on(backend);
                    self.authors.extend(author_of(&saved, backend));
                    if overrides.weight.is_some() && saved.weight != says {
                        self.leave_out(&saved, "its weight, because the configuration has another one now");
                    }
                }
                None => self.leave_out(&saved, "the pool has no such backend"),
            }
        }
        self.snapshot = self.snapshot.refreshed(&[configured.id]);
    }

    fn leave_out(&mut self, backend: &SavedBackend, why: &str) {
        self.left_out.push(format!("pool {:?}: backend {:?}: {why}", backend.pool, backend.name));
    }
}

fn author_of(saved: &SavedBackend, backend: &Backend) -> Option<(BackendId, SavedAuthor)> {
    saved.admin_set.clone().map(|author| (backend.id, author))
}

/// Puts a backend that was registered behind the `members` of its pool, and returns its leases; or why it does not fit
/// any more.
fn add_registered(
    members: &mut Membership<'_>,
    placements: &Placements,
    saved: &SavedBackend,
    now: (Instant, Timestamp),
) -> Result<Vec<Hold>, String> {
    let registered = saved.registered.as_ref().ok_or("it was not registered")?;
    let says = Place { address: registered.address.clone(), priority: registered.priority };
    let Place { address, priority } = placements.place_of(&saved.pool, &saved.name, says);
    if members.len() >= BACKENDS_MAX {
        return Err(format!("the pool has {BACKENDS_MAX} backends"));
    }
    let holds = holds_of(saved, registered, now);
    if holds.is_empty() && registered.lease.is_some() {
        return Err("its lease has ended meanwhile".into());
    }
    let weight = overrides_of(saved).weight_over(saved.weight);
    let backend = model::Backend {
        name: saved.name.clone(),
        address: address.clone(),
        weight,
        priority,
        check: model::BackendCheck::default(),
    };
    members.add(backend).map_err(|obstacle| match obstacle {
        Obstacle::Member { name, address } => format!("the pool has {name:?} at {address} already"),
        Obstacle::OwnSocket(socket) => format!("{address} is {socket}"),
    })?;
    Ok(holds)
}

/// Returns the leases that have not ended meanwhile.
fn holds_of(
    backend: &SavedBackend,
    registered: &SavedRegistration,
    (now, wall): (Instant, Timestamp),
) -> Vec<Hold> {
    let SavedRegistration { lease, holders, priority, .. } = registered;
    // From a version without holders.
    let unnamed = lease.filter(|_| holders.is_empty()).map(|lease| SavedHolder {
        holder: unique_name(),
        known: false,
        weight: backend.weight,
        priority: *priority,
        lease,
    });
    let saved = holders.iter().cloned().chain(unnamed);
    let going_on = saved.filter_map(|SavedHolder { holder, known, weight, priority, lease }| {
        let left = Duration::try_from(lease.duration_since(wall)).ok().filter(|left| !left.is_zero())?;
        let end = now + left.min(*api::TTL.end());
        Some(Hold { holder, is_known: known, weight, priority, end })
    });
    going_on.collect()
}

/// Returns the settings that operators had made of it.
const fn overrides_of(saved: &SavedBackend) -> RuntimeOverrides {
    let admin = match saved.admin {
        api::Admin::Ready => Admin::Ready,
        api::Admin::Drain => Admin::Drain,
        api::Admin::Maint => Admin::Maint,
    };
    let health = match saved.health {
        OverrideTo::Auto => None,
        OverrideTo::Up => Some(HealthState::Up),
        OverrideTo::Down => Some(HealthState::Down),
    };
    RuntimeOverrides { weight: saved.weight_set, admin, health }
}

const fn admin_word(admin: Admin) -> api::Admin {
    match admin {
        Admin::Ready => api::Admin::Ready,
        Admin::Drain => api::Admin::Drain,
        Admin::Maint => api::Admin::Maint,
    }
}

const fn health_word(health: Option<HealthState>) -> OverrideTo {
    match health {
        Some(HealthState::Up) => OverrideTo::Up,
        Some(HealthState::Down) => OverrideTo::Down,
        Some(HealthState::Unknown) | None => OverrideTo::Auto,
    }
}

#[cfg(test)]
mod tests;
