//! The operator's actions while everything else happens: drains, stops, and changes of the backends under the sessions.

use std::sync::Arc;

use l4lb::config::model::{self, HealthState, Relay};
use l4lb::messages::command::{Command, StopReason};
use l4lb::pool::{Admin, Backend, Pool, PoolId, Snapshot};

use super::World;
use super::discovery::number_of;
use crate::backend_model::port_of;
use crate::network::{self, FIRST_BACKEND_PORT, Mode};
use crate::oracle::StopOrder;
use crate::random;

/// Addresses that backends may have in all.
const BACKENDS_MAX: usize = 16;

impl World {
    /// Does one action.
    pub(super) fn operate(&mut self) {
        match self.rng.below(50) {
            0 if !self.is_draining => self.post_drain(),
            1 if self.is_draining => self.post_stop(StopOrder::DrainTimeout),
            2..14 => self.change_admin(),
            14..20 => self.change_weight(),
            20..26 => self.remove_backend(),
            26..32 => self.add_backend(),
            32..36 => self.reconfigure(),
            36 | 37 => self.cut_gone(),
            38 => self.cut_some(),
            39..42 => self.ask_for_sessions(),
            42..46 => self.change_site(),
            46 | 47 => self.override_health(),
            _ => self.refresh(),
        }
    }

    pub(super) fn post(&mut self, command: &Command) {
        for worker in 0..self.late.len() {
            if self.late[worker] {
                self.post_epoch(worker);
            }
        }
        for handle in &self.handles {
            assert!(
                handle.mailbox.post(command.clone()),
                "a mailbox that is read in every turn is never full"
            );
        }
    }

    pub(super) fn post_drain(&mut self) {
        self.is_draining = true;
        self.net.borrow_mut().is_ending = true;
        self.net.borrow_mut().mark_queued();
        self.post(&Command::Drain);
    }

    pub(super) fn post_stop(&mut self, stop_order: StopOrder) {
        self.stop_order = stop_order;
        self.net.borrow_mut().is_stopping = true;
        self.net.borrow_mut().is_ending = true;
        let reason =
            if stop_order == StopOrder::Stop { StopReason::AtOnce } else { StopReason::DrainTimeout };
        self.post(&Command::Stop(reason));
    }

    pub(super) fn publish(&mut self, snapshot: impl Into<Arc<Snapshot>>) {
        self.snapshot = snapshot.into();
        self.programs.note(&self.snapshot);
        self.note_leaving();
        self.note_retries();
        self.net.borrow_mut().roster.publish(&self.snapshot, self.workers.len());
        self.note_expected();
        // A pool that copies once may have sessions that copy for as long as they last.
        let all_splice = self.snapshot.pools.iter().all(|pool| pool.settings.relay == Relay::Splice);
        self.net.borrow_mut().shortage.all_splice &= all_splice;
        // One after the other: a worker with the new epoch may hand a session to one without it.
        let may_be_late = !self.net.borrow().peers_behave;
        for worker in 0..self.late.len() {
            self.late[worker] = may_be_late && self.rng.below(4) == 0;
            if !self.late[worker] {
                self.post_epoch(worker);
            }
        }
    }

    /// Sends the last epoch to a worker.
    pub(super) fn post_epoch(&mut self, worker: usize) {
        self.late[worker] = false;
        let publish = Command::Publish(Arc::clone(&self.snapshot));
        assert!(
            self.handles[worker].mailbox.post(publish),
            "a mailbox that is read in every turn is never full"
        );
    }

    /// Publishes tables for the present state.
    pub(super) fn refresh(&mut self) {
        let pools: Vec<PoolId> = self.snapshot.pools.iter().map(|pool| pool.id).collect();
        self.publish(self.snapshot.refreshed(&pools));
    }

    /// Mostly what a control thread does; without it only a part takes effect.
    fn refresh_mostly(&mut self) {
        if self.rng.below(4) > 0 {
            self.refresh();
        }
    }

    // --- one backend -----------------------------------------------------------------------------------------------

    fn change_admin(&mut self) {
        let admin = [Admin::Ready, Admin::Ready, Admin::Ready, Admin::Drain, Admin::Maint][self.below(5)];
        let backend = self.draw_backend();
        self.note(admin.as_str(), &backend, 0);
        self.net.borrow_mut().roster.set_admin(&backend, admin);
        self.coverage.hit(match admin {
            Admin::Ready => "backend ready",
            Admin::Drain => "backend drained",
            Admin::Maint => "backend in maint",
        });
        self.refresh_mostly();
    }

    fn change_weight(&mut self) {
        let weight = [0, 1, 1, 3, 256][self.below(5)];
        let backend = self.draw_backend();
        self.note("weight", &backend, weight.into());
        self.net.borrow_mut().roster.set_weight(&backend, weight);
        self.coverage.hit("weight changed");
        self.refresh_mostly();
    }

    /// Checks continue, and their findings are reported as if there were no override.
    fn override_health(&mut self) {
        let health = [None, None, Some(HealthState::Up), Some(HealthState::Down)][self.below(4)];
        let backend = self.draw_backend();
        self.note("health", &backend, health.map_or(0, |health| health as u64));
        self.net.borrow_mut().roster.override_health(&backend, health);
        self.coverage.hit(match health {
            Some(_) => "health overridden",
            None => "health as checked",
        });
        self.refresh_mostly();
    }

