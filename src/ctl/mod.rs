//! The other side of the admin API: what `l4lb ctl` and its kin ask and show.

mod client;

pub use client::{Client, ClientError, Target};
