//! Keys that last for as long as their lease is renewed, and the lease of a key. Each call is one request, which members
//! are asked in turn until one answers; how often a lease is renewed, and when one is granted again, is decided by the caller.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::etcd::client::Client;
use crate::etcd::messages::{Fault, Held, Holding, Lease, Streamed, Transaction, encode};
use crate::etcd::request::EtcdError;

/// A status code of gRPC: there is no such lease.
const NOT_FOUND: u16 = 5;

/// A lease that is kept: renewed, or granted anew where it has ended.
#[derive(Debug)]
pub struct KeptLease {
    length: Duration,
    id: Option<i64>,
    ended: Option<i64>,
    renewed: Option<Instant>,
}

impl KeptLease {
    /// None is granted yet.
    pub const fn new(length: Duration) -> Self {
        Self { length, id: None, ended: None, renewed: None }
    }

    /// Returns how long it lasts without a renewal.
    pub const fn length(&self) -> Duration {
        self.length
    }

    /// Returns the lease that was renewed or granted last.
    pub const fn id(&self) -> Option<i64> {
        self.id
    }

    /// Returns the lease that has ended last. etcd may not have deleted its keys yet.
    pub const fn ended(&self) -> Option<i64> {
        self.ended
    }

    /// Returns whether it has ended by itself since it was last renewed.
    pub fn is_over(&self) -> bool {
        self.renewed.is_none_or(|renewed| renewed.elapsed() > self.length)
    }

    /// Returns a lease that has just been renewed or granted. What had the one before is gone, or going.
    pub async fn keep(&mut self, client: &mut Client) -> Result<i64, EtcdError> {
        if let Some(lease) = self.id {
            if client.renew(lease).await? {
                self.renewed = Some(Instant::now());
                return Ok(lease);
            }
            (self.id, self.ended) = (None, Some(lease));
        }
        let lease = client.grant(self.length).await?;
        (self.id, self.renewed) = (Some(lease), Some(Instant::now()));
        Ok(lease)
    }

    /// Ends it, if there is one. May be called again after a failure.
    pub async fn end(&mut self, client: &mut Client) -> Result<(), EtcdError> {
        let Some(lease) = self.id else { return Ok(()) };
        client.revoke(lease).await?;
        (self.id, self.ended) = (None, Some(lease));
        Ok(())
    }
}

