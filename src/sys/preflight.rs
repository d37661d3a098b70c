//! Predicts what a start or a reload will meet: rights, addresses, sockets in use.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{AccessFlags, access};
use procfs::process::Process;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::model::Account;
use crate::sys::{port_owner, privileges};

/// The use of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is opened for reading.
    Read,
    /// It is opened for writing; or, in a folder, files are created.
    Write,
    /// It is run as a program.
    Run,
}

/// Fails when `account`, or without one this process, may not use `path` that way. For an account the mode bits count,
/// from the root down; access control lists are not read.
pub fn may_use(account: Option<&Account>, path: &Path, use_: Use) -> io::Result<()> {
    let Some(account) = account.filter(|_| privileges::is_root()) else {
        let flags = match use_ {
            Use::Read => AccessFlags::R_OK,
            Use::Write if path.is_dir() => AccessFlags::W_OK | AccessFlags::X_OK,
            Use::Write => AccessFlags::W_OK,
            Use::Run => AccessFlags::X_OK,
        };
        return Ok(access(path, flags)?);
    };
    const SEARCH: u32 = 0o1;
    let (uid, gid) = privileges::find(account)?;
    if uid.is_root() {
        return path.metadata().map(|_| ());
    }
    let path = path.canonicalize()?;
    let wanted = match use_ {
        Use::Read => 0o4,
        Use::Write if path.is_dir() => 0o2 | SEARCH,
        Use::Write => 0o2,
        Use::Run => 0o1,
    };
    for place in path.ancestors() {
        let metadata = place.metadata()?;
        let shift = match (metadata.uid() == uid.as_raw(), metadata.gid() == gid.as_raw()) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        let bits = if place == path { wanted } else { SEARCH };
        if metadata.mode() >> shift & bits != bits {
            let what = format!(
                "{}: user {:?} may not (mode {:03o})",
                place.display(),
                account.user,
                metadata.mode() & 0o777
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
    }
    Ok(())
}

/// Binds a socket to `address` and closes it again. Fails when this process could not listen there. Connections are not
/// possible meanwhile.
pub fn try_bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // As for a listener: connections in TIME_WAIT are not in the way, listening sockets are (socket(7)).
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())
}

/// The holder of an address that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressHolder {
    /// A process that runs the same configuration file, or the service manager, which passes its sockets.
    Ourselves,
    /// Another process, as `name (pid N)`.
    Another(String),
    /// A process that this user may not see.
    Hidden,
}

/// Returns the holder of the port of `address`, where `file` is the configuration to run.
pub fn port_holder(address: SocketAddr, file: Option<&Path>) -> AddressHolder {
    let holders = port_owner::holders(address);
    match holders.iter().find(|process| !is_own_process(process, file)) {
        Some(other) => AddressHolder::Another(port_owner::describe(other)),
        None if holders.is_empty() => AddressHolder::Hidden,
        None => AddressHolder::Ourselves,
    }
}

/// Returns the process that answers on the unix socket at `path`; `None` when none does.
pub fn socket_holder(path: &Path, file: Option<&Path>) -> Option<AddressHolder> {
    let stream = UnixStream::connect(path).ok()?;
    let peer = getsockopt(&stream.as_fd(), sockopt::PeerCredentials).ok()?;
    let Ok(process) = Process::new(peer.pid()) else { return Some(AddressHolder::Hidden) };
    let is_ours = is_own_process(&process, file);
    Some(if is_ours {
        AddressHolder::Ourselves
    } else {
        AddressHolder::Another(port_owner::describe(&process))
    })
}

/// Returns whether a process runs `file`, or is the service manager.
fn is_own_process(process: &Process, file: Option<&Path>) -> bool {
    if process.pid == 1 {
        return true;
    }
    let is_l4lb = process.stat().is_ok_and(|stat| stat.comm.starts_with("l4lb"));
    let (Some(file), Ok(arguments)) = (file.and_then(|file| file.canonicalize().ok()), process.cmdline())
    else {
        return false;
    };
    let folder = process.cwd().unwrap_or_else(|_| PathBuf::from("/"));
    let names = |argument: &String| {
        let value = argument.strip_prefix("--config=").unwrap_or(argument);
        let path = folder.join(Path::new(OsStr::from_bytes(value.as_bytes())));
        path.canonicalize().is_ok_and(|path| path == file)
    };
    is_l4lb && arguments.iter().skip(1).any(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::none_starts;

    #[test]
    fn an_address_is_free_taken_or_elsewhere() {
        let _closed_is_closed = none_starts();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(try_bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let AddressHolder::Another(holder) = port_holder(address, None) else { panic!("it is this process") };
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        drop(taken);
        try_bind(address).unwrap();
        let elsewhere = try_bind("192.0.2.1:80".parse().unwrap());
        assert_eq!(elsewhere.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn rights_are_those_of_the_account_where_one_is_to_be_become() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        may_use(None, &file, Use::Read).unwrap();
        may_use(None, folder.path(), Use::Write).unwrap();
        assert!(may_use(None, &folder.path().join("none"), Use::Read).is_err());
        if !privileges::is_root() {
            return;
        }
        let nobody = Account { user: "nobody".into(), group: None };
        for (mode, mode_of_file, reads, writes) in
            [(0o700, 0o644, false, false), (0o711, 0o644, true, false), (0o777, 0o600, false, true)]
        {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode_of_file)).unwrap();
            assert_eq!(may_use(Some(&nobody), &file, Use::Read).is_ok(), reads, "{mode:o}");
            assert_eq!(may_use(Some(&nobody), folder.path(), Use::Write).is_ok(), writes, "{mode:o}");
        }
    }
}