    /// Makes all backends ready, whatever the operator has done to them.
    pub(super) fn ready_all(&mut self) {
        for backend in self.snapshot.backends() {
            self.net.borrow_mut().roster.set_admin(backend, Admin::Ready);
            self.net.borrow_mut().roster.override_health(backend, None);
        }
        self.refresh();
    }

    pub(super) fn draw_backend(&mut self) -> Arc<Backend> {
        let backends: Vec<_> = self.snapshot.backends().cloned().collect();
        Arc::clone(&backends[self.below(backends.len())])
    }

    // --- the backends of a pool ------------------------------------------------------------------------------------

    /// One backend leaves a pool whose file lists others, and that no source would bring back.
    fn remove_backend(&mut self) {
        let pool = self.draw_pool();
        let mut listed = listed(&pool);
        let of_file: Vec<usize> =
            (0..listed.len()).filter(|&place| !self.is_discovered(pool.backends[place].id)).collect();
        let place = of_file[self.below(of_file.len())];
        if of_file.len() < 2 || self.sources.have(&pool.settings, &pool.backends[place].address) {
            return;
        }
        self.note("remove", &pool.backends[place], 0);
        self.removed.push((pool.id, listed.remove(place)));
        self.gone.push(Arc::clone(&pool.backends[place]));
        self.coverage.hit("backend removed");
        self.publish_backends(pool.id, listed, &[]);
    }

    /// A backend comes back, or another one comes.
    fn add_backend(&mut self) {
        let mut back = None;
        let (pool, backend) = if self.removed.is_empty() || self.below(3) == 0 {
            let pool = self.draw_pool();
            let Some(backend) = self.new_server(&pool) else { return };
            (pool.id, backend)
        } else {
            let place = self.below(self.removed.len());
            let (pool, backend) = self.removed.swap_remove(place);
            let has = |known: &Arc<Backend>| known.pool == pool && known.address == backend.address;
            if self.snapshot.pool(pool).backends.iter().chain(&self.sources.left).any(has) {
                // A source lists it, or has listed it a moment ago.
                return;
            }
            let is_it = |gone: &Arc<Backend>| gone.pool == pool && gone.address == backend.address;
            // As long as its sessions did not have to be cut, it may be the same one again.
            let place = self.gone.iter().position(is_it).filter(|_| self.rng.below(2) == 0);
            back = place.map(|place| self.gone.swap_remove(place));
            (pool, backend)
        };
        let mut listed = listed(self.snapshot.pool(pool));
        self.net.borrow_mut().forget_dials(&[port_of(&backend.address)]);
        let place = self.below(listed.len() + 1);
        listed.insert(place, backend);
        self.coverage.hit(if back.is_some() { "backend back" } else { "backend added" });
        self.publish_backends(pool, listed, back.as_slice());
        let added = Arc::clone(&self.snapshot.pool(pool).backends[place]);
        self.note("add", &added, added.id.0.into());
    }

    /// A new server at an address of its own, if there is one left, which answers checks like the others of its pool.
    pub(super) fn new_server(&mut self, pool: &Pool) -> Option<model::Backend> {
        let net = &mut *self.net.borrow_mut();
        if net.backends.len() == BACKENDS_MAX {
            return None;
        }
        let place = |port: u16| usize::from(port - FIRST_BACKEND_PORT);
        let answer = net.backends[place(port_of(&pool.backends[0].address))].answer;
        let port = FIRST_BACKEND_PORT + u16::try_from(net.backends.len()).expect("a few");
        let mode = if self.rng.below(4) == 0 { Mode::draw(&mut self.rng) } else { Mode::Serving };
        net.backends.push(network::Backend { mode, answer, home: number_of(&pool.settings) });
        let address = ([127, 0, 0, 1], port).into();
        Some(model::Backend {
            name: format!("127.0.0.1:{port}"),
            address,
            weight: 1,
            priority: [0, 0, 1][usize::from(port % 3)],
            check: model::BackendCheck::default(),
        })
    }

    /// Now and then a remaining backend changes its tier, unless a source lists it.
    fn publish_backends(&mut self, pool: PoolId, mut listed: Vec<model::Backend>, back: &[Arc<Backend>]) {
        if self.below(4) == 0 {
            let place = self.below(listed.len());
            let known = self.snapshot.pool(pool).backend_named(&listed[place].name);
            let is_discovered = known.is_some_and(|known| self.is_discovered(known.id));
            let drawn = [0, 1, 2, 15][self.below(4)];
            if !is_discovered {
                listed[place].priority = drawn;
            }
        }
        self.publish(self.snapshot.with_backends_back(pool, &listed, back));
    }

    pub(super) fn draw_pool(&mut self) -> Arc<Pool> {
        let place = self.below(self.snapshot.pools.len());
        Arc::clone(&self.snapshot.pools[place])
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        random::below(&mut self.rng, bound)
    }

    pub(super) fn note(&self, what: &'static str, backend: &Backend, value: u64) {
        let net = &mut *self.net.borrow_mut();
        net.trace.note(net.now, what, usize::from(port_of(&backend.address)), value);
    }
}

/// The backends of a pool as they would be listed now.
pub(super) fn listed(pool: &Pool) -> Vec<model::Backend> {
    let pairs = pool.settings.backends.iter().zip(&pool.backends);
    pairs
        .map(|(listed, backend)| model::Backend { weight: backend.plain_weight(), ..listed.clone() })
        .collect()
}
