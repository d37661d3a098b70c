//! Backends that come and go by themselves: sources that are asked, and what is believed of them.
//!
//! A `Source` is asked, and answers with a full list or with a failure. It runs on a thread of its own,
//! `l4lb-discovery`, and never changes a pool: what is believed of it is reported to the control thread, where
//! `membership::discovered` puts the backends into their pool. No session waits for one, and no start and no reload
//! unless its configuration requires that: `first` asks then.
//!
//! `dns` asks name servers, `host` resolves the host name of a backend as this machine does, `file` reads a file, and
//! `http` asks an HTTP server; both of the latter have a list, see `listed`. `etcd` watches keys. `belief` decides which
//! answers to believe, without a clock and without a socket. `kinds` makes the source that settings ask for, and `runner`
//! has the thread. `state` is which sources run and how each of them does. The control thread runs them in `follow`, has
//! in `lists` what their pools get of them, and in `absent` what stays there although its source lists it no more.

mod absent;
mod belief;
mod dns;
mod etcd;
mod file;
pub(crate) mod first;
mod follow;
mod host;
mod http;
pub(in crate::control) mod kinds;
mod listed;
mod lists;
mod runner;
mod source;
pub(super) mod state;
