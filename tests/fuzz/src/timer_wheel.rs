//! The timer wheel against a sorted list: nothing early, nothing late, everything once.
//!
//! Goal G13.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use l4lb::base::time::Instant;
use l4lb::base::timer_wheel::{TimerId, TimerWheel};

const TICK_NANOS: u64 = 1_000_000;
const OPS_MAX: usize = 400;
/// Waits until the next entry fires: it moves down by a level a wait.
const WAITS_MAX: usize = 8;
/// The wheel is not asked to run to the end of time, in 584 years: what is due there never fires.
const NOW_MAX: u64 = u64::MAX / 2;

struct Bench {
    wheel: TimerWheel<u64>,
    now: u64,
    next_name: u64,
    armed: BTreeMap<u64, Entry>,
    /// Tick and name of each of them.
    in_order: BTreeSet<(u64, u64)>,
}

struct Entry {
    id: TimerId,
    deadline: u64,
    /// The tick whose coming makes it due: never the one in which it was armed.
    tick: u64,
}

pub fn check(data: &[u8]) {
    let mut choices = Unstructured::new(data);
    // An input that ends within a choice ends the script.
    let _ended = run(&mut choices);
}

fn run(choices: &mut Unstructured) -> Result<()> {
    let now = span(choices)?.min(NOW_MAX);
    let wheel = TimerWheel::new(Instant::from_nanos(now));
    let mut bench = Bench { wheel, now, next_name: 0, armed: BTreeMap::new(), in_order: BTreeSet::new() };
    for _ in 0..OPS_MAX {
        if choices.is_empty() {
            break;
        }
        match choices.int_in_range(0..=7)? {
            0..=2 => bench.arm(bench.now.saturating_add(span(choices)?)),
            3 => bench.arm(bench.now.saturating_sub(span(choices)?)),
            4 => bench.cancel(choices.arbitrary()?),
            5 => bench.advance(bench.now.saturating_add(span(choices)?), None),
            6 => bench.advance(bench.now.saturating_add(span(choices)?), Some(choices.arbitrary()?)),
            _ => bench.wait_for_next(),
        }
    }
    bench.drain();
    Ok(())
}

/// Anything from nothing to years; as often short as long.
fn span(choices: &mut Unstructured) -> Result<u64> {
    let shift = choices.int_in_range(0..=63)?;
    let digits: u8 = choices.arbitrary()?;
    Ok(if shift == 63 { u64::MAX } else { u64::from(digits) << shift })
}

impl Bench {
    fn arm(&mut self, deadline: u64) {
        let id = self.wheel.arm(Instant::from_nanos(deadline), self.next_name);
        let tick = deadline.div_ceil(TICK_NANOS).max(self.now / TICK_NANOS + 1);
        self.in_order.insert((tick, self.next_name));
        self.armed.insert(self.next_name, Entry { id, deadline, tick });
        self.next_name += 1;
        self.check();
    }

    fn cancel(&mut self, choice: u8) {
        let Some(&name) = self.armed.keys().nth(usize::from(choice)) else { return };
        let entry = self.armed.remove(&name).expect("it is in there");
        self.in_order.remove(&(entry.tick, name));
        assert_eq!(self.wheel.cancel(entry.id), name, "another entry was taken out");
        self.check();
    }

    /// Takes what is due; behind the first of it, one of those that are left is cancelled, due or not.
    fn advance(&mut self, now: u64, mut cancelled: Option<u8>) {
        self.now = now.min(NOW_MAX);
        self.wheel.advance(Instant::from_nanos(self.now));
        let mut last = 0;
        while let Some(name) = self.wheel.pop_due() {
            let entry = self.armed.remove(&name).expect("an entry fires once, and not when it was cancelled");
            self.in_order.remove(&(entry.tick, name));
            assert!(entry.deadline <= self.now, "{} fired at {}", entry.deadline, self.now);
            assert!(last <= entry.tick, "a later tick fired first");
            last = entry.tick;
            if let Some(choice) = cancelled.take() {
                self.cancel(choice);
            }
        }
        assert!(
            self.first_tick().is_none_or(|tick| tick > self.now / TICK_NANOS),
            "an entry is late by a tick"
        );
        self.check();
    }

    /// Lets time pass as a worker does, by what the wheel says, until something fires.
    fn wait_for_next(&mut self) {
        let (armed, Some(first)) = (self.armed.len(), self.first_tick()) else { return };
        if first > NOW_MAX / TICK_NANOS {
            return;
        }
        for _ in 0..WAITS_MAX {
            let wait = self.wheel.next_timeout(Instant::from_nanos(self.now)).expect("something is armed");
            assert!(wait > Duration::ZERO, "what is due has fired");
            self.advance(self.now + u64::try_from(wait.as_nanos()).expect("within the end of time"), None);
            if self.armed.len() < armed {
                return;
            }
        }
        panic!("nothing fired in {WAITS_MAX} waits");
    }

    /// Waits for all that will fire.
    fn drain(&mut self) {
        while self.first_tick().is_some_and(|tick| tick <= NOW_MAX / TICK_NANOS) {
            self.wait_for_next();
        }
    }

    fn first_tick(&self) -> Option<u64> {
        self.in_order.first().map(|&(tick, _)| tick)
    }

    fn check(&self) {
        assert_eq!(self.wheel.len(), self.armed.len());
        assert_eq!(self.wheel.is_empty(), self.armed.is_empty());
        let timeout = self.wheel.next_timeout(Instant::from_nanos(self.now));
        let due_in = self.first_tick().map(|tick| tick.saturating_mul(TICK_NANOS).saturating_sub(self.now));
        assert_eq!(timeout.is_some(), due_in.is_some());
        assert!(timeout <= due_in.map(Duration::from_nanos), "{timeout:?} passes {due_in:?}");
    }
}
