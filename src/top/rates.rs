//! Derives rates from totals: the change between two samples, and the last minutes of it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::api;
use crate::ctl::figures::bytes;
use crate::session::CloseReason;

/// Number of samples remembered: ten minutes, more than the widest screen shows.
pub(super) const HISTORY_LEN: usize = 600;

/// Intervals without a sample that leave a hole in a chart.
const HOLE: f64 = 3.5;

/// Events per second, on one backend or on all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) sessions: f64,
    /// Bytes written to the backend.
    pub(super) to_backend: f64,
    pub(super) to_client: f64,
    /// Dials that failed; for all backends together, sessions.
    pub(super) failures: f64,
}

/// The totals behind [`Rates`], in its order.
type Counts = [u64; 4];

impl Rates {
    /// A counter that starts again from zero has counted nothing yet.
    fn between(before: Counts, now: Counts, seconds: f64) -> Self {
        let rate = |index: usize| now[index].saturating_sub(before[index]) as f64 / seconds;
        Self { sessions: rate(0), to_backend: rate(1), to_client: rate(2), failures: rate(3) }
    }
}

/// Returns a rate per second: small ones with one decimal.
pub(super) fn rate(rate: f64) -> String {
    if rate == 0.0 || rate >= 9.95 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
pub(super) fn bytes_rate(rate: f64) -> String {
    bytes(rate.round() as u64)
}

fn of_backend(backend: &api::Backend) -> Counts {
    [backend.sessions_total, backend.to_backend, backend.to_client, backend.dial_failures]
}

fn of_all(totals: &api::Totals) -> Counts {
    let failures = CloseReason::ALL.into_iter().filter(|reason| reason.is_failure());
    let failed = failures.filter_map(|reason| totals.closed.get(reason.as_str())).sum();
    [totals.accepted, totals.to_backend, totals.to_client, failed]
}

/// A backend and its rates.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The backend of the latest sample.
    pub(super) backend: api::Backend,
    /// `None` until there are two samples.
    pub(super) rates: Option<Rates>,
}

/// Returns the rows of `now`, and the rates of all together if time has passed since `before`.
pub(super) fn compare(before: Option<&api::Sample>, now: &api::Sample) -> (Vec<Row>, Option<Rates>) {
    // By the clock of the watched process: the delay of a sample does not matter.
    let passed = before.map(|before| (before, now.time.duration_since(before.time).as_secs_f64()));
    let Some((before, seconds)) = passed.filter(|(_, seconds)| *seconds > 0.0) else {
        let rows = now.backends.iter().map(|backend| Row { backend: backend.clone(), rates: None });
        return (rows.collect(), None);
    };
    let known: HashMap<(&str, &str), Counts> =
        before.backends.iter().map(|backend| (key(backend), of_backend(backend))).collect();
    let rows = now.backends.iter().map(|backend| {
        let before = known.get(&key(backend));
        let rates = before.map(|before| Rates::between(*before, of_backend(backend), seconds));
        Row { backend: backend.clone(), rates }
    });
    (rows.collect(), Some(Rates::between(of_all(&before.totals), of_all(&now.totals), seconds)))
}

/// Returns the charts of new sessions, bytes and connect times, as if samples had been taken every `interval`.
pub(super) fn charts_of(past: &api::History, interval: Duration) -> [History; 3] {
    let mut charts: [History; 3] = Default::default();
    let each = usize::try_from(interval.as_secs()).unwrap_or(usize::MAX).max(1);
    let len = past.seconds.len();
    // The newest sample ends a full interval.
    let firsts = (0..len).filter(|index| (len - index).is_multiple_of(each));
    for range in firsts.map(|first| first..first + each) {
        let seconds: f64 = past.seconds[range.clone()].iter().sum();
        // After a pause of the process there is a hole, as wide as the pause was.
        if seconds > HOLE * interval.as_secs_f64() {
            let missed = (seconds / interval.as_secs_f64()).round();
            (0..HISTORY_LEN).take_while(|step| (*step as f64) < missed).for_each(|_| {
                charts.iter_mut().for_each(|chart| chart.push(None));
            });
            continue;
        }
        let sum = |of: &[Option<u64>]| of.get(range.clone())?.iter().copied().sum::<Option<u64>>();
        let opened: Vec<Option<u64>> = past.totals.opened.iter().map(|count| count.map(u64::from)).collect();
        let rate = |count: Option<u64>| Some(count? as f64 / seconds).filter(|rate| rate.is_finite());
        let bytes = sum(&past.totals.to_backend).zip(sum(&past.totals.to_client)).map(|(to, from)| to + from);
        let p99 = past.connect_p99.get(range.end - 1).copied().flatten();
        let [sessions, all_bytes, connect] = &mut charts;
        sessions.push(rate(sum(&opened)));
        all_bytes.push(rate(bytes));
        connect.push(p99.map(|seconds| seconds * 1e6));
    }
    charts
}

