//! The last five minutes, second by second: sessions, rates and failures of each pool, each listener, and all together.
//! The control thread takes the samples; the page and `l4lb top` open with them. Nothing is kept of single backends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::api;
use crate::base::hash::avalanche;
use crate::base::time::Instant;
use crate::control::durations::Times;
use crate::pool::{Listener, ListenerId, Pool, PoolId, Snapshot};
use crate::session::CloseReason;
use crate::stats::Totals;

/// Older samples are forgotten.
const KEPT: Duration = Duration::from_mins(5);
const PERIOD: Duration = Duration::from_secs(1);
const SAMPLES_MAX: usize = 300;
/// Pools and listeners with figures of their own, the first ones of the configuration. A sample has 40 bytes for each:
/// at most 3.1 MB in all, 100 KB for four pools and four listeners.
const POOLS_MAX: usize = 128;
const LISTENERS_MAX: usize = 128;

/// What was counted in the time of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    opened: u32,
    failures: u32,
    to_backend: u64,
    to_client: u64,
}

/// One pool, one listener or all together in a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    sessions: u32,
    /// `None` when there was nothing to compare with.
    counted: Option<Counted>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    time: Timestamp,
    /// The time that it covers.
    span: Duration,
    totals: Row,
    closed: Option<[u32; CloseReason::ALL.len()]>,
    connect: api::Latency,
    pools: Box<[(PoolId, Row)]>,
    listeners: Box<[(ListenerId, Row)]>,
}

/// Totals since the start, of which samples have the differences.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    opened: u64,
    failures: u64,
    to_backend: u64,
    to_client: u64,
    /// Changes when a backend joins or leaves: it brings its counts along, or takes them away.
    members: u64,
}

impl Counters {
    fn of_pool(pool: &Pool) -> (u64, Self) {
        let (mut sessions, mut sum) = (0, Self::default());
        for backend in &pool.backends {
            let [to_backend, to_client] = backend.stats.given();
            sessions += u64::from(backend.active());
            sum.opened += backend.sessions();
            sum.failures += backend.dial_failures();
            sum.to_backend += to_backend;
            sum.to_client += to_client;
            // The hash of zero is zero, and the first backend has that id.
            sum.members = avalanche(sum.members ^ (u64::from(backend.id.0) + 1));
        }
        (sessions, sum)
    }

    fn of_listener(listener: &Listener) -> (u64, Self) {
        let read = listener.stats().read();
        let [to_backend, to_client] = read.given;
        let (opened, failures) = (read.accepted, read.failed());
        let counters = Self { opened, failures, to_backend, to_client, members: 0 };
        (listener.gauge().count() as u64, counters)
    }

    fn of_all(totals: &Totals) -> (u64, Self) {
        let &Totals { accepted, dial_failures, to_backend, to_client, .. } = totals;
        let counters = Self { opened: accepted, failures: dial_failures, to_backend, to_client, members: 0 };
        (totals.active(), counters)
    }

    fn since(&self, before: Option<&Self>) -> Option<Counted> {
        let before = before.filter(|before| before.members == self.members)?;
        Some(Counted {
            opened: small(self.opened.saturating_sub(before.opened)),
            failures: small(self.failures.saturating_sub(before.failures)),
            to_backend: self.to_backend.saturating_sub(before.to_backend),
            to_client: self.to_client.saturating_sub(before.to_client),
        })
    }
}

