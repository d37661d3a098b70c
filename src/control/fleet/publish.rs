//! The keys of this balancer in etcd, under a lease. One write has several keys, and there is at most one in a second: what
//! did not fit waits for the next. No other process is fought: a key of another one with our name is left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::own::Own;
use crate::base::retries::RENEWALS;
use crate::base::rng::Rng;
use crate::config::fleet::Fleet;
use crate::etcd::client::Client;
use crate::etcd::lease::KeptLease;
use crate::fleet::record::{Balancer, Key};

/// Keys of one write, of which etcd takes 128.
const WRITE_KEYS_MAX: usize = 64;
/// Bytes of values of one write: etcd takes 1.5 MiB, and its gateway a third more of base64.
const WRITE_LEN_MAX: usize = 512 << 10;
/// A change of the load alone is written at most this often.
pub(super) const LOAD_PERIOD: Duration = Duration::from_secs(5);
/// The record is written at least this often: its age says that the balancer lives.
const WRITE_PERIOD: Duration = Duration::from_secs(30);

/// The keys, as far as they are there.
pub(super) struct Publisher {
    client: Client,
    prefix: String,
    name: String,
    lease: KeptLease,
    renewed: Option<Instant>,
    /// The values that were put under the present lease, by their keys.
    put: BTreeMap<String, String>,
    /// The record that was written last, and when.
    written: Option<(Balancer, Instant)>,
    /// True once this process has put its record.
    was_ours: bool,
}

impl Publisher {
    pub(super) fn new(settings: &Fleet, rng: &mut Rng) -> Self {
        Self {
            client: Client::new(settings.cluster.clone(), rng),
            prefix: settings.prefix.clone(),
            name: settings.name.clone(),
            lease: KeptLease::new(settings.lease),
            renewed: None,
            put: BTreeMap::new(),
            written: None,
            was_ours: false,
        }
    }

    /// Renews the lease where that is due, and writes what has changed. Returns whether more is to be written. Fails with
    /// what went wrong. May be dropped at any time, and called again.
    pub(super) async fn keep(&mut self, own: &Own) -> Result<bool, String> {
        let guard = self.key(&Key::Balancer(&self.name));
        let is_due = self.renewed.is_none_or(|renewed| renewed.elapsed() >= self.lease.length() / RENEWALS);
        if is_due {
            let before = self.lease.id();
            let lease = self.lease.keep(&mut self.client).await.map_err(|error| error.to_string())?;
            let is_same = before == Some(lease) && !self.put.is_empty();
            if !is_same || !self.is_held(&guard, lease).await? {
                self.forget();
            }
            self.renewed = Some(Instant::now());
        }
        let Some(lease) = self.lease.id() else { return Err("it has no lease".into()) };
        let record = serde_json::to_string(&own.balancer).map_err(|error| error.to_string())?;
        if self.written.is_none() {
            self.claim(&guard, &record, lease).await?;
        }
        self.write(own, guard, record, lease).await
    }

    async fn is_held(&mut self, guard: &str, lease: i64) -> Result<bool, String> {
        self.client.are_held(&[guard.as_bytes()], lease).await.map_err(|error| error.to_string())
    }

    /// Nothing of it is there any more.
    fn forget(&mut self) {
        self.put.clear();
        self.written = None;
    }

    /// Puts the record where there is none, or one of a process that has died.
    async fn claim(&mut self, guard: &str, record: &str, lease: i64) -> Result<(), String> {
        let (key, value) = (guard.as_bytes(), record.as_bytes());
        let asked = |error: crate::etcd::request::EtcdError| error.to_string();
        let there = self.client.create(key, value, lease).await.map_err(asked)?;
        if let Some(there) = there.filter(|there| there.lease != lease) {
            if there.lease == 0 {
                return Err(format!("{guard}: it is there to stay, and not ours"));
            }
            if self.was_ours && Some(there.lease) != self.lease.ended() {
                return Err(format!(
                    "{guard}: another process keeps it: its name in [fleet] must be its own"
                ));
            }
            if !self.client.replace(key, value, lease, there.mod_revision).await.map_err(asked)? {
                return Err(format!("{guard}: it changes"));
            }
        }
        self.was_ours = true;
        Ok(())
    }

    /// Writes what differs from what is there, the record last. Returns whether more is to be written.
    async fn write(&mut self, own: &Own, guard: String, record: String, lease: i64) -> Result<bool, String> {
        let mut wanted = BTreeMap::new();
        for ((pool, part), value) in &own.parts {
            let key = self.key(&Key::View { balancer: &self.name, pool, part: *part });
            wanted.insert(key, serde_json::to_string(value).map_err(|error| error.to_string())?);
        }
        let gone = self.put.keys().filter(|key| !wanted.contains_key(*key) && **key != guard);
        let deletes: Vec<String> = gone.take(WRITE_KEYS_MAX / 2).cloned().collect();
        let mut len = record.len();
        let mut puts = Vec::new();
        let mut has_more = false;
        for (key, value) in wanted {
            if self.put.get(&key) == Some(&value) {
                continue;
            }
            len += value.len();
            has_more = deletes.len() + puts.len() + 1 >= WRITE_KEYS_MAX || len > WRITE_LEN_MAX;
            if has_more {
                break;
            }
            puts.push((key, value));
        }
        let is_due = match &self.written {
            Some((before, when)) if !own.balancer.is_news(before) => {
                let is_same = (before.sessions, before.rate) == (own.balancer.sessions, own.balancer.rate);
                when.elapsed() >= if is_same { WRITE_PERIOD } else { LOAD_PERIOD }
            }
            Some(_) | None => true,
        };
        if !is_due && puts.is_empty() && deletes.is_empty() {
            return Ok(false);
        }
        puts.push((guard.clone(), record));
        let is_ours = self.client.put_all(guard.as_bytes(), lease, &puts, &deletes).await;
        if !is_ours.map_err(|error| error.to_string())? {
            self.forget();
            return Err(format!("{guard}: it was taken away, or is another one's"));
        }
        deletes.iter().for_each(|key| _ = self.put.remove(key));
        self.put.extend(puts);
        self.written = Some((own.balancer.clone(), Instant::now()));
        Ok(has_more)
    }

    /// Another member may do better.
    pub(super) fn late(&mut self, patience: Duration) -> String {
        let member = self.client.member();
        self.client.next_member();
        format!("{member}: it took longer than {patience:?}")
    }

    /// Ends the lease, and with it all keys.
    pub(super) async fn withdraw(&mut self) -> Result<(), String> {
        self.lease.end(&mut self.client).await.map_err(|error| error.to_string())
    }

    fn key(&self, key: &Key<'_>) -> String {
        format!("{}{key}", self.prefix)
    }
}
