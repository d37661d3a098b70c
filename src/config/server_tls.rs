//! How a server that is asked for something is spoken to over TLS: a cluster of etcd, or one that lists backends.

use std::fmt;
use std::path::PathBuf;

use super::error::one_line;
use crate::tls::{Client, ServerName, Verify};

/// The client's side of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The name that it asks for, and that the certificate must have; the address of the server when `None`.
    pub server_name: Option<ServerName<'static>>,
    /// The file with the authorities that it trusts; those of the system when `None`.
    pub ca_file: Option<PathBuf>,
    /// Built once from the rest: what it trusts, and how it verifies.
    pub client: Client,
}

impl fmt::Display for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server_name, ca_file, client } = self;
        write!(f, "{{ verify = {}", client.verify().as_str())?;
        if let Some(name) = server_name {
            write!(f, ", server_name = {:?}", name.to_str())?;
        }
        if let Some(file) = ca_file {
            write!(f, ", ca_file = {:?}", one_line(&file.display().to_string()))?;
        }
        // A file may have others under the same name.
        if client.verify() != Verify::None {
            let authorities = client.authorities();
            write!(f, ", authorities = {} ({:08x})", authorities.count(), authorities.digest())?;
        }
        f.write_str(" }")
    }
}
