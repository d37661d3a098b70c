//! Carries out the requests of operators: each is one change, one log line and one event with the requester.

use std::collections::HashSet;
use std::sync::Arc;

use log::LevelFilter;

use crate::api::EventKind;
use crate::base::address::Address;
use crate::base::nearest::did_you_mean;
use crate::config::discover::Discover;
use crate::config::model::{self, HealthState};
use crate::config::units;
use crate::control::audit;
use crate::control::circles::circle_with;
use crate::control::control_loop::ControlLoop;
use crate::control::events::Draft;
use crate::control::membership::notes::Removed;
use crate::control::membership::origin::{Hold, Registration};
use crate::control::membership::place_notes::note_placements;
use crate::control::membership::placement::Place;
use crate::logging;
use crate::messages::request::{
    Ask, Done, Holder, Left, Named, NewBackend, Refusal, Registered, Reply, Request,
};
use crate::pool::{Backend, BackendId, Pool, PoolId, Setting};
use crate::sys::unique_name;

/// Most backends of one pool: requests must not make the process hold an unbounded number.
pub(in crate::control) const BACKENDS_MAX: usize = 65_536;

impl ControlLoop {
    pub(in crate::control) fn on_ask(&mut self, ask: Ask) {
        let Ask { who, request } = ask;
        match request {
            Request::Register { pool, backend, reply } => {
                let asked = self.control.kept.asked();
                let result = self.register(&pool, &backend, &who);
                if asked == self.control.kept.asked() {
                    // Only renewed, which must not wait for the disk: its client may not have that long.
                    self.reply(reply, result);
                } else {
                    self.reply_once_saved(reply, result);
                }
            }
            Request::Deregister { backend, holder, reply } => {
                let result = self.deregister(&backend, holder.as_deref(), &who);
                self.reply_once_saved(reply, result);
            }
            Request::Change { backend, weight, admin, reply } => {
                let result = self.change(&backend, Setting { weight, admin, health: None }, &who);
                self.reply_once_saved(reply, result);
            }
            Request::OverrideHealth { backend, health, reply } => {
                let health = Some(health.unwrap_or(HealthState::Unknown));
                let result = self.change(&backend, Setting { health, ..Setting::default() }, &who);
                self.reply_once_saved(reply, result);
            }
            Request::ChangeSet { set, reply } => {
                let result = self.change_set(&set, &who);
                if set.is_dry_run { self.reply(reply, result) } else { self.reply_once_saved(reply, result) }
            }
            Request::Listen { listening, reply } => self.change_listening(listening, who, reply),
            Request::ReadyFail { fail, reply } => {
                self.control.view.state().ready_fail = fail.then(|| who.clone());
                let what = if fail { "ready-fail on: /ready answers 503" } else { "ready-fail off" };
                audit::write(format_args!("{what}"), &[("who", who.as_str().into())]);
                self.control.view.events.push(Draft::new(EventKind::Process, what).who(&who));
                self.reply(reply, Ok(()));
            }
            Request::Stop { now, reply } => {
                let stopping = self.on_stop_request(now, &who);
                self.reply(reply, Ok(stopping));
            }
            Request::ClearCounters { scope, reply } => {
                let result = self.clear_counters(&scope, &who);
                self.reply(reply, result);
            }
            Request::Dismiss { number, reply } => {
                let result = self.dismiss(number, &who);
                self.reply(reply, result);
            }
            Request::LogLevel { level, reply } => {
                set_log_level(level, &who);
                self.reply(reply, Ok(()));
            }
        }
    }

