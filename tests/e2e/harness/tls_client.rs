//! Clients of TLS, by rustls.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A client that trusts these authorities.
pub(crate) fn client_config(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("both versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The first bytes of a client that asks for this server and offers these protocols.
pub(crate) fn hello(name: &str, protocols: &[&str]) -> Vec<u8> {
    let mut config = client_config(RootCertStore::empty());
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    // A name that is an address is not sent.
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("a vector takes it");
    hello
}
