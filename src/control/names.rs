//! Backends with unresolved names, when `[global] resolve` is `keep_trying`: each is down until its name has an
//! address.
//!
//! All of them are looked up in one round, on a thread kept for that. A round that leaves some without an address is
//! followed by another after [`PAUSE_MIN`], and after twice as long each time, up to [`PAUSE_MAX`].

use std::sync::Arc;
use std::time::Duration;

use crate::api::EventKind;
use crate::base::address::Address;
use crate::base::time::Instant;
use crate::config::model::{Host, OwnSocket};
use crate::config::{Found, Invalid, found_at, look_up_all};
use crate::control::circles::circle_with;
use crate::control::control_loop::{ControlLoop, ControlStage};
use crate::control::events::Draft;
use crate::control::membership::origin::RuntimeOverrides;
use crate::control::membership::requests::configured;
use crate::messages::report::Report;
use crate::messages::request::Named;
use crate::sys;

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);

impl ControlLoop {
    /// Returns when the next round begins.
    pub(super) fn next_look_up(&self) -> Option<Instant> {
        self.names.next.filter(|_| !self.names.is_looking)
    }

    /// Begins a round, if it is time.
    pub(super) fn look_up_names(&mut self) {
        let is_wanted = self.stage == ControlStage::Serving;
        let names: Vec<String> =
            self.unresolved().filter(|_| is_wanted).map(|host| host.target.to_string()).collect();
        if names.is_empty() {
            (self.names.next, self.names.failed_rounds) = (None, 0);
            return;
        }
        let now = self.clock.now();
        let next = *self.names.next.get_or_insert(now + PAUSE_MIN);
        if self.names.is_looking || now < next {
            return;
        }
        let reports = self.control.reports.clone();
        let run = move || reports.send_waiting(Report::Resolved(look_up_all(&names, sys::look_up)));
        self.names.is_looking = self.control.look_ups.try_run(run);
        self.names.next = Some(now + PAUSE_MAX);
    }

    fn unresolved(&self) -> impl Iterator<Item = &Host> {
        self.control.config.hosts.iter().filter(|host| host.unresolved.is_some())
    }

    /// Must be called when a round is over.
    pub(super) fn on_resolved(&mut self, found: &Found) {
        self.names.is_looking = false;
        let hosts: Vec<Host> = self.unresolved().cloned().collect();
        for host in hosts {
            let Some(result) = found_at(found, &host.target.to_string()) else { continue };
            let mut result = Some(result);
            let mut once = |_: &str| result.take().unwrap_or_else(|| Ok(Vec::new()));
            let placed = host.target.resolve(&mut once).map_err(|Invalid(what)| what);
            match placed.and_then(|address| self.dial_at(&host, &address)) {
                Ok(()) => {}
                Err(what) => self.set_host(&host, None, Some(what)),
            }
        }
        self.note_unresolved();
        let left: Vec<&str> = self.unresolved().map(|host| host.backend.as_str()).collect();
        if left.is_empty() {
            return;
        }
        let doubled = 1_u32.checked_shl(self.names.failed_rounds).unwrap_or(u32::MAX);
        let pause = PAUSE_MIN.saturating_mul(doubled).min(PAUSE_MAX);
        // One line for each of the longest pauses: the first ones are those of the start.
        let level = if pause == PAUSE_MAX { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, backends = left.join(", "); "names do not resolve: these backends are down until they do");
        self.names.failed_rounds += 1;
        self.names.next = Some(self.clock.now() + pause);
    }

