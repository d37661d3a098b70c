//! Does what operators ask for: one change, one log line and one event with who and what.

use std::collections::HashSet;
use std::sync::Arc;

use log::LevelFilter;

use crate::api::EventKind;
use crate::config::model::{self, HealthState};
use crate::config::units;
use crate::control::circles::circle_with;
use crate::control::events::Draft;
use crate::control::leases::Registration;
use crate::control::view;
use crate::control::{Leaving, Work};
use crate::pool::{Admin, Backend, BackendId, Pool, PoolId};
use crate::request::{Ask, Named, NewBackend, Refusal, Registered, Reply, Request};
use crate::sys::timestamp;

/// Backends of one pool at most: what a request can make the process hold has a bound.
pub(super) const BACKENDS_MAX: usize = 65_536;

impl Work {
    pub(super) fn on_ask(&mut self, ask: Ask) {
        let Ask { who, request } = ask;
        match request {
            Request::Register { pool, backend, reply } => {
                let result = self.register(&pool, &backend, &who);
                self.reply(reply, result);
            }
            Request::Deregister { backend, reply } => {
                let result = self.deregister(&backend, &who);
                self.reply(reply, result);
            }
            Request::Change { backend, weight, admin, reply } => {
                let result = self.change(&backend, weight, admin, &who);
                self.reply(reply, result);
            }
            Request::OverrideHealth { backend, health, reply } => {
                let result = self.override_health(&backend, health, &who);
                self.reply(reply, result);
            }
            Request::LogLevel { level, reply } => {
                set_log_level(level, &who);
                self.reply(reply, Ok(()));
            }
        }
    }

