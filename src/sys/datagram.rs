//! A datagram socket to a log daemon. Only a call with a timeout waits.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use nix::libc;

use super::poll::wait_for_room;

/// The outcome of sending one message.
#[derive(Debug)]
pub enum Sent {
    /// All of it was taken.
    Whole,
    /// More than the socket takes in one message.
    TooLong,
    /// The daemon has not read what it has.
    Full,
    /// The daemon has gone, or cannot be reached.
    Failed(io::Error),
}

/// A socket connected to the daemon that listened at a path.
#[derive(Debug)]
pub struct LogSocket(UnixDatagram);

impl LogSocket {
    /// Connects to the daemon at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(path)?;
        Ok(Self(socket))
    }

    /// Sends `message` in one datagram, or nothing.
    pub fn send(&self, message: &[u8]) -> Sent {
        loop {
            let Err(error) = self.0.send(message) else { return Sent::Whole };
            return match error.raw_os_error() {
                Some(libc::EINTR) => continue,
                // unix(7): the length of the queue of the receiver.
                Some(libc::EAGAIN) => Sent::Full,
                Some(libc::EMSGSIZE) => Sent::TooLong,
                _ => Sent::Failed(error),
            };
        }
    }

    /// Waits until the daemon has read something, or has gone; returns false when `timeout` is over before.
    pub fn wait_for_room(&self, timeout: Duration) -> bool {
        wait_for_room(self.0.as_raw_fd(), timeout)
    }
}

/// Returns whether a short line can be written to standard error without waiting.
pub fn has_room_on_standard_error() -> bool {
    wait_for_room(io::stderr().as_raw_fd(), Duration::ZERO)
}

/// Returns the name of this machine as the kernel has it, proc_sys_kernel(5); `None` where that cannot be read.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim_end().to_owned())
}
