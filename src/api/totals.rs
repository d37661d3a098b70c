//! The counters of the process, and what they were when an operator cleared them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One worker's part of the work.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Index of the worker.
    pub worker: u32,
    /// Open sessions.
    pub sessions: u64,
    /// Connections taken from accept queues.
    pub accepted: u64,
    /// Accepted connections handed over to other workers.
    pub handed_over: u64,
    /// Sessions adopted from other workers.
    pub adopted: u64,
    /// Bytes written to backends.
    pub to_backend: u64,
    /// Bytes written to clients.
    pub to_client: u64,
    /// Times that accepting was paused.
    pub accept_pauses: u64,
}

/// Totals over all sessions of the process.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Open sessions.
    pub sessions: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Ended sessions by reason; reasons that never occurred are left out.
    pub closed: std::collections::BTreeMap<String, u64>,
    /// Bytes written to backends.
    pub to_backend: u64,
    /// Bytes written to clients.
    pub to_client: u64,
    /// Dials begun since the start, retries included.
    pub dials: u64,
    /// Dials that failed since the start, whether or not a retry followed.
    pub dial_failures: u64,
}

impl Worker {
    /// Returns its part since `before`.
    fn since(&self, before: &Self) -> Self {
        Self {
            accepted: self.accepted.saturating_sub(before.accepted),
            handed_over: self.handed_over.saturating_sub(before.handed_over),
            adopted: self.adopted.saturating_sub(before.adopted),
            to_backend: self.to_backend.saturating_sub(before.to_backend),
            to_client: self.to_client.saturating_sub(before.to_client),
            accept_pauses: self.accept_pauses.saturating_sub(before.accept_pauses),
            ..self.clone()
        }
    }
}

impl Totals {
    /// Returns the totals since `before`.
    fn since(&self, before: &Self) -> Self {
        let closed = self.closed.iter().filter_map(|(reason, count)| {
            let count = count.saturating_sub(before.closed.get(reason).copied().unwrap_or(0));
            (count > 0).then(|| (reason.clone(), count))
        });
        Self {
            sessions: self.sessions,
            accepted: self.accepted.saturating_sub(before.accepted),
            closed: closed.collect(),
            to_backend: self.to_backend.saturating_sub(before.to_backend),
            to_client: self.to_client.saturating_sub(before.to_client),
            dials: self.dials.saturating_sub(before.dials),
            dial_failures: self.dial_failures.saturating_sub(before.dial_failures),
        }
    }
}

/// The counters of the process when they were cleared. The counters themselves continue, so that rates stay right:
/// whatever shows a total subtracts these.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Cleared {
    /// Time of the request.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Totals over all sessions then.
    pub totals: Totals,
    /// Each worker's part then, in the order of the workers; later ones are missing.
    pub workers: Vec<Worker>,
}

impl Cleared {
    /// Returns the counters since then.
    pub fn rest(&self, totals: &Totals, workers: &[Worker]) -> (Totals, Vec<Worker>) {
        let before = self.workers.iter().map(Some).chain(std::iter::repeat(None));
        let workers = workers
            .iter()
            .zip(before)
            .map(|(worker, before)| before.map_or_else(|| worker.clone(), |before| worker.since(before)));
        (totals.since(&self.totals), workers.collect())
    }
}

/// The counters of a backend when they were cleared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClearedBackend {
    /// Time of the request.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Sessions ever assigned to it until then.
    pub sessions_total: u64,
    /// Failed dials until then.
    pub dial_failures: u64,
    /// Bytes written to it until then.
    pub to_backend: u64,
    /// Bytes written to its clients until then.
    pub to_client: u64,
}

/// Selects the counters to clear; without a pool, those of the process and of all backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClearScope {
    /// Only the backends of this pool.
    #[schema(min_length = 1, max_length = 64)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Only this backend of the pool.
    #[schema(min_length = 1, max_length = 64)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

/// What was cleared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CountersCleared {
    /// Counts are shown from this time on.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Number of backends whose counters were cleared.
    pub backends: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_left_is_the_difference_and_open_sessions_are_all_there() {
        let totals = |accepted, done, sessions| Totals {
            sessions,
            accepted,
            closed: BTreeMap::from([("done".into(), done), ("idle_timeout".into(), 1)]),
            ..Totals::default()
        };
        let worker = |worker, accepted| Worker {
            worker,
            sessions: 2,
            accepted,
            handed_over: 0,
            adopted: 0,
            to_backend: 0,
            to_client: 0,
            accept_pauses: 0,
        };
        let cleared =
            Cleared { since: Timestamp::UNIX_EPOCH, totals: totals(7, 4, 2), workers: vec![worker(0, 7)] };
        let (left, workers) = cleared.rest(&totals(10, 5, 4), &[worker(0, 9), worker(1, 1)]);
        assert_eq!((left.accepted, left.sessions), (3, 4));
        assert_eq!(left.closed, BTreeMap::from([("done".into(), 1)]), "reasons that have not occurred since");
        assert_eq!(workers.iter().map(|worker| worker.accepted).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(workers[0].sessions, 2);
    }
}
