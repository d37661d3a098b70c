//! The service manager (systemd): notices to it, and its watchdog. Does nothing when there is none.

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

/// The socket to the manager, opened for the first notice and kept. A watchdog notice that found no descriptor left
/// would be missing, and after some missing ones the manager kills a healthy process.
static SOCKET: Mutex<Option<UnixDatagram>> = Mutex::new(None);

/// A notice to the service manager, sd_notify(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// It serves: after the start, and after a reload.
    Ready,
    /// It has begun to reload. [`Notice::Ready`] must follow, also when the reload failed.
    Reloading,
    /// It has begun to shut down.
    Stopping,
    /// It is healthy; must be sent once per [`watchdog_period`].
    Alive,
    /// The line that `systemctl status` shows.
    Status(&'a str),
}

/// Notifies the service manager, if there is one. An error is only logged. Blocks while the manager's queue is full, so
/// workers must not call it.
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
            // systemd.service(5), notify-reload: distinguishes this reload from the one before.
            match NotifyState::monotonic_usec_now() {
                Ok(now) => states.push(now),
                Err(error) => log::warn!(error:%; "cannot read the clock for the service manager"),
            }
        }
    }
    let Some(manager) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = address_of(&manager).and_then(|manager| send(&states, &manager)) {
        log::warn!(notices:?, error:%; "cannot notify the service manager");
    }
}

/// sd_notify(3): a path, or `@` and a name in the abstract namespace.
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
    // The socket is replaced as a whole, so a panic cannot leave it half changed.
    let mut kept = SOCKET.lock().unwrap_or_else(PoisonError::into_inner);
    let socket = match kept.take() {
        Some(socket) => socket,
        None => UnixDatagram::unbound()?,
    };
    // A datagram is sent whole or not at all. Not connected, because the manager may have been restarted.
    kept.insert(socket).send_to_addr(lines.as_bytes(), manager)?;
    Ok(())
}

/// Returns whether standard error is the stream that JOURNAL_STREAM names (systemd.exec(5)), and not redirected since.
pub fn is_journal() -> bool {
    let Some(named) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let Ok(status) = fstat(io::stderr().as_fd()) else { return false };
    named == format!("{}:{}", status.st_dev, status.st_ino)
}

/// Returns how long the service manager waits for [`Notice::Alive`] before it restarts the process; `None` when it does
/// not. sd_watchdog_enabled(3): WATCHDOG_USEC, unless WATCHDOG_PID is another process.
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|period| !period.is_zero())
}
