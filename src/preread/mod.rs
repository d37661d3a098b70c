//! What is read of a connection before a backend is chosen, and what a backend reads first: the header of the PROXY
//! protocol, versions 1 and 2, the first message of PostgreSQL, the ClientHello of TLS, and the routes that it takes.
//! Parses and writes bytes; does no I/O and does not wait.
//!
//! A parser is a function of all bytes that have arrived so far, so the split of a stream into segments decides
//! nothing: it returns [`Progress::More`] until these bytes decide.

mod alpn;
pub mod client_hello;
mod header;
pub mod postgres;
mod progress;
mod proxy;
pub mod proxy_v1;
pub mod proxy_v2;
pub mod routes;
mod server_name;
#[cfg(test)]
mod tests;

pub use alpn::Alpn;
pub use header::{Addresses, HEADER_MAX, Header, Refusal};
pub use progress::Progress;
pub use proxy::parse_proxy;
pub use server_name::{NoName, ServerName};
