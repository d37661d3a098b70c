//! Does what operators ask for: one change, one log line and one event with who and what.

use std::sync::Arc;

use log::LevelFilter;

use crate::api::EventKind;
use crate::config::is_circle;
use crate::config::model::{self, HealthState};
use crate::control::Work;
use crate::control::events::Draft;
use crate::control::view::Note;
use crate::pool::{Admin, Backend, Pool, PoolId};
use crate::request::{Ask, Named, NewBackend, Refusal, Registered, Request};

/// Backends of one pool at most: what a request can make the process hold has a bound.
const BACKENDS_MAX: usize = 65_536;

impl Work {
    pub(super) fn on_ask(&mut self, ask: Ask) {
        let Ask { who, request } = ask;
        // Whoever has asked may have gone: then the answer goes nowhere, and the change stays.
        match request {
            Request::Register { pool, backend, reply } => {
                _ = reply.send(self.register(&pool, &backend, &who));
            }
            Request::Deregister { backend, reply } => _ = reply.send(self.deregister(&backend, &who)),
            Request::Change { backend, weight, admin, reply } => {
                _ = reply.send(self.change(&backend, weight, admin, &who));
            }
            Request::OverrideHealth { backend, health, reply } => {
                _ = reply.send(self.override_health(&backend, health, &who));
            }
            Request::LogLevel { level, reply } => {
                set_log_level(level, &who);
                _ = reply.send(Ok(()));
            }
        }
    }

    fn register(&mut self, pool: &str, new: &NewBackend, who: &str) -> Result<Registered, Refusal> {
        let pool = Arc::clone(self.pool_named(pool)?);
        let named = Named { pool: pool.settings.name.clone(), backend: new.name.clone() };
        let lease = new.ttl.map(|ttl| self.clock.now() + ttl);
        if let Some(known) = pool.backends.iter().find(|known| known.name == new.name) {
            return self.renew(&named, known, new, lease);
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
        let note = Note { registered: true, lease, ..Note::default() };
        self.control.view.state().notes.insert(id, note);
        let what = format!("registered at {address} with weight {weight}{}", ttl_words(new));
        self.tell(&named, who, what);
        Ok(Registered { id, is_new: true })
    }

    /// The pool has these backends from now on.
    fn rebuild(&mut self, pool: PoolId, backends: &[model::Backend]) {
        self.replace_snapshot(Arc::new(self.control.snapshot.with_backends(pool, backends)));
        let pool = Arc::clone(self.control.snapshot.pool(pool));
        self.tell_eligibility(&pool);
    }

    /// The same request again: its lease begins anew, and its weight is what the request says.
    fn renew(
        &mut self,
        named: &Named,
        known: &Backend,
        new: &NewBackend,
        lease: Option<crate::base::time::Instant>,
    ) -> Result<Registered, Refusal> {
        if known.address != new.address {
            let at = known.address;
            return Err(Refusal::Conflict(format!("{named} is there already, at {at}: remove it first")));
        }
        let mut state = self.control.view.state();
        let note = state.notes.entry(known.id).or_default();
        if !note.registered {
            return Err(Refusal::Conflict(format!(
                "{named} is in the configuration: it needs no registration"
            )));
        }
        note.lease = lease;
        Ok(Registered { id: known.id, is_new: false })
    }

    fn deregister(&mut self, named: &Named, who: &str) -> Result<u32, Refusal> {
        let (pool, backend) = self.backend_named(named)?;
        let mut left = configured(&pool);
        left.retain(|other| other.name != backend.name);
        self.rebuild(pool.id, &left);
        self.control.view.state().notes.remove(&backend.id);
        let sessions = backend.active();
        self.tell(named, who, format!("removed with {sessions} sessions left"));
        Ok(sessions)
    }

    fn change(
        &mut self,
        named: &Named,
        weight: Option<u16>,
        admin: Option<Admin>,
        who: &str,
    ) -> Result<(), Refusal> {
        let (pool, backend) = self.backend_named(named)?;
        if let Some(weight) = weight.filter(|&weight| weight != backend.weight()) {
            let before = backend.weight();
            backend.set_weight(weight);
            self.tell(named, who, format!("weight {before} -> {weight}"));
        }
        if let Some(admin) = admin.filter(|&admin| admin != backend.admin()) {
            let before = backend.admin();
            backend.set_admin(admin);
            self.tell(named, who, format!("admin state {} -> {}", before.as_str(), admin.as_str()));
        }
        self.tables_changed(pool.id);
        Ok(())
    }

    fn override_health(
        &mut self,
        named: &Named,
        health: Option<HealthState>,
        who: &str,
    ) -> Result<(), Refusal> {
        let (pool, backend) = self.backend_named(named)?;
        backend.override_health(health);
        self.tables_changed(pool.id);
        let what = match health {
            Some(health) => format!("health is {} whatever its checks say", health.as_str()),
            None => format!("health is what its checks say: {}", backend.health().as_str()),
        };
        self.tell(named, who, what);
        Ok(())
    }

    fn pool_named(&self, name: &str) -> Result<&Arc<Pool>, Refusal> {
        let mut pools = self.control.snapshot.pools.iter();
        let found = pools.find(|pool| pool.settings.name == name);
        found.ok_or_else(|| Refusal::NotFound(format!("there is no pool {name:?}")))
    }

    fn backend_named(&self, named: &Named) -> Result<(Arc<Pool>, Arc<Backend>), Refusal> {
        let pool = self.pool_named(&named.pool)?;
        let found = pool.backends.iter().find(|backend| backend.name == named.backend);
        let missing =
            || Refusal::NotFound(format!("pool {:?} has no backend {:?}", named.pool, named.backend));
        found.map(|backend| (Arc::clone(pool), Arc::clone(backend))).ok_or_else(missing)
    }

    /// An error if sessions would come back to us.
    fn refuse_circle(&self, named: &Named, new: &NewBackend) -> Result<(), Refusal> {
        let binds = self.control.snapshot.listeners.iter().map(|listener| listener.settings.bind);
        match binds.into_iter().find(|&bind| is_circle(new.address, bind)) {
            Some(bind) => {
                Err(Refusal::Invalid(format!("{named}: {} is our own listener {bind}", new.address)))
            }
            None => Ok(()),
        }
    }

    /// One log line and one event.
    fn tell(&self, named: &Named, who: &str, what: String) {
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

fn ttl_words(new: &NewBackend) -> String {
    new.ttl.map(|ttl| format!(" and a lease of {ttl:?}")).unwrap_or_default()
}

fn set_log_level(level: LevelFilter, who: &str) {
    // Told at the more talkative of both levels, or it might not be told at all.
    let before = log::max_level();
    log::set_max_level(before.max(level).max(LevelFilter::Info));
    log::info!(who, from:% = before, to:% = level; "log level");
    log::set_max_level(level);
}
