//! Changes that operators make of backends: of one by its name, or of all that names and patterns select, in one step
//! and in one epoch. Of a set either all are changed or none.

use std::collections::HashSet;
use std::sync::Arc;

use crate::api::EventKind;
use crate::base::glob;
use crate::config::discover::{Discover, Host, host_of};
use crate::config::model::HealthState;
use crate::control::Leaving;
use crate::control::control_loop::ControlLoop;
use crate::control::events::Draft;
use crate::control::membership::origin::RuntimeOverrides;
use crate::control::membership::state_file::SavedAuthor;
use crate::messages::request::{ChangeSet, Changed, Named, Refusal};
use crate::pool::{Admin, Backend, BackendId, Pool, Setting};
use crate::sys::timestamp;

/// Backends of a set that get an event of their own; of a larger set there is one event for each pool.
const EVENTS_EACH: usize = 16;

/// What one name or pattern selects to be changed together.
pub(super) struct Selected {
    pub(super) named: Named,
    pub(super) pool: Arc<Pool>,
    /// One, or all addresses of a host.
    pub(super) backends: Vec<Arc<Backend>>,
    /// The host that they are the addresses of.
    pub(super) host: Option<Host>,
}

impl Selected {
    /// Returns whether it is in no pool, and something was set of it that can be undone.
    pub(super) fn is_gone(&self) -> bool {
        self.backends.is_empty() && self.host.is_none()
    }
}

impl ControlLoop {
    /// Changes one backend, or all addresses of a host.
    pub(super) fn change(&mut self, named: &Named, setting: Setting, who: &str) -> Result<(), Refusal> {
        let selected = self.selected(named)?;
        let changes = self.put_on(&selected, setting, who);
        if !changes.is_empty() {
            self.control.kept.changed_on_request();
            self.report_change(named, who, changes.join(", "));
        }
        Ok(())
    }

    /// Changes all backends of `set`, or none; returns what has changed, or would change, of each.
    pub(super) fn change_set(&mut self, set: &ChangeSet, who: &str) -> Result<Vec<Changed>, Refusal> {
        let all = self.all_selected(set)?;
        let is_guarded = set.names.len() > 1 || set.names.iter().any(|name| glob::is_pattern(name));
        if is_guarded && !set.is_forced {
            refuse_to_empty(&all, set.setting)?;
        }
        let replaced = self.replaced(&all, set, who)?;
        let (mut changed, mut touched) = (Vec::with_capacity(all.len()), Vec::new());
        for (place, selected) in all.into_iter().enumerate() {
            let mut changes = match set.is_dry_run {
                _ if selected.is_gone() => self.undo(&selected.named, set, who),
                true => changes_by(&selected, set.setting),
                false => self.put_on(&selected, set.setting, who),
            };
            changes.extend(replaced.get(place).into_iter().flat_map(|replaced| replaced.changes.clone()));
            if !changes.is_empty() {
                touched.push((selected.named.clone(), changes.join(", ")));
            }
            changed.push(Changed { backend: selected.named, changes });
        }
        if !set.is_dry_run && !touched.is_empty() {
            if !replaced.is_empty() {
                self.put_replaced(replaced);
            }
            self.control.kept.changed_on_request();
            self.report_set(touched, who);
        }
        Ok(changed)
    }

    /// Puts `setting` on what is selected; returns what it changes, in words.
    fn put_on(&mut self, selected: &Selected, setting: Setting, who: &str) -> Vec<String> {
        let Selected { named, pool, backends, host } = selected;
        let mut changes = Vec::new();
        for backend in backends {
            let one = self.put_setting(pool, backend, setting, who);
            // What differs between the addresses of a host is reported of the first one.
            if changes.is_empty() {
                changes = one;
            }
        }
        let Some(host) = host else { return changes };
        let Setting { weight, admin, .. } = setting;
        // Over an agent the weight of the file is an override, too.
        let has_agent = pool.settings.agent.is_some();
        let is_override = |weight: &u16| has_agent || *weight != host.weight;
        let edit = |set: &mut RuntimeOverrides| {
            set.weight = weight.map_or(set.weight, |weight| Some(weight).filter(is_override));
            set.admin = admin.unwrap_or(set.admin);
        };
        let mut is_set = false;
        if weight.is_some() || admin.is_some() {
            let registrations = &mut self.control.kept.registrations;
            let before = registrations.set_of_host(&named.pool, &named.backend);
            let author = admin.map(|_| SavedAuthor { who: who.to_owned(), since: timestamp() });
            registrations.edit_host(&named.pool, &named.backend, host.weight, author.as_ref(), edit);
            is_set = registrations.set_of_host(&named.pool, &named.backend) != before;
        }
        if is_set && changes.is_empty() {
            changes.push("set as they are".to_owned());
        }
        of_host(changes, backends.len(), setting)
    }

