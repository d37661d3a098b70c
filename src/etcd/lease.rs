//! Keys that last for as long as their lease is renewed, and the lease of a key. Each call is one request, which members
//! are asked in turn until one answers; how often a lease is renewed, and when one is granted again, is decided by the caller.

use std::time::Duration;

use serde_json::{Value, json};

use crate::etcd::client::Client;
use crate::etcd::messages::{Fault, Held, Holding, Lease, Streamed, Transaction, encode};
use crate::etcd::request::EtcdError;

/// A status code of gRPC: there is no such lease.
const NOT_FOUND: u16 = 5;

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

    /// Deletes a key if it ends with `lease`.
    pub async fn delete(&mut self, key: &[u8], lease: i64) -> Result<(), EtcdError> {
        let request = json!({
            "compare": [of_lease(key, lease)],
            "success": [{"request_delete_range": {"key": encode(key)}}],
        });
        let Transaction { .. } = self.call("kv/txn", &request).await?;
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
