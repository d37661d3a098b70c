//! Version 1 of the PROXY protocol: one line of text.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::header::{Addresses, Family, Header, Refusal, received};
use super::progress::Progress;

/// The longest lines, with their CRLF.
const TCP4_MAX: usize = 56;
const TCP6_MAX: usize = 104;
const UNKNOWN_MAX: usize = 107;
/// The shortest line: `PROXY UNKNOWN`, CRLF.
pub(super) const LEN_MIN: usize = 15;

const UNKNOWN: &[u8] = b"PROXY UNKNOWN";
const CRLF: &[u8] = b"\r\n";

/// The lines that there are: how they begin, and the longest of each.
const LINES: [(&[u8], usize); 3] =
    [(b"PROXY TCP4 ", TCP4_MAX), (b"PROXY TCP6 ", TCP6_MAX), (UNKNOWN, UNKNOWN_MAX)];

/// Returns the header with which `bytes` begin.
pub fn parse(bytes: &[u8]) -> Progress<Header> {
    let fits = |start: &[u8]| start.iter().zip(bytes).all(|(one, other)| one == other);
    let Some(len_max) = LINES.iter().filter(|(start, _)| fits(start)).map(|(_, len_max)| *len_max).max()
    else {
        let is_none = !fits(b"PROXY ");
        return Progress::Refused(if is_none { Refusal::NoHeader } else { Refusal::Line });
    };
    // Whatever a line of an unknown family contains is ignored.
    let is_unknown = bytes.starts_with(UNKNOWN);
    let line = &bytes[..bytes.len().min(len_max)];
    let end = line.windows(CRLF.len()).position(|pair| pair == CRLF);
    if !is_unknown && line[..end.unwrap_or(line.len())].contains(&b'\n') {
        return Progress::Refused(Refusal::Line);
    }
    match end {
        None if line.len() == len_max => Progress::Refused(Refusal::LineTooLong),
        // At least the CRLF is missing, or its second half.
        None => Progress::More(
            (CRLF.len() - usize::from(line.ends_with(b"\r"))).max(LEN_MIN.saturating_sub(line.len())),
        ),
        Some(end) if is_unknown => Progress::Done(Header::Unknown, end + CRLF.len()),
        Some(end) => match addresses(&line[..end]) {
            Some(addresses) => Progress::Done(Header::Client(addresses), end + CRLF.len()),
            None => Progress::Refused(Refusal::Line),
        },
    }
}

/// Returns the addresses of a line without its CRLF: six words, one space between them.
fn addresses(line: &[u8]) -> Option<Addresses> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let mut next = || words.next();
    let (_proxy, family) = (next()?, next()?);
    let (source, destination) = (next()?, next()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if next().is_some() {
        return None;
    }
    let ips = match family {
        "TCP4" => both::<Ipv4Addr>(source, destination)?,
        "TCP6" => both::<Ipv6Addr>(source, destination)?,
        _ => return None,
    };
    let [source, destination] = ips;
    Some(Addresses {
        source: received(source, source_port),
        destination: received(destination, destination_port),
    })
}

fn both<A: FromStr + Into<IpAddr>>(source: &str, destination: &str) -> Option<[IpAddr; 2]> {
    Some([source.parse::<A>().ok()?.into(), destination.parse::<A>().ok()?.into()])
}

/// A decimal number without a sign and without leading zeros.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if is_plain { word.parse().ok() } else { None }
}

/// Writes the header of a connection. Fails only when `room` does.
pub fn write(room: &mut impl Write, addresses: Addresses) -> io::Result<()> {
    let [from, to] = addresses.ports();
    match addresses.in_one_family() {
        Family::V4([source, destination]) => {
            write!(room, "PROXY TCP4 {source} {destination} {from} {to}\r\n")
        }
        Family::V6([source, destination]) => {
            write!(room, "PROXY TCP6 {source} {destination} {from} {to}\r\n")
        }
    }
}

/// Writes the header of a connection that stands for no client. Fails only when `room` does.
pub fn write_unknown(room: &mut impl Write) -> io::Result<()> {
    room.write_all(UNKNOWN)?;
    room.write_all(CRLF)
}