/// No second counts more: it saturates.
fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The totals at the latest sample.
struct Before {
    at: Instant,
    totals: Counters,
    closed: [u64; CloseReason::ALL.len()],
    times: Times,
    pools: HashMap<PoolId, Counters>,
    listeners: HashMap<ListenerId, Counters>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Recent {
    samples: VecDeque<Arc<Sample>>,
    before: Option<Before>,
    due: Instant,
}

/// Samples of the last five minutes, to be read without the lock.
pub(crate) struct Minutes(VecDeque<Arc<Sample>>);

impl Recent {
    /// Returns when the next sample is due.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Takes a sample at `now`, the wall clock showing `time`.
    pub(super) fn take(&mut self, now: Instant, time: Timestamp, snapshot: &Snapshot, totals: &Totals) {
        let before = self.before.as_ref();
        let times = Times::of(snapshot);
        let row = |(sessions, counters): (u64, Counters), before| {
            (counters, Row { sessions: small(sessions), counted: counters.since(before) })
        };
        let (all, of_all) = row(Counters::of_all(totals), before.map(|before| &before.totals));
        let pools: Vec<(PoolId, (Counters, Row))> = snapshot
            .pools
            .iter()
            .take(POOLS_MAX)
            .map(|pool| {
                let known = before.and_then(|before| before.pools.get(&pool.id));
                (pool.id, row(Counters::of_pool(pool), known))
            })
            .collect();
        let listeners: Vec<(ListenerId, (Counters, Row))> = snapshot
            .listeners
            .iter()
            .take(LISTENERS_MAX)
            .map(|listener| {
                let known = before.and_then(|before| before.listeners.get(&listener.id));
                (listener.id, row(Counters::of_listener(listener), known))
            })
            .collect();
        let ended = |before: &Before| {
            let mut closed = [0; CloseReason::ALL.len()];
            for (index, count) in closed.iter_mut().enumerate() {
                *count = small(totals.closed[index].saturating_sub(before.closed[index]));
            }
            closed
        };
        self.keep(Sample {
            at: now,
            time,
            span: before.map_or(Duration::ZERO, |before| now - before.at),
            totals: of_all,
            closed: before.map(ended),
            connect: before.map(|before| times.connect_since(&before.times)).unwrap_or_default(),
            pools: pools.iter().map(|&(id, (_, row))| (id, row)).collect(),
            listeners: listeners.iter().map(|&(id, (_, row))| (id, row)).collect(),
        });
        self.before = Some(Before {
            at: now,
            totals: all,
            closed: totals.closed,
            times,
            pools: pools.into_iter().map(|(id, (counters, _))| (id, counters)).collect(),
            listeners: listeners.into_iter().map(|(id, (counters, _))| (id, counters)).collect(),
        });
        // In step, unless the process was stopped meanwhile.
        self.due = self.due + PERIOD;
        if self.due <= now {
            self.due = now + PERIOD;
        }
    }

    fn keep(&mut self, sample: Sample) {
        let is_old = |known: &Arc<Sample>| sample.at - known.at > KEPT;
        while self.samples.len() >= SAMPLES_MAX || self.samples.front().is_some_and(is_old) {
            self.samples.pop_front();
        }
        self.samples.push_back(Arc::new(sample));
    }

