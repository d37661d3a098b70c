//! Members with a state set by the test, and a table over them.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Algorithm, Member, Members, Pick, Table};
use crate::base::hash::hash;
use crate::base::rng::Rng;

/// One member per weight, named as a pool would name them.
pub(super) fn members(weights: &[u16]) -> Vec<Member> {
    let identity = |number: usize| hash(format!("10.0.0.{number}:80").as_bytes(), 0);
    weights
        .iter()
        .enumerate()
        .map(|(number, &weight)| Member { identity: identity(number), weight })
        .collect()
}

/// A table and everything that a pick depends on.
pub(super) struct TestPool {
    table: Table,
    cursor: AtomicU64,
    rng: Rng,
    client: u32,
    state: State,
}

/// The inputs of the picks.
#[derive(Default)]
pub(super) struct State {
    pub(super) down: Vec<bool>,
    pub(super) loads: Vec<u32>,
    stamps: Vec<AtomicU64>,
}

impl Members for State {
    fn is_eligible(&self, member: usize) -> bool {
        !self.down[member]
    }

    fn load(&self, member: usize) -> u32 {
        self.loads[member]
    }

    fn stamp(&self, member: usize) -> u64 {
        self.stamps[member].load(Ordering::Relaxed)
    }

    fn claim(&self, member: usize, seen: u64, next: u64) -> bool {
        self.stamps[member].compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Deref for TestPool {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for TestPool {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl TestPool {
    pub(super) fn new(algorithm: Algorithm, weights: &[u16]) -> Self {
        Self {
            table: Table::build(algorithm, &members(weights)),
            cursor: AtomicU64::new(0),
            rng: Rng::new(1),
            client: 0x0A00_0000,
            state: State {
                down: vec![false; weights.len()],
                loads: vec![0; weights.len()],
                stamps: weights.iter().map(|_| AtomicU64::new(0)).collect(),
            },
        }
    }

    /// Returns the pool with a table for `workers` workers.
    pub(super) fn workers(self, workers: usize) -> Self {
        Self { table: self.table.begun(workers, 0, &self.state), ..self }
    }

    /// Returns the member for the next client; each client has its own address.
    pub(super) fn pick(&mut self) -> Option<usize> {
        self.client += 1;
        self.pick_for(IpAddr::V4(Ipv4Addr::from_bits(self.client)))
    }

    pub(super) fn pick_for(&mut self, client: IpAddr) -> Option<usize> {
        self.pick_of(0, client)
    }

    fn pick_of(&mut self, worker: usize, client: IpAddr) -> Option<usize> {
        let mut pick = Pick { cursor: &self.cursor, worker, client, rng: &mut self.rng };
        self.table.pick(&mut pick, &self.state)
    }

    /// Begins a session of `worker` and returns the member that has it.
    pub(super) fn open(&mut self, worker: usize) -> usize {
        let member = self.pick_of(worker, Ipv4Addr::LOCALHOST.into()).expect("a member is eligible");
        self.loads[member] += 1;
        member
    }

    pub(super) fn close(&mut self, worker: usize, member: usize) {
        self.loads[member] -= 1;
        let (now, load) = (self.cursor.load(Ordering::Relaxed), self.loads[member]);
        self.table.note(worker, now, member, (load, self.stamp(member)));
    }

    pub(super) fn picks(&mut self, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.pick().expect("a member is eligible")).collect()
    }

    /// Returns how many of `count` picks each member got.
    pub(super) fn counts(&mut self, count: usize) -> Vec<usize> {
        let mut counts = vec![0; self.down.len()];
        self.picks(count).into_iter().for_each(|member| counts[member] += 1);
        counts
    }
}
