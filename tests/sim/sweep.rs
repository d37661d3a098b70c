//! Many seeds, one after another on every processor, and what they have reached together.
//!
//! Goal G14.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use l4lb::sys::Clock;

use crate::coverage::Coverage;
use crate::world::{self, Run};

/// Seeds of a sweep in the gate; `SIM_SEEDS` is another number.
const SEEDS: u64 = 2_000;
/// Steps of each; `SIM_STEPS` is another number.
const STEPS: u64 = 5_000;
/// Lines of progress that a sweep prints when `SIM_PROGRESS` is set.
const LINES: u64 = 100;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}"))
}

/// A seed that failed.
struct Failure {
    seed: u64,
    step: u32,
    what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, step, what } = self;
        writeln!(f, "seed {seed} failed in step {step}: {what}")?;
        write!(f, "replay it: SIM_SEED={seed} cargo test --test sim replay -- --nocapture")
    }
}

fn run(seed: u64, steps: u32, is_loud: bool) -> Result<Run, Failure> {
    let mut step = 0;
    let run = catch_unwind(AssertUnwindSafe(|| world::run(seed, steps, is_loud, &mut step)));
    run.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let what = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Failure { seed, step, what: what.unwrap_or_else(|| "a panic without words".into()) }
    })
}

fn steps() -> u32 {
    u32::try_from(setting("SIM_STEPS", STEPS)).expect("a number of steps")
}

/// What the threads of a sweep share.
struct Sweep {
    first: u64,
    next: AtomicU64,
    end: u64,
    over: AtomicU64,
    /// When it began, if progress is to be reported.
    clock: Option<Clock>,
    sessions: AtomicU64,
    steps: AtomicU64,
    coverage: Mutex<Coverage>,
    failures: Mutex<Vec<Failure>>,
}

impl Sweep {
    /// Runs seeds until none is left or one has failed.
    fn work(&self) {
        let mut coverage = Coverage::default();
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                break;
            }
            match run(seed, steps(), false) {
                Ok(run) => {
                    coverage.add(&run.coverage);
                    self.sessions.fetch_add(run.sessions, Ordering::Relaxed);
                    self.steps.fetch_add(run.steps, Ordering::Relaxed);
                }
                Err(failure) => {
                    self.failures.lock().expect("lock not poisoned").push(failure);
                    self.next.store(self.end, Ordering::Relaxed);
                }
            }
            self.print_progress();
        }
        self.coverage.lock().expect("lock not poisoned").add(&coverage);
    }

    fn print_progress(&self) {
        let over = self.over.fetch_add(1, Ordering::Relaxed) + 1;
        let all = self.end - self.first;
        let Some(clock) = self.clock.filter(|_| over.is_multiple_of((all / LINES).max(1))) else { return };
        let spent = Duration::from_nanos(clock.now().as_nanos());
        let rate = over as f64 / spent.as_secs_f64();
        let left = Duration::from_secs_f64((all - over) as f64 / rate);
        eprintln!("{over} of {all} seeds, {rate:.0}/s, {} s left", left.as_secs());
    }
}

#[test]
fn a_sweep_over_seeds_finds_nothing_and_reaches_everything() {
    let first = setting("SIM_FIRST", 0);
    let sweep = Sweep {
        first,
        next: AtomicU64::new(first),
        end: first + setting("SIM_SEEDS", SEEDS),
        over: AtomicU64::new(0),
        clock: std::env::var_os("SIM_PROGRESS").map(|_| Clock::start()),
        sessions: AtomicU64::new(0),
        steps: AtomicU64::new(0),
        coverage: Mutex::default(),
        failures: Mutex::default(),
    };
    let threads =
        setting("SIM_THREADS", thread::available_parallelism().map_or(1, |count| count.get() as u64));
    thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(|| sweep.work())));

    let failures = sweep.failures.into_inner().unwrap();
    if let Some(first) = failures.iter().min_by_key(|failure| failure.seed) {
        panic!("{first}");
    }
    let coverage = sweep.coverage.into_inner().unwrap();
    println!("steps={} sessions={}\n{coverage}", sweep.steps.into_inner(), sweep.sessions.into_inner());
    let missing = coverage.missing();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let [one, two] =
            [(); 2].map(|()| run(seed, 500, false).unwrap_or_else(|failure| panic!("{failure}")).hash);
        assert_eq!(one, two, "seed {seed}");
    }
}

/// Replays the seed that `SIM_SEED` names, and prints what happens.
#[test]
fn replay() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let seed = seed.parse().expect("SIM_SEED is a number");
        run(seed, steps(), true).unwrap_or_else(|failure| panic!("{failure}"));
    }
}