    /// Puts `setting` on a backend; returns what it changes, in words.
    fn put_setting(&mut self, pool: &Pool, backend: &Backend, setting: Setting, who: &str) -> Vec<String> {
        let changes = changes_of(pool, backend, setting);
        if !changes.is_empty() {
            self.tables_changed(pool.id);
        }
        let Setting { weight, admin, health } = setting;
        if let Some(weight) = weight {
            backend.set_weight(weight);
            // Also where it was that one: no agent sets another from now on.
            backend.hold_weight(true);
        }
        if let Some(admin) = admin.filter(|&admin| admin != backend.operator_admin()) {
            backend.set_admin(admin);
            let (since, sessions_at_start) = (self.clock.now(), backend.active().into());
            let leaving = (backend.admin() != Admin::Ready).then_some(Leaving {
                since,
                deadline: None,
                sessions_at_start,
            });
            let mut state = self.control.view.state();
            let note = state.notes.entry(backend.id).or_default();
            note.leaving = leaving;
            note.admin_set = Some((who.to_owned(), timestamp()));
        }
        if let Some(health) = health {
            let before = backend.health();
            backend.override_health((health != HealthState::Unknown).then_some(health));
            if backend.health() != before {
                let mut state = self.control.view.state();
                state.notes.entry(backend.id).or_default().health_since = Some(timestamp());
            }
        }
        changes
    }

    /// Writes one log line for each backend, and as many events as there is room for.
    fn report_set(&self, touched: Vec<(Named, String)>, who: &str) {
        if touched.len() <= EVENTS_EACH {
            return touched.into_iter().for_each(|(named, what)| self.report_change(&named, who, what));
        }
        let mut pools: Vec<(&str, usize, &str)> = Vec::new();
        for (named, what) in &touched {
            Self::log_change(named, who, what);
            match pools.iter_mut().find(|(pool, ..)| *pool == named.pool) {
                Some((_, count, _)) => *count += 1,
                None => pools.push((&named.pool, 1, what)),
            }
        }
        for (pool, count, what) in pools {
            let message = format!("{count} backends changed, the first one: {what}");
            self.control.view.events.push(Draft::new(EventKind::Backend, message).pool(pool).who(who));
        }
    }

    /// Returns what the names of `set` select, each backend once. Fails where a name is unknown or a pattern matches
    /// nothing.
    fn all_selected(&self, set: &ChangeSet) -> Result<Vec<Selected>, Refusal> {
        let mut seen: HashSet<BackendId> = HashSet::new();
        let mut all = Vec::new();
        for name in &set.names {
            let named = self.split(name)?;
            let found = if glob::is_pattern(name) {
                let found = self.matching(&named);
                if found.is_empty() {
                    return Err(Refusal::NotFound(format!("no backend matches {name:?}")));
                }
                found
            } else {
                let selected = self.selected(&named);
                vec![selected.or_else(|missing| self.gone(&named, set, missing))?]
            };
            for mut selected in found {
                let before = selected.backends.len();
                selected.backends.retain(|backend| seen.insert(backend.id));
                // A host may have no address yet.
                if before == 0 || !selected.backends.is_empty() {
                    all.push(selected);
                }
            }
        }
        Ok(all)
    }

    /// Returns the backend of that name, or all addresses of the host that is called so.
    fn selected(&self, named: &Named) -> Result<Selected, Refusal> {
        let pool = Arc::clone(self.pool_named(&named.pool)?);
        let mut hosts = pool.settings.discover.iter().filter_map(Discover::as_host);
        if let Some(host) = hosts.find(|host| host.backend == named.backend).cloned() {
            return Ok(of_pool(&pool, host));
        }
        let (pool, backend) = self.backend_named(named)?;
        Ok(Selected { named: named.clone(), pool, backends: vec![backend], host: None })
    }

    /// Returns pool and backend of POOL/BACKEND, or of BACKEND where there is one pool.
    fn split(&self, text: &str) -> Result<Named, Refusal> {
        let (pool, backend) = match text.split_once('/') {
            Some((pool, backend)) => (pool, backend),
            None => (self.only_pool(text)?, text),
        };
        if pool.is_empty() || backend.is_empty() {
            return Err(Refusal::Invalid(format!("{text}: a backend is named POOL/BACKEND")));
        }
        Ok(Named { pool: pool.to_owned(), backend: backend.to_owned() })
    }