    /// Dials the backend of `host` at `address` from now on. Fails when that is another backend or this process.
    fn dial_at(&mut self, host: &Host, address: &Address) -> Result<(), String> {
        let Some(pool) = self.control.snapshot.pool_named(&host.pool).cloned() else { return Ok(()) };
        let is_it = |place: &usize| {
            pool.backends[*place].name == host.backend && !pool.backends[*place].is_resolved()
        };
        let Some(place) = (0..pool.backends.len()).find(is_it) else { return Ok(()) };
        if let Some(known) = pool.backends.iter().find(|known| known.address == *address) {
            return Err(format!("host resolves to {address}, where backend {:?} is", known.name));
        }
        let listeners = self.control.site.addresses();
        let listeners = listeners.iter().copied().map(OwnSocket::Listener);
        if let Some(socket) =
            circle_with(address, listeners.chain(self.control.admin_sockets.iter().copied()))
        {
            return Err(format!("host resolves to {address}, which is {socket}"));
        }
        let before = Arc::clone(&pool.backends[place]);
        let overrides = RuntimeOverrides::of(&before, before.plain_weight());
        let note = self.control.view.state().notes.get(&before.id).cloned();
        let mut backends = configured(&pool);
        backends[place].address = address.clone();
        self.rebuild(pool.id, &backends);
        let after = Arc::clone(&self.control.snapshot.pool(pool.id).backends[place]);
        overrides.put_on(&after);
        if let Some(note) = note {
            // Another one by its counters, which begin at zero.
            let note = crate::control::membership::notes::Note { health_reason: None, cleared: None, ..note };
            self.control.view.state().notes.insert(after.id, note);
        }
        self.tables_changed(pool.id);
        self.set_host(host, Some(address), None);
        let named = Named { pool: host.pool.clone(), backend: host.backend.clone() };
        log::info!(pool:% = named.pool, backend:% = named.backend, address:%; "its name resolves now");
        let message = format!("its name resolves now: {address}");
        self.control.view.events.push(Draft::new(EventKind::Backend, message).backend(&named));
        Ok(())
    }

    /// Sets it in the running configuration.
    fn set_host(&mut self, host: &Host, address: Option<&Address>, unresolved: Option<String>) {
        let config = Arc::make_mut(&mut self.control.config);
        let is_it = |known: &&mut Host| (&known.pool, &known.backend) == (&host.pool, &host.backend);
        if let Some(known) = config.hosts.iter_mut().find(is_it) {
            known.unresolved = unresolved;
        }
        let pool = config.pools.iter_mut().find(|pool| pool.name == host.pool);
        let mut backends = pool.into_iter().flat_map(|pool| &mut pool.backends);
        if let (Some(address), Some(backend)) =
            (address, backends.find(|backend| backend.name == host.backend))
        {
            backend.address = address.clone();
        }
        self.control.view.state().config = Arc::clone(&self.control.config);
    }

