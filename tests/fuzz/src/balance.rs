//! The algorithms: who may be picked, who must be, and whose clients move.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::AtomicU64;

use arbitrary::{Result, Unstructured};
use l4lb::balance::{Algorithm, Member, Members, Pick, Table};
use l4lb::base::rng::Rng;

const MEMBERS_MAX: usize = 40;
const CLIENTS: u64 = 64;
/// Draws before an algorithm scans its members instead.
const DRAWS_MAX: usize = 4096;
/// The lightest member of a small hash table has 1/1310 of it at least; the large one takes too long to build here.
const SHARES_OF_SMALL_TABLE: u64 = 1_310;

/// Members as the fuzzer sets them.
struct Fleet {
    members: Vec<Member>,
    up: Vec<bool>,
    loads: Vec<u32>,
    stamps: Vec<Cell<u64>>,
    /// Questions asked since the last look.
    asked: Cell<usize>,
}

impl Members for Fleet {
    fn is_eligible(&self, member: usize) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.up[member]
    }

    fn load(&self, member: usize) -> u32 {
        self.loads[member]
    }

    fn stamp(&self, member: usize) -> u64 {
        self.stamps[member].get()
    }

    fn claim(&self, member: usize, seen: u64, next: u64) -> bool {
        let is_seen = self.stamps[member].get() == seen;
        if is_seen {
            self.stamps[member].set(next);
        }
        is_seen
    }
}

pub fn check(data: &[u8]) {
    let mut choices = Unstructured::new(data);
    // An input that is too short is no fleet.
    let _ended = run(&mut choices);
}

fn run(choices: &mut Unstructured) -> Result<()> {
    let algorithm = *choices.choose(&Algorithm::ALL)?;
    let (cursor, seed) = (choices.arbitrary()?, choices.arbitrary()?);
    let mut fleet = fleet(choices)?;
    if algorithm == Algorithm::SourceHash && !fleet.fits_a_small_table() {
        return Ok(());
    }
    let table = Table::build(algorithm, &fleet.members);
    fleet.expect_right_picks(algorithm, &table, cursor, seed);
    match algorithm {
        Algorithm::RoundRobin => fleet.expect_exact_shares(&table, cursor),
        Algorithm::SourceHash => fleet.expect_clients_stay(&table, seed),
        Algorithm::LeastConnections | Algorithm::PowerOfTwo | Algorithm::Random => {}
    }
    Ok(())
}

fn fleet(choices: &mut Unstructured) -> Result<Fleet> {
    let count = choices.int_in_range(0..=MEMBERS_MAX)?;
    let mut fleet = Fleet {
        members: Vec::new(),
        up: Vec::new(),
        loads: Vec::new(),
        stamps: vec![Cell::new(0); count],
        asked: Cell::new(0),
    };
    for _ in 0..count {
        // Few identities, so that some are the same.
        let identity: u8 = choices.arbitrary()?;
        let (weight, up, load) =
            (choices.int_in_range(0..=256)?, choices.ratio(3, 4)?, choices.arbitrary::<u8>()?);
        fleet.members.push(Member { identity: identity.into(), weight });
        fleet.up.push(up);
        fleet.loads.push(if load == u8::MAX { u32::MAX } else { load.into() });
    }
    Ok(fleet)
}

fn client(seed: u64, number: u64) -> IpAddr {
    let address = Rng::new(seed ^ number).next_u64();
    if number.is_multiple_of(2) {
        Ipv4Addr::from_bits(u32::try_from(address >> 32).expect("32 bits")).into()
    } else {
        Ipv6Addr::from_bits(u128::from(address) << 64 | u128::from(number)).into()
    }
}

impl Fleet {
    fn fits_a_small_table(&self) -> bool {
        let weights =
            || self.members.iter().map(|member| u64::from(member.weight)).filter(|weight| *weight > 0);
        weights().sum::<u64>() <= SHARES_OF_SMALL_TABLE * weights().min().unwrap_or(1)
    }

    fn pick(&self, table: &Table, cursor: &AtomicU64, rng: &mut Rng, client: IpAddr) -> Option<usize> {
        self.asked.set(0);
        let picked = table.pick(&mut Pick { cursor, worker: 0, client, rng }, self);
        // Between the draws it asks whether there is a choice at all, and behind them it scans.
        let most = 2 * (DRAWS_MAX + 2 * self.members.len());
        assert!(self.asked.get() <= most, "{} questions for one pick", self.asked.get());
        picked
    }

