//! The PROXY protocol of a pool: what its backends read before the first byte of a client.

use std::fmt;

/// The header that a pool writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyOut {
    /// The version of the protocol.
    pub version: ProxyVersion,
    /// Whether it has the id of the session as a TLV.
    pub unique_id: bool,
    /// Whether it has its checksum as a TLV.
    pub crc32c: bool,
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
pub(super) const TLVS: [&str; 2] = ["crc32c", "unique_id"];

impl ProxyOut {
    pub(super) fn tlvs(&self) -> impl Iterator<Item = &'static str> {
        TLVS.into_iter().zip([self.crc32c, self.unique_id]).filter(|(_, is_set)| *is_set).map(|(tlv, _)| tlv)
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
