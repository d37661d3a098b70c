//! A source of backends that come and go by themselves: what is asked, and what is believed of the answers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::address::Target;
use super::cluster::Cluster;
use super::model::health::BackendCheck;
use super::server_tls::ServerTls;
use super::units::show_duration;
use crate::base::address::Address;

/// A source of backends of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discover {
    /// The kind of source, with the settings of that kind.
    pub kind: Kind,
    /// How long backends stay while their source only fails; `None` is for ever.
    pub stale: Option<Duration>,
    /// Consecutive answers without a backend that do not remove it yet.
    pub obsolete: u32,
    /// Answers in a row by which there is none, until that is believed.
    pub negatives: u32,
    /// No answer and no failure leaves fewer backends.
    pub min_backends: usize,
    /// What the pool has of it before its first answer.
    pub initial: Initial,
    /// Time between answers; `None` takes what the answers say of it.
    pub interval: Option<Duration>,
}

/// Host names that are resolved at a time, of all pools: each takes a few descriptors, and a file may have thousands.
pub const HOSTS_ASKED: usize = 16;

/// The kind of a source, with the settings of that kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records of name servers.
    Dns(Dns),
    /// A file.
    File(ListFile),
    /// An HTTP server.
    Http(Http),
    /// The host name of a `[[pool.backend]]`, as this machine resolves it.
    Host(Host),
    /// Keys of etcd.
    Etcd(Etcd),
}

/// A `[[pool.backend]]` with a host name in `address`: each address of the host is a backend with these settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name of the `[[pool.backend]]`.
    pub backend: String,
    /// The host name as written.
    pub name: String,
    /// Where all addresses are dialed.
    pub port: u16,
    /// The weight of each address.
    pub weight: u16,
    /// The tier of each address.
    pub priority: u8,
    /// What is special about the checks of each address.
    pub check: BackendCheck,
}

/// A question to name servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The name that is asked for. With a dot at its end it is asked for as it stands, in no search list.
    pub name: String,
    /// The type of record that the source queries.
    pub record: Record,
    /// The name servers; those of resolv.conf(5) if there are none.
    pub resolvers: Vec<SocketAddr>,
    /// Which addresses of a host are dialed.
    pub prefer: Prefer,
}

/// A file that lists backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFile {
    /// Where it is.
    pub path: PathBuf,
    /// How it is written.
    pub format: Format,
}

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A list of objects.
    Json,
    /// `[[backend]]` for each; `backend = []` for none.
    Toml,
}

/// A question to an HTTP server that lists backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The address of the list.
    pub url: Url,
    /// How it is spoken to over TLS, with `https://`.
    pub tls: Option<ServerTls>,
    /// The file of the token that the server wants to see.
    pub token_file: Option<PathBuf>,
}

/// An `http://` or `https://` URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host and port as written.
    pub authority: String,
    /// Whether it is over TLS.
    pub is_https: bool,
    /// Where the server is: host and port.
    pub address: Target,
    /// Path and query.
    pub path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// The keys of etcd that begin with a prefix: a backend each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// What they begin with; ends with a slash.
    pub prefix: String,
    /// The cluster that has them.
    pub cluster: Cluster,
    /// What becomes of a backend whose key has gone.
    pub when_absent: WhenAbsent,
}

/// What becomes of a backend whose key has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAbsent {
    /// It leaves the pool.
    Remove,
    /// It leaves once its checks say that it is down.
    KeepWhileHealthy,
}

impl WhenAbsent {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Remove, Self::KeepWhileHealthy];

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::KeepWhileHealthy => "keep_while_healthy",
        }
    }
}

/// The type of record that a source queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// The addresses of the name, each with this port.
    Address {
        /// Where all of them are dialed.
        port: u16,
    },
    /// RFC 2782: hosts with ports, priorities and weights.
    Service,
}

/// Which addresses of a host are dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// Those of IPv4; those of IPv6 where there are none.
    Ipv4,
    /// The other way round.
    Ipv6,
    /// All of them; those of IPv6 only where there is a route to them.
    Both,
}

impl Prefer {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Ipv4, Self::Ipv6, Self::Both];

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "4",
            Self::Ipv6 => "6",
            Self::Both => "both",
        }
    }
}

/// What a pool has of a source before the first answer in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// Nothing.
    Empty,
    /// What the source listed last, kept over a restart.
    StateFile,
    /// Without an answer there is no start, and no reload that brings the source.
    Fail,
}

impl Initial {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Empty, Self::StateFile, Self::Fail];

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::StateFile => "state_file",
            Self::Fail => "fail",
        }
    }
}