    fn pick_for(&self, table: &Table, client: IpAddr) -> Option<usize> {
        self.pick(table, &AtomicU64::new(0), &mut Rng::new(0), client)
    }

    fn may_serve(&self, member: usize) -> bool {
        self.up[member] && self.members[member].weight > 0
    }

    fn eligible(&self) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(|&member| self.may_serve(member))
    }

    /// Whether `a` with one more session has no more per weight than `b` has without.
    fn is_lighter(&self, a: usize, b: usize) -> bool {
        let [(sessions_a, weight_a), (sessions_b, weight_b)] =
            [a, b].map(|member| (u64::from(self.loads[member]), u64::from(self.members[member].weight)));
        (sessions_a + 1) * weight_b <= sessions_b * weight_a
    }

    fn expect_right_picks(&self, algorithm: Algorithm, table: &Table, cursor: u64, seed: u64) {
        let (cursor, mut rng) = (AtomicU64::new(cursor), Rng::new(seed));
        for number in 0..CLIENTS {
            let Some(picked) = self.pick(table, &cursor, &mut rng, client(seed, number)) else {
                assert_eq!(self.eligible().next(), None, "{algorithm:?} found nobody");
                continue;
            };
            assert!(self.may_serve(picked), "{algorithm:?} picked {picked}");
            let is_lighter = |other| self.is_lighter(other, picked);
            if algorithm == Algorithm::LeastConnections {
                assert!(!self.eligible().any(is_lighter), "{picked} has more than the least");
            }
            if algorithm == Algorithm::PowerOfTwo && self.eligible().nth(1).is_some() {
                let others = self.eligible().filter(|&other| other != picked);
                assert!(!others.into_iter().all(is_lighter), "{picked} has the most");
            }
        }
    }

    /// In every cycle each member takes exactly its share, and is never a whole turn ahead or behind.
    fn expect_exact_shares(&mut self, table: &Table, cursor: u64) {
        let unit = self.members.iter().fold(0, |unit, member| gcd(unit, u64::from(member.weight)));
        if unit == 0 {
            return;
        }
        let shares: Vec<u64> = self.members.iter().map(|member| u64::from(member.weight) / unit).collect();
        let cycle: u64 = shares.iter().sum();
        self.up.fill(true);
        // A whole cycle has to fit before the cursor wraps.
        let start = (cursor / 2) - (cursor / 2) % cycle;
        let (cursor, mut rng, mut taken) = (AtomicU64::new(start), Rng::new(0), vec![0; shares.len()]);
        for turn in 1..=cycle {
            let picked = self.pick(table, &cursor, &mut rng, Ipv4Addr::LOCALHOST.into()).expect("all are up");
            taken[picked] += 1;
            assert!(
                taken[picked] * cycle < turn * shares[picked] + cycle,
                "{picked} is a turn ahead at {turn}"
            );
        }
        assert_eq!(taken, shares);
    }

    /// A client keeps its member, whatever the order of the members, until that member goes; then only its clients
    /// move.
    fn expect_clients_stay(&mut self, table: &Table, seed: u64) {
        let picks = |fleet: &Self, table: &Table| -> Vec<Option<usize>> {
            (0..CLIENTS).map(|number| fleet.pick_for(table, client(seed, number))).collect()
        };
        let before = picks(self, table);
        assert_eq!(before, picks(self, table), "a client has moved for nothing");
        let gone = self.eligible().next();
        if let Some(gone) = gone {
            self.up[gone] = false;
            for (before, after) in before.iter().zip(picks(self, table)) {
                assert!(*before == Some(gone) || *before == after, "{before:?} -> {after:?} without {gone}");
            }
        }
        self.up.fill(true);
        let names = |fleet: &Self, table: &Table| -> Vec<Option<Member>> {
            picks(fleet, table).into_iter().map(|pick| pick.map(|member| fleet.members[member])).collect()
        };
        let in_order = names(self, table);
        self.members.reverse();
        let reversed = Table::build(Algorithm::SourceHash, &self.members);
        assert_eq!(in_order, names(self, &reversed), "the order of the members decides");
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
