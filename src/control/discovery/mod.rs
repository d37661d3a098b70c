//! Backends that come and go by themselves: sources that are asked, and what is believed of them.
//!
//! A `Source` is a stream of full lists and of failures. It runs on a thread of its own, `l4lb-discovery`, and never
//! changes a pool: it reports what it has seen to the control thread, where `membership::discovered` puts the backends
//! into their pool. No start, no reload and no session waits for one.
//!
//! `dns` asks name servers, and `belief` decides what is to be believed of their answers, without a clock and without a
//! socket. `runner` has the thread. `state` is which sources run and how each of them does; `follow` is what the
//! control thread does with them.

mod belief;
pub(in crate::control) mod dns;
mod follow;
mod runner;
mod source;
pub mod state;
