//! Records in etcd, under a lease. No other process is fought: a key that was ours and that somebody else has put since
//! is left alone, and so is one without a lease.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::timeout;

use crate::base::retries::RENEWALS;
use crate::base::rng::Rng;
use crate::config::announce::Record;
use crate::config::cluster::Cluster;
use crate::control::keeper::WITHDRAW_TIMEOUT;
use crate::etcd::client::Client;
use crate::etcd::lease::KeptLease;
use crate::etcd::request::EtcdError;

/// Limit for the requests that renew or put records, where the lease is short.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// The records of one process in one cluster.
pub(super) struct Records {
    cluster: Cluster,
    client: Client,
    lease: KeptLease,
    /// What was put, by its key.
    put: BTreeMap<String, String>,
    /// The keys of those that were put under the present lease.
    current: BTreeSet<String>,
    /// The keys that were asked for, also where the answer was lost.
    tried: BTreeSet<String>,
}

impl Records {
    pub(super) fn new(cluster: Cluster, length: Duration, rng: &mut Rng) -> Self {
        let client = Client::new(cluster.clone(), rng);
        Self {
            cluster,
            client,
            lease: KeptLease::new(length),
            put: BTreeMap::new(),
            current: BTreeSet::new(),
            tried: BTreeSet::new(),
        }
    }

    /// Returns whether these settings are its own.
    pub(super) fn is_of(&self, cluster: &Cluster, length: Duration) -> bool {
        (&self.cluster, self.lease.length()) == (cluster, length)
    }

    /// Renews the lease, or begins one, and puts the `wanted` records that are not there; others of ours are deleted.
    /// Fails with what went wrong. May be dropped at any time, and called again.
    pub(super) async fn keep(&mut self, wanted: &[Record]) -> Result<(), String> {
        let patience = (self.lease.length() / RENEWALS).max(PATIENCE_MIN);
        match timeout(patience, self.keep_all(wanted)).await {
            Ok(kept) => kept,
            Err(_) => Err(self.late(patience)),
        }
    }

    /// Ends the lease, and with it all records. May be called again after a failure.
    pub(super) async fn withdraw(&mut self) -> Result<(), String> {
        match timeout(WITHDRAW_TIMEOUT, self.lease.end(&mut self.client)).await {
            Ok(Ok(())) => {
                self.put.clear();
                self.current.clear();
                self.tried.clear();
                Ok(())
            }
            Ok(Err(error)) => {
                Err(format!("cannot withdraw the records, which end with their lease: {error}"))
            }
            Err(_) => Err(self.late(WITHDRAW_TIMEOUT)),
        }
    }

    /// Returns whether the lease has ended by itself since it was last renewed.
    pub(super) fn is_over(&self) -> bool {
        self.lease.is_over()
    }

    /// Another member may do better.
    fn late(&mut self, patience: Duration) -> String {
        let member = self.client.member();
        self.client.next_member();
        format!("{member}: it took longer than {patience:?}")
    }

    async fn keep_all(&mut self, wanted: &[Record]) -> Result<(), String> {
        let before = self.lease.id();
        let lease = self.lease.keep(&mut self.client).await.map_err(|error| error.to_string())?;
        if before != Some(lease) {
            self.current.clear();
        }
        let is_gone = |key: &&String| wanted.iter().all(|record| record.key != **key);
        let gone: BTreeSet<String> = self.put.keys().chain(&self.tried).filter(is_gone).cloned().collect();
        for key in gone {
            let deleted = self.client.delete(key.as_bytes(), lease).await;
            deleted.map_err(|error| error.to_string())?;
            self.put.remove(&key);
            self.current.remove(&key);
            self.tried.remove(&key);
        }
        if !self.current.is_empty() {
            let keys: Vec<&[u8]> = self.current.iter().map(String::as_bytes).collect();
            if !self.client.are_held(&keys, lease).await.map_err(|error| error.to_string())? {
                self.current.clear();
            }
        }
        let mut first = None;
        for record in wanted {
            if self.current.contains(&record.key) && self.put.get(&record.key) == Some(&record.value) {
                continue;
            }
            // One that cannot be put keeps none of the others from it.
            match self.put(record, lease).await {
                Ok(()) => {}
                Err(PutError::Asked(error @ EtcdError::Away(_))) => return Err(error.to_string()),
                Err(error) => _ = first.get_or_insert_with(|| error.to_string()),
            }
        }
        first.map_or(Ok(()), Err)
    }

    async fn put(&mut self, record: &Record, lease: i64) -> Result<(), PutError> {
        let Record { key, value } = record;
        let taken = |what: &str| PutError::Taken(format!("{key}: {what}"));
        self.tried.insert(key.clone());
        let there = self.client.create(key.as_bytes(), value.as_bytes(), lease).await?;
        if let Some(there) = there
            && (there.lease != lease || there.value != value.as_bytes())
        {
            if there.lease == 0 {
                return Err(taken("it is there to stay, and not ours"));
            }
            let was_ours = there.lease == lease || Some(there.lease) == self.lease.ended();
            if !was_ours && self.put.contains_key(key) {
                return Err(taken("another process keeps it: its name in [announce] must be its own"));
            }
            // What is there is left over from a process that has died.
            let revision = there.mod_revision;
            if !self.client.replace(key.as_bytes(), value.as_bytes(), lease, revision).await? {
                return Err(taken("it changes"));
            }
        }
        self.put.insert(key.clone(), value.clone());
        self.current.insert(key.clone());
        Ok(())
    }
}

/// Why a record was not put.
#[derive(Debug, thiserror::Error)]
enum PutError {
    /// etcd has not done it.
    #[error(transparent)]
    Asked(#[from] EtcdError),
    /// The key is another one's.
    #[error("{0}")]
    Taken(String),
}
