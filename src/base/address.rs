//! Where a peer is dialed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where a peer is dialed. There are IP addresses only so far. Whatever needs one takes it apart with
/// `let Address::Ip(ip) = …`, which another kind of address, like the path of a Unix socket, makes an error of the
/// compiler: nothing dials, compares or shows it as what it is not. Not `Copy`, because a path is not either.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Address {
    fn from(address: (I, u16)) -> Self {
        Self::Ip(address.into())
    }
}