    /// Returns the samples.
    pub(crate) fn minutes(&self) -> Minutes {
        Minutes(self.samples.clone())
    }
}

impl Minutes {
    /// Returns them as the API has them, for the pools and listeners of `snapshot`.
    pub(crate) fn history(&self, snapshot: &Snapshot, events: Vec<api::Event>) -> api::History {
        let Self(samples) = self;
        let pools = snapshot.pools.iter().take(POOLS_MAX).map(|pool| api::NamedSeries {
            name: pool.settings.name.clone(),
            series: series(samples.iter().map(|sample| of_id(&sample.pools, &pool.id))),
        });
        let listeners = snapshot.listeners.iter().take(LISTENERS_MAX).map(|listener| api::NamedSeries {
            name: listener.settings.name.clone(),
            series: series(samples.iter().map(|sample| of_id(&sample.listeners, &listener.id))),
        });
        let closed = CloseReason::ALL.into_iter().filter_map(|reason| {
            let counts: Vec<Option<u32>> =
                samples.iter().map(|sample| Some(sample.closed?[reason.index()])).collect();
            let occurred = counts.iter().flatten().any(|count| *count > 0);
            occurred.then(|| (reason.as_str().to_owned(), counts))
        });
        api::History {
            times: samples.iter().map(|sample| sample.time).collect(),
            seconds: samples.iter().map(|sample| sample.span.as_secs_f64()).collect(),
            totals: series(samples.iter().map(|sample| Some(sample.totals))),
            closed: closed.collect(),
            connect_p50: samples.iter().map(|sample| sample.connect.p50).collect(),
            connect_p99: samples.iter().map(|sample| sample.connect.p99).collect(),
            pools: pools.collect(),
            listeners: listeners.collect(),
            events,
        }
    }
}

fn of_id<I: PartialEq>(rows: &[(I, Row)], id: &I) -> Option<Row> {
    rows.iter().find(|(known, _)| known == id).map(|(_, row)| *row)
}

fn series(rows: impl Iterator<Item = Option<Row>>) -> api::Series {
    let mut series = api::Series::default();
    for row in rows {
        let counted = row.and_then(|row| row.counted);
        series.sessions.push(row.map(|row| row.sessions));
        series.opened.push(counted.map(|counted| counted.opened));
        series.failures.push(counted.map(|counted| counted.failures));
        series.to_backend.push(counted.map(|counted| counted.to_backend));
        series.to_client.push(counted.map(|counted| counted.to_client));
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides, model};

    const TWO_POOLS: &str = "listener = [{ name = \"in\", bind = \"127.0.0.1:9090\", pool = \"web\" }]\n\
        pool = [{ name = \"web\", backend = [{ address = \"127.0.0.1:1\" }, { address = \"127.0.0.1:2\" }] }, \
        { name = \"other\", backend = [{ address = \"127.0.0.1:3\" }] }]";

    fn config(text: &str) -> model::Config {
        let no_names = &mut |_: &str| Ok(Vec::new());
        config::parse(text, "test", &Overrides::default(), no_names).expect("a good config")
    }

    /// Samples taken at given seconds of both clocks.
    struct Samples {
        recent: Recent,
        snapshot: Snapshot,
        totals: Totals,
    }

    impl Samples {
        fn of(text: &str) -> Self {
            let snapshot = Snapshot::new(&config(text));
            Self { recent: Recent::default(), snapshot, totals: Totals::default() }
        }

        fn take(&mut self, second: u32) {
            let now = Instant::default() + Duration::from_secs(second.into());
            let time = Timestamp::from_second(second.into()).expect("the timestamp is in range");
            self.recent.take(now, time, &self.snapshot, &self.totals);
        }

        /// A backend of the first pool gets `sessions` more sessions, all of which end at once.
        fn serve(&mut self, backend: usize, sessions: u32) {
            for _ in 0..sessions {
                self.snapshot.pools[0].backends[backend].lease(0).release();
            }
        }

        fn history(&self) -> api::History {
            self.recent.minutes().history(&self.snapshot, Vec::new())
        }

        fn opened(&self, pool: usize) -> Vec<Option<u32>> {
            self.history().pools[pool].series.opened.clone()
        }
    }

    #[test]
    fn each_sample_has_what_was_counted_since_the_one_before() {
        let mut samples = Samples::of(TWO_POOLS);
        samples.totals.accepted = 1_000;
        samples.take(0);
        for (second, sessions) in [(1, 3), (2, 0), (3, 5)] {
            samples.serve(0, sessions);
            samples.totals.accepted += u64::from(sessions);
            samples.totals.closed[CloseReason::BackendReset.index()] += u64::from(sessions);
            samples.take(second);
        }
        let history = samples.history();
        assert_eq!(history.totals.opened, [None, Some(3), Some(0), Some(5)]);
        assert_eq!(history.pools[0].series.opened, [None, Some(3), Some(0), Some(5)]);
        assert_eq!(history.pools[1].series.opened, [None, Some(0), Some(0), Some(0)]);
        assert_eq!(history.closed.keys().collect::<Vec<_>>(), ["backend_reset"]);
        assert_eq!(history.closed["backend_reset"], [None, Some(3), Some(0), Some(5)]);
        assert_eq!(history.listeners[0].name, "in");
        assert_eq!(history.listeners[0].series.opened, [None, Some(0), Some(0), Some(0)]);
    }

    #[test]
    fn the_ring_wraps_after_five_minutes() {
        let mut samples = Samples::of(TWO_POOLS);
        for second in 0..=1_000 {
            samples.serve(0, second);
            samples.take(second);
        }
        let opened = samples.opened(0);
        assert_eq!(opened.len(), SAMPLES_MAX);
        assert_eq!((opened[0], opened[SAMPLES_MAX - 1]), (Some(701), Some(1_000)));
    }

    #[test]
    fn a_pause_is_one_long_sample_and_samples_before_it_are_forgotten_in_time() {
        let mut samples = Samples::of(TWO_POOLS);
        (0..=10).for_each(|second| samples.take(second));
        samples.serve(0, 60);
        samples.take(70);
        let history = samples.history();
        assert_eq!((history.seconds[11], history.pools[0].series.opened[11]), (60.0, Some(60)));
        assert_eq!(
            samples.recent.due(),
            Instant::default() + Duration::from_secs(71),
            "no missed one is made up"
        );
        samples.take(306);
        assert_eq!(samples.history().times.first().map(|time| time.as_second()), Some(6));
        samples.take(10_000);
        assert_eq!(samples.history().times.len(), 1);
    }

    #[test]
    fn a_pool_that_is_added_begins_without_figures_and_a_removed_one_is_not_shown() {
        let mut samples = Samples::of(TWO_POOLS);
        (0..3).for_each(|second| samples.take(second));
        samples.snapshot = samples.snapshot.reconfigured(&config(&TWO_POOLS.replace("\"other\"", "\"new\"")));
        (3..5).for_each(|second| samples.take(second));
        let history = samples.history();
        let names: Vec<&str> = history.pools.iter().map(|pool| pool.name.as_str()).collect();
        assert_eq!(names, ["web", "new"]);
        assert_eq!(history.pools[0].series.opened, [None, Some(0), Some(0), Some(0), Some(0)]);
        assert_eq!(history.pools[1].series.sessions, [None, None, None, Some(0), Some(0)]);
        assert_eq!(history.pools[1].series.opened, [None, None, None, None, Some(0)]);
    }

    /// A backend that came back with its counts was a million new sessions in one second.
    #[test]
    fn backends_that_join_or_leave_bring_no_counts_of_theirs_into_a_sample() {
        let mut samples = Samples::of(TWO_POOLS);
        samples.serve(0, 7);
        samples.take(0);
        let both = samples.snapshot.pools[0].clone();
        let rest = model::Backend::clone(&both.settings.backends[1]);
        samples.snapshot = samples.snapshot.with_backends(PoolId(0), std::slice::from_ref(&rest));
        samples.take(1);
        let (listed, back) = (&both.settings.backends, &both.backends[..1]);
        samples.snapshot = samples.snapshot.with_backends_back(PoolId(0), listed, back);
        samples.take(2);
        samples.serve(0, 2);
        samples.take(3);
        assert_eq!(samples.opened(0), [None, None, None, Some(2)]);
    }

    #[test]
    fn pools_beyond_the_bound_have_no_figures_of_their_own() {
        let pools: String = (0..POOLS_MAX + 9)
            .map(|pool| {
                format!("[[pool]]\nname = \"p{pool}\"\nbackend = [{{ address = \"127.0.0.1:1\" }}]\n")
            })
            .collect();
        let mut samples =
            Samples::of(&format!("listener = [{{ bind = \"127.0.0.1:9090\", pool = \"p0\" }}]\n{pools}"));
        samples.take(0);
        assert_eq!(samples.history().pools.len(), POOLS_MAX);
    }
}
