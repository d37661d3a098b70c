//! The state in which the operator has left the backends, and so what the workers may do with them. Kept apart from the
//! backends of the product: an ignored setting is noticed here.

use std::sync::Arc;

use l4lb::base::address::Address;
use l4lb::config::model::{Check, HealthState};
use l4lb::pool::{Admin, Advice, AgentWeight, Backend, BackendId, Pool, PoolId, Snapshot};
use l4lb::sys::Token;

use crate::agents::is_agent;
use crate::conn::{Conn, Descriptor};
use crate::network::Net;

/// What operators have set of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) admin: Admin,
    pub(crate) weight: u16,
    pub(crate) health: Option<HealthState>,
}

impl Default for Setting {
    fn default() -> Self {
        Self { admin: Admin::Ready, weight: 1, health: None }
    }
}

impl Setting {
    pub(crate) fn of(backend: &Backend) -> Self {
        let (admin, weight) = (backend.operator_admin(), backend.plain_weight());
        Self { admin, weight, health: backend.health_override() }
    }
}

/// One backend that is or was in a pool. An address may belong to several, one after another.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) backend: Arc<Backend>,
    port: u16,
    admin: Admin,
    /// What its agent says.
    pub(crate) agent: Advice,
    /// Whether it was in maintenance when the last epoch was published, and ever since.
    is_paused: bool,
    weight: u16,
    /// Whether the operator has set the weight.
    is_weight_held: bool,
    /// Its tier in the last epoch that lists it.
    priority: u8,
    /// Whether it was eligible when the tables of its pool were built.
    is_in_tables: bool,
    /// The finding of its checks, as last reported.
    health: HealthState,
    /// The operator's override.
    health_override: Option<HealthState>,
    /// Whether it is in the last epoch.
    is_listed: bool,
    /// Whether the last epoch that had it has no checks for it.
    is_unchecked: bool,
    /// Whether it is in a pool of the last epoch, be it a retired one.
    is_found: bool,
    /// By worker: whether it may still run an epoch that lists it.
    listed_at: Vec<bool>,
    /// By worker: whether it may still run an epoch in which it is found.
    known_to: Vec<bool>,
    /// By worker: whether the command to cut its sessions is still unread; `None` before it was sent.
    cut_at: Option<Vec<bool>>,
    /// Whether it came back after that.
    is_back: bool,
}

impl Target {
    /// Returns whether it may have new sessions. What its checks find counts before it is reported.
    fn is_eligible(&self) -> bool {
        let is_up = |health: HealthState| health != HealthState::Down;
        let is_healthy = is_up(self.expected_health()) && is_up(self.backend.health());
        self.is_let() && self.backend.weight() > 0 && is_healthy
    }

    /// Must be called when anybody wants another administrative state.
    pub(crate) fn on_admin(&mut self) {
        self.is_paused &= self.is_in_maint();
    }

    /// Whether anybody wants it in maintenance.
    fn is_in_maint(&self) -> bool {
        self.admin == Admin::Maint || self.agent.admin == Some(Admin::Maint)
    }

    /// Whether both the operator and its agent let it have sessions, of which a weight of 0 is none.
    fn is_let(&self) -> bool {
        let has_weight = match self.agent.weight {
            Some(AgentWeight::Percent(percent)) => percent > 0 && self.weight > 0,
            Some(AgentWeight::Absolute(weight)) if !self.is_weight_held => weight > 0,
            Some(AgentWeight::Absolute(_)) | None => self.weight > 0,
        };
        self.admin == Admin::Ready && matches!(self.agent.admin, None | Some(Admin::Ready)) && has_weight
    }

    /// Its health: the operator's word is over its agent's, and that agent's `up` is not over a check.
    fn expected_health(&self) -> HealthState {
        match (self.health_override, self.agent.health) {
            (Some(health), _) => health,
            (None, Some(HealthState::Down)) => HealthState::Down,
            (None, Some(HealthState::Up)) if self.is_unchecked => HealthState::Up,
            (None, _) => self.health,
        }
    }
}