    /// The client may have gone: then the answer is dropped, and the change stays.
    fn reply<T: 'static>(&mut self, reply: Reply<T>, result: Result<T, Refusal>) {
        self.answer(move || _ = reply.send(result.map(|result| Done { result, not_saved: None })));
    }

    /// Same as [`ControlLoop::reply`], once the change is on the disk, or with the reason why not.
    fn reply_once_saved<T: Send + 'static>(&mut self, reply: Reply<T>, result: Result<T, Refusal>) {
        match result {
            Err(refusal) => self.reply(reply, Err(refusal)),
            Ok(result) => {
                self.answer_once_saved(move |not_saved| _ = reply.send(Ok(Done { result, not_saved })));
            }
        }
    }

    fn register(&mut self, pool: &str, new: &NewBackend, who: &str) -> Result<Registered, Refusal> {
        let pool = Arc::clone(self.pool_named(pool)?);
        let named = Named { pool: pool.settings.name.clone(), backend: new.name.clone() };
        if host_in(&pool, &new.name).is_some() {
            let what = format!("{named} is in the configuration, with a host name: it needs no registration");
            return Err(Refusal::Conflict(what));
        }
        if let Some(place) = pool.backends.iter().position(|known| known.name == new.name) {
            return self.renew(&named, &pool, place, new, who);
        }
        if let Some(Holder::Known(holder)) = &new.holder {
            return Err(Refusal::NotFound(format!(
                "{named} is not registered any more: holder {holder:?} has no lease, register it without one"
            )));
        }
        let says = Place { address: new.address.clone(), priority: new.priority };
        let placements = &mut self.control.kept.registrations.placements;
        let placed = placements.place_of(&named.pool, &named.backend, says.clone());
        if placed.address != new.address && pool.backends.iter().any(|known| known.address == placed.address)
        {
            // Another one is there meanwhile, as where the file lists one.
            placements.forget_address(&named.pool, &named.backend);
        }
        let Place { address, priority } = placements.place_of(&named.pool, &named.backend, says.clone());
        if let Some(known) = pool.backends.iter().find(|known| known.address == address) {
            return Err(Refusal::Conflict(format!("{named}: {address} is backend {:?} already", known.name)));
        }
        if pool.backends.len() >= BACKENDS_MAX {
            return Err(Refusal::Conflict(format!(
                "{named}: the pool has {BACKENDS_MAX} backends, no more fit"
            )));
        }
        self.refuse_circle(&named, &address)?;
        let mut registration = Registration { who: who.to_owned(), weight: new.weight, holds: Vec::new() };
        let holder = self.hold(&named, &mut registration, new)?;
        let mut backends = configured(&pool);
        let name = new.name.clone();
        self.control.kept.registrations.placements.saw(&named.pool, &named.backend, says);
        let is_it = |removed: &Removed| {
            let backend = &removed.backend;
            backend.pool == pool.id && backend.name == name && backend.address == address
        };
        let returned = self.take_returning(is_it);
        let weight = returned.first().map_or(new.weight, |removed| removed.weight_for(new.weight));
        backends.push(model::Backend {
            name,
            address: address.clone(),
            weight,
            priority,
            check: model::BackendCheck::default(),
        });
        self.rebuild_with(pool.id, &backends, &returned);
        let pool = self.control.snapshot.pool(pool.id);
        let id = pool.backends.last().expect("the backend was pushed above").id;
        // It was set of one that a source had listed.
        self.control.kept.registrations.forget_remembered(&named.pool, &named.backend);
        self.note_registration(id, registration);
        self.control.kept.changed_on_request();
        let kept = returned
            .first()
            .map_or_else(String::new, |removed| format!(", is back with {} sessions", removed.sessions()));
        let what = format!("registered at {address} with weight {weight} and {}{kept}", lease_words(new));
        self.report_change(&named, who, what);
        Ok(Registered { id, is_new: true, holder })
    }

    /// Sets the backends of the pool.
    pub(in crate::control) fn rebuild(&mut self, pool: PoolId, backends: &[model::Backend]) {
        self.rebuild_with(pool, backends, &[]);
    }

    /// Same as [`ControlLoop::rebuild`], where these backends return.
    fn rebuild_with(&mut self, pool: PoolId, backends: &[model::Backend], returned: &[Removed]) {
        let back: Vec<_> = returned.iter().map(|removed| Arc::clone(&removed.backend)).collect();
        self.replace_snapshot(Arc::new(self.control.snapshot.with_backends_back(pool, backends, &back)));
        let pool = Arc::clone(self.control.snapshot.pool(pool));
        self.report_eligibility(&pool);
        self.remember_notes(returned);
    }

    /// Renews a lease, or adds that of another holder, and applies differences from the same holder's last request. A
    /// weight that an operator has set since stays as long as the requests agree: a renewal every few seconds must not
    /// undo it, nor another holder's wish.
    fn renew(
        &mut self,
        named: &Named,
        pool: &Pool,
        place: usize,
        new: &NewBackend,
        who: &str,
    ) -> Result<Registered, Refusal> {
        let known = &pool.backends[place];
        let placed = self.control.kept.registrations.placements.named(&named.pool, &named.backend).cloned();
        let at = placed.as_ref().map_or(&known.address, |placed| &placed.says.address);
        if *at != new.address {
            return Err(Refusal::Conflict(format!("{named} is there already, at {at}: remove it first")));
        }
        let Some(before) = self.control.kept.registrations.get(known.id) else {
            let by = match self.control.kept.registrations.discovery_of(known.id) {
                Some(known) => format!("is discovered by {}", known.source),
                None => "is in the configuration".to_owned(),
            };
            return Err(Refusal::Conflict(format!("{named} {by}: it needs no registration")));
        };
        let now = self.clock.now();
        self.refuse_holder(named, before, new)?;
        let (weight, runs_in) = (known.plain_weight(), pool.settings.backends[place].priority);
        let priority = placed.as_ref().map_or(runs_in, |placed| placed.says.priority);
        let mut registration = before.clone();
        let own = name_of_holder(new).and_then(|holder| before.hold_of(holder, now));
        let said = own.map_or((before.weight, priority), |hold| (hold.weight, hold.priority));
        let holder = self.hold(named, &mut registration, new)?;
        let mut changes = Vec::new();
        if before.holds.is_empty() != new.ttl.is_none() {
            changes.push(format!("has {} now", lease_words(new)));
        }
        if said.0 != new.weight {
            changes.push(format!("weight {weight} -> {}", new.weight));
            registration.weight = new.weight;
            self.tables_changed(pool.id);
            known.set_weight(new.weight);
        }
        if said.1 != new.priority {
            changes.push(format!("priority {priority} -> {}", new.priority));
            let says = Place { address: new.address.clone(), priority: new.priority };
            let placements = &mut self.control.kept.registrations.placements;
            placements.saw(&named.pool, &named.backend, says);
            note_placements(placements, &mut self.control.view.state());
            if placed.is_none_or(|placed| placed.priority.is_none()) {
                let mut backends = configured(pool);
                backends[place].priority = new.priority;
                self.rebuild(pool.id, &backends);
            }
        }
        who.clone_into(&mut registration.who);
        self.note_registration(known.id, registration);
        if changes.is_empty() {
            log::debug!(pool:% = named.pool, backend:% = named.backend, who; "backend renewed");
        } else {
            self.control.kept.changed_on_request();
            self.report_change(named, who, format!("registered again: {}", changes.join(", ")));
        }
        Ok(Registered { id: known.id, is_new: false, holder })
    }

    /// Fails unless the requester may hold it: without an explicit flag, a permanent registration must not become a
    /// lease, nor another holder's lease permanent.
    fn refuse_holder(&self, named: &Named, before: &Registration, new: &NewBackend) -> Result<(), Refusal> {
        let now = self.clock.now();
        let conflict = |what: String| Err(Refusal::Conflict(format!("{named} {what}")));
        let own = name_of_holder(new).filter(|holder| before.hold_of(holder, now).is_some());
        if let (Some(Holder::Known(holder)), None) = (&new.holder, own) {
            return conflict(format!(
                "is not held by {holder:?}: its lease has ended or was replaced, register without a holder"
            ));
        }
        let others = before.holds.iter().filter(|hold| hold.end > now && Some(hold.holder.as_str()) != own);
        let (others, who) = (others.count(), &before.who);
        match (before.holds.is_empty(), new.ttl) {
            _ if new.replace => Ok(()),
            (true, Some(_)) => conflict(format!(
                "was registered by {who} to stay until it is removed: a lease in its place has to be asked for (--replace)"
            )),
            (false, None) if others > 0 => conflict(format!(
                "has a lease, renewed last by {who}: that it stays in its place has to be asked for (--replace)"
            )),
            (true, None) | (false, _) => Ok(()),
        }
    }

    /// Adds the lease of `new`, if any; returns the name of its holder.
    fn hold(
        &self,
        named: &Named,
        registration: &mut Registration,
        new: &NewBackend,
    ) -> Result<Option<String>, Refusal> {
        let now = self.clock.now();
        let Some(ttl) = new.ttl else {
            registration.holds.clear();
            return Ok(None);
        };
        let name = name_of_holder(new);
        let holder = name.map_or_else(unique_name, ToOwned::to_owned);
        let hold = Hold {
            holder: holder.clone(),
            is_known: name.is_some(),
            weight: new.weight,
            priority: new.priority,
            end: now + ttl,
        };
        let others = registration.holds.len();
        if registration.hold(hold, now) {
            Ok(Some(holder))
        } else {
            Err(Refusal::Conflict(format!("{named} has leases of {others} holders, no more fit")))
        }
    }

    fn note_registration(&mut self, id: BackendId, registration: Registration) {
        self.control.kept.registrations.put(id, registration);
        let origin = self.control.kept.registrations.origin_of(id);
        self.control.view.state().notes.entry(id).or_default().origin = origin;
        self.control.kept.changed();
    }

    fn deregister(&mut self, named: &Named, holder: Option<&str>, who: &str) -> Result<Left, Refusal> {
        let pool = self.pool_named(&named.pool)?;
        // It would be back with the next answer.
        let listed_by = |source: &str| {
            Err(Refusal::Conflict(format!("{named} is listed by {source}: drain it, or remove it there")))
        };
        if let Some(source) = host_in(pool, &named.backend) {
            return listed_by(&source.label());
        }
        let (pool, backend) = self.backend_named(named)?;
        if let Some(source) = self.lister_of(&pool, &backend, holder) {
            return listed_by(&source);
        }
        if let Some(holder) = holder {
            let now = self.clock.now();
            let known = self.control.kept.registrations.get(backend.id);
            let Some(known) = known.filter(|known| known.hold_of(holder, now).is_some()) else {
                return Err(Refusal::Conflict(format!(
                    "{named} is not held by {holder:?}: it stays as it is"
                )));
            };
            let mut registration = known.clone();
            let others = registration.leave(holder, now);
            if others > 0 {
                self.note_registration(backend.id, registration);
                self.control.kept.changed_on_request();
                self.report_change(named, who, format!("a holder has left: stays, held by {others} more"));
                return Ok(Left { sessions: backend.active(), is_removed: false });
            }
        }
        self.remove(&pool, &[Arc::clone(&backend)]);
        self.control.kept.registrations.placements.forget(&named.pool, &named.backend);
        self.control.kept.changed_on_request();
        let sessions = backend.active();
        self.report_change(named, who, format!("removed with {sessions} sessions left"));
        Ok(Left { sessions, is_removed: true })
    }

    /// Returns the source that would bring `backend` back, if `holder` removed it. One that leaves itself is believed.
    fn lister_of(&self, pool: &Pool, backend: &Backend, holder: Option<&str>) -> Option<Arc<str>> {
        if let Some(known) = self.control.kept.registrations.discovery_of(backend.id) {
            return Some(Arc::clone(&known.source));
        }
        if holder.is_some() {
            return None;
        }
        let (source, found) = self.believed_in(&pool.settings).remove(&backend.address)?;
        (found.name == backend.name).then_some(source)
    }

    /// Removes backends from their pool: the only way out at run time, on request and at the end of a lease.
    pub(in crate::control) fn remove(&mut self, pool: &Pool, gone: &[Arc<Backend>]) {
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

    pub(in crate::control) fn pool_named(&self, name: &str) -> Result<&Arc<Pool>, Refusal> {
        let found = self.control.snapshot.pool_named(name);
        let missing = || {
            let known = self.control.snapshot.pools.iter().map(|pool| pool.settings.name.as_str());
            Refusal::NotFound(format!("there is no pool {name:?}{}", did_you_mean(name, known)))
        };
        found.ok_or_else(missing)
    }

    pub(in crate::control) fn backend_named(
        &self,
        named: &Named,
    ) -> Result<(Arc<Pool>, Arc<Backend>), Refusal> {
        let pool = self.pool_named(&named.pool)?;
        let found = pool.backend_named(&named.backend);
        let missing = || {
            let known = pool.backends.iter().map(|backend| backend.name.as_str());
            let hint = did_you_mean(&named.backend, known);
            Refusal::NotFound(format!("pool {:?} has no backend {:?}{hint}", named.pool, named.backend))
        };
        found.map(|backend| (Arc::clone(pool), Arc::clone(backend))).ok_or_else(missing)
    }

    /// Fails if sessions would come back to this process.
    fn refuse_circle(&self, named: &Named, address: &Address) -> Result<(), Refusal> {
        match circle_with(address, self.own_sockets().into_iter()) {
            Some(socket) => Err(Refusal::Invalid(format!("{named}: {address} is {socket}"))),
            None => Ok(()),
        }
    }

    /// Writes one log line and one event.
    pub(in crate::control) fn report_change(&self, named: &Named, who: &str, what: String) {
        Self::log_change(named, who, &what);
        self.control.view.events.push(Draft::new(EventKind::Backend, what).backend(named).who(who));
    }

    /// Writes one log line.
    pub(super) fn log_change(named: &Named, who: &str, what: &str) {
        let fields = [
            ("pool", named.pool.as_str().into()),
            ("backend", named.backend.as_str().into()),
            ("who", who.into()),
            ("what", what.into()),
        ];
        audit::write(format_args!("backend changed"), &fields);
    }
}

