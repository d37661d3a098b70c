//! Renders the header of the PROXY protocol as a pool wants it, for sessions and for health checks.

use std::io::{Cursor, Write};

use crate::config::proxy::{ProxyCheck, ProxyOut, ProxyVersion};
use crate::messages::query::SessionId;
use crate::preread::proxy_v2::Tlvs;
use crate::preread::{Addresses, Alpn, proxy_v1, proxy_v2};

/// More than the longest header: 52 bytes and the TLVs of version 2, 107 bytes of version 1.
pub(super) const LEN_MAX: usize = 1024;
/// A longer list of protocols is left out. Clients offer a few.
pub(super) const ALPN_MAX: usize = 512;
/// Three numbers of at most ten digits each, two points.
const ID_LEN_MAX: usize = 32;

/// What a client has asked for, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hello<'a> {
    pub(super) server_name: Option<&'a str>,
    pub(super) alpn: Option<&'a Alpn>,
}

/// Writes the header of a session into `room`, which has at least [`LEN_MAX`] bytes. Returns its length.
pub(super) fn write(
    room: &mut [u8],
    proxy: &ProxyOut,
    addresses: Addresses,
    id: SessionId,
    hello: Hello<'_>,
) -> u16 {
    let mut text = [0; ID_LEN_MAX];
    let id = proxy.unique_id.then(|| {
        let mut cursor = Cursor::new(&mut text[..]);
        write!(cursor, "{id}").expect("three numbers fit");
        let len = usize::try_from(cursor.position()).expect("it is within the array");
        &text[..len]
    });
    let authority = hello.server_name.filter(|_| proxy.authority);
    let alpn = hello.alpn.filter(|alpn| proxy.alpn && alpn.as_list().len() <= ALPN_MAX);
    render(room, proxy, Some(addresses), Tlvs { authority, alpn, unique_id: id, crc32c: proxy.crc32c })
}

/// Writes the header of a check into `room`, which has at least [`LEN_MAX`] bytes. Returns its length: 0 where checks
/// have none. `addresses` are those of the check.
pub(super) fn write_of_check(room: &mut [u8], proxy: &ProxyOut, addresses: Option<Addresses>) -> u16 {
    let tlvs = Tlvs { crc32c: proxy.crc32c, ..Tlvs::default() };
    match proxy.check {
        ProxyCheck::None => 0,
        ProxyCheck::Local => render(room, proxy, None, tlvs),
        ProxyCheck::Proxy => render(room, proxy, addresses, tlvs),
    }
}

fn render(room: &mut [u8], proxy: &ProxyOut, addresses: Option<Addresses>, tlvs: Tlvs<'_>) -> u16 {
    let len = match proxy.version {
        ProxyVersion::V1 => {
            let mut line = Cursor::new(&mut *room);
            let written = match addresses {
                Some(addresses) => proxy_v1::write(&mut line, addresses),
                None => proxy_v1::write_unknown(&mut line),
            };
            written.map(|()| usize::try_from(line.position()).unwrap_or(usize::MAX))
        }
        ProxyVersion::V2 => proxy_v2::write(room, addresses, tlvs),
    };
    let len = len.expect("the room holds the longest header");
    u16::try_from(len).expect("the longest header is short")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slots::Key;
    use crate::preread::client_hello::NAME_MAX;

    #[test]
    fn the_longest_header_fits() {
        let end = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535".parse().unwrap();
        let longest = Addresses { source: end, destination: end };
        let key = Key { index: u32::MAX, generation: u32::MAX };
        let id = SessionId { worker: u32::MAX, key };
        for version in ProxyVersion::ALL {
            let none = ProxyOut::new(version, ProxyCheck::Proxy);
            let proxy = ProxyOut { unique_id: true, crc32c: true, authority: true, alpn: true, ..none };
            let name = "x".repeat(NAME_MAX);
            let list = |len| Alpn::from_list([&[u8::MAX][..], &[b'x'; 255]].concat().repeat(len)).unwrap();
            let mut room = [0; LEN_MAX];
            let mut len_with = |alpn: &Alpn| {
                let hello = Hello { server_name: Some(&name), alpn: Some(alpn) };
                usize::from(write(&mut room, &proxy, longest, id, hello))
            };
            let (most, more) = (len_with(&list(2)), len_with(&list(3)));
            assert!(
                most < LEN_MAX && (version == ProxyVersion::V1 || most == more + ALPN_MAX + 5),
                "{most}, {more}"
            );
        }
    }

    #[test]
    fn a_check_is_local_or_shows_its_own_addresses_or_has_no_header() {
        let pair =
            Addresses { source: ([127, 0, 0, 1], 4000).into(), destination: ([127, 0, 0, 2], 80).into() };
        let of = |version, check| {
            let proxy =
                ProxyOut { unique_id: true, authority: true, alpn: true, ..ProxyOut::new(version, check) };
            let mut room = [0; LEN_MAX];
            let len = write_of_check(&mut room, &proxy, Some(pair));
            room[..usize::from(len)].to_vec()
        };
        assert_eq!(of(ProxyVersion::V2, ProxyCheck::None), b"");
        assert_eq!(of(ProxyVersion::V2, ProxyCheck::Local), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        assert_eq!(of(ProxyVersion::V1, ProxyCheck::Local), b"PROXY UNKNOWN\r\n");
        assert_eq!(of(ProxyVersion::V1, ProxyCheck::Proxy), b"PROXY TCP4 127.0.0.1 127.0.0.2 4000 80\r\n");
    }
}