    /// Shows why backends without an address are down.
    pub(super) fn note_unresolved(&self) {
        let mut state = self.control.view.state();
        for host in self.unresolved() {
            let pool = self.control.snapshot.pool_named(&host.pool);
            let backend = pool.and_then(|pool| pool.backend_named(&host.backend));
            if let (Some(backend), Some(why)) = (backend, &host.unresolved) {
                let note = state.notes.entry(backend.id).or_default();
                note.health_reason = Some(format!("does not resolve: {why}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::config::model::HealthState;
    use crate::config::{self, Config, Overrides};
    use crate::control::tests::control;
    use crate::pool::{Admin, Snapshot};

    const TEXT: &str = "[global]\nresolve = \"keep_trying\"\n[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\n\
         name = \"web\"\nwhen_all_down = \"try_anyway\"\nbackend = [{ name = \"a\", address = \"a.example:80\" }, \
         { name = \"b\", address = \"b.example:80\" }, { name = \"c\", address = \"10.0.0.3:80\" }]\n";

    fn parse(text: &str, found: &Found) -> Result<Config, Vec<config::Error>> {
        let mut resolve =
            |name: &str| found_at(found, name).unwrap_or_else(|| Err(io::Error::other("nobody")));
        config::parse(text, "test", &Overrides::default(), &mut resolve)
    }

    fn found(name: &str, address: &str) -> Found {
        Found::from([(name.to_owned(), Ok(vec![address.parse().unwrap()]))])
    }

    fn work() -> ControlLoop {
        let config = parse(TEXT, &Found::new()).unwrap();
        let mut work = ControlLoop::new(control(Snapshot::new(&config), &[]));
        work.control.config = Arc::new(config);
        work
    }

    /// One name that did not resolve kept the process from starting.
    #[test]
    fn a_name_that_does_not_resolve_is_down_and_the_others_serve() {
        let config = parse(TEXT, &Found::new()).unwrap();
        assert_eq!((config.hosts.len(), config.notes.len()), (2, 2));
        let words = "backend \"a\": cannot resolve host \"a.example\": nobody: it is down until it resolves";
        assert!(config.notes[0].ends_with(words), "{:?}", config.notes);
        let required = TEXT.replace("keep_trying", "require");
        assert_eq!(parse(&required, &Found::new()).unwrap_err().len(), 2);
        let pool = &Snapshot::new(&config).pools[0];
        let eligible: Vec<bool> = pool.backends.iter().map(|backend| backend.is_eligible()).collect();
        assert_eq!(eligible, [false, false, true]);
        // Not even when an operator sets it up, and not when all are down.
        pool.backends[0].override_health(Some(HealthState::Up));
        assert!(!pool.backends[0].is_eligible() && !pool.backends[0].admits());
    }

    #[test]
    fn a_backend_serves_once_it_resolves_and_keeps_the_operators_settings() {
        let mut work = work();
        work.note_unresolved();
        let id = work.control.snapshot.pools[0].backends[0].id;
        let reason = work.control.view.state().notes[&id].health_reason.clone();
        assert_eq!(reason.unwrap(), "does not resolve: cannot resolve host \"a.example\": nobody");
        work.control.snapshot.pools[0].backends[0].set_admin(Admin::Drain);
        work.on_resolved(&found("a.example:80", "10.0.0.1:80"));
        let pool = Arc::clone(&work.control.snapshot.pools[0]);
        let [a, b] = [&pool.backends[0], &pool.backends[1]];
        assert_eq!((&a.address, a.admin()), (&([10, 0, 0, 1], 80).into(), Admin::Drain));
        assert!(!b.is_resolved());
        assert_eq!(work.control.config.pools[0].backends[0].address, a.address);
        assert!(work.next_look_up().is_some(), "the other one is looked up again");
        // Neither the address of another backend nor one of our own.
        work.on_resolved(&found("b.example:80", "10.0.0.3:80"));
        assert!(
            work.unresolved().next().unwrap().unresolved.as_ref().unwrap().contains("where backend \"c\" is")
        );
        work.on_resolved(&found("b.example:80", "10.0.0.2:80"));
        work.look_up_names();
        assert!(work.next_look_up().is_none() && work.unresolved().next().is_none());
    }

    /// Case 100.
    #[test]
    fn a_reload_without_a_name_server_takes_nothing_out_of_service() {
        let running = parse(TEXT, &found("a.example:80", "10.0.0.1:80")).unwrap();
        let wanted = config::keep_addresses(&running, parse(TEXT, &Found::new()).unwrap());
        let addresses: Vec<String> =
            wanted.pools[0].backends.iter().map(|backend| backend.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.1:80", "0.0.0.0:0", "10.0.0.3:80"]);
        assert!(
            wanted.notes.last().unwrap().contains("backend \"a\": stays at 10.0.0.1:80"),
            "{:?}",
            wanted.notes
        );
        // Another name is another backend.
        let other = TEXT.replace("a.example", "other.example");
        let wanted = config::keep_addresses(&running, parse(&other, &Found::new()).unwrap());
        assert!(!wanted.pools[0].backends[0].is_resolved());
    }

    #[test]
    fn failed_rounds_are_further_and_further_apart() {
        let mut work = work();
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                let before = work.clock.now();
                work.on_resolved(&Found::new());
                (work.next_look_up().unwrap() - before).as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
