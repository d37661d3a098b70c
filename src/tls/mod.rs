//! TLS as a client, without sockets and files: what a check or a source trusts, how it verifies a certificate, and what it
//! reports of it. The handshake itself is that of rustls, and `health` drives it. Nothing here reads a socket or a
//! file; of clocks, rustls reads the one of the wall for the validity of certificates.

mod certificate;
mod client;
mod reason;

#[cfg(test)]
pub(crate) mod test_server;

pub use certificate::Certificate;
pub use client::{Authorities, Client, Verify};
pub use reason::reason;
pub use rustls::pki_types::ServerName;
