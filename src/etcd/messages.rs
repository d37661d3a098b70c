//! The answers of the gateway, as far as they are used, and how requests write keys. Keys and values are base64 there,
//! and numbers of 64 bits are text; what is at its default is left out.

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::de::{self, Deserialize, Deserializer};

/// What every answer begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Header {
    /// Differs after the data of a cluster were made anew.
    #[serde(deserialize_with = "whole")]
    pub cluster_id: u64,
    /// Counts the changes of all keys; 0 where the answer has none.
    #[serde(deserialize_with = "whole")]
    pub revision: i64,
}

/// A key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct KeyValue {
    /// Any bytes.
    #[serde(deserialize_with = "bytes")]
    pub key: Vec<u8>,
    /// Any bytes; none where the key was deleted.
    #[serde(deserialize_with = "bytes")]
    pub value: Vec<u8>,
}

/// The answer to a question for a range of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Range {
    /// As of which revision.
    pub header: Header,
    /// In the order of the keys.
    pub kvs: Vec<KeyValue>,
    /// Whether there are more behind the limit of the question.
    pub more: bool,
}

/// What has happened to a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub enum Change {
    /// It has this value.
    #[default]
    #[serde(rename = "PUT")]
    Put,
    /// It is no more: it was deleted, or its lease has ended.
    #[serde(rename = "DELETE")]
    Delete,
}

/// A change of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Event {
    /// What has happened.
    #[serde(rename = "type")]
    pub change: Change,
    /// To which key.
    pub kv: KeyValue,
}

/// A message of a watch. One without events answers a question for progress, unless it says `created`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Watched {
    /// As of which revision.
    pub header: Header,
    /// The watch has begun.
    pub created: bool,
    /// The watch has ended.
    pub canceled: bool,
    /// What is before this revision is known no more; 0 where that does not matter.
    #[serde(deserialize_with = "whole")]
    pub compact_revision: i64,
    /// Why it has ended.
    pub cancel_reason: String,
    /// In their order.
    pub events: Vec<Event>,
}

/// A lease, as its grant and its renewal answer. A renewal of one that has ended answers without `TTL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Lease {
    /// Its number.
    #[serde(rename = "ID", deserialize_with = "whole")]
    pub id: i64,
    /// Seconds until it ends; not positive where it has ended.
    #[serde(rename = "TTL", deserialize_with = "whole")]
    pub ttl: i64,
}

/// A key, with what shows its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Holding {
    /// Any bytes.
    #[serde(deserialize_with = "bytes")]
    pub value: Vec<u8>,
    /// The lease that it ends with; 0 where it stays.
    #[serde(deserialize_with = "whole")]
    pub lease: i64,
    /// The revision of its last change.
    #[serde(deserialize_with = "whole")]
    pub mod_revision: i64,
}

/// The answer to a question for one key.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Held {
    pub(super) kvs: Vec<Holding>,
}

/// The answer to a transaction of one request.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Transaction {
    /// What it compares is as it expects.
    pub(super) succeeded: bool,
    pub(super) responses: Vec<Response>,
}

/// The answer to the request of a transaction.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Response {
    pub(super) response_range: Held,
}

/// A message of a stream, or its last one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Streamed<T> {
    /// One of possibly many.
    Result(T),
    /// Nothing follows.
    Error(Fault),
}

/// Why a request failed, in the words of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Fault {
    /// In words.
    pub message: String,
    /// A status code of gRPC.
    #[serde(alias = "grpc_code")]
    pub code: u16,
}

/// What signing in answers.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Token {
    pub(super) token: String,
}

/// Returns `bytes` as requests have them.
pub fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Returns the first key behind all that begin with `prefix`, as the end of a range: "\0", all keys, if there is none.
pub fn end_of(prefix: &[u8]) -> Vec<u8> {
    let Some(last) = prefix.iter().rposition(|&byte| byte < u8::MAX) else { return vec![0] };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    BASE64.decode(text.as_bytes()).map_err(|error| de::Error::custom(format!("not base64: {error}")))
}

fn whole<'de, T: TryFrom<i128>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Whole {
        Signed(i64),
        Unsigned(u64),
        Text(String),
    }
    let number = match Whole::deserialize(deserializer)? {
        Whole::Signed(number) => Some(number.into()),
        Whole::Unsigned(number) => Some(number.into()),
        Whole::Text(text) => text.parse::<i128>().ok(),
    };
    let number = number.and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| de::Error::custom("not a number of 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As etcd 3.4.23 has answered.
    #[test]
    fn answers_are_read_as_etcd_writes_them() {
        let header = Header { cluster_id: 14_841_639_068_965_178_418, revision: 3 };
        let text = r#"{"header":{"cluster_id":"14841639068965178418","member_id":"13049071153751544597","revision":"3",
            "raft_term":"2"},"kvs":[{"key":"L2EvMQ==","create_revision":"3","mod_revision":"3","version":"1","value":"MQ=="}],
            "count":"1"}"#;
        let one = KeyValue { key: b"/a/1".into(), value: b"1".into() };
        let expected = Range { header, kvs: vec![one], more: false };
        assert_eq!(serde_json::from_str::<Range>(text).unwrap(), expected);
        let text = r#"{"result":{"header":{"revision":"4"},"events":[{"type":"DELETE","kv":{"key":"L2EvMQ==",
            "mod_revision":"4"}}]}}"#;
        let Streamed::Result(watched) = serde_json::from_str::<Streamed<Watched>>(text).unwrap() else {
            panic!("it is no error")
        };
        assert_eq!(watched.events[0].change, Change::Delete);
        let text = r#"{"result":{"header":{"raft_term":"2"},"canceled":true,"compact_revision":"6"}}"#;
        let Streamed::Result(watched) = serde_json::from_str::<Streamed<Watched>>(text).unwrap() else {
            panic!("it is no error")
        };
        assert_eq!((watched.canceled, watched.compact_revision), (true, 6));
        let text = r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"x"}}"#;
        let expected = Fault { message: "etcdserver: no leader".into(), code: 14 };
        assert_eq!(serde_json::from_str::<Streamed<Watched>>(text).unwrap(), Streamed::Error(expected));
        let ended = r#"{"result":{"header":{},"ID":"5986869533113882642"}}"#;
        let expected = Lease { id: 5_986_869_533_113_882_642, ttl: 0 };
        assert_eq!(serde_json::from_str::<Streamed<Lease>>(ended).unwrap(), Streamed::Result(expected));
    }

    #[test]
    fn a_range_ends_behind_all_keys_of_its_prefix() {
        for (prefix, expected) in
            [(&b"/a/"[..], &b"/a0"[..]), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")]
        {
            assert_eq!(end_of(prefix), expected);
        }
    }

    #[test]
    fn what_is_no_number_and_no_base64_is_a_mistake() {
        for text in [
            r#"{"header":{"revision":"x"}}"#,
            r#"{"header":{"revision":"99999999999999999999"}}"#,
            r#"{"header":{"revision":1.5}}"#,
            r#"{"kvs":[{"key":"*"}]}"#,
            r#"{"kvs":[{"key":"QQ"}]}"#,
        ] {
            assert!(serde_json::from_str::<Range>(text).is_err(), "{text}");
        }
        let number = serde_json::from_str::<Range>(r#"{"header":{"revision":7}}"#).unwrap();
        assert_eq!(number.header.revision, 7);
    }
}