    fn only_pool(&self, text: &str) -> Result<&str, Refusal> {
        match self.control.snapshot.pools.as_slice() {
            [only] => Ok(&only.settings.name),
            pools => {
                let names: Vec<&str> = pools.iter().map(|pool| pool.settings.name.as_str()).collect();
                let names = names.join(", ");
                Err(Refusal::Invalid(format!("{text}: name the pool, there are several: {names}")))
            }
        }
    }

    /// Returns the hosts with a name like that, and the other backends with such a name or address.
    fn matching(&self, pattern: &Named) -> Vec<Selected> {
        let pools = self.control.snapshot.pools.iter();
        pools
            .filter(|pool| glob::matches(&pattern.pool, &pool.settings.name))
            .flat_map(|pool| matching_in(pool, &pattern.backend))
            .collect()
    }
}

fn matching_in(pool: &Arc<Pool>, pattern: &str) -> Vec<Selected> {
    let hosts = pool.settings.discover.iter().filter_map(Discover::as_host);
    let hosts = hosts.filter(|host| glob::matches(pattern, &host.backend)).cloned();
    let mut found: Vec<Selected> = hosts.map(|host| of_pool(pool, host)).collect();
    let of_hosts: HashSet<BackendId> =
        found.iter().flat_map(|host| &host.backends).map(|backend| backend.id).collect();
    let is_it = |backend: &&Arc<Backend>| {
        let address = || backend.is_resolved().then(|| backend.address.to_string());
        let is_like = glob::matches(pattern, &backend.name)
            || address().is_some_and(|address| glob::matches(pattern, &address));
        is_like && !of_hosts.contains(&backend.id)
    };
    found.extend(pool.backends.iter().filter(is_it).map(|backend| Selected {
        named: Named { pool: pool.settings.name.clone(), backend: backend.name.clone() },
        pool: Arc::clone(pool),
        backends: vec![Arc::clone(backend)],
        host: None,
    }));
    found
}

/// Returns all addresses of a host.
fn of_pool(pool: &Arc<Pool>, host: Host) -> Selected {
    let is_its = |backend: &&Arc<Backend>| {
        backend.name == host.backend || host_of(&backend.name) == Some(&host.backend)
    };
    Selected {
        named: Named { pool: pool.settings.name.clone(), backend: host.backend.clone() },
        pool: Arc::clone(pool),
        backends: pool.backends.iter().filter(is_its).cloned().collect(),
        host: Some(host),
    }
}

/// Returns what `setting` would change of one, in words: also that the weight which it has is held over its agent.
fn changes_of(pool: &Pool, backend: &Backend, setting: Setting) -> Vec<String> {
    let mut changes = backend.changes_by(setting);
    if let Some(weight) = setting.weight.filter(|&weight| weight == backend.plain_weight())
        && pool.settings.agent.is_some()
        && !backend.holds_weight()
    {
        let words = format!("weight {weight} holds over that of its agent");
        match changes.first_mut().filter(|change| change.starts_with("weight ")) {
            Some(change) => *change = words,
            None => changes.insert(0, words),
        }
    }
    changes
}

/// Returns what `setting` would change, in words.
fn changes_by(selected: &Selected, setting: Setting) -> Vec<String> {
    let mut changes = selected.backends.iter().map(|backend| changes_of(&selected.pool, backend, setting));
    let first = changes.find(|changes| !changes.is_empty()).unwrap_or_default();
    if selected.host.is_some() { of_host(first, selected.backends.len(), setting) } else { first }
}

/// Returns the changes of a host in one: they hold for its present addresses and, but for a health, for later ones.
fn of_host(changes: Vec<String>, addresses: usize, setting: Setting) -> Vec<String> {
    if changes.is_empty() {
        return changes;
    }
    let stays = setting.weight.is_some() || setting.admin.is_some();
    let later = if stays { " and at those to come" } else { "" };
    vec![format!("{}, at its {addresses} addresses{later}", changes.join(", "))]
}

