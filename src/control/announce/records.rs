//! Records in etcd, under a lease. No other process is fought: a key that was ours and that somebody else has put since
//! is left alone, and so is one without a lease.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use crate::base::retries::RENEWALS;
use crate::base::rng::Rng;
use crate::config::announce::Record;
use crate::config::cluster::Cluster;
use crate::etcd::client::Client;
use crate::etcd::request::EtcdError;

/// Limit for the requests that renew or put records, where the lease is short.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// Limit for the request that ends a lease.
pub(super) const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(1);

/// The records of one process in one cluster.
pub(super) struct Records {
    cluster: Cluster,
    client: Client,
    /// The length of the lease.
    length: Duration,
    lease: Option<i64>,
    /// A lease that has ended, whose keys etcd may not have deleted yet.
    ended: Option<i64>,
    /// What was put, by its key.
    put: BTreeMap<String, String>,
}

impl Records {
    pub(super) fn new(cluster: Cluster, length: Duration, rng: &mut Rng) -> Self {
        let client = Client::new(cluster.clone(), rng);
        Self { cluster, client, length, lease: None, ended: None, put: BTreeMap::new() }
    }

    /// Returns whether these settings are its own.
    pub(super) fn is_of(&self, cluster: &Cluster, length: Duration) -> bool {
        (&self.cluster, self.length) == (cluster, length)
    }

    /// Renews the lease, or begins one, and puts the `wanted` records that are not there; others of ours are deleted.
    /// Fails with what went wrong. May be dropped at any time, and called again.
    pub(super) async fn keep(&mut self, wanted: &[Record]) -> Result<(), String> {
        let patience = (self.length / RENEWALS).max(PATIENCE_MIN);
        match timeout(patience, self.keep_all(wanted)).await {
            Ok(kept) => kept,
            Err(_) => Err(self.late(patience)),
        }
    }

    /// Ends the lease, and with it all records. May be called again after a failure.
    pub(super) async fn withdraw(&mut self) -> Result<(), String> {
        let Some(lease) = self.lease else { return Ok(()) };
        match timeout(WITHDRAW_TIMEOUT, self.client.revoke(lease)).await {
            Ok(Ok(())) => {
                (self.lease, self.ended) = (None, Some(lease));
                self.put.clear();
                Ok(())
            }
            Ok(Err(error)) => {
                Err(format!("cannot withdraw the records, which end with their lease: {error}"))
            }
            Err(_) => Err(self.late(WITHDRAW_TIMEOUT)),
        }
    }

    /// Another member may do better.
    fn late(&mut self, patience: Duration) -> String {
        let member = self.client.member();
        self.client.next_member();
        format!("{member}: it took longer than {patience:?}")
    }

    async fn keep_all(&mut self, wanted: &[Record]) -> Result<(), String> {
        let lease = self.lease().await.map_err(|error| error.to_string())?;
        let gone: Vec<String> =
            self.put.keys().filter(|key| wanted.iter().all(|record| record.key != **key)).cloned().collect();
        for key in gone {
            let deleted = self.client.delete(key.as_bytes(), lease).await;
            deleted.map_err(|error| error.to_string())?;
            self.put.remove(&key);
        }
        let is_put = |record: &Record| self.put.get(&record.key) == Some(&record.value);
        if wanted.iter().all(is_put) {
            let keys: Vec<&[u8]> = wanted.iter().map(|record| record.key.as_bytes()).collect();
            if self.client.are_held(&keys, lease).await.map_err(|error| error.to_string())? {
                return Ok(());
            }
        }
        for record in wanted {
            self.put(record, lease).await?;
        }
        Ok(())
    }

    /// Returns a lease that has just been renewed or granted.
    async fn lease(&mut self) -> Result<i64, EtcdError> {
        if let Some(lease) = self.lease {
            if self.client.renew(lease).await? {
                return Ok(lease);
            }
            (self.lease, self.ended) = (None, Some(lease));
        }
        let lease = self.client.grant(self.length).await?;
        self.lease = Some(lease);
        Ok(lease)
    }

    async fn put(&mut self, record: &Record, lease: i64) -> Result<(), String> {
        let Record { key, value } = record;
        let failed = |error: EtcdError| error.to_string();
        let there = self.client.create(key.as_bytes(), value.as_bytes(), lease).await.map_err(failed)?;
        if let Some(there) = there
            && (there.lease != lease || there.value != value.as_bytes())
        {
            if there.lease == 0 {
                return Err(format!("{key}: it is there to stay, and not ours"));
            }
            let was_ours = there.lease == lease || Some(there.lease) == self.ended;
            if !was_ours && self.put.contains_key(key) {
                return Err(format!(
                    "{key}: another process keeps it: its name in [announce] must be its own"
                ));
            }
            // What is there is left over from a process that has died.
            let revision = there.mod_revision;
            let replaced = self.client.replace(key.as_bytes(), value.as_bytes(), lease, revision).await;
            if !replaced.map_err(failed)? {
                return Err(format!("{key}: it changes"));
            }
        }
        self.put.insert(key.clone(), value.clone());
        Ok(())
    }
}
