//! A header of the PROXY protocol of either version: what it says, and why it may be refused.

use std::net::{IpAddr, SocketAddr};

/// The longest header that is read, with all its TLVs. A sender that announces more is refused at once.
pub const HEADER_MAX: usize = 4096;

/// The contents of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A client of the sender, with its addresses.
    Client(Addresses),
    /// A client with addresses that the sender does not know, or that are not of TCP: those of the socket count.
    Unknown,
    /// No client: a check by the sender. The addresses of the socket count.
    Local,
}

/// The two ends of a client's connection to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// The address that it connected to.
    pub destination: SocketAddr,
}

impl Addresses {
    /// Returns both ends in one family: as IPv6, IPv4 mapped into it, if only one of them is IPv4.
    pub(super) fn in_one_family(self) -> Family {
        match (self.source.ip().to_canonical(), self.destination.ip().to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Family::V4([source, destination]),
            (source, destination) => Family::V6([source, destination].map(|ip| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            })),
        }
    }

    /// Returns the two ports, that of the source first.
    pub(super) fn ports(self) -> [u16; 2] {
        [self.source.port(), self.destination.port()]
    }
}

/// Source and destination.
pub(super) enum Family {
    V4([std::net::Ipv4Addr; 2]),
    V6([std::net::Ipv6Addr; 2]),
}

/// Returns an address of a header: an IPv4 client that the sender has seen on an IPv6 socket is an IPv4 client.
pub(super) fn received(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into().to_canonical(), port)
}

/// The reason why bytes are no header that can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A byte fits the beginning of neither version.
    NoHeader,
    /// Version 1: the line is not as the protocol has it.
    Line,
    /// Version 1: no end of line within the longest possible line.
    LineTooLong,
    /// Version 2: another version, or a command that is neither LOCAL nor PROXY.
    Command,
    /// Version 2: an address family or a transport protocol that does not exist.
    Family,
    /// Version 2: shorter than the addresses of its family.
    TooShort,
    /// Version 2: longer than [`HEADER_MAX`].
    TooLong,
    /// Version 2: a TLV that does not end where the header does, or one of a wrong length.
    Tlv,
    /// Version 2: the checksum does not match.
    Checksum,
}

impl Refusal {
    /// Returns it in plain words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoHeader => "the first bytes are no PROXY header",
            Self::Line => "the line of PROXY version 1 is malformed",
            Self::LineTooLong => "the line of PROXY version 1 does not end",
            Self::Command => "unknown version or command of PROXY version 2",
            Self::Family => "unknown address family or transport of PROXY version 2",
            Self::TooShort => "the header of PROXY version 2 is shorter than its addresses",
            Self::TooLong => "the header of PROXY version 2 is too long",
            Self::Tlv => "a TLV of PROXY version 2 has a wrong length",
            Self::Checksum => "the checksum of PROXY version 2 does not match",
        }
    }
}
