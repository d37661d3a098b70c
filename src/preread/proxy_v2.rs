//! Version 2 of the PROXY protocol: a binary header, with TLVs behind its addresses.

use std::io::{self, Cursor, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use crc::{CRC_32_ISCSI, Crc};

use super::alpn::Alpn;
use super::header::{Addresses, Family, HEADER_MAX, Header, Refusal, received};
use super::progress::Progress;

/// The first bytes. No text and no TLS hello begins so.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length of the rest.
const FIXED_LEN: usize = SIGNATURE.len() + 4;
const LENGTH_AT: usize = FIXED_LEN - 2;

const VERSION: u8 = 0x20;
const LOCAL: u8 = VERSION;
const PROXY: u8 = VERSION | 1;

const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const TCP4_LEN: usize = 2 * (4 + 2);
const TCP6_LEN: usize = 2 * (16 + 2);
const UNIX_LEN: usize = 2 * 108;

const TLV_HEAD: usize = 3;
const TYPE_ALPN: u8 = 0x01;
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_UNIQUE_ID: u8 = 0x05;
const CRC_LEN: usize = 4;

static CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Returns the header with which `bytes` begin.
pub fn parse(bytes: &[u8]) -> Progress<Header> {
    if SIGNATURE.iter().zip(bytes).any(|(one, other)| one != other) {
        return Progress::Refused(Refusal::NoHeader);
    }
    let (command, family) = (bytes.get(SIGNATURE.len()), bytes.get(SIGNATURE.len() + 1));
    if command.is_some_and(|command| ![LOCAL, PROXY].contains(command)) {
        return Progress::Refused(Refusal::Command);
    }
    let is_local = command == Some(&LOCAL);
    // What a LOCAL header says of its family is ignored, even what does not exist.
    let addresses_len = match family.map(|&family| addresses_len(family)) {
        Some(Some(len)) => len,
        Some(None) if !is_local => return Progress::Refused(Refusal::Family),
        Some(None) | None => 0,
    };
    let Some(fixed) = bytes.first_chunk::<FIXED_LEN>() else {
        return Progress::More(FIXED_LEN - bytes.len());
    };
    let [.., family, high, low] = *fixed;
    let len = FIXED_LEN + usize::from(u16::from_be_bytes([high, low]));
    if len > HEADER_MAX {
        return Progress::Refused(Refusal::TooLong);
    }
    if len < FIXED_LEN + addresses_len && !is_local {
        return Progress::Refused(Refusal::TooShort);
    }
    let Some(header) = bytes.get(..len) else { return Progress::More(len - bytes.len()) };
    let contents = match family {
        _ if is_local => Header::Local,
        TCP4 => Header::Client(addresses_of_tcp4(header)),
        TCP6 => Header::Client(addresses_of_tcp6(header)),
        _ => Header::Unknown,
    };
    let is_ignored = is_local || family == UNSPECIFIED;
    // A sender of LOCAL may leave the addresses out, whatever the family, or send anything else.
    let has_addresses = checksum_of(header, FIXED_LEN + addresses_len);
    let found =
        if is_local { has_addresses.or_else(|_| checksum_of(header, FIXED_LEN)) } else { has_addresses };
    match found {
        Ok(Some(at)) if !is_right(header, at) => Progress::Refused(Refusal::Checksum),
        Ok(_) => Progress::Done(contents, len),
        Err(_) if is_ignored => Progress::Done(contents, len),
        Err(refusal) => Progress::Refused(refusal),
    }
}

/// Returns the length of the addresses; `None` for a family or a protocol that does not exist.
fn addresses_len(family: u8) -> Option<usize> {
    match family {
        UNSPECIFIED => Some(0),
        TCP4 | 0x12 => Some(TCP4_LEN),
        TCP6 | 0x22 => Some(TCP6_LEN),
        0x31 | 0x32 => Some(UNIX_LEN),
        _ => None,
    }
}

fn addresses_of_tcp4(header: &[u8]) -> Addresses {
    let ip = |at| Ipv4Addr::from(array::<4>(header, at));
    let port = |at| u16::from_be_bytes(array(header, at));
    Addresses {
        source: received(ip(FIXED_LEN), port(FIXED_LEN + 8)),
        destination: received(ip(FIXED_LEN + 4), port(FIXED_LEN + 10)),
    }
}

fn addresses_of_tcp6(header: &[u8]) -> Addresses {
    let ip = |at| Ipv6Addr::from(array::<16>(header, at));
    let port = |at| u16::from_be_bytes(array(header, at));
    Addresses {
        source: received(ip(FIXED_LEN), port(FIXED_LEN + 32)),
        destination: received(ip(FIXED_LEN + 16), port(FIXED_LEN + 34)),
    }
}

/// Returns the bytes at a place that was checked to be there.
fn array<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let bytes = header.get(at..).and_then(|rest| rest.first_chunk());
    *bytes.expect("the length of the addresses was checked")
}

