//! Listeners and workers that come and go as in `server::topology`, while everything else happens.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use l4lb::config::Config;
use l4lb::config::model::Listener;
use l4lb::messages::report::WorkerId;
use l4lb::pool::Snapshot;
use l4lb::sys::Wake;
use l4lb::worker::{Assignment, GroupId, Listening, Peers, Shared, Worker, WorkerEndpoints, WorkerHandle};

use super::{ROUND, STILL_ROUNDS_MAX, World};
use crate::accounting::Books;
use crate::kernel::{SimKernel, SimListener, SimSocket, SimWake};
use crate::network;
use crate::scenario::Plan;
use crate::turns::Turn;

/// Listeners at a time.
const LISTENERS_MAX: usize = 4;
/// Workers that serve at a time, and that ever do.
const WORKERS_MAX: usize = 3;
const WORKERS_EVER_MAX: usize = 10;

type Listenings = Vec<Listening<SimListener>>;

/// The sockets of one listener.
pub(super) struct Group {
    /// Also what the network knows it by.
    pub(super) id: GroupId,
    pub(super) name: String,
    /// By index of the worker: where it is among the listeners of the network.
    sockets: Vec<usize>,
}

impl World {
    /// Adds or removes a listener, or changes the number of workers, unless the last change is in progress.
    pub(super) fn change_site(&mut self) {
        if self.is_draining || self.net.borrow().is_ending || self.ticket.strong_count() > 0 {
            return;
        }
        let mut config = self.config();
        match self.below(3) {
            0 if config.listeners.len() < LISTENERS_MAX => {
                let place = self.below(config.listeners.len());
                let like = config.listeners[place].clone();
                let number = u16::try_from(self.groups_ever).expect("a few");
                let bind = ([127, 0, 0, 1], 9_100 + number).into();
                self.coverage.hit(if self.removed_listener.is_some() {
                    "listener put back"
                } else {
                    "listener added"
                });
                // The sockets that it had may be there still.
                let (name, bind) = match self.removed_listener.take() {
                    Some(removed) => (removed.name, removed.bind),
                    None => (format!("more {number}"), bind),
                };
                config.listeners.push(Listener { name, bind, ..like });
            }
            1 if config.listeners.len() > 1 => {
                let place = self.below(config.listeners.len());
                self.removed_listener = Some(config.listeners.remove(place));
                self.coverage.hit("listener removed");
            }
            2 if self.workers.len() < WORKERS_EVER_MAX => {
                let (before, after) = (self.serving.len(), 1 + self.below(WORKERS_MAX));
                config.global.workers = NonZeroUsize::new(after).expect("not 0");
                self.coverage.hit_if(after > before, "workers come");
                self.coverage.hit_if(after < before, "workers leave");
            }
            _ => return,
        }
        let next = self.reload(&config);
        self.commit(&config, &next);
    }

    /// Runs `config` from `next` on, which is published to all workers.
    pub(super) fn commit(&mut self, config: &Config, next: &Arc<Snapshot>) {
        let workers = config.global.workers.get();
        let first_new = self.serving.len();
        let leaving = self.serving.split_off(workers.min(first_new));
        let first_place = self.workers.len();
        let hands: Vec<_> =
            (self.serving.len()..workers).zip(first_place..).map(|(index, _)| self.hire(index)).collect();
        self.serving.extend(first_place..first_place + hands.len());
        let mut listeners = self.regroup(config, next);
        let peers = Peers::of(self.serving.iter().map(|&place| &self.handles[place]));
        let ticket = Arc::new(());
        self.ticket = Arc::downgrade(&ticket);
        let Plan { checks_max, pipes_max, pipe_len, .. } = self.plan;
        let assignment = |listeners| Assignment {
            epoch: next.epoch,
            listeners,
            peers: peers.clone(),
            checks_max,
            pipes_max,
            pipe_len,
            ticket: Arc::clone(&ticket),
        };
        let of_new = listeners.split_off(workers - hands.len());
        for (&place, listeners) in self.serving.iter().zip(listeners) {
            let is_taken = self.handles[place].assign(assignment(listeners)).is_ok();
            assert!(is_taken, "worker {place} has not taken its last assignment");
        }
        for place in leaving {
            assert!(self.handles[place].assign(assignment(Vec::new())).is_ok(), "as above");
        }
        self.plan.config.global = config.global.clone();
        self.publish(Arc::clone(next));
        for ((endpoints, shared), listeners) in hands.into_iter().zip(of_new) {
            self.net.borrow_mut().roster.hire();
            let kernel = SimKernel { net: Rc::clone(&self.net), worker: self.workers.len() };
            let worker = Worker::new(kernel, endpoints, assignment(listeners), Arc::clone(next), shared);
            self.workers.push(Some(worker));
        }
    }