/// Every backend that ever existed, and which epoch the workers run.
#[derive(Default)]
pub(crate) struct Roster {
    /// By id.
    targets: Vec<Target>,
    /// The pools of the last epoch.
    pools: Vec<Arc<Pool>>,
    /// By worker: whether it surely runs the last epoch.
    is_up_to_date: Vec<bool>,
}

impl std::fmt::Debug for Roster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.targets).finish()
    }
}

impl Roster {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter()
    }

    pub(crate) fn target(&mut self, backend: BackendId) -> &mut Target {
        &mut self.targets[backend.0 as usize]
    }

    /// Returns the pool of a backend, there or gone.
    pub(crate) fn pool_of(&self, backend: BackendId) -> PoolId {
        self.targets[backend.0 as usize].backend.pool
    }

    // --- the operator's actions ------------------------------------------------------------------------------------

    pub(crate) fn set_admin(&mut self, backend: &Backend, admin: Admin) {
        backend.set_admin(admin);
        let target = self.target(backend.id);
        target.admin = admin;
        target.on_admin();
    }

    pub(crate) fn set_weight(&mut self, backend: &Backend, weight: u16) {
        backend.set_weight(weight);
        backend.hold_weight(true);
        let target = self.target(backend.id);
        (target.weight, target.is_weight_held) = (weight, true);
    }

    pub(crate) fn override_health(&mut self, backend: &Backend, health: Option<HealthState>) {
        backend.override_health(health);
        self.target(backend.id).health_override = health;
    }

    pub(crate) fn setting(&self, backend: BackendId) -> Setting {
        let Target { admin, weight, health_override, .. } = self.targets[backend.0 as usize];
        Setting { admin, weight, health: health_override }
    }

    /// The control thread has set this for a backend of the last epoch.
    pub(crate) fn set(&mut self, backend: BackendId, set: Setting) {
        let target = self.target(backend);
        (target.admin, target.weight, target.health_override) = (set.admin, set.weight, set.health);
        // Only a weight that differs from that of the source is held then.
        target.is_weight_held = false;
        target.is_paused = set.admin == Admin::Maint;
    }

    /// The control thread has taken it out of a pool that stays: it gets no sessions, whatever a worker knows.
    pub(crate) fn leave(&mut self, backend: BackendId) {
        let target = self.target(backend);
        (target.admin, target.is_paused) = (Admin::Drain, false);
    }

    /// The sessions of a removed backend must be cut.
    pub(crate) fn cut(&mut self, backend: BackendId) {
        let target = self.target(backend);
        target.cut_at = Some(vec![true; target.known_to.len()]);
    }

    /// Adds a worker that begins with the last epoch.
    pub(crate) fn hire(&mut self) {
        self.is_up_to_date.push(false);
        for target in &mut self.targets {
            target.listed_at.push(target.is_listed);
            target.known_to.push(target.is_found);
            if let Some(cut_at) = &mut target.cut_at {
                cut_at.push(false);
            }
        }
    }

    /// From now on each of the `workers` may run this epoch, or still an older one.
    pub(crate) fn publish(&mut self, snapshot: &Snapshot, workers: usize) {
        let known = self.targets.len();
        let is_known = |backend: &Backend| (backend.id.0 as usize) < known;
        for backend in snapshot.backends().skip_while(|backend| is_known(backend)) {
            assert_eq!(backend.id.0 as usize, self.targets.len(), "ids are given in order, and once");
            self.targets.push(Target {
                backend: Arc::clone(backend),
                port: port_of(&backend.address),
                admin: Admin::Ready,
                is_paused: false,
                agent: Advice::NONE,
                weight: backend.weight(),
                is_weight_held: false,
                priority: 0,
                is_in_tables: false,
                health: backend.checked_health(),
                health_override: None,
                is_listed: true,
                is_unchecked: false,
                is_found: true,
                listed_at: vec![true; workers],
                known_to: vec![true; workers],
                cut_at: None,
                is_back: false,
            });
        }
        for target in &mut self.targets {
            target.is_paused = target.is_in_maint();
            let was_listed = target.is_listed;
            let is_same = |pool: &Arc<Pool>| {
                pool.id == target.backend.pool && snapshot.pools.iter().any(|now| Arc::ptr_eq(pool, now))
            };
            let has_tables_of_before = self.pools.iter().any(is_same);
            target.is_listed = snapshot.backend(target.backend.id).is_some();
            if target.is_listed {
                let settings = &snapshot.pool(target.backend.pool).settings;
                let health = &settings.health;
                target.is_unchecked = health.check == Check::Off;
                let here = settings.backends.iter().find(|here| here.address == target.backend.address);
                let here = here.expect("it is listed");
                target.priority = here.priority;
                if !was_listed {
                    target.listed_at.fill(true);
                    target.known_to.fill(true);
                    target.is_back = target.cut_at.is_some();
                    // It comes back with its present weight.
                    target.is_weight_held &= here.weight == target.weight;
                    target.weight = here.weight;
                    if target.is_unchecked {
                        target.health = health.initial_state;
                    }
                }
                if !has_tables_of_before {
                    target.is_in_tables = target.is_eligible();
                }
                // As a control thread does before it posts the epoch: those that come are asked anew.
                if settings.agent.is_none() || !was_listed {
                    target.agent = Advice::NONE;
                }
                target.on_admin();
                target.backend.set_agent(target.agent, target.is_unchecked);
            }
            let mut retired = snapshot.retired().iter().flat_map(|pool| &pool.backends);
            target.is_found = target.is_listed || retired.any(|backend| backend.id == target.backend.id);
        }
        self.pools.clone_from(&snapshot.pools);
        self.is_up_to_date = vec![false; workers];
    }

    /// Must be called when a worker runs the last epoch, and no older one. Returns the ports of backends that it no
    /// longer knows.
    pub(crate) fn on_applied(&mut self, worker: usize) -> Vec<u16> {
        self.is_up_to_date[worker] = true;
        for target in &mut self.targets {
            target.listed_at[worker] &= target.is_listed;
            if let Some(cut_at) = &mut target.cut_at {
                cut_at[worker] = false;
            }
        }
        let gone = self.targets.iter_mut().filter(|target| !target.is_found && target.known_to[worker]);
        gone.map(|target| {
            target.known_to[worker] = false;
            target.port
        })
        .collect()
    }

    // --- the workers' permissions ----------------------------------------------------------------------------------

    fn any(&self, port: u16, holds: impl Fn(&Target) -> bool) -> bool {
        self.targets.iter().any(|target| target.port == port && holds(target))
    }

    /// Returns whether the last tables have a backend, and it may have new sessions.
    pub(crate) fn is_free(&self, backend: BackendId) -> bool {
        let target = &self.targets[backend.0 as usize];
        target.is_listed && target.is_in_tables && target.is_eligible()
    }

    pub(crate) fn port(&self, backend: BackendId) -> u16 {
        self.targets[backend.0 as usize].port
    }

    /// Returns whether a session of `worker` may be dialed to `port`.
    pub(crate) fn may_be_dialed(&self, worker: usize, port: u16) -> bool {
        self.any(port, |target| target.known_to[worker] && target.is_let())
    }

    /// Returns whether a session of `worker` that is dialed to `port` is in a later tier than the first of its pool.
    /// Panics when a backend of an earlier tier could have it, unless the dial to that one `may_have_failed`.
    pub(crate) fn check_tier(&self, worker: usize, port: u16, may_have_failed: impl Fn(u16) -> bool) -> bool {
        // An older epoch has other tiers and tables.
        if !self.is_up_to_date.get(worker).is_some_and(|&is_up_to_date| is_up_to_date) {
            return false;
        }
        let dialed: Vec<&Target> =
            self.targets.iter().filter(|target| target.port == port && target.known_to[worker]).collect();
        let earlier = |dialed: &Target| {
            let (pool, priority, is_listed) = (dialed.backend.pool, dialed.priority, dialed.is_listed);
            let is_earlier = move |target: &&Target| {
                is_listed && target.is_listed && target.backend.pool == pool && target.priority < priority
            };
            self.targets.iter().filter(is_earlier)
        };
        let is_free =
            |target: &&Target| target.is_in_tables && target.is_eligible() && !may_have_failed(target.port);
        let is_outranked = |dialed: &&Target| earlier(dialed).any(|target| is_free(&target));
        // Of several that had this address it may be any.
        assert!(
            dialed.is_empty() || !dialed.iter().all(is_outranked),
            "worker {worker} dials port {port}, and an earlier tier has a backend: {self:?}"
        );
        dialed.iter().any(|dialed| earlier(dialed).next().is_some())
    }

    /// Returns whether a check of `port` by `worker` may begin.
    pub(crate) fn may_be_checked(&self, worker: usize, port: u16) -> bool {
        self.any(port, |target| target.listed_at[worker] && !target.is_in_maint())
    }

    /// Returns whether a check of `port` by `worker`, which has applied the last epoch, may continue.
    pub(crate) fn may_stay_in_check(&self, worker: usize, port: u16) -> bool {
        self.any(port, |target| target.listed_at[worker] && !target.is_paused)
    }

    /// Must be called when a change of health is reported.
    pub(crate) fn on_health(&mut self, backend: BackendId, from: HealthState, to: HealthState) {
        let target = self.target(backend);
        assert_eq!(target.health, from, "no change of health is left out");
        let may_change = !target.is_in_maint() || target.is_unchecked;
        assert!(may_change, "in maintenance a backend keeps its health");
        target.health = to;
    }

    /// Panics unless every backend is as the operator has set it.
    pub(crate) fn check(&self) {
        for target in &self.targets {
            let Target { backend, known_to, cut_at, is_back, .. } = target;
            assert_eq!(
                backend.health(),
                target.expected_health(),
                "every change of health is reported, and the operator's word holds: {target:?}"
            );
            let is_cut = cut_at.as_ref().is_some_and(|cut_at| !cut_at.contains(&true));
            assert!(
                !is_cut || *is_back || known_to.contains(&true) || backend.active() == 0,
                "every session was cut, and no other has come: {target:?}"
            );
        }
    }

    /// Returns whether the sessions of a backend at that address had to be cut.
    pub(crate) fn is_cut(&self, dialed: &Conn) -> bool {
        dialed.dialed_port.is_some_and(|port| self.any(port, |target| target.cut_at.is_some()))
    }

    /// Returns the sessions that the backends count, removed ones included.
    pub(crate) fn active(&self) -> u64 {
        self.targets.iter().map(|target| u64::from(target.backend.active())).sum()
    }
}

