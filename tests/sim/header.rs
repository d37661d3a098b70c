//! The headers of the PROXY protocol, as the backends of a pool expect them; written without the code that is tested.
//!
//! Case 124.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use l4lb::config::proxy::{ProxyOut, ProxyVersion};
use l4lb::sys::Token;

use crate::greeting::{DESTINATION, Kind};
use crate::network::Net;
use crate::random::to_usize;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Our address of a connection. Irrelevant to the net, whose connections have ids.
pub(crate) fn local_address(id: usize) -> SocketAddr {
    SocketAddr::V4(local_v4(id))
}

fn local_v4(id: usize) -> SocketAddrV4 {
    let port = u16::try_from(1 + id % usize::from(u16::MAX)).expect("it is no more");
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

/// The header for a client with that address.
fn of_client(version: ProxyVersion, source: SocketAddr, ours: SocketAddrV4) -> Vec<u8> {
    let SocketAddr::V4(source) = source else { panic!("clients have IPv4") };
    match version {
        ProxyVersion::V1 => {
            let (ip, our_ip) = (source.ip(), ours.ip());
            format!("PROXY TCP4 {ip} {our_ip} {} {}\r\n", source.port(), ours.port()).into_bytes()
        }
        ProxyVersion::V2 => [
            SIGNATURE,
            &[0x21, 0x11, 0, 12],
            &source.ip().octets(),
            &ours.ip().octets(),
            &source.port().to_be_bytes(),
            &ours.port().to_be_bytes(),
        ]
        .concat(),
    }
}

/// The header of the check of that port.
fn of_check(version: ProxyVersion, id: usize, port: u16) -> Vec<u8> {
    let ours = local_v4(id);
    match version {
        ProxyVersion::V1 => {
            format!("PROXY TCP4 {} 127.0.0.1 {} {port}\r\n", ours.ip(), ours.port()).into_bytes()
        }
        ProxyVersion::V2 => [SIGNATURE, &[0x20, 0, 0, 0]].concat(),
    }
}

impl Net {
    /// From now on the peer of this connection expects the header of its pool.
    pub(crate) fn expect_header(&mut self, id: usize, token: Token) {
        let Some(port) = self.conns[id].dialed_port else { return };
        let request = match (token, self.conns[id].partner) {
            (Token::Session(..), Some(client)) => self.begin_negotiation(id, client),
            _ => Vec::new(),
        };
        let header = self.proxy.map_or(Vec::new(), |proxy| self.proxy_header(id, token, port, proxy));
        self.conns[id].header = [header, request].concat();
    }

    fn proxy_header(
        &self,
        id: usize,
        token: Token,
        port: u16,
        ProxyOut { version, .. }: ProxyOut,
    ) -> Vec<u8> {
        match token {
            Token::Session(..) => {
                let client = self.conns[id].partner.expect("a backend has a client");
                let is_named = self.conns[client].greeting.kind == Kind::Client;
                let ours = if is_named {
                    SocketAddrV4::new(DESTINATION.0.into(), DESTINATION.1)
                } else {
                    local_v4(client)
                };
                of_client(version, self.reported_address(client), ours)
            }
            Token::Probe(_) => of_check(version, id, port),
            Token::Agent(_) | Token::Listener(_) | Token::Wake => Vec::new(),
        }
    }

    /// The part of `bytes`, written from `start` on, that belongs to the header must be that. Returns the rest, and
    /// where it begins in its stream.
    pub(crate) fn check_header<'b>(&self, id: usize, start: u64, bytes: &'b [u8]) -> (u64, &'b [u8]) {
        let header = &self.conns[id].header;
        let Some(rest) = header.get(to_usize(start)..) else { return (start - header.len() as u64, bytes) };
        let (ours, behind) = bytes.split_at(bytes.len().min(rest.len()));
        assert_eq!(ours, &rest[..ours.len()], "#{id}: its header from byte {start} on");
        (0, behind)
    }
}
