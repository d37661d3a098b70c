//! The flight recorder: the last sessions of this worker that are over, and what is needed to say why they went where
//! they went. Whoever asks gets the words; what is written at the end of a session is moved, not made.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::messages::query::{Filter, RECORDS_MAX};
use crate::pool::{Backend, BackendId, Choice, Lease, ListenerId, PoolId, Snapshot};
use crate::session::Summary;
use crate::sys::Kernel;
use crate::worker::{FailedDials, Slot, Worker};

/// Names kept before those of which no record is left are forgotten.
const NAMES_MAX: usize = 1024;

/// One session that is over.
pub(in crate::worker) struct Record {
    pub(in crate::worker) key: Key,
    pub(in crate::worker) place: Place,
    pub(in crate::worker) backend: Option<Arc<Backend>>,
    pub(in crate::worker) choice: Option<Choice>,
    /// In which it chose last.
    pub(in crate::worker) epoch: u64,
    pub(in crate::worker) failed: Option<Box<FailedDials>>,
    pub(in crate::worker) client: SocketAddr,
    /// Where its line was written: nobody else has asked for it.
    pub(in crate::worker) source: Option<SocketAddr>,
    pub(in crate::worker) opened: Instant,
    pub(in crate::worker) summary: Summary,
}

/// Through which listener a session came, and to which pool. It keeps neither of them: a pool stays as long as
/// somebody holds a listener that names it.
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
    /// Records ever made.
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

    /// Backends that a dial had failed to.
    pub(in crate::worker) fn tried(&self) -> &[BackendId] {
        self.failed.as_ref().map_or(&[], |failed| &failed.tried)
    }
}

/// Whether a session is wanted, but for how it ended.
pub(in crate::worker) fn fits(
    filter: &Filter,
    listener: ListenerId,
    pool: PoolId,
    backend: Option<&Backend>,
    client: SocketAddr,
) -> bool {
    filter.listener.is_none_or(|wanted| wanted == listener)
        && filter.pool.is_none_or(|wanted| wanted == pool)
        && filter.backend.is_none_or(|wanted| backend.is_some_and(|backend| backend.id == wanted))
        && filter.client.is_none_or(|wanted| wanted == client.ip())
}

impl Recorder {
    /// The newest first.
    pub(in crate::worker) fn newest_first(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().rev()
    }

    /// The same with their numbers, which count from 0; only those in front of number `before`.
    pub(in crate::worker) fn numbered(&self, before: Option<u64>) -> impl Iterator<Item = (u64, &Record)> {
        let numbers = (0..self.made).rev();
        numbers
            .zip(self.newest_first())
            .skip_while(move |&(number, _)| before.is_some_and(|before| number >= before))
    }

    fn push(&mut self, record: Record) {
        if self.records.len() == RECORDS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(record);
        self.made += 1;
    }

    /// Names are the same text for all that tell them.
    pub(in crate::worker) fn place<K: Kernel>(&mut self, slot: &Slot<K>, snapshot: &Snapshot) -> Place {
        let (listener, pool) = (slot.listener.id, slot.listener.pool);
        if self.names.len() >= NAMES_MAX {
            self.names.retain(|_, names| Arc::strong_count(&names.pool) > 1);
        }
        let named = self.names.entry((listener.0, pool.0)).or_insert_with(|| Names {
            listener: slot.listener.settings.name.as_str().into(),
            pool: snapshot.pool(pool).settings.name.as_str().into(),
        });
        Place { listener, pool, names: named.clone() }
    }
}

impl<K: Kernel> Slot<K> {
    /// The backend that it is on, or else the last that could not be dialed.
    pub(in crate::worker) fn backend_to_tell(&self) -> Option<&Arc<Backend>> {
        let failed = || self.failed.as_ref().map(|failed| &failed.last);
        self.lease.as_ref().map(Lease::backend).or_else(failed)
    }

    /// Why it is on the backend that it is on.
    pub(in crate::worker) fn choice_of_lease(&self) -> Option<Choice> {
        self.lease.as_ref().map(|_| self.choice)
    }
}

impl<K: Kernel> Worker<K> {
    /// The epoch in which a session chose last. One without a lease is between two choices, or found nobody a moment ago.
    pub(in crate::worker) fn epoch_of(&self, slot: &Slot<K>) -> u64 {
        let now = self.snapshot.epoch;
        slot.choice_of_lease().map_or(now, |choice| choice.epoch(now))
    }

    /// Remembers a session that is over.
    pub(in crate::worker) fn record(
        &mut self,
        key: Key,
        slot: &mut Slot<K>,
        summary: Summary,
        source: Option<SocketAddr>,
    ) {
        let record = Record {
            key,
            place: self.recorder.place(slot, &self.snapshot),
            backend: slot.backend_to_tell().cloned(),
            epoch: self.epoch_of(slot),
            choice: slot.choice_of_lease(),
            failed: slot.failed.take(),
            client: slot.client_address,
            source,
            opened: slot.session.accepted_at(),
            summary,
        };
        self.recorder.push(record);
    }
}
