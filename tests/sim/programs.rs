//! The programs of checks: the control side as a script. A program passes where its backend serves; it may answer at once
//! or late, after the settings that it was started with are gone, die by a signal, never end, be put off or be lost.
//!
//! The law: a result belongs to the settings that its program was started with. Each program prints the number of those,
//! and each report of a failure has what was printed.

use std::collections::HashMap;
use std::time::Duration;

use l4lb::base::rng::Rng;
use l4lb::config::model::{Check, Health};
use l4lb::messages::external::{Order, Ran};
use l4lb::messages::report::CheckedBy;
use l4lb::pool::{PoolId, Snapshot};

use crate::conn::Nanos;
use crate::coverage::Coverage;
use crate::network::{Backend, FIRST_BACKEND_PORT, Mode};
use crate::random::below;

/// The name of every program.
pub(crate) const PROGRAM: &str = "/check";
/// Of a program that finds its backend unwell.
const UNWELL: i32 = 3;
const SIGNAL: i32 = 9;
/// A program without a place of its own, or whose worker is gone, is answered within this many limits.
const WAITS_MAX: u32 = 20;

/// See the module.
#[derive(Default)]
pub(crate) struct Programs {
    running: Vec<Running>,
    /// The numbers of the commands of each check, by their pool and the count of its settings.
    known: HashMap<(PoolId, u64), Vec<Option<String>>>,
    last_number: u64,
}

struct Running {
    order: Order,
    worker: usize,
    fate: Fate,
    started: Nanos,
    ends: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It ends with what it finds.
    Ends,
    /// The same, but not before nothing is wanted of it any more.
    EndsUnwanted,
    DiesBySignal,
    HangsUntilKilled,
    IsPutOff,
    IsLost,
}

impl Programs {
    /// Gives the programs of a pool a number that none has had: other settings.
    pub(crate) fn renumber(&mut self, health: &mut Health) {
        self.last_number += 1;
        let command = vec![PROGRAM.to_owned(), self.last_number.to_string()];
        let checks =
            [&mut health.check].into_iter().chain(health.more.iter_mut().map(|more| &mut more.check));
        for check in checks {
            if matches!(check, Check::Command(_)) {
                *check = Check::Command(command.clone());
            }
        }
    }

    /// Must be called with each epoch.
    pub(crate) fn note(&mut self, snapshot: &Snapshot) {
        for pool in &snapshot.pools {
            let numbers = pool.settings.health.checks().map(|check| {
                if let Check::Command(command) = check.check { command.get(1).cloned() } else { None }
            });
            self.known.insert((pool.id, pool.checks), numbers.collect());
        }
    }

    /// Takes an order that `worker` has sent in this turn.
    pub(crate) fn take(&mut self, order: Order, worker: usize, now: Nanos, rng: &mut Rng) {
        assert_eq!(order.command[0], PROGRAM);
        let is_same = |running: &&Running| {
            running.worker == worker
                && running.order.variables == order.variables
                && running.order.is_wanted()
        };
        let before = self.running.iter().find(is_same);
        assert!(before.is_none(), "{:?} runs twice at once for worker {worker}", order.variables);
        let limit = u64::try_from(order.limit.as_nanos()).expect("short");
        let (fate, ends) = match below(rng, 12) {
            0..5 => (Fate::Ends, now),
            5 => (Fate::Ends, now + rng.below(limit.max(1))),
            // It has waited for a place.
            6 => (Fate::Ends, now + rng.below(3 * limit.max(1))),
            7 => (Fate::EndsUnwanted, now + rng.below(2 * limit.max(1))),
            8 => (Fate::DiesBySignal, now + rng.below(limit.max(1))),
            9 => (Fate::HangsUntilKilled, now + limit),
            10 => (Fate::IsPutOff, now),
            _ => (Fate::IsLost, now),
        };
        self.running.push(Running { order, worker, fate, started: now, ends });
    }

    /// Answers what is over by now; with `is_calm` everything, as it should be.
    pub(crate) fn run(&mut self, now: Nanos, is_calm: bool, backends: &[Backend], coverage: &mut Coverage) {
        for running in std::mem::take(&mut self.running) {
            let fate = if is_calm { Fate::Ends } else { running.fate };
            let latest =
                running.started + u64::try_from((running.order.limit * WAITS_MAX).as_nanos()).expect("short");
            let waits = fate == Fate::EndsUnwanted && running.order.is_wanted() && now < latest;
            if !is_calm && (now < running.ends || waits) {
                self.running.push(running);
                continue;
            }
            let is_wanted = running.order.is_wanted();
            coverage.hit_if(!is_wanted, "program answers too late");
            running.answer(fate, now, backends, coverage);
        }
    }

    /// Panics when a failure that was reported was found by a program of other settings.
    pub(crate) fn judge(&self, pool: PoolId, by: CheckedBy, check: usize, failure: &str) {
        let Some((_, printed)) = failure.split_once("printed \"number ") else { return };
        let number = printed.split(' ').next().expect("there is always one");
        let known = &self.known[&(pool, by.checks)][check];
        assert_eq!(known.as_deref(), Some(number), "a result of other settings: {failure}");
    }
}

impl Running {
    fn answer(self, fate: Fate, now: Nanos, backends: &[Backend], coverage: &mut Coverage) {
        let Self { order, started, .. } = self;
        let [_, _, _, (_, port)] = &order.variables;
        let port: u16 = port.parse().expect("a port");
        let is_well = backends[usize::from(port - FIRST_BACKEND_PORT)].mode == Mode::Serving;
        let printed = format!("number {} of port {port}\nmore", order.command[1]).into_bytes();
        let (ran, point) = match fate {
            Fate::Ends | Fate::EndsUnwanted if is_well => {
                (Ran::Exited { status: 0, printed }, "program passes")
            }
            Fate::Ends | Fate::EndsUnwanted => (Ran::Exited { status: UNWELL, printed }, "program fails"),
            Fate::DiesBySignal => (Ran::Signalled { signal: SIGNAL, printed }, "program dies"),
            Fate::HangsUntilKilled => (Ran::TimedOut { limit: order.limit }, "program hangs"),
            Fate::IsPutOff => (Ran::PutOff("no more processes".to_owned()), "program put off"),
            Fate::IsLost => return coverage.hit("program lost"),
        };
        coverage.hit(point);
        let took = Duration::from_nanos(now - started).min(order.limit);
        order.answer(ran, took);
    }
}