impl Client {
    /// Returns the number of a new lease, which ends after `ttl` without a renewal. etcd counts in seconds, of which a
    /// part is a whole one, and raises what is too short for it.
    pub async fn grant(&mut self, ttl: Duration) -> Result<i64, EtcdError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let lease: Lease = self.call("lease/grant", &json!({"TTL": seconds.to_string()})).await?;
        match lease.id {
            0 => Err(EtcdError::Away(format!("{}: no lease in the answer", self.member()))),
            id => Ok(id),
        }
    }

    /// Renews a lease. Returns whether it lasts; one that has ended is never renewed.
    pub async fn renew(&mut self, lease: i64) -> Result<bool, EtcdError> {
        let request = json!({"ID": lease.to_string()});
        match self.call("lease/keepalive", &request).await {
            Ok(Streamed::Result(Lease { ttl, .. })) => Ok(ttl > 0),
            Ok(Streamed::Error(Fault { code: NOT_FOUND, .. }))
            | Err(EtcdError::Refused { code: NOT_FOUND, .. }) => Ok(false),
            Ok(Streamed::Error(Fault { message, code })) => {
                Err(EtcdError::Away(format!("{}: {message} (code {code})", self.member())))
            }
            Err(error) => Err(error),
        }
    }

    /// Ends a lease, and with it all keys that have it.
    pub async fn revoke(&mut self, lease: i64) -> Result<(), EtcdError> {
        let revoked: Result<Value, EtcdError> =
            self.call("lease/revoke", &json!({"ID": lease.to_string()})).await;
        match revoked {
            // It has ended by itself.
            Ok(_) | Err(EtcdError::Refused { code: NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Puts a key that ends with `lease`, unless it is there: then it returns what it is.
    pub async fn create(
        &mut self,
        key: &[u8],
        value: &[u8],
        lease: i64,
    ) -> Result<Option<Holding>, EtcdError> {
        let request = json!({
            "compare": [
                {"key": encode(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}
            ],
            "success": [{"request_put": put(key, value, lease)}],
            "failure": [{"request_range": {"key": encode(key)}}],
        });
        let Transaction { succeeded, responses } = self.call("kv/txn", &request).await?;
        let there = responses.into_iter().flat_map(|response| response.response_range.kvs).next();
        match there {
            None if !succeeded => Err(EtcdError::Away(format!("{}: no key in the answer", self.member()))),
            there => Ok(there.filter(|_| !succeeded)),
        }
    }

    /// Puts a key that ends with `lease` in the place of what it is at that revision. Returns whether it still was.
    pub async fn replace(
        &mut self,
        key: &[u8],
        value: &[u8],
        lease: i64,
        mod_revision: i64,
    ) -> Result<bool, EtcdError> {
        let revision = mod_revision.to_string();
        let request = json!({
            "compare": [{"key": encode(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision}],
            "success": [{"request_put": put(key, value, lease)}],
        });
        let Transaction { succeeded, .. } = self.call("kv/txn", &request).await?;
        Ok(succeeded)
    }

    /// Returns whether all `keys` are there, and end with `lease`.
    pub async fn are_held(&mut self, keys: &[&[u8]], lease: i64) -> Result<bool, EtcdError> {
        let compare: Vec<Value> = keys.iter().map(|key| of_lease(key, lease)).collect();
        let Transaction { succeeded, .. } = self.call("kv/txn", &json!({"compare": compare})).await?;
        Ok(succeeded)
    }

    /// Puts keys with their values, which end with `lease`, and deletes others, if `guard` is there and ends with `lease`.
    /// Returns whether it does. etcd takes 128 keys at a time.
    pub async fn put_all(
        &mut self,
        guard: &[u8],
        lease: i64,
        puts: &[(String, String)],
        deletes: &[String],
    ) -> Result<bool, EtcdError> {
        let puts = puts
            .iter()
            .map(|(key, value)| json!({"request_put": put(key.as_bytes(), value.as_bytes(), lease)}));
        let deletes =
            deletes.iter().map(|key| json!({"request_delete_range": {"key": encode(key.as_bytes())}}));
        let request = json!({
            "compare": [of_lease(guard, lease)],
            "success": puts.chain(deletes).collect::<Vec<Value>>(),
        });
        let Transaction { succeeded, .. } = self.call("kv/txn", &request).await?;
        Ok(succeeded)
    }

    /// Deletes a key if it ends with `lease`.
    pub async fn delete(&mut self, key: &[u8], lease: i64) -> Result<(), EtcdError> {
        let request = json!({
            "compare": [of_lease(key, lease)],
            "success": [{"request_delete_range": {"key": encode(key)}}],
        });
        let Transaction { .. } = self.call("kv/txn", &request).await?;
        Ok(())
    }

    /// Puts a key to stay.
    pub async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EtcdError> {
        let _header: Value = self.call("kv/put", &put(key, value, 0)).await?;
        Ok(())
    }

    /// Deletes a key, if it is there.
    pub async fn remove(&mut self, key: &[u8]) -> Result<(), EtcdError> {
        let _header: Value = self.call("kv/deleterange", &json!({"key": encode(key)})).await?;
        Ok(())
    }

    /// Returns a key, if it is there.
    pub async fn holding(&mut self, key: &[u8]) -> Result<Option<Holding>, EtcdError> {
        let Held { kvs } = self.call("kv/range", &json!({"key": encode(key)})).await?;
        Ok(kvs.into_iter().next())
    }
}

impl EtcdError {
    /// Returns whether it would be the same whenever one asks: a mistake, or a right that is missing.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Away(_) | Self::Refused { code: NOT_FOUND, .. } => false,
            Self::Refused { .. } | Self::Password(_) => true,
        }
    }
}

/// What a transaction compares: whether a key ends with `lease`.
fn of_lease(key: &[u8], lease: i64) -> Value {
    json!({"key": encode(key), "target": "LEASE", "result": "EQUAL", "lease": lease.to_string()})
}

fn put(key: &[u8], value: &[u8], lease: i64) -> Value {
    json!({"key": encode(key), "value": encode(value), "lease": lease.to_string()})
}
