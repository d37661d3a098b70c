//! Speaks with etcd over the JSON gateway of its v3 API, which every etcd since 3.4 has: no protobuf, no gRPC.
//!
//! `request` sends one request to one member, `client` chooses the member and signs in, `lease` puts keys that last as
//! long as their lease, `list` lists keys, `watch` reads the stream of a watch, `stream` cuts such a stream into its messages, and `messages`
//! has their shapes. What the keys mean is not known here, and nothing is retried beyond one round of the members: when to
//! ask again is decided by the caller.

pub mod messages;
pub mod request;
pub mod stream;

pub mod watch;

pub mod client;
pub mod lease;
pub mod list;
