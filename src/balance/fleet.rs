//! Members whose state a test sets by hand, with a table over them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicU64;

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
pub(super) struct Fleet {
    table: Table,
    cursor: AtomicU64,
    rng: Rng,
    client: u32,
    pub(super) down: Vec<bool>,
    pub(super) loads: Vec<u32>,
}

struct State<'a>(&'a [bool], &'a [u32]);

impl Members for State<'_> {
    fn is_eligible(&self, member: usize) -> bool {
        !self.0[member]
    }

    fn load(&self, member: usize) -> u32 {
        self.1[member]
    }
}

impl Fleet {
    pub(super) fn new(algorithm: Algorithm, weights: &[u16]) -> Self {
        Self {
            table: Table::build(algorithm, &members(weights)),
            cursor: AtomicU64::new(0),
            rng: Rng::new(1),
            client: 0x0A00_0000,
            down: vec![false; weights.len()],
            loads: vec![0; weights.len()],
        }
    }

    /// The member for the next client; each client has its own address.
    pub(super) fn pick(&mut self) -> Option<usize> {
        self.client += 1;
        self.pick_for(IpAddr::V4(Ipv4Addr::from_bits(self.client)))
    }

    pub(super) fn pick_for(&mut self, client: IpAddr) -> Option<usize> {
        let mut pick = Pick { cursor: &self.cursor, client, rng: &mut self.rng };
        self.table.pick(&mut pick, &State(&self.down, &self.loads))
    }

    pub(super) fn picks(&mut self, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.pick().expect("somebody is eligible")).collect()
    }

    /// How many of `count` picks each member got.
    pub(super) fn counts(&mut self, count: usize) -> Vec<usize> {
        let mut counts = vec![0; self.down.len()];
        self.picks(count).into_iter().for_each(|member| counts[member] += 1);
        counts
    }
}
