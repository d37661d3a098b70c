//! A listening socket, and the connections that arrived before this process configured it.

use std::io;
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;
use nix::sys::socket::GetSockOpt;
use nix::{getsockopt_impl, sockopt_impl};
use socket2::Socket;

use crate::config::model::Tcp;
use crate::sys::sockets;

/// A listening socket of a worker. Accepted connections have the options that were set on it: most inherit them, and
/// those that waited in the queue of a passed socket get them when accepted.
#[derive(Debug)]
pub struct ListeningSocket {
    socket: Socket,
    early: OnceLock<Early>,
}

/// Connections that arrived before the options were set, and inherited others.
#[derive(Debug)]
struct Early {
    tcp: Tcp,
    /// At most this many are left in the queue. They are its first ones.
    left: AtomicU32,
}

impl From<Socket> for ListeningSocket {
    fn from(socket: Socket) -> Self {
        Self { socket, early: OnceLock::new() }
    }
}

impl Deref for ListeningSocket {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl ListeningSocket {
    /// Gives connections that are in the queue now these options when they are accepted: the options were set on the
    /// listener just now, and only later connections inherit them. Works the first time only: after that no earlier
    /// connection is in the queue.
    pub(super) fn watch_early(&self, tcp: &Tcp) -> io::Result<()> {
        // tcp(7): for a listener, the length of its queue (tcp_get_info in net/ipv4/tcp.c).
        let queued = TcpInfo.get(&self.socket)?.tcpi_unacked;
        self.early.get_or_init(|| Early { tcp: *tcp, left: AtomicU32::new(queued) });
        Ok(())
    }

    /// Must be called for each connection, right after accept(2).
    pub(super) fn on_accepted(&self, connection: &Socket) {
        let Some(early) = self.early.get() else { return };
        // Only the worker that accepts from it counts down.
        let left = early.left.load(Ordering::Relaxed);
        if left == 0 {
            return;
        }
        early.left.store(left - 1, Ordering::Relaxed);
        if let Err(error) = sockets::set_listener_options(connection, &early.tcp) {
            log::warn!(error:%; "cannot set the options of a connection that waited in a passed socket");
        }
    }
}

sockopt_impl!(TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, libc::tcp_info);
