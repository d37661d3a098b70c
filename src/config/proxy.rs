//! The PROXY protocol of a pool, what its backends read before the first byte of a client, and of a listener, what its
//! clients must send first.

use std::fmt;
use std::net::IpAddr;

use crate::base::network::Network;

/// The clients of a listener that must begin with a header, and what becomes of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyIn {
    /// The balancers in front, by the address of their socket. At least one.
    pub from: Vec<Network>,
    /// The treatment of everyone else.
    pub others: Others,
}

/// The treatment of a client that is none of the balancers in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// It is reset at once, and nothing is read.
    Reject,
    /// It is served as a client without a header.
    Plain,
}

impl Others {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Reject, Self::Plain];

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Plain => "plain",
        }
    }
}

/// What a listener does with a client, by the address of its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Welcome {
    /// It is served.
    Plain,
    /// It must send a header first.
    Header,
    /// It is reset at once.
    Reject,
}

impl ProxyIn {
    /// Returns what becomes of a client with this address.
    pub fn welcome(&self, peer: IpAddr) -> Welcome {
        match self.others {
            _ if self.from.iter().any(|network| network.contains(peer)) => Welcome::Header,
            Others::Reject => Welcome::Reject,
            Others::Plain => Welcome::Plain,
        }
    }

    fn networks(&self) -> String {
        self.from.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for ProxyIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from={},others={}", self.networks(), self.others.as_str())
    }
}

/// Returns the keys of the headers that a listener reads; `None` for one that is not set.
pub(super) fn keys_in(proxy: Option<&ProxyIn>) -> [(&'static str, Option<String>); 2] {
    [
        ("proxy_protocol.from", proxy.map(ProxyIn::networks)),
        ("proxy_protocol.others", proxy.map(|proxy| proxy.others.as_str().to_owned())),
    ]
}

/// The header that a pool writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyOut {
    /// The version of the protocol.
    pub version: ProxyVersion,
    /// Whether it has the id of the session as a TLV.
    pub unique_id: bool,
    /// Whether it has its checksum as a TLV.
    pub crc32c: bool,
    /// Whether it has the name of the server that the client asks for as a TLV, where that is known.
    pub authority: bool,
    /// Whether it has the protocols that the client offers as a TLV, where they are known.
    pub alpn: bool,
    /// The header of health checks.
    pub check: ProxyCheck,
}

/// The version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, with TLVs.
    V2,
}

impl ProxyVersion {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// The header of health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyCheck {
    /// None: the checked port expects no header.
    None,
    /// One that stands for no client: LOCAL, in version 1 UNKNOWN.
    Local,
    /// One with the addresses of the check itself.
    Proxy,
}

impl ProxyCheck {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Local, Self::Proxy];

    /// Returns the default with that version: servers of version 1 may refuse UNKNOWN.
    pub const fn default_of(version: ProxyVersion) -> Self {
        match version {
            ProxyVersion::V1 => Self::Proxy,
            ProxyVersion::V2 => Self::Local,
        }
    }

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local => "local",
            Self::Proxy => "proxy",
        }
    }
}

/// The TLVs that can be configured.
pub(super) const TLVS: [&str; 4] = ["crc32c", "unique_id", "authority", "alpn"];

impl ProxyOut {
    /// Returns the header without TLVs.
    pub const fn new(version: ProxyVersion, check: ProxyCheck) -> Self {
        Self { version, unique_id: false, crc32c: false, authority: false, alpn: false, check }
    }

    pub(super) fn tlvs(&self) -> impl Iterator<Item = &'static str> {
        let is_set = [self.crc32c, self.unique_id, self.authority, self.alpn];
        TLVS.into_iter().zip(is_set).filter(|(_, is_set)| *is_set).map(|(tlv, _)| tlv)
    }
}

impl fmt::Display for ProxyOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.version.as_str())?;
        self.tlvs().try_for_each(|tlv| write!(f, "+{tlv}"))?;
        write!(f, ",check={}", self.check.as_str())
    }
}

/// Returns the keys of the header of a pool; `None` for one that is not set.
pub(super) fn keys(proxy: Option<&ProxyOut>) -> [(&'static str, Option<String>); 3] {
    let of = |read: &dyn Fn(&ProxyOut) -> String| proxy.map(read);
    [
        ("proxy_protocol.version", of(&|proxy| proxy.version.as_str().to_owned())),
        (
            "proxy_protocol.tlvs",
            of(&|proxy| proxy.tlvs().collect::<Vec<_>>().join(",")).filter(|tlvs| !tlvs.is_empty()),
        ),
        ("proxy_protocol.check", of(&|proxy| proxy.check.as_str().to_owned())),
    ]
}
