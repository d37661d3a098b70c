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
use crate::control::membership::origin::{Hold, Origin, Registration, RuntimeOverrides};
use crate::control::membership::requests::BACKENDS_MAX;
use crate::control::membership::saving::{SaveProgress, StateFile};
use crate::control::membership::state_file::{Saved, SavedBackend, SavedHolder, SavedRegistration};
use crate::messages::discovery::Listed;
use crate::pool::{Admin, Backend, Pool, Snapshot};
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
        let config = Arc::clone(&self.control.view.state().config);
        let listed = self.listed_to_keep();
        let Kept { registrations, file, changed, next_save, .. } = &mut self.control.kept;
        if let Some(file) = file {
            let wall = timestamp();
            let backends = collect(&self.control.snapshot, &config, registrations, (now, wall));
            let sources = listed.into_iter().map(|listed| saved_source(listed, &config, wall));
            file.put(Saved::of(backends, sources.collect()));
        }
        (*changed, *next_save) = (false, now + SAVE_PERIOD);
    }
}

/// Returns the differences from the present configuration; `now` is the time on both clocks.
pub(in crate::control) fn collect(
    snapshot: &Snapshot,
    config: &Config,
    registrations: &Registrations,
    now: (Instant, Timestamp),
) -> Vec<SavedBackend> {
    let remembered = registrations.all_remembered().map(|(pool, name, weight, set)| SavedBackend {
        pool: pool.to_owned(),
        name: name.to_owned(),
        weight,
        weight_set: set.weight,
        admin: admin_word(set.admin),
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
            let overrides = RuntimeOverrides::of(backend, says);
            let registered = match origin {
                Origin::File | Origin::Discovered(_) if overrides == RuntimeOverrides::default() => continue,
                Origin::File | Origin::Discovered(_) => None,
                Origin::Registered(known) => Some(SavedRegistration {
                    address: backend.address.clone(),
                    priority: settings.priority,
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
    /// The saved entries that are not restored, one line each.
    pub left_out: Vec<String>,
}

/// Restores the saved state, and what sources have `listed`, as far as they fit the present configuration; `now` is the
/// time on both clocks.
pub fn restore(
    saved: Vec<SavedBackend>,
    listed: &[Listed],
    config: &Config,
    now: (Instant, Timestamp),
) -> Restored {
    let snapshot = Snapshot::new(config);
    let mut restored = Restored { snapshot, registrations: Registrations::default(), left_out: Vec::new() };
    let sockets: Vec<OwnSocket> = config.own_sockets().collect();
    let mut of_pools: HashMap<String, Vec<SavedBackend>> = HashMap::new();
    let of_sources = of_sources(config);
    for backend in saved {
        let of_file = of_sources.get(backend.pool.as_str());
        if backend.registered.is_none() && of_file.is_some_and(|all| !all.contains(backend.name.as_str())) {
            // In the order of the file: of too many the first are forgotten.
            let overrides = overrides_of(&backend);
            restored.registrations.remember(&backend.pool, &backend.name, backend.weight, overrides);
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
            match add_registered(&mut members, &backend, now) {
                Ok(holds) => _ = fitting.insert(backend.name.clone(), (backend, holds)),
                Err(why) => self.leave_out(&backend, &why),
            }
        }
        let mut discovered = add_listed(&mut members, &configured.settings.discover, listed);
        self.snapshot = self.snapshot.with_backends(configured.id, &members.into_backends());
        let pool = Arc::clone(self.snapshot.pool(configured.id));
        for backend in &pool.backends {
            if let Some(known) = discovered.remove(&backend.name) {
                self.registrations.put_listed(&configured.settings.name, backend, known);
            }
            if let Some((saved, holds)) = fitting.remove(&backend.name) {
                let who = saved.registered.as_ref().map(|known| known.who.clone()).unwrap_or_default();
                self.registrations.put(backend.id, Registration { who, weight: saved.weight, holds });
                overrides_of(&saved).put_on(backend);
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

/// Puts a backend that was registered behind the `members` of its pool, and returns its leases; or why it does not fit
/// any more.
fn add_registered(
    members: &mut Membership<'_>,
    saved: &SavedBackend,
    now: (Instant, Timestamp),
) -> Result<Vec<Hold>, String> {
    let registered = saved.registered.as_ref().ok_or("it was not registered")?;
    let SavedRegistration { address, priority, .. } = registered;
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
        priority: *priority,
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
mod tests {
    use super::*;
    use crate::config::{self, Overrides};
    use crate::control::membership::origin::Discovery;
    use crate::control::membership::remembered::REMEMBERED_MAX;
    use crate::messages::discovery::Found;

    const CONFIG: &str = "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\nbackend = [\
         { name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"127.0.0.1:2\", weight = 5 }]\n";

    fn config(text: &str) -> Config {
        let no_names = &mut |_: &str| Ok(Vec::new());
        config::parse(text, "test", &Overrides::default(), no_names).expect("a good config")
    }

    fn wall(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    fn registered(name: &str, port: u16, lease: Option<i64>) -> SavedBackend {
        let registration = SavedRegistration {
            address: ([127, 0, 0, 1], port).into(),
            priority: 0,
            who: "uid 7".into(),
            lease: lease.map(wall),
            holders: Vec::new(),
        };
        SavedBackend { registered: Some(registration), ..changed(name, 1) }
    }

    fn held(holder: &str, lease: i64) -> SavedHolder {
        SavedHolder { holder: holder.into(), known: true, weight: 1, priority: 0, lease: wall(lease) }
    }

    #[test]
    fn a_holder_whose_lease_has_ended_meanwhile_is_left_out() {
        let mut leased = registered("c", 3, Some(60));
        leased.registered.as_mut().unwrap().holders = vec![held("one", -1), held("two", 60)];
        let restored = restore_all(vec![leased]);
        let (_, known) = restored.registrations.iter().next().unwrap();
        let holders: Vec<&str> = known.holds.iter().map(|hold| hold.holder.as_str()).collect();
        assert_eq!((holders, known.lease()), (vec!["two"], Some(at(60))));
    }

    #[test]
    fn a_lease_saved_by_a_version_without_holders_continues() {
        let restored = restore_all(vec![registered("c", 3, Some(60))]);
        let (_, known) = restored.registrations.iter().next().unwrap();
        assert_eq!((known.holds.len(), known.holds[0].is_known), (1, false));
    }

    /// A backend of the configuration in drain, with `weight` as its configured weight.
    fn changed(name: &str, weight: u16) -> SavedBackend {
        SavedBackend {
            pool: "web".into(),
            name: name.into(),
            weight,
            weight_set: None,
            admin: api::Admin::Drain,
            health: OverrideTo::Down,
            registered: None,
        }
    }

    fn restore_all(backends: Vec<SavedBackend>) -> Restored {
        restore(backends, &[], &config(CONFIG), (at(0), wall(0)))
    }

    #[test]
    fn saved_backends_serve_after_a_restart() {
        let weight = SavedBackend { weight_set: Some(9), ..changed("b", 5) };
        let restored = restore_all(vec![registered("c", 3, Some(60)), weight, registered("d", 4, None)]);
        assert_eq!(restored.left_out, Vec::<String>::new());
        let pool = &restored.snapshot.pools[0];
        let rows: Vec<_> = pool.backends.iter().map(|b| (b.name.as_str(), b.weight(), b.admin())).collect();
        let (ready, drain) = (Admin::Ready, Admin::Drain);
        assert_eq!(rows, [("a", 1, ready), ("b", 9, drain), ("c", 1, drain), ("d", 1, drain)]);
        assert_eq!(pool.backends[1].health_override(), Some(HealthState::Down));
        assert_eq!(
            pool.shares().iter().map(|share| share.slots > 0).collect::<Vec<_>>(),
            [true, false, false, false]
        );
        let lease =
            |place: usize| restored.registrations.get(pool.backends[place].id).map(Registration::lease);
        assert_eq!([lease(0), lease(1), lease(2), lease(3)], [None, None, Some(Some(at(60))), Some(None)]);
    }

    #[test]
    fn every_collected_setting_is_restored() {
        let mut leased = registered("c", 3, Some(60));
        leased.registered.as_mut().unwrap().holders = vec![held("one", 30), held("two", 60)];
        let all = vec![SavedBackend { weight_set: Some(0), ..changed("b", 5) }, leased];
        let restored = restore_all(all.clone());
        let config = config(CONFIG);
        let again = collect(&restored.snapshot, &config, &restored.registrations, (at(20), wall(20)));
        assert_eq!(again, all);
        let untouched = Snapshot::new(&config);
        assert_eq!(collect(&untouched, &config, &Registrations::default(), (at(0), wall(0))), []);
    }

    /// Those that were there were forgotten, in favor of thousands that had left.
    #[test]
    fn of_too_many_those_that_are_there_outlast_a_restart() {
        let config =
            config(&format!("{CONFIG}[[pool.discover]]\ntype = \"dns\"\nname = \"web.test\"\nport = 80\n"));
        let restore = |saved| restore(saved, &[], &config, (at(0), wall(0)));
        let gone = (0..REMEMBERED_MAX).map(|number| changed(&format!("gone-{number}"), 1));
        let mut restored = restore(gone.collect());
        let pool = Arc::clone(&restored.snapshot.pools[0]);
        let mut backends = pool.settings.backends.clone();
        let address = ([127, 0, 0, 1], 3).into();
        backends.push(model::Backend {
            name: "there".into(),
            address,
            weight: 1,
            priority: 0,
            check: model::BackendCheck::default(),
        });
        let running = restored.snapshot.with_backends(pool.id, &backends);
        let there = running.pools[0].backend_named("there").unwrap();
        there.set_admin(Admin::Drain);
        restored.registrations.put_discovery(there.id, Discovery { source: "web.test".into(), weight: 1 });
        let saved = collect(&running, &config, &restored.registrations, (at(0), wall(0)));
        assert_eq!(saved.len(), REMEMBERED_MAX + 1);
        let again = restore(saved).registrations;
        assert!(again.set_before("web", "there").is_some(), "it is there, and an operator has drained it");
        assert!(again.set_before("web", "gone-0").is_none() && again.set_before("web", "gone-1").is_some());
    }

    #[test]
    fn saved_backends_that_do_not_fit_any_more_are_left_out_and_logged() {
        let other = |backend: SavedBackend| SavedBackend { pool: "gone".into(), ..backend };
        let weight = SavedBackend { weight_set: Some(9), ..changed("b", 4) };
        for (backend, expected) in [
            (registered("c", 3, Some(0)), "backend \"c\": its lease has ended meanwhile"),
            (registered("c", 3, Some(-60)), "backend \"c\": its lease has ended meanwhile"),
            (registered("a", 3, None), "backend \"a\": the pool has \"a\" at 127.0.0.1:1 already"),
            (registered("c", 2, None), "backend \"c\": the pool has \"b\" at 127.0.0.1:2 already"),
            (registered("c", 9090, None), "127.0.0.1:9090 is our own listener"),
            (changed("z", 1), "backend \"z\": the pool has no such backend"),
            (other(changed("a", 1)), "pool \"gone\": backend \"a\": there is no such pool"),
            (other(registered("c", 3, None)), "pool \"gone\": backend \"c\": there is no such pool"),
            (weight, "backend \"b\": its weight, because the configuration has another one now"),
        ] {
            let restored = restore_all(vec![backend]);
            assert_eq!(restored.left_out.len(), 1, "{expected}");
            assert!(restored.left_out[0].contains(expected), "{expected}: {:?}", restored.left_out);
            let weights: Vec<u16> = restored.snapshot.backends().map(|backend| backend.weight()).collect();
            assert_eq!(weights, [1, 5], "{expected}");
        }
    }

    /// Case 72.
    #[test]
    fn a_clock_that_was_set_back_gives_no_lease_for_years() {
        let restored = restore_all(vec![registered("c", 3, Some(100_000_000))]);
        let (_, known) = restored.registrations.iter().next().unwrap();
        assert_eq!(known.lease(), Some(at(0) + *api::TTL.end()));
    }

    /// It is not there before its source has answered.
    #[test]
    fn settings_of_a_discovered_backend_wait_for_it() {
        let text = "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\n[[pool.discover]]\n\
             type = \"dns\"\nname = \"web.test\"\nport = 80\n";
        let (config, now) = (config(text), (at(0), wall(0)));
        let saved = SavedBackend {
            pool: "web".into(),
            name: "10.0.0.1:80".into(),
            weight: 1,
            weight_set: Some(7),
            admin: api::Admin::Maint,
            health: OverrideTo::Auto,
            registered: None,
        };
        let restored = restore(vec![saved.clone()], &[], &config, now);
        assert!(restored.left_out.is_empty(), "{:?}", restored.left_out);
        let (said, set) = restored.registrations.set_before("web", "10.0.0.1:80").unwrap();
        assert_eq!((said, set.weight, set.admin), (1, Some(7), Admin::Maint));
        let again = collect(&restored.snapshot, &config, &restored.registrations, now);
        assert_eq!(again, [saved]);
    }

    /// The pool was empty until the first answer, and what an operator had set of a backend waited with it.
    #[test]
    fn what_a_source_listed_is_there_from_the_start_as_operators_have_set_it() {
        let source = "[[pool.discover]]\ntype = \"dns\"\nname = \"web.test\"\nport = 80\n";
        let (config, now) = (config(&format!("{CONFIG}{source}")), (at(0), wall(0)));
        let found = |last: u8, weight| {
            let address = std::net::SocketAddr::from(([10, 0, 0, last], 80));
            Found { name: address.to_string(), address: address.into(), weight, priority: 2 }
        };
        let list = vec![found(1, 4), found(2, 1)];
        let age = Duration::ZERO;
        let listed = Listed { pool: "web".into(), source: "dns:web.test:80".into(), list, age };
        let set = SavedBackend { name: "10.0.0.1:80".into(), weight_set: Some(7), ..changed("", 4) };
        let restored = restore(vec![set.clone()], &[listed], &config, now);
        assert!(restored.left_out.is_empty(), "{:?}", restored.left_out);
        let pool = &restored.snapshot.pools[0];
        let row = |backend: &Arc<Backend>| (backend.weight(), pool.priority_of(backend), backend.admin());
        let rows: Vec<_> = pool.backends[2..].iter().map(row).collect();
        assert_eq!(rows, [(7, 2, Admin::Drain), (1, 2, Admin::Ready)], "behind the file");
        let origin = restored.registrations.origin_of(pool.backends[2].id);
        assert!(matches!(origin, Origin::Discovered(known) if known.weight == 4), "as the source says");
        assert_eq!(collect(&restored.snapshot, &config, &restored.registrations, now), [set]);
    }
}
