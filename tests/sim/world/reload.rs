//! Reloads while everything else happens: other settings of listeners and pools, pools that are removed and return, and
//! the end of sessions on removed backends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use l4lb::balance::Algorithm;
use l4lb::base::address::Address;
use l4lb::config::Config;
use l4lb::config::agent::Agent;
use l4lb::config::model::{Accept, Backend, BackendCheck, Check, Listener, Pool, Relay, WhenAllDown};
use l4lb::messages::command::Command;

use super::World;
use super::discovery::{named, number_of};
use super::operator::listed;
use crate::backend_model::port_of;
use crate::random;

impl World {
    /// One thing of the configuration changes, and all of it is published anew.
    pub(super) fn reconfigure(&mut self) {
        let mut config = self.config();
        match self.below(18) {
            0 => {}
            1 | 2 => self.change_listener(&mut config),
            3 | 4 => self.change_pool(&mut config),
            5 => self.change_checks(&mut config),
            6 | 7 => self.remove_pool(&mut config),
            8 | 9 => self.restore_pool(&mut config),
            10 | 11 => self.take_over(&mut config),
            12 | 13 => self.give_up(&mut config),
            14 | 15 => self.change_sources(&mut config),
            16 => self.replace_list(&mut config),
            _ => self.rename_pool(&mut config),
        }
        self.coverage.hit("reconfigured");
        lead_to_the_next_pool(&mut config);
        let next = self.reload(&config);
        self.publish(next);
    }

    /// The configuration as it would be written now: what sources list is not in it.
    pub(super) fn config(&self) -> Config {
        let place = |listener: &Arc<l4lb::pool::Listener>| {
            let is_it = |pool: &Arc<l4lb::pool::Pool>| pool.id == listener.pool;
            self.snapshot.pools.iter().position(is_it).expect("a listener has a pool")
        };
        let pools = self.snapshot.pools.iter();
        let listeners = self.snapshot.listeners.iter();
        let mut config = Config {
            global: self.plan.config.global.clone(),
            admin: self.plan.config.admin.clone(),
            announce: None,
            fleet: None,
            listeners: listeners
                .map(|listener| Listener { pool: place(listener), ..listener.settings.clone() })
                .collect(),
            pools: pools
                .map(|pool| Pool { backends: self.of_file(pool), ..Pool::clone(&pool.settings) })
                .collect(),
            hosts: Vec::new(),
            digest: 0,
            notes: Vec::new(),
        };
        // The places that the last configuration had them at are no longer theirs.
        lead_to_the_next_pool(&mut config);
        config
    }

    fn of_file(&self, pool: &l4lb::pool::Pool) -> Vec<Backend> {
        let all = listed(pool).into_iter().zip(&pool.backends);
        all.filter(|(_, backend)| !self.is_discovered(backend.id)).map(|(listed, _)| listed).collect()
    }

    fn change_listener(&mut self, config: &mut Config) {
        let place = self.below(config.listeners.len());
        let listener = &mut config.listeners[place];
        match self.below(3) {
            0 => {
                let max: Option<usize> = [None, Some(1), Some(4)][self.below(3)];
                listener.max_sessions = max.and_then(|max| max.try_into().ok());
            }
            1 => listener.accept = Accept::ALL[self.below(2)],
            _ => listener.pool = self.below(config.pools.len()),
        }
    }

    fn change_pool(&mut self, config: &mut Config) {
        let place = self.below(config.pools.len());
        let pool = &mut config.pools[place];
        match self.below(5) {
            0 => pool.balance = Algorithm::ALL[self.below(5)],
            1 => pool.retries = u32::try_from(self.below(4)).expect("small"),
            2 => pool.relay = Relay::ALL[self.below(3)],
            3 => self.change_agents(pool),
            _ => pool.when_all_down = WhenAllDown::ALL[self.below(2)],
        }
    }

    /// Agents come or go, or are asked more often.
    fn change_agents(&mut self, pool: &mut Pool) {
        let agents = self.plan.config.pools.iter().find_map(|first| first.agent.clone());
        pool.agent = match (pool.agent.take(), self.below(2)) {
            (Some(agent), 0) => Some(Agent { interval: agent.timeout, ..agent }),
            (Some(_), _) => None,
            (None, _) => agents,
        };
        self.coverage.hit("agents changed");
    }

    /// No checks, others, or those of the beginning: the backends answer those.
    fn change_checks(&mut self, config: &mut Config) {
        let place = self.below(config.pools.len());
        let pool = &mut config.pools[place];
        let number = number_of(pool);
        let first = self.plan.config.pools.iter().find(|first| number_of(first) == number);
        let first = first.expect("pools have the names of the beginning").health.check.clone();
        pool.health.check = [Check::Off, Check::Tcp, first][self.below(3)].clone();
        if pool.health.check == Check::Off {
            pool.health.more.clear();
        }
        self.programs.renumber(&mut pool.health);
        let shortest = pool.health.timeout.max(pool.health.fast_interval);
        pool.health.interval = shortest + Duration::from_millis([0, 10][self.below(2)]);
        pool.health.rise = 1 + u32::try_from(self.below(3)).expect("small");
        self.coverage.hit("checks changed");
    }

