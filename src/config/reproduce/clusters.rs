//! The tables that name a cluster of etcd, and how texts and paths are written in any table.

use std::path::Path;

use crate::config::announce::Announce;
use crate::config::cluster::Cluster;
use crate::config::fleet::Fleet;
use crate::config::server_tls::ServerTls;
use crate::config::units::show_duration;
use crate::config::written;

pub(super) fn announce(announce: &Announce) -> written::Announce {
    let Announce { cluster, prefix, domain, name, addresses, ttl, lease, only_with_backends } = announce;
    let Cluster { endpoints, tls, login } = cluster;
    written::Announce {
        domain: domain.clone(),
        name: name.clone(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        prefix: literal(prefix),
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        tls: tls.as_ref().map(server_tls),
        user: login.as_ref().map(|(user, _)| literal(user)),
        password_file: login.as_ref().map(|(_, file)| path(file)),
        ttl: show_duration(*ttl),
        lease: show_duration(*lease),
        only_with_backends: *only_with_backends,
    }
}

pub(super) fn fleet(fleet: &Fleet) -> written::Fleet {
    let Fleet { cluster: Cluster { endpoints, tls, login }, prefix, name, lease, leave_when_alone } = fleet;
    written::Fleet {
        name: literal(name),
        prefix: literal(prefix),
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        tls: tls.as_ref().map(server_tls),
        user: login.as_ref().map(|(user, _)| literal(user)),
        password_file: login.as_ref().map(|(_, file)| path(file)),
        lease: show_duration(*lease),
        leave_when_alone: *leave_when_alone,
    }
}

pub(super) fn server_tls(tls: &ServerTls) -> written::Tls {
    let ServerTls { server_name, ca_file, client } = tls;
    written::Tls {
        server_name: server_name.as_ref().map(|name| literal(&name.to_str())),
        verify: client.verify().as_str(),
        ca_file: ca_file.as_deref().map(path),
        alpn: None,
        expires_within: None,
    }
}

pub(super) fn path(path: &Path) -> String {
    literal(&path.to_string_lossy())
}

/// Returns `text` such that no part of it is taken for a variable.
pub(super) fn literal(text: &str) -> String {
    text.replace("${", "$${")
}