fn key(backend: &api::Backend) -> (&str, &str) {
    (&backend.pool, &backend.name)
}

/// The last [`HISTORY_LEN`] values of a figure, with gaps where there was none.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Option<u64>>);

impl History {
    /// Adds the value of one more sample.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
    pub(super) fn push(&mut self, value: Option<f64>) {
        if self.0.len() == HISTORY_LEN {
            self.0.pop_front();
        }
        self.0.push_back(value.map(|value| value.round() as u64));
    }

    /// Returns the newest value, if there is one.
    pub(super) fn newest(&self) -> Option<u64> {
        self.0.back().copied().flatten()
    }

    /// Returns the newest `count` values, oldest first.
    pub(super) fn last(&self, count: usize) -> impl Iterator<Item = Option<u64>> {
        self.0.iter().skip(self.0.len().saturating_sub(count)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::tests::{backend, sample};

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let mut before = sample(0, vec![backend("a"), backend("b")]);
        let mut now = sample(2, vec![backend("b"), backend("new"), backend("a")]);
        before.backends[1].to_client = 1_000;
        now.backends[0].to_client = 5_000;
        now.backends[0].dial_failures = 3;
        // This one was removed and came back in between.
        before.backends[0].sessions_total = 70;
        now.backends[2].sessions_total = 4;
        now.totals.accepted = 10;
        now.totals.closed = [("done".to_owned(), 9), ("no_backend".to_owned(), 4)].into();
        let (rows, all) = compare(Some(&before), &now);
        let rates: Vec<Option<Rates>> = rows.iter().map(|row| row.rates).collect();
        let b = Rates { to_client: 2_000.0, failures: 1.5, ..Rates::default() };
        assert_eq!(rates, [Some(b), None, Some(Rates::default())]);
        assert_eq!(all, Some(Rates { sessions: 5.0, failures: 2.0, ..Rates::default() }));
    }

    #[test]
    fn without_time_between_there_is_no_rate() {
        let now = sample(7, vec![backend("a")]);
        for before in [None, Some(sample(7, vec![backend("a")])), Some(sample(8, vec![backend("a")]))] {
            let (rows, all) = compare(before.as_ref(), &now);
            assert_eq!((rows[0].rates, all), (None, None));
        }
    }

    #[test]
    fn a_history_forgets_the_oldest() {
        let mut history = History::default();
        assert_eq!(history.newest(), None);
        (0..=HISTORY_LEN).for_each(|value| history.push((value != 599).then_some(value as f64)));
        assert_eq!(history.last(usize::MAX).count(), HISTORY_LEN);
        assert_eq!(history.last(3).collect::<Vec<_>>(), [Some(598), None, Some(600)]);
        assert_eq!(history.newest(), Some(600));
    }

    /// Returns a past of one session and 100 bytes more each second, with the seconds that each sample covers.
    fn past(seconds: &[f64]) -> api::History {
        let len = u32::try_from(seconds.len()).unwrap();
        let counts: Vec<Option<u32>> = (0..len).map(|count| (count > 0).then_some(count)).collect();
        let bytes: Vec<Option<u64>> =
            counts.iter().map(|count| count.map(|count| u64::from(count) * 50)).collect();
        api::History {
            seconds: seconds.to_vec(),
            totals: api::Series {
                opened: counts,
                to_backend: bytes.clone(),
                to_client: bytes,
                ..api::Series::default()
            },
            connect_p99: (0..len).map(|count| (count % 2 == 1).then_some(0.001)).collect(),
            ..api::History::default()
        }
    }

    #[test]
    fn the_past_fills_the_charts_as_samples_would_have() {
        let values = |history: &History| history.last(usize::MAX).collect::<Vec<_>>();
        let [sessions, bytes, connect] =
            charts_of(&past(&[0.0, 1.0, 1.0, 0.5, 5.0, 1.0]), Duration::from_secs(1));
        let hole = [None; 5];
        assert_eq!(values(&sessions), [&[None, Some(1), Some(2), Some(6)], &hole[..], &[Some(5)]].concat());
        assert_eq!(
            values(&bytes),
            [&[None, Some(100), Some(200), Some(600)], &hole[..], &[Some(500)]].concat()
        );
        assert_eq!(
            values(&connect),
            [&[None, Some(1000), None, Some(1000)], &hole[..], &[Some(1000)]].concat()
        );
        let [sessions, bytes, _] = charts_of(&past(&[0.0, 1.0, 1.0, 1.0, 1.0]), Duration::from_secs(2));
        assert_eq!((values(&sessions), values(&bytes)), (vec![Some(2), Some(4)], vec![Some(150), Some(350)]));
        assert!(
            charts_of(&api::History::default(), Duration::from_secs(1))
                .iter()
                .all(|chart| chart.newest().is_none())
        );
    }
}
