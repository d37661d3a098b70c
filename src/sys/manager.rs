//! The service manager (systemd): what it is told, and what it wants to hear. Without one nothing is told.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::stat::fstat;
use sd_notify::NotifyState;

/// Where the manager is told; opened for the first notice and kept. A beat that finds no descriptor left is one that the
/// manager misses, and when it misses some it kills a process that is well.
static SOCKET: Mutex<Option<UnixDatagram>> = Mutex::new(None);

/// What a service manager is told, sd_notify(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// It serves: after the start, and when it has reloaded.
    Ready,
    /// It has begun to reload. [`Notice::Ready`] follows, also when nothing has come of it.
    Reloading,
    /// It ends.
    Stopping,
    /// It is well; owed once in [`watchdog_period`].
    Alive,
    /// What it does, in words.
    Status(&'a str),
}

/// Tells the service manager, if there is one. An error is logged: nothing else can be done about it. Waits while the
/// queue of the manager is full, so it is not for workers.
pub fn notify(notices: &[Notice<'_>]) {
    let mut states = Vec::with_capacity(notices.len() + 1);
    for notice in notices {
        states.push(match notice {
            Notice::Ready => NotifyState::Ready,
            Notice::Reloading => NotifyState::Reloading,
            Notice::Stopping => NotifyState::Stopping,
            Notice::Alive => NotifyState::Watchdog,
            Notice::Status(text) => NotifyState::Status(text),
        });
        if *notice == Notice::Reloading {
            // systemd.service(5), notify-reload: tells this reload from the one before.
            match NotifyState::monotonic_usec_now() {
                Ok(now) => states.push(now),
                Err(error) => log::warn!(error:%; "cannot read the clock for the service manager"),
            }
        }
    }
    let Some(manager) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = address_of(&manager).and_then(|manager| send(&states, &manager)) {
        log::warn!(notices:?, error:%; "cannot tell the service manager");
    }
}

/// sd_notify(3): a path, or behind an `@` a name in the abstract namespace.
fn address_of(manager: &OsStr) -> io::Result<SocketAddr> {
    match manager.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(manager),
    }
}

fn send(states: &[NotifyState<'_>], manager: &SocketAddr) -> io::Result<()> {
    let mut lines = String::new();
    for state in states {
        writeln!(lines, "{state}").map_err(io::Error::other)?;
    }
    // A socket is put there whole.
    let mut kept = SOCKET.lock().unwrap_or_else(PoisonError::into_inner);
    let socket = match kept.take() {
        Some(socket) => socket,
        None => UnixDatagram::unbound()?,
    };
    // A datagram is sent whole or not at all. Not connected, because the manager may have been started again.
    kept.insert(socket).send_to_addr(lines.as_bytes(), manager)?;
    Ok(())
}

/// Whether standard error is the stream that JOURNAL_STREAM names, systemd.exec(5): not one that it was redirected to since.
pub fn is_journal() -> bool {
    let Some(named) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let Ok(status) = fstat(io::stderr().as_fd()) else { return false };
    named == format!("{}:{}", status.st_dev, status.st_ino)
}

/// How long the service manager waits for [`Notice::Alive`] until it restarts the process, if it does.
/// sd_watchdog_enabled(3): WATCHDOG_USEC, unless WATCHDOG_PID is another process.
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|period| !period.is_zero())
}
