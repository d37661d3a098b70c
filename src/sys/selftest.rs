//! Reads settings of this machine and tries its abilities: for `l4lb doctor`.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use crate::config::model::Tcp;
use crate::sys::{pipe, sockets};

/// Bytes spliced by the test.
const BYTES: usize = 4096;
/// Limit for a loopback connection to deliver them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns the numbers of a kernel setting; `name` has slashes where sysctl(8) has dots.
pub fn kernel_setting(name: &str) -> io::Result<Vec<u64>> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(name))?;
    text.split_whitespace().map(|word| word.parse().map_err(io::Error::other)).collect()
}

/// Returns the ports that the kernel never uses for outgoing connections: net.ipv4.ip_local_reserved_ports.
pub fn reserved_ports() -> io::Result<Vec<RangeInclusive<u16>>> {
    port_ranges(&std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports")?)
}

/// Parses lists such as `8080,9148-9150`.
fn port_ranges(text: &str) -> io::Result<Vec<RangeInclusive<u16>>> {
    let port = |text: &str| text.parse::<u16>().map_err(io::Error::other);
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Ok(port(first)?..=port(last)?)
    };
    text.trim().split(',').filter(|text| !text.is_empty()).map(range).collect()
}

/// Fails when this process could not create files in a directory: access(2).
pub fn can_write_into(directory: &Path) -> io::Result<()> {
    Ok(access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

/// Moves bytes from one connection to another by splice(2), as the relay does. Fails when the kernel cannot.
pub fn try_splice() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let connect = || -> io::Result<(TcpStream, TcpStream)> {
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        near.set_read_timeout(Some(PATIENCE))?;
        far.set_read_timeout(Some(PATIENCE))?;
        Ok((near, far))
    };
    let ((mut client, source), (sink, mut backend)) = (connect()?, connect()?);
    let pipe = pipe::open(BYTES, BYTES)?;
    let sent = [0x6c; BYTES];
    client.write_all(&sent)?;
    let mut left = BYTES;
    while left > 0 {
        let filled = pipe::fill(&source, &pipe, left)?;
        if filled == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut held = filled;
        while held > 0 {
            held -= pipe::flush(&pipe, &sink, held)?;
        }
        left -= filled;
    }
    let mut received = [0; BYTES];
    backend.read_exact(&mut received)?;
    if received == sent { Ok(()) } else { Err(io::Error::other("other bytes came out than went in")) }
}

/// Opens two listening sockets for one address, as two workers do. Fails when the kernel cannot.
pub fn try_reuse_port() -> io::Result<()> {
    let tcp = Tcp { nodelay: true, keepalive: None, user_timeout: None };
    sockets::listen((Ipv4Addr::LOCALHOST, 0).into(), 2, 1, &tcp).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_passes_what_it_is_tried_in() {
        try_splice().unwrap();
        try_reuse_port().unwrap();
    }

    #[test]
    fn reserved_ports_are_single_or_from_to() {
        assert_eq!(port_ranges("\n").unwrap(), []);
        assert_eq!(port_ranges("8080,9148-9150\n").unwrap(), [8080..=8080, 9148..=9150]);
        assert!(port_ranges("80-").is_err() && port_ranges("65536").is_err());
        reserved_ports().unwrap();
    }

    #[test]
    fn a_setting_may_have_several_words_or_not_be_there() {
        assert_eq!(kernel_setting("net/ipv4/ip_local_port_range").unwrap().len(), 2);
        assert_eq!(kernel_setting("net/ipv4/no_such_setting").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
