//! Finds the process that holds an address in use.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process, all_processes};

/// Returns the processes that listen on the port of `bind`, as "name (pid 12)"; if this user may not see them, the
/// command that finds out.
pub fn holder_of(bind: SocketAddr) -> String {
    let holders: Vec<String> = holders(bind).iter().map(describe).collect();
    if holders.is_empty() {
        let port = bind.port();
        return format!("a process that this user may not see; `ss -ltnp sport = :{port}` as root names it");
    }
    holders.join(", ")
}

/// Returns the error of a bind(2) to `bind`, with the holder of the address where it is known.
pub fn name_holder(bind: SocketAddr, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    io::Error::new(error.kind(), format!("address in use, held by {}", holder_of(bind)))
}

/// Returns the processes that listen on the port of `bind`, as far as this user may see them.
pub(super) fn holders(bind: SocketAddr) -> Vec<Process> {
    let entries = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
    let inodes: HashSet<u64> =
        entries.filter(|entry| listens_on(entry, bind.port())).map(|e| e.inode).collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    let Ok(processes) = all_processes() else { return Vec::new() };
    processes.flatten().filter(|process| has_socket(process, &inodes)).collect()
}

fn listens_on(entry: &TcpNetEntry, port: u16) -> bool {
    entry.state == TcpState::Listen && entry.local_address.port() == port
}

fn has_socket(process: &Process, inodes: &HashSet<u64>) -> bool {
    process.fd().is_ok_and(|fds| {
        fds.flatten().any(|fd| matches!(fd.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
    })
}

pub(super) fn describe(process: &Process) -> String {
    let name = process.stat().map_or_else(|_| "?".to_owned(), |stat| stat.comm);
    format!("{name} (pid {})", process.pid)
}