/// A key and its value; `None` where it is not set.
type Setting = (&'static str, Option<String>);

impl Discover {
    /// Returns a source with everything else as it is by default.
    pub fn new(kind: Kind) -> Self {
        let (obsolete, interval) = match kind {
            Kind::Dns(_) | Kind::Host(_) => (1, None),
            // What it lists is what its author means.
            Kind::File(_) => (0, Some(LIST_INTERVAL)),
            Kind::Http(_) => (1, Some(LIST_INTERVAL)),
            // What it lists is what holds for all balancers.
            Kind::Etcd(_) => (0, Some(PROGRESS_INTERVAL)),
        };
        let initial = Initial::Empty;
        Self { kind, stale: None, obsolete, negatives: 3, min_backends: 0, initial, interval }
    }

    /// Returns the `[[pool.backend]]` that it is in the file, if it is one.
    pub fn as_host(&self) -> Option<&Host> {
        match &self.kind {
            Kind::Host(host) => Some(host),
            Kind::Dns(_) | Kind::File(_) | Kind::Http(_) | Kind::Etcd(_) => None,
        }
    }

    /// Returns its name in logs, metrics and the API, which also identifies it across a reload: what is asked, without
    /// the keys that say how.
    pub fn label(&self) -> String {
        match &self.kind {
            Kind::Dns(dns) => dns.label(),
            Kind::File(file) => format!("file:{}", file.path.display()),
            Kind::Http(http) => http.url.to_string(),
            Kind::Host(Host { name, port, .. }) => host_label(name, port),
            Kind::Etcd(etcd) => format!("etcd:{}", etcd.prefix),
        }
    }

    /// Returns what becomes of a backend that the source no longer lists.
    pub fn when_absent(&self) -> WhenAbsent {
        match &self.kind {
            Kind::Etcd(etcd) => etcd.when_absent,
            Kind::Dns(_) | Kind::File(_) | Kind::Http(_) | Kind::Host(_) => WhenAbsent::Remove,
        }
    }

    /// The keys beside those that it is known by, in the order of the file.
    pub(super) fn keys(&self) -> Vec<Setting> {
        let Self { kind, stale, obsolete, negatives, min_backends, initial, interval } = self;
        let mut keys = match kind {
            Kind::Dns(dns) => dns.keys(),
            Kind::File(_) => Vec::new(),
            Kind::Http(Http { url: _, tls, token_file }) => vec![
                ("tls", tls.as_ref().map(ServerTls::to_string)),
                ("token_file", token_file.as_ref().map(|path| path.display().to_string())),
            ],
            // The others cannot be set.
            Kind::Host(host) => return host.keys(),
            Kind::Etcd(etcd) => etcd.keys(),
        };
        keys.push(("stale", Some(stale.map_or_else(|| FOREVER.to_owned(), show_duration))));
        match kind {
            Kind::Dns(_) | Kind::Http(_) | Kind::Host(_) => keys.extend([
                ("obsolete", Some(obsolete.to_string())),
                ("negatives", Some(negatives.to_string())),
            ]),
            Kind::File(_) | Kind::Etcd(_) => {}
        }
        keys.extend([
            ("min_backends", Some(min_backends.to_string())),
            ("initial", Some(initial.as_str().to_owned())),
            ("interval", interval.map(show_duration)),
        ]);
        keys
    }
}

impl Host {
    /// Returns the host with its port: what the name resolves to is dialed there.
    pub fn target(&self) -> String {
        format!("{}:{}", self.name, self.port)
    }

    /// Returns the name of the backend at `address`, whatever other addresses the host has: NAME@IP.
    pub fn name_at(&self, address: &Address) -> String {
        let Address::Ip(ip) = address;
        format!("{}@{}", self.backend, ip.ip())
    }

    fn keys(&self) -> Vec<Setting> {
        let Self { backend: _, name: _, port: _, weight, priority, check } = self;
        let own =
            [("address", self.target()), ("weight", weight.to_string()), ("priority", priority.to_string())];
        own.into_iter().map(|(key, value)| (key, Some(value))).chain(check.keys()).collect()
    }
}

/// How the label of a host name begins.
pub const HOST_LABEL: &str = "host:";

/// Returns the label of the source that a host name is.
pub(super) fn host_label(name: &str, port: impl fmt::Display) -> String {
    format!("{HOST_LABEL}{}:{port}", name.trim_end_matches('.').to_ascii_lowercase())
}

/// Returns the NAME of NAME@IP, as the address of a host is called; `None` for the name of any other backend, which has
/// no `@`.
pub fn host_of(backend: &str) -> Option<&str> {
    backend.rsplit_once('@').map(|(name, _)| name)
}

impl Dns {
    /// Returns a question with everything else as it is by default.
    pub fn new(name: String, record: Record) -> Self {
        Self { name, record, resolvers: Vec::new(), prefer: Prefer::Ipv4 }
    }

    fn label(&self) -> String {
        let name = self.name.trim_end_matches('.');
        match self.record {
            Record::Address { port } => format!("dns:{name}:{port}"),
            Record::Service => format!("dns-srv:{name}"),
        }
    }

    fn keys(&self) -> Vec<Setting> {
        let Self { name: _, record: _, resolvers, prefer } = self;
        let listed: Vec<String> = resolvers.iter().map(SocketAddr::to_string).collect();
        vec![
            ("resolver", Some(listed.join(",")).filter(|_| !resolvers.is_empty())),
            ("prefer", Some(prefer.as_str().to_owned())),
        ]
    }
}

impl Etcd {
    fn keys(&self) -> Vec<Setting> {
        let Self { prefix: _, cluster, when_absent } = self;
        let mut keys = cluster.keys();
        keys.push(("when_absent", Some(when_absent.as_str().to_owned())));
        keys
    }
}

impl fmt::Display for Discover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        for (key, value) in self.keys() {
            value.map_or(Ok(()), |value| write!(f, " {key}={value}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(Dns { name, record, .. }) => {
                write!(f, "type=dns name={name}")?;
                match record {
                    Record::Address { port } => write!(f, " record=a port={port}"),
                    Record::Service => write!(f, " record=srv"),
                }
            }
            Self::File(ListFile { path, format: _ }) => write!(f, "type=file path={}", path.display()),
            Self::Http(Http { url, .. }) => write!(f, "type=http url={url}"),
            Self::Host(host) => write!(f, "{}:", host.backend),
            Self::Etcd(Etcd { prefix, .. }) => write!(f, "type=etcd prefix={prefix}"),
        }
    }
}

pub(super) const FOREVER: &str = "forever";
/// Time between two looks at a file or a URL.
const LIST_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two questions whether a watch is still alive.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