    /// Whoever has asked may have gone: then the answer goes nowhere, and the change stays.
    fn reply<T: 'static>(&mut self, reply: Reply<T>, result: Result<T, Refusal>) {
        self.answer(move || _ = reply.send(result));
    }

    fn register(&mut self, pool: &str, new: &NewBackend, who: &str) -> Result<Registered, Refusal> {
        let pool = Arc::clone(self.pool_named(pool)?);
        let named = Named { pool: pool.settings.name.clone(), backend: new.name.clone() };
        if let Some(place) = pool.backends.iter().position(|known| known.name == new.name) {
            return self.renew(&named, &pool, place, new, who);
        }
        if let Some(known) = pool.backends.iter().find(|known| known.address == new.address) {
            return Err(Refusal::Conflict(format!(
                "{named}: {} is backend {:?} already",
                new.address, known.name
            )));
        }
        if pool.backends.len() >= BACKENDS_MAX {
            return Err(Refusal::Conflict(format!(
                "{named}: the pool has {BACKENDS_MAX} backends, no more fit"
            )));
        }
        self.refuse_circle(&named, new)?;
        let mut backends = configured(&pool);
        let NewBackend { name, address, weight, backup, .. } = new.clone();
        backends.push(model::Backend { name, address, weight, backup });
        self.rebuild(pool.id, &backends);
        let pool = self.control.snapshot.pool(pool.id);
        let id = pool.backends.last().expect("it was put there").id;
        self.note_registration(id, new, who);
        let what = format!("registered at {address} with weight {weight} and {}", lease_words(new));
        self.tell(&named, who, what);
        Ok(Registered { id, is_new: true })
    }

    /// The pool has these backends from now on.
    fn rebuild(&mut self, pool: PoolId, backends: &[model::Backend]) {
        self.replace_snapshot(Arc::new(self.control.snapshot.with_backends(pool, backends)));
        let pool = Arc::clone(self.control.snapshot.pool(pool));
        self.tell_eligibility(&pool);
    }

    /// The same request again: its lease begins anew, and what it says otherwise than the one before is changed. A weight that
    /// an operator has set since stays as long as the requests agree: who renews every few seconds must not undo it.
    fn renew(
        &mut self,
        named: &Named,
        pool: &Pool,
        place: usize,
        new: &NewBackend,
        who: &str,
    ) -> Result<Registered, Refusal> {
        let known = &pool.backends[place];
        if known.address != new.address {
            let at = known.address;
            return Err(Refusal::Conflict(format!("{named} is there already, at {at}: remove it first")));
        }
        let Some(before) = self.control.kept.registrations.get(known.id) else {
            return Err(Refusal::Conflict(format!(
                "{named} is in the configuration: it needs no registration"
            )));
        };
        let (weight, backup) = (known.weight(), pool.settings.backends[place].backup);
        let mut changes = Vec::new();
        if before.lease.is_some() != new.ttl.is_some() {
            changes.push(format!("has {} now", lease_words(new)));
        }
        let other_weight = before.weight != new.weight;
        if other_weight {
            changes.push(format!("weight {weight} -> {}", new.weight));
            known.set_weight(new.weight);
            self.tables_changed(pool.id);
        }
        if backup != new.backup {
            changes.push(format!("backup {backup} -> {}", new.backup));
            let mut backends = configured(pool);
            backends[place].backup = new.backup;
            self.rebuild(pool.id, &backends);
        }
        self.note_registration(known.id, new, who);
        if changes.is_empty() {
            log::debug!(pool:% = named.pool, backend:% = named.backend, who; "backend renewed");
        } else {
            self.tell(named, who, format!("registered again: {}", changes.join(", ")));
        }
        Ok(Registered { id: known.id, is_new: false })
    }

    fn note_registration(&mut self, id: BackendId, new: &NewBackend, who: &str) {
        let lease = new.ttl.map(|ttl| self.clock.now() + ttl);
        let mut state = self.control.view.state();
        let note = state.notes.entry(id).or_default();
        (note.registered, note.lease) = (true, lease);
        drop(state);
        let registration = Registration { who: who.to_owned(), weight: new.weight, lease };
        self.control.kept.registrations.put(id, registration);
        self.control.kept.changed();
    }

    fn deregister(&mut self, named: &Named, who: &str) -> Result<u32, Refusal> {
        let (pool, backend) = self.backend_named(named)?;
        self.remove(&pool, &[Arc::clone(&backend)]);
        let sessions = backend.active();
        self.tell(named, who, format!("removed with {sessions} sessions left"));
        Ok(sessions)
    }

    /// Takes backends out of their pool: the one way out at run time, on request and at the end of a lease.
    pub(super) fn remove(&mut self, pool: &Pool, gone: &[Arc<Backend>]) {
        let gone: HashSet<BackendId> = gone.iter().map(|backend| backend.id).collect();
        let left = configured(pool).into_iter().zip(&pool.backends);
        let left: Vec<_> =
            left.filter(|(_, backend)| !gone.contains(&backend.id)).map(|(left, _)| left).collect();
        self.rebuild(pool.id, &left);
        for id in gone {
            self.control.kept.registrations.forget(id);
        }
        self.control.kept.changed();
    }

    fn change(
        &mut self,
        named: &Named,
        weight: Option<u16>,
        admin: Option<Admin>,
        who: &str,
    ) -> Result<(), Refusal> {
        let (pool, backend) = self.backend_named(named)?;
        let mut changes = Vec::new();
        if let Some(weight) = weight.filter(|&weight| weight != backend.weight()) {
            changes.push(format!("weight {} -> {weight}", backend.weight()));
            backend.set_weight(weight);
        }
        if let Some(admin) = admin.filter(|&admin| admin != backend.admin()) {
            changes.push(format!("admin state {} -> {}", backend.admin().as_str(), admin.as_str()));
            backend.set_admin(admin);
            let (since, sessions_at_start) = (self.clock.now(), backend.active().into());
            let leaving =
                (admin != Admin::Ready).then_some(Leaving { since, deadline: None, sessions_at_start });
            self.control.view.state().notes.entry(backend.id).or_default().leaving = leaving;
        }
        if !changes.is_empty() {
            self.tables_changed(pool.id);
            self.control.kept.changed();
            self.tell(named, who, changes.join(", "));
        }
        Ok(())
    }

    fn override_health(
        &mut self,
        named: &Named,
        health: Option<HealthState>,
        who: &str,
    ) -> Result<(), Refusal> {
        let (pool, backend) = self.backend_named(named)?;
        if health == backend.health_override() {
            return Ok(());
        }
        let before = backend.health();
        backend.override_health(health);
        if backend.health() != before {
            self.control.view.state().notes.entry(backend.id).or_default().health_since = Some(timestamp());
        }
        self.tables_changed(pool.id);
        self.control.kept.changed();
        let what = match health {
            Some(health) => format!("health is {} whatever its checks say", health.as_str()),
            None => format!("health is what its checks say: {}", backend.health().as_str()),
        };
        self.tell(named, who, what);
        Ok(())
    }

    fn pool_named(&self, name: &str) -> Result<&Arc<Pool>, Refusal> {
        let found = self.control.snapshot.pool_named(name);
        found.ok_or_else(|| Refusal::NotFound(format!("there is no pool {name:?}")))
    }

    fn backend_named(&self, named: &Named) -> Result<(Arc<Pool>, Arc<Backend>), Refusal> {
        let pool = self.pool_named(&named.pool)?;
        let found = pool.backend_named(&named.backend);
        let missing =
            || Refusal::NotFound(format!("pool {:?} has no backend {:?}", named.pool, named.backend));
        found.map(|backend| (Arc::clone(pool), Arc::clone(backend))).ok_or_else(missing)
    }

    /// An error if sessions would come back to us.
    fn refuse_circle(&self, named: &Named, new: &NewBackend) -> Result<(), Refusal> {
        let address = new.address;
        let binds = self.control.snapshot.listeners.iter().map(|listener| listener.settings.bind);
        match circle_with(address, binds) {
            Some(bind) => Err(Refusal::Invalid(format!("{named}: {address} is our own listener {bind}"))),
            None => Ok(()),
        }
    }

    /// One log line and one event.
    pub(super) fn tell(&self, named: &Named, who: &str, what: String) {
        log::info!(pool:% = named.pool, backend:% = named.backend, who, what; "backend changed");
        self.control.view.events.push(Draft::new(EventKind::Backend, what).backend(named).who(who));
    }
}

/// The backends of a pool as a configuration would have them, with the weights that they have now.
fn configured(pool: &Pool) -> Vec<model::Backend> {
    let settings = pool.settings.backends.iter().zip(&pool.backends);
    settings
        .map(|(settings, backend)| model::Backend { weight: backend.weight(), ..settings.clone() })
        .collect()
}

fn lease_words(new: &NewBackend) -> String {
    new.ttl.map_or_else(|| "no lease".to_owned(), |ttl| format!("a lease of {}", units::show_duration(ttl)))
}

fn set_log_level(level: LevelFilter, who: &str) {
    // Told at the more talkative of both levels, or it might not be told at all.
    let before = log::max_level();
    view::set_log_level(before.max(level).max(LevelFilter::Info));
    log::info!(who, from:% = before, to:% = level; "log level");
    view::set_log_level(level);
}
