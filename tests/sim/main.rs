//! The whole worker in a world of its own: the real code over a kernel, a network and a clock that one seed decides.
//!
//! `cargo test --test sim` runs a sweep over seeds; [`world`] says what happens in one, [`kernel`] and [`oracle`] what
//! must hold. A seed that fails is named, with the command that replays it. `scripts/sweep.sh` runs many seeds.

mod accounting;
mod agents;
mod backend_model;
mod conformance;
mod conn;
mod coverage;
mod deadlines;
mod events;
mod faults;
mod greeting;
mod header;
mod hello;
mod kernel;
mod negotiation;
mod network;
mod oracle;
mod peer;
mod pipe;
mod programs;
mod random;
mod scenario;
mod shortage;
mod stream;
mod summaries;
mod sweep;
mod trace;
mod turns;
mod world;
