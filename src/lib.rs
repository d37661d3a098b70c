//! l4lb, a Layer-4 TCP load balancer: one single-threaded, edge-triggered event loop per core.
//!
//! # One picture
//! ```text
//!            clients                                            backends
//!               │  accept      choose            dial              ▲
//!               ▼                                                  │
//!   ┌─ worker 0 ───────────────────────────────────────────────────┴──┐   one thread per core:
//!   │ listener (SO_REUSEPORT) → session ⇄ conduit ⇄ session           │   own epoll, own listeners,
//!   │ timer wheel: deadlines and health checks                        │   own slab, own wheel
//!   └──────▲───────────────────────────────────────────────┬──────────┘
//!          │ Command: new epochs, drain, stop              │ Report: health, stopped
//!   ┌──────┴───────────────────────────────────────────────▼──────────┐
//!   │ control: rebuilds tables, hears signals, logs transitions        │   workers never wait for it
//!   └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # The life of a connection, in file order
//! 1. **accept** (`worker/accept.rs`): limits decide, then one slab entry per session. Its epoll token holds a
//!    generation, so an event for a session that is gone finds nothing. With `accept = "balance"` the connection first
//!    goes to the worker with the fewest sessions (`worker/dispatch.rs`); a session never moves.
//! 2. **choose** (`worker/connect.rs` → [`pool::choose`] → [`balance`]): gives a [`pool::Lease`], the only thing
//!    that raises and lowers a backend's count of sessions.
//! 3. **dial**: a non-blocking connect with a deadline on the wheel. A failure releases the lease and dials another
//!    backend. What the client has sent meanwhile waits in the kernel, so a retry loses nothing,
//!    and neither does a client that resets.
//! 4. **relay** (`worker/drive.rs`): [`session::Session`] decides one op at a time, the worker does it and tells the
//!    outcome, until nothing is left to do or the share of the turn is spent. What moves little is served upon its event;
//!    what streams waits in a queue, of which a turn serves a bounded part (`worker/budget.rs`). Bytes are copied
//!    (`worker/buffers.rs`), or spliced through a pipe while they stream (`worker/pipes.rs`).
//! 5. **half-close**: an end of stream is passed on behind the last byte, a reset as a reset behind the bytes that
//!    came before it. No FIN is sent that nobody sent us.
//! 6. **close** (`worker/close.rs`): the single exit. Timer cancelled, buffers and lease given back.
//! 7. **account**: one [`session::Summary`] → counters and one log line. The bytes of a session that lasts are counted
//!    meanwhile (`worker/byte_accounting.rs`), and the last sessions are remembered (`worker/flight_recorder.rs`).
//!
//! # Layers
//! Imports point down only; `tests/layering.rs` proves it. The `mod` lines below are in reading order.
//!
//! | layer | modules | may do |
//! |---|---|---|
//! | L0 | [`base`], [`api`] | compute; `api` only names shapes |
//! | L1 | [`balance`], [`config`] | compute; `config` reads one file |
//! | L2 | [`session`], [`stats`], [`pool`], [`health`] | decide and count, without I/O; [`sys`] alone does I/O |
//! | L3 | [`messages`], [`logging`] | pass messages between threads, and lines to where they are written |
//! | L4 | [`worker`], [`control`] | loop; neither imports the other |
//! | L5 | [`server`], [`demo`], [`doctor`], [`ctl`], [`top`], [`cli`] | start, watch, stop, print |
//!
//! # Invariants
//! - `session/` does no I/O; time and randomness are parameters everywhere below `worker/mod.rs`.
//! - `unsafe` occurs under `sys/` only.
//! - Only `worker/close.rs` frees a session; only a `Lease` changes a backend's count of sessions.
//! - Readiness is cleared by the outcome of a call and by nothing else, because epoll tells each edge once.
//! - Every queue and every loop has a bound with a name.
//! - No request, timer or reload needs a thread that is not there: `control/standby.rs` starts them with the process. A panic
//!   ends the process, nothing catches one.
//! - A worker stops only when nothing is left to it and nothing is on its way to it from another.
//! - accepted = active + Σ closed by reason, and for each direction bytes in = bytes out + held + discarded.

pub mod base;

pub mod api;

pub mod balance;

pub mod config;

pub mod session;

pub mod stats;

pub mod pool;

pub mod health;

pub mod sys;

pub mod messages;

pub mod logging;

pub mod worker;

pub mod control;

pub mod server;

pub mod demo;

pub mod doctor;

pub mod ctl;

pub mod top;

pub mod cli;
