//! The present readiness of many sockets, reported by epoll before or not: poll(2), which is level-triggered.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use nix::libc;

use crate::base::ready::Ready;

/// poll(2) over a list that keeps its memory.
#[derive(Debug, Default)]
pub(super) struct Poll(Vec<libc::pollfd>);

impl Poll {
    /// Replaces `states` by the readiness of each of `sockets`, in their order. When poll(2) fails, which happens only
    /// without memory, none is ready.
    pub(super) fn ask<'a, S: AsRawFd + 'a>(
        &mut self,
        sockets: impl Iterator<Item = &'a S>,
        states: &mut Vec<Ready>,
    ) {
        let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
        self.0.clear();
        self.0.extend(sockets.map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 }));
        if let Err(error) = poll_now(&mut self.0) {
            log::debug!(error:%; "poll");
        }
        states.clear();
        states.extend(self.0.iter().map(|polled| ready(polled.revents)));
    }
}

/// Returns whether a connection can be accepted.
pub(super) fn has_client(listener: RawFd) -> bool {
    let mut polled = [libc::pollfd { fd: listener, events: libc::POLLIN, revents: 0 }];
    // After an error, accept(2) must find out.
    poll_now(&mut polled).is_err() || polled[0].revents != 0
}

/// Returns whether nothing more comes: the peer has ended its stream, or the connection is dead.
pub(super) fn has_ended(fd: RawFd) -> bool {
    let mut polled = [libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 }];
    poll_now(&mut polled).is_ok() && ready(polled[0].revents).closing
}

/// Waits until something can be written, or never again; returns false when `timeout` is over before.
pub(super) fn wait_for_room(fd: RawFd, timeout: Duration) -> bool {
    let mut polled = [libc::pollfd { fd, events: libc::POLLOUT, revents: 0 }];
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // After an error, the write must find out.
    poll(&mut polled, millis).is_err() || polled[0].revents != 0
}

fn poll_now(polled: &mut [libc::pollfd]) -> io::Result<()> {
    poll(polled, 0)
}

fn poll(polled: &mut [libc::pollfd], millis: i32) -> io::Result<()> {
    let count = libc::nfds_t::try_from(polled.len()).unwrap_or(libc::nfds_t::MAX);
    #[expect(
        unsafe_code,
        reason = "nix borrows each descriptor for as long as the list lives, so none could be kept"
    )]
    // SAFETY: the pointer and the count are those of one slice, which the kernel writes to during the call only.
    let count_ready = unsafe { libc::poll(polled.as_mut_ptr(), count, millis) };
    if count_ready < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A hangup alone is not failing: if there is an error, poll reports that too.
fn ready(events: libc::c_short) -> Ready {
    let is_error = events & libc::POLLERR != 0;
    let is_over = events & (libc::POLLERR | libc::POLLHUP) != 0;
    let is_closing = is_over || events & libc::POLLRDHUP != 0;
    Ready {
        readable: is_closing || events & libc::POLLIN != 0,
        writable: is_over || events & libc::POLLOUT != 0,
        closing: is_closing,
        failing: is_error,
    }
}
