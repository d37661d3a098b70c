//! The timer wheel while it holds so many timers: one for each session, the deadlines all over the next minutes.
//!
//! Case 71.

use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use l4lb::base::rng::Rng;
use l4lb::base::time::Instant;
use l4lb::base::timer_wheel::{TimerId, TimerWheel};

/// Idle timeouts are of this order.
const SPAN: Duration = Duration::from_secs(250);

struct Timers {
    wheel: TimerWheel<usize>,
    /// By payload.
    ids: Vec<TimerId>,
    now: Instant,
    rng: Rng,
}

impl Timers {
    fn new(count: usize) -> Self {
        let now = Instant::from_nanos(1_000_000_000_000);
        let mut timers = Self { wheel: TimerWheel::new(now), ids: Vec::new(), now, rng: Rng::new(3) };
        for payload in 0..count {
            let deadline = timers.deadline();
            timers.ids.push(timers.wheel.arm(deadline, payload));
        }
        timers
    }

    fn deadline(&mut self) -> Instant {
        let nanos = u64::try_from(SPAN.as_nanos()).expect("minutes");
        self.now + Duration::from_nanos(self.rng.below(nanos))
    }

    fn any(&mut self) -> usize {
        usize::try_from(self.rng.below(self.ids.len() as u64)).expect("an index")
    }
}

/// A session that comes and goes at once.
#[divan::bench(args = [1, 1_000, 1_000_000], sample_size = 1_000)]
fn arm_and_cancel_the_newest(bencher: Bencher<'_, '_>, count: usize) {
    let mut timers = Timers::new(count);
    bencher.bench_local(|| {
        let deadline = timers.deadline();
        let id = timers.wheel.arm(deadline, 0);
        timers.wheel.cancel(id)
    });
}

/// One session ends and another begins.
#[divan::bench(args = [1, 1_000, 1_000_000], sample_size = 1_000)]
fn cancel_any_and_arm_another(bencher: Bencher<'_, '_>, count: usize) {
    let mut timers = Timers::new(count);
    bencher.bench_local(|| {
        let payload = timers.any();
        timers.wheel.cancel(timers.ids[payload]);
        let deadline = timers.deadline();
        timers.ids[payload] = timers.wheel.arm(deadline, payload);
    });
}

/// Time moves on as a worker sees it until so many have fired, and each is armed anew: the way down the levels
/// included.
#[divan::bench(args = [1_000, 1_000_000])]
fn fire_and_arm_again(bencher: Bencher<'_, '_>, count: usize) {
    const FIRED: usize = 1_000;
    let mut timers = Timers::new(count);
    bencher.counter(ItemsCount::new(FIRED)).bench_local(|| {
        let mut fired = 0;
        while fired < FIRED {
            let timeout = timers.wheel.next_timeout(timers.now).expect("timers are armed");
            timers.now = timers.now + timeout;
            timers.wheel.advance(timers.now);
            while let Some(payload) = timers.wheel.pop_due() {
                let deadline = timers.now + SPAN;
                timers.ids[payload] = timers.wheel.arm(deadline, payload);
                fired += 1;
            }
        }
    });
}

/// Asked before every wait.
#[divan::bench(args = [1, 1_000_000])]
fn next_timeout(bencher: Bencher<'_, '_>, count: usize) {
    let timers = Timers::new(count);
    bencher.bench_local(|| timers.wheel.next_timeout(timers.now));
}
