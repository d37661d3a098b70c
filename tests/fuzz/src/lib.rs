//! What the fuzzer looks for, one target a module: `check` reads an input and panics when a promise is broken.
//! Bytes decide everything, so an input is a test that can be kept. No target does I/O.
//!
//! Two things drive them: libFuzzer (`fuzz_targets/`, `scripts/fuzz.sh`), and `tests/fuzz.rs` on every `cargo test`.

pub mod config;

pub mod flags;

pub mod session;

pub mod answer;

pub mod agent;

pub mod exchange;

pub mod timer_wheel;

pub mod balance;

pub mod admin;

pub mod guard;

pub mod state_file;

pub mod list;

pub mod proxy;

pub mod watch;

pub mod hello;

pub mod postgres;