    /// A pool gets other servers in place of all that it has.
    fn replace_list(&mut self, config: &mut Config) {
        let pool = self.draw_pool();
        let mut known: BTreeSet<u16> =
            pool.backends.iter().map(|backend| port_of(&backend.address)).collect();
        let mut others = Vec::new();
        for _ in 0..=self.below(2) {
            let Some(address) = self.another_address(&pool, &known) else { break };
            known.insert(port_of(&address));
            let Address::Ip(at) = &address;
            let (name, check) = (at.to_string(), BackendCheck::default());
            others.push(Backend { name, address, weight: 1, priority: 0, check });
        }
        if others.is_empty() {
            return;
        }
        named(config, &pool.settings.name).backends = others;
        self.coverage.hit("list replaced");
    }

    /// The listeners of a pool get another one, and the pool goes.
    fn remove_pool(&mut self, config: &mut Config) {
        if config.pools.len() < 2 {
            return;
        }
        let place = self.below(config.pools.len());
        let gone = config.pools.remove(place);
        for listener in &mut config.listeners {
            listener.pool -= usize::from(listener.pool > place);
            listener.pool = listener.pool.min(config.pools.len() - 1);
        }
        self.retire(place);
        self.away.push(gone);
    }

    /// A pool with another name is another pool, also with the same backends.
    fn rename_pool(&mut self, config: &mut Config) {
        let place = self.below(config.pools.len());
        let pool = &mut config.pools[place];
        let is_first = pool.name.starts_with('p');
        pool.name.replace_range(..1, if is_first { "q" } else { "p" });
        let ports: Vec<u16> = pool.backends.iter().map(|backend| port_of(&backend.address)).collect();
        self.net.borrow_mut().forget_dials(&ports);
        self.retire(place);
    }

    /// The next epoch no longer has the pool at that index of the last one.
    fn retire(&mut self, place: usize) {
        let retired = Arc::clone(&self.snapshot.pools[place]);
        self.removed.retain(|(pool, _)| *pool != retired.id);
        self.gone.extend(retired.backends.iter().cloned());
        let sessions = sessions_of(&retired);
        self.retired.push((retired, sessions));
        self.coverage.hit("pool retired");
    }

    /// A pool returns, as another one under the same name.
    fn restore_pool(&mut self, config: &mut Config) {
        let Some(pool) = self.away.pop() else { return };
        let ports: Vec<u16> = pool.backends.iter().map(|backend| port_of(&backend.address)).collect();
        self.net.borrow_mut().forget_dials(&ports);
        config.pools.push(pool);
        let place = self.below(config.listeners.len());
        config.listeners[place].pool = config.pools.len() - 1;
        self.coverage.hit("pool restored");
    }

    /// The sessions of a backend that has gone are cut.
    pub(super) fn cut_gone(&mut self) {
        let left = &mut self.sources.left;
        // Those that the control thread has removed may still come back.
        let place = random::below(&mut self.rng, (self.gone.len() + left.len()).max(1));
        let backend = match (place.checked_sub(self.gone.len()), self.gone.get(place)) {
            (None, Some(_)) => self.gone.swap_remove(place),
            (Some(place), _) if place < left.len() => Arc::clone(&left[place]),
            (None | Some(_), _) => return,
        };
        self.note("cut", &backend, backend.id.0.into());
        self.net.borrow_mut().roster.cut(backend.id);
        self.coverage.hit("backend cut");
        self.post(&Command::CutBackend(backend.id));
    }

    /// A session through an old version of a listener must be served by its pool.
    pub(super) fn look_at_retired(&mut self) {
        for (pool, sessions) in &mut self.retired {
            let now = sessions_of(pool);
            self.coverage.hit_if(now > std::mem::replace(sessions, now), "retired pool serves");
        }
        let is_there = |id| self.snapshot.retired().iter().any(|pool| pool.id == id);
        let before = self.retired.len();
        self.retired.retain(|(pool, _)| is_there(pool.id));
        self.coverage.hit_if(self.retired.len() < before, "retired pool forgotten");
    }
}

/// Sessions that it has ever had.
fn sessions_of(pool: &l4lb::pool::Pool) -> u64 {
    pool.backends.iter().map(|backend| backend.sessions()).sum()
}

/// The routes of each listener lead to the pool behind its own.
fn lead_to_the_next_pool(config: &mut Config) {
    let pools = config.pools.len();
    for listener in &mut config.listeners {
        let next = (listener.pool + 1) % pools;
        let targets = listener.routing.iter_mut().flat_map(|routing| &mut routing.targets);
        targets.for_each(|target| target.pool = next);
    }
}
