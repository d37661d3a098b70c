//! The flight recorder: the last ended sessions of this worker, and the data to explain them. Explanations are
//! formatted on request; at the end of a session data is moved, not formatted.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::messages::query::{Asked, Filter, RECORDS_MAX};
use crate::pool::{Backend, BackendId, Choice, Listener, ListenerId, PoolId, Snapshot};
use crate::session::Summary;

/// Above this many names, those without a record are forgotten.
const NAMES_MAX: usize = 1024;

pub(in crate::worker) struct Record {
    pub(in crate::worker) key: Key,
    pub(in crate::worker) place: Place,
    pub(in crate::worker) backend: Option<Arc<Backend>>,
    pub(in crate::worker) choice: Option<Choice>,
    /// The epoch of its last choice.
    pub(in crate::worker) epoch: u64,
    /// Returns the backends that could not be dialed.
    pub(in crate::worker) tried: Vec<BackendId>,
    pub(in crate::worker) client: SocketAddr,
    pub(in crate::worker) front: Option<SocketAddr>,
    pub(in crate::worker) asked: Option<Arc<Asked>>,
    /// Only known when its line was written.
    pub(in crate::worker) source: Option<SocketAddr>,
    pub(in crate::worker) opened: Instant,
    pub(in crate::worker) summary: Summary,
}

/// The listener and the pool of a session, by name. It keeps neither alive: a pool stays as long as a listener that
/// names it.
#[derive(Clone, Debug)]
pub(in crate::worker) struct Place {
    pub(in crate::worker) listener: ListenerId,
    pub(in crate::worker) pool: PoolId,
    pub(in crate::worker) names: Names,
}

#[derive(Clone, Debug)]
pub(in crate::worker) struct Names {
    pub(in crate::worker) listener: Arc<str>,
    pub(in crate::worker) pool: Arc<str>,
}

/// The last [`RECORDS_MAX`] sessions, oldest first.
#[derive(Default)]
pub(in crate::worker) struct Recorder {
    records: VecDeque<Record>,
    /// Number of records ever made.
    made: u64,
    names: HashMap<(u32, u32), Names>,
}

impl Record {
    pub(in crate::worker) fn fits(&self, filter: &Filter) -> bool {
        let Place { listener, pool, .. } = self.place;
        fits(filter, listener, pool, self.backend.as_deref(), self.client)
            && filter.reason.is_none_or(|wanted| wanted == self.summary.reason)
            && filter.since.is_none_or(|since| self.opened + self.summary.duration >= since)
    }
}

/// Returns whether a session matches, ignoring how it ended.
pub(in crate::worker) fn fits(
    filter: &Filter,
    listener: ListenerId,
    pool: PoolId,
    backend: Option<&Backend>,
    client: SocketAddr,
) -> bool {
    filter.listener.is_none_or(|wanted| wanted == listener)
        && filter.pool.is_none_or(|wanted| wanted == pool)
        && filter.backends.as_deref().is_none_or(|wanted| is_among(wanted, backend))
        && filter.client.is_none_or(|wanted| wanted.contains(client.ip()))
}

fn is_among(wanted: &[BackendId], backend: Option<&Backend>) -> bool {
    backend.is_some_and(|backend| wanted.binary_search_by_key(&backend.id.0, |id| id.0).is_ok())
}

impl Recorder {
    pub(in crate::worker) fn newest_first(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().rev()
    }

    /// Returns records, newest first, with their numbers, which count from 0; only those before number `before`.
    pub(in crate::worker) fn numbered(&self, before: Option<u64>) -> impl Iterator<Item = (u64, &Record)> {
        let numbers = (0..self.made).rev();
        numbers
            .zip(self.newest_first())
            .skip_while(move |&(number, _)| before.is_some_and(|before| number >= before))
    }

    /// Remembers a session that is over.
    pub(in crate::worker) fn push(&mut self, record: Record) {
        if self.records.len() == RECORDS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(record);
        self.made += 1;
    }

    /// Returns the names, shared as one text by all records.
    pub(in crate::worker) fn place(
        &mut self,
        listener: &Listener,
        pool: PoolId,
        snapshot: &Snapshot,
    ) -> Place {
        if self.names.len() >= NAMES_MAX {
            self.names.retain(|_, names| Arc::strong_count(&names.pool) > 1);
        }
        let named = self.names.entry((listener.id.0, pool.0)).or_insert_with(|| Names {
            listener: listener.settings.name.as_str().into(),
            pool: snapshot.pool(pool).settings.name.as_str().into(),
        });
        Place { listener: listener.id, pool, names: named.clone() }
    }
}