/// Returns the source of a `[[pool.backend]]` of that name, if it has a host name.
fn host_in<'p>(pool: &'p Pool, name: &str) -> Option<&'p Discover> {
    let mut sources = pool.settings.discover.iter();
    sources.find(|source| source.as_host().is_some_and(|host| host.backend == name))
}

/// Returns the backends of a pool as a configuration would have them, with their present weights.
pub(in crate::control) fn configured(pool: &Pool) -> Vec<model::Backend> {
    let settings = pool.settings.backends.iter().zip(&pool.backends);
    settings
        .map(|(settings, backend)| model::Backend { weight: backend.plain_weight(), ..settings.clone() })
        .collect()
}

fn name_of_holder(new: &NewBackend) -> Option<&str> {
    match &new.holder {
        Some(Holder::Known(name) | Holder::Named(name)) => Some(name),
        None => None,
    }
}

fn lease_words(new: &NewBackend) -> String {
    new.ttl.map_or_else(|| "no lease".to_owned(), |ttl| format!("a lease of {}", units::show_duration(ttl)))
}

fn set_log_level(level: LevelFilter, who: &str) {
    let (from, to) = (log::max_level().as_str(), level.as_str());
    audit::write(format_args!("log level"), &[("who", who.into()), ("from", from.into()), ("to", to.into())]);
    logging::set_level(level);
}