/// Walks the TLVs from `at` to the end of the header. Returns where the checksum is, if there is one.
fn checksum_of(header: &[u8], mut at: usize) -> Result<Option<usize>, Refusal> {
    let mut found = None;
    if at > header.len() {
        return Err(Refusal::Tlv);
    }
    while at < header.len() {
        let head = header.get(at..at + TLV_HEAD).ok_or(Refusal::Tlv)?;
        let value = at + TLV_HEAD;
        let len = usize::from(u16::from_be_bytes([head[1], head[2]]));
        at = value + len;
        if at > header.len() {
            return Err(Refusal::Tlv);
        }
        if head[0] == TYPE_CRC32C && (len != CRC_LEN || found.replace(value).is_some()) {
            return Err(Refusal::Tlv);
        }
    }
    Ok(found)
}

/// Returns whether the checksum at that place is that of the header, in which it counts as zero.
fn is_right(header: &[u8], at: usize) -> bool {
    let (before, rest) = header.split_at(at);
    let (checksum, behind) = rest.split_at(CRC_LEN);
    checksum == checksum_with([before, &[0; CRC_LEN], behind]).to_be_bytes()
}

fn checksum_with(parts: [&[u8]; 3]) -> u32 {
    let mut digest = CASTAGNOLI.digest();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()
}

/// The TLVs of a header that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tlvs<'a> {
    /// The name of the server that the client asks for.
    pub authority: Option<&'a str>,
    /// The protocols that it offers.
    pub alpn: Option<&'a Alpn>,
    /// The id of the session.
    pub unique_id: Option<&'a [u8]>,
    /// Whether a checksum of the header is the last of them.
    pub crc32c: bool,
}

/// Writes a header into `room` and returns its length; with no addresses it is LOCAL, which stands for no client. Fails
/// when `room` is too small.
pub fn write(room: &mut [u8], addresses: Option<Addresses>, tlvs: Tlvs<'_>) -> io::Result<usize> {
    let mut header = Cursor::new(&mut *room);
    header.write_all(&SIGNATURE)?;
    match addresses.map(|addresses| (addresses.in_one_family(), addresses.ports())) {
        None => header.write_all(&[LOCAL, UNSPECIFIED, 0, 0])?,
        Some((Family::V4(ips), ports)) => {
            header.write_all(&[PROXY, TCP4, 0, 0])?;
            ips.iter().try_for_each(|ip| header.write_all(&ip.octets()))?;
            ports.iter().try_for_each(|port| header.write_all(&port.to_be_bytes()))?;
        }
        Some((Family::V6(ips), ports)) => {
            header.write_all(&[PROXY, TCP6, 0, 0])?;
            ips.iter().try_for_each(|ip| header.write_all(&ip.octets()))?;
            ports.iter().try_for_each(|port| header.write_all(&port.to_be_bytes()))?;
        }
    }
    if let Some(authority) = tlvs.authority {
        tlv(&mut header, TYPE_AUTHORITY, &[authority.as_bytes()])?;
    }
    if let Some(alpn) = tlvs.alpn {
        // The value of the extension of TLS, as it is sent: the list behind its length.
        let list = alpn.as_list();
        let len = u16::try_from(list.len()).map_err(io::Error::other)?;
        tlv(&mut header, TYPE_ALPN, &[&len.to_be_bytes(), list])?;
    }
    if let Some(id) = tlvs.unique_id {
        tlv(&mut header, TYPE_UNIQUE_ID, &[id])?;
    }
    if tlvs.crc32c {
        tlv(&mut header, TYPE_CRC32C, &[&[0; CRC_LEN]])?;
    }
    let len = usize::try_from(header.position()).map_err(io::Error::other)?;
    let rest = u16::try_from(len - FIXED_LEN).map_err(io::Error::other)?;
    room[LENGTH_AT..FIXED_LEN].copy_from_slice(&rest.to_be_bytes());
    if tlvs.crc32c {
        let checksum = CASTAGNOLI.checksum(&room[..len]);
        room[len - CRC_LEN..len].copy_from_slice(&checksum.to_be_bytes());
    }
    Ok(len)
}

/// Writes a TLV with a value of these parts.
fn tlv(header: &mut impl Write, kind: u8, value: &[&[u8]]) -> io::Result<()> {
    let len = u16::try_from(value.iter().map(|part| part.len()).sum::<usize>()).map_err(io::Error::other)?;
    header.write_all(&[kind])?;
    header.write_all(&len.to_be_bytes())?;
    value.iter().try_for_each(|part| header.write_all(part))
}
