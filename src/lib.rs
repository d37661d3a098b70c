//! l4lb, a Layer-4 TCP load balancer: one single-threaded, edge-triggered event loop per core.

pub mod base;

pub mod balance;

pub mod config;

pub mod session;

pub mod pool;

pub mod health;

pub mod stats;

pub mod sys;

pub mod mailbox;

pub mod worker;

pub mod control;

pub mod server;

pub mod logging;

pub mod demo;

pub mod cli;