    /// A place for one more worker.
    fn hire(&mut self, index: usize) -> (WorkerEndpoints<SimListener, SimSocket>, Shared) {
        let woken = Arc::new(AtomicBool::new(false));
        let waker: Arc<dyn Wake> = Arc::new(SimWake(Arc::clone(&woken)));
        let (handle, endpoints) = WorkerHandle::new(index, &waker);
        {
            let net = &mut *self.net.borrow_mut();
            net.wakes.push(woken);
            net.given.push([0; 2]);
            net.header_bytes.push(0);
            net.turns.push(Turn::default());
        }
        self.handles.push(handle);
        self.stats.push(Arc::default());
        self.late.push(false);
        self.books.push(Books::new(self.plan.patience));
        let shared = Shared {
            id: WorkerId(u32::try_from(self.handles.len() - 1).expect("few workers")),
            reports: self.reports.clone(),
            admission: Arc::clone(&self.admission),
            stats: Arc::clone(self.stats.last().expect("just now")),
            seed: self.rng.next_u64(),
        };
        (endpoints, shared)
    }

    /// Opens and retires sockets as `config` requires; returns the listeners of each serving worker.
    fn regroup(&mut self, config: &Config, next: &Snapshot) -> Vec<Listenings> {
        let mut of_workers: Vec<Listenings> = self.serving.iter().map(|_| Vec::new()).collect();
        for settings in &config.listeners {
            let is_it = |listener: &&Arc<l4lb::pool::Listener>| listener.settings.name == settings.name;
            let listener = next.listeners.iter().find(is_it).expect("the snapshot runs this configuration");
            if self.listeners_ever.iter().all(|known| known.id != listener.id) {
                self.listeners_ever.push(Arc::clone(listener));
            }
            let group = self.group_of(settings);
            for (index, of_worker) in of_workers.iter_mut().enumerate() {
                let group = &mut self.groups[group];
                let is_new = index == group.sockets.len();
                if is_new {
                    let listeners = &mut self.net.borrow_mut().listeners;
                    group.sockets.push(listeners.len());
                    let backlog = usize::try_from(settings.backlog).expect("small");
                    listeners.push(network::Listener::new(self.serving[index], group.id.0 as usize, backlog));
                }
                let socket = is_new.then(|| SimListener::new(group.sockets[index], &self.net));
                let (group, listener) = (group.id, Arc::clone(listener));
                of_worker.push(Listening { group, listener, socket, is_partial: false, is_beside: false });
            }
        }
        let net = &mut *self.net.borrow_mut();
        let serving = self.serving.len();
        for group in &mut self.groups {
            let stays = config.listeners.iter().any(|listener| listener.name == group.name);
            let kept = if stays { serving.min(group.sockets.len()) } else { 0 };
            for place in group.sockets.split_off(kept) {
                net.listeners[place].retired = Some(net.now);
            }
        }
        self.groups.retain(|group| !group.sockets.is_empty());
        of_workers
    }

    fn group_of(&mut self, settings: &Listener) -> usize {
        if let Some(place) = self.groups.iter().position(|group| group.name == settings.name) {
            return place;
        }
        let id = GroupId(self.groups_ever);
        self.groups_ever += 1;
        self.groups.push(Group { id, name: settings.name.clone(), sockets: Vec::new() });
        self.groups.len() - 1
    }

    /// Closes retired sockets and stops retiring workers, by and by.
    pub(super) fn end_retired(&mut self) {
        self.net.borrow_mut().stride = ROUND;
        for _ in 0..STILL_ROUNDS_MAX {
            let is_gone = |listener: &network::Listener| !listener.is_open || listener.retired.is_none();
            if self.is_draining || self.net.borrow().listeners.iter().all(is_gone) {
                break;
            }
            self.round();
        }
        let running = self.workers.iter().flatten().count();
        assert!(
            self.is_draining || running == self.serving.len(),
            "a worker that leaves goes on with nothing to do"
        );
        let open = self.net.borrow().listeners.iter().filter(|listener| listener.is_open).count();
        let wanted: usize = self.groups.iter().map(|group| group.sockets.len()).sum();
        assert!(self.is_draining || open == wanted, "{open} listeners are open, not {wanted}");
    }
}