impl Net {
    /// Panics when a session or a check goes where the operator does not allow it.
    pub(crate) fn check_target(&self, id: usize, token: Token) {
        let Conn { worker, dialed_port, .. } = self.conns[id];
        let Some(port) = dialed_port else { return };
        // Without a configuration there are no rules.
        if self.roster.targets.is_empty() {
            return;
        }
        let (may, what) = match token {
            Token::Probe(_) => (self.roster.may_be_checked(worker, port), "checks"),
            Token::Agent(_) => (is_agent(port), "asks"),
            Token::Session(..) | Token::Listener(_) | Token::Wake => {
                (self.roster.may_be_dialed(worker, port), "dials")
            }
        };
        assert!(may, "#{id}: worker {worker} {what} port {port}, which was taken out: {:?}", self.roster);
    }

    /// Must be called when a worker has applied the last epoch: its checks of removed backends and of those in
    /// maintenance are over.
    pub(crate) fn on_applied(&mut self, worker: usize) {
        let gone = self.roster.on_applied(worker);
        self.forget_dials(&gone);
        for &id in &self.live {
            let conn = &self.conns[id];
            let is_check = matches!(conn.token, Some(Token::Probe(_)));
            if !is_check || conn.worker != worker || conn.descriptor != Descriptor::Open {
                continue;
            }
            let port = conn.dialed_port.expect("backends are dialed");
            let may = self.roster.may_stay_in_check(worker, port);
            assert!(may, "#{id}: the check of port {port} goes on: {:?}", self.roster);
        }
    }

    /// Forgets these ports: they belong to other backends now, so a retry may go there once more.
    pub(crate) fn forget_dials(&mut self, ports: &[u16]) {
        for &id in &self.live {
            self.conns[id].dialed.retain(|port| !ports.contains(port));
        }
    }
}

/// The port by which the network knows a backend.
pub(crate) fn port_of(address: &Address) -> u16 {
    let Address::Ip(address) = address;
    address.port()
}