/// Fails when `setting` of all that is selected would leave a pool without an eligible backend that has one now.
fn refuse_to_empty(all: &[Selected], setting: Setting) -> Result<(), Refusal> {
    let backends = all.iter().flat_map(|selected| &selected.backends);
    let chosen: HashSet<BackendId> = backends.map(|backend| backend.id).collect();
    let mut checked = HashSet::new();
    for Selected { pool, .. } in all {
        if !checked.insert(pool.id) {
            continue;
        }
        let has_one = pool.backends.iter().any(|backend| backend.is_eligible());
        let keeps_one = pool.backends.iter().any(|backend| match chosen.contains(&backend.id) {
            true => backend.is_eligible_after(setting),
            false => backend.is_eligible(),
        });
        if has_one && !keeps_one {
            let pool = &pool.settings.name;
            return Err(Refusal::Conflict(format!(
                "pool {pool:?} would have no eligible backend left: nothing is changed unless it is forced (--force)"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::config::{self, Overrides};
    use crate::control::tests::control;
    use crate::messages::request::{Ask, Placing, Request};
    use crate::pool::Snapshot;

    /// `a1`, `a2` and `b` in `web`, `a1` of another address in `api`.
    const TEXT: &str = "[[listener]]\nbind = \"127.0.0.1:9090\"\npool = \"web\"\n\
        [[pool]]\nname = \"web\"\nbackend = [{ name = \"a1\", address = \"10.0.0.1:80\" },\
        { name = \"a2\", address = \"10.0.0.7:80\" }, { name = \"b\", address = \"10.0.0.7:81\" }]\n\
        [[pool]]\nname = \"api\"\nbackend = [{ name = \"a1\", address = \"10.0.0.7:80\" }]\n";

    const DRAIN: Setting = Setting { weight: None, admin: Some(Admin::Drain), health: None };

    fn work() -> ControlLoop {
        let no_names = &mut |_: &str| Ok(Vec::new());
        let config = config::parse(TEXT, "test", &Overrides::default(), no_names).expect("a good config");
        ControlLoop::new(control(Snapshot::new(&config), &[]))
    }

    fn set(names: &[&str], setting: Setting) -> ChangeSet {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        ChangeSet { names, setting, placing: Placing::default(), is_forced: false, is_dry_run: false }
    }

    fn ask(work: &mut ControlLoop, set: ChangeSet) -> Result<Vec<String>, Refusal> {
        let (reply, mut answered) = oneshot::channel();
        work.on_ask(Ask { who: "a test".into(), request: Request::ChangeSet { set, reply } });
        work.act();
        let show = |one: &Changed| {
            format!("{}/{}: {}", one.backend.pool, one.backend.backend, one.changes.join(", "))
        };
        let answer = answered.try_recv().expect("it answers");
        answer.map(|done| done.result.iter().map(show).collect())
    }

    fn drained(work: &ControlLoop) -> usize {
        work.control.snapshot.backends().filter(|backend| backend.admin() == Admin::Drain).count()
    }

    #[test]
    fn names_and_patterns_select_each_backend_once_and_all_change_in_one_epoch() {
        let mut work = work();
        let epoch = work.control.snapshot.epoch;
        let wanted = set(&["web/a*", "web/b"], Setting { weight: Some(7), ..Setting::default() });
        let changed = ask(&mut work, wanted.clone()).unwrap();
        let weight = |name: &str| format!("web/{name}: weight 1 -> 7");
        assert_eq!(changed, ["a1", "a2", "b"].map(weight));
        assert_eq!(work.control.snapshot.epoch, epoch + 1);
        let again =
            ask(&mut work, ChangeSet { names: vec!["*/*".into(), "web/b".into()], ..wanted }).unwrap();
        assert_eq!(again, ["web/a1: ", "web/a2: ", "web/b: ", "api/a1: weight 1 -> 7"]);
        let events = work.control.view.events.recent(None, 10);
        assert_eq!(events.len(), 4, "one for each that has changed");
    }

    /// It counted as no change, so nothing was saved of it: a process that started again followed its agent.
    #[test]
    fn a_weight_that_is_set_as_it_is_holds_over_an_agent_and_is_saved() {
        let no_names = &mut |_: &str| Ok(Vec::new());
        let text = TEXT.replace("name = \"web\"\n", "name = \"web\"\nagent = { port = 3 }\n");
        let config = config::parse(&text, "test", &Overrides::default(), no_names).expect("a good config");
        let mut work = ControlLoop::new(control(Snapshot::new(&config), &[]));
        let same = |is_dry_run| ChangeSet {
            is_dry_run,
            ..set(&["web/a1", "api/a1"], Setting { weight: Some(1), ..Setting::default() })
        };
        let expected = ["web/a1: weight 1 holds over that of its agent", "api/a1: "];
        assert_eq!(ask(&mut work, same(true)).unwrap(), expected);
        assert_eq!(ask(&mut work, same(false)).unwrap(), expected);
        assert!(work.control.snapshot.pools[0].backends[0].holds_weight());
        assert_eq!(ask(&mut work, same(false)).unwrap(), ["web/a1: ", "api/a1: "]);
    }

    #[test]
    fn a_pattern_finds_backends_by_their_address_too() {
        let by_address = ask(&mut work(), set(&["*/10.0.0.7:80"], Setting { weight: Some(0), ..DRAIN }));
        assert!(matches!(by_address, Err(Refusal::Conflict(_))), "the only one of api: {by_address:?}");
        let forced = ChangeSet { is_forced: true, ..set(&["*/10.0.0.7:80"], DRAIN) };
        let changed = ask(&mut work(), forced).unwrap();
        let drained = |name: &str| format!("{name}: admin state ready -> drain");
        assert_eq!(changed, ["web/a2", "api/a1"].map(drained));
    }

    #[test]
    fn what_selects_nothing_refuses_the_whole_set() {
        for (names, expected) in [
            (&["web/b", "web/x"][..], "pool \"web\" has no backend \"x\""),
            (&["web/b", "web/a3"], "pool \"web\" has no backend \"a3\""),
            (&["web/b", "wbe/b"], "there is no pool \"wbe\", did you mean \"web\"?"),
            (&["web/b", "web/x*"], "no backend matches \"web/x*\""),
            (&["web/b", "x*/a1"], "no backend matches \"x*/a1\""),
            (&["b"], "b: name the pool, there are several: web, api"),
            (&["web/b", "/b"], "/b: a backend is named POOL/BACKEND"),
            (&["web/b", "web/"], "web/: a backend is named POOL/BACKEND"),
        ] {
            let mut work = work();
            assert_eq!(ask(&mut work, set(names, DRAIN)).unwrap_err().to_string(), expected);
            assert_eq!(drained(&work), 0, "{names:?}");
        }
    }

    #[test]
    fn a_set_does_not_take_the_last_eligible_backend_of_a_pool_unless_it_is_forced() {
        let down = Setting { health: Some(HealthState::Down), ..Setting::default() };
        let zero = Setting { weight: Some(0), ..Setting::default() };
        for setting in [DRAIN, down, zero] {
            let mut work = work();
            let all = set(&["web/a?", "web/b"], setting);
            let refused = ask(&mut work, ChangeSet { is_dry_run: true, ..all.clone() }).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "pool \"web\" would have no eligible backend left: nothing is changed unless it is forced (--force)"
            );
            assert_eq!(ask(&mut work, all.clone()), Err(refused));
            assert!(work.control.snapshot.backends().all(|backend| backend.is_eligible()), "{setting:?}");
            assert_eq!(ask(&mut work, ChangeSet { is_forced: true, ..all.clone() }).unwrap().len(), 3);
            // A pool without any has none to lose.
            assert_eq!(ask(&mut work, all).unwrap().len(), 3);
        }
        assert!(ask(&mut work(), set(&["api/a1"], DRAIN)).is_ok(), "one by its name is meant");
        assert!(ask(&mut work(), set(&["api/a1", "web/b"], DRAIN)).is_err());
        assert!(ask(&mut work(), set(&["web/a?"], DRAIN)).is_ok());
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let mut work = work();
        let epoch = work.control.snapshot.epoch;
        let dry = ChangeSet { is_dry_run: true, ..set(&["web/a*"], DRAIN) };
        let would = ask(&mut work, dry).unwrap();
        assert_eq!(would, ["web/a1: admin state ready -> drain", "web/a2: admin state ready -> drain"]);
        assert_eq!((drained(&work), work.control.snapshot.epoch), (0, epoch));
        assert!(work.control.view.events.recent(None, 10).is_empty() && !work.control.kept.changed);
    }

    #[test]
    fn a_large_set_is_one_event_for_each_pool() {
        let mut work = work();
        let touched = (0..=EVENTS_EACH).map(|index| {
            let pool = if index % 2 == 0 { "web" } else { "api" };
            (Named { pool: pool.into(), backend: format!("b{index}") }, "weight 1 -> 2".to_owned())
        });
        work.report_set(touched.collect(), "a test");
        let events = work.control.view.events.recent(None, 100);
        let messages: Vec<&str> = events.iter().map(|event| event.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "9 backends changed, the first one: weight 1 -> 2",
                "8 backends changed, the first one: weight 1 -> 2"
            ]
        );
        work.act();
    }
}
