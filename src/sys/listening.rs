//! A listening socket, and what came to it before it was ours.

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

/// A listening socket as a worker has it. What is accepted from it has the options that were set on it: most has inherited
/// them, and what waited in the queue of one that was passed to this process gets them.
#[derive(Debug)]
pub struct ListeningSocket {
    socket: Socket,
    early: OnceLock<Early>,
}

/// Connections that came before the options were set, and have inherited others.
#[derive(Debug)]
struct Early {
    tcp: Tcp,
    /// How many are left in the queue at most. They are its first ones.
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
    /// What is in the queue now gets these options when it is accepted: they were set on the listener just now, and later
    /// connections inherit them. Only the first time: after that nothing is in the queue that came before.
    pub(super) fn look_after_early(&self, tcp: &Tcp) -> io::Result<()> {
        // tcp(7): of a listener, the length of its queue (tcp_get_info in net/ipv4/tcp.c).
        let queued = TcpInfo.get(&self.socket)?.tcpi_unacked;
        self.early.get_or_init(|| Early { tcp: *tcp, left: AtomicU32::new(queued) });
        Ok(())
    }

    /// To be called for each connection, right behind accept(2).
    pub(super) fn on_accepted(&self, connection: &Socket) {
        let Some(early) = self.early.get() else { return };
        // Only the worker that accepts from it counts down.
        let left = early.left.load(Ordering::Relaxed);
        if left == 0 {
            return;
        }
        early.left.store(left - 1, Ordering::Relaxed);
        if let Err(error) = sockets::set_listener_options(connection, &early.tcp) {
            log::warn!(error:%; "cannot set the options of a connection that came before l4lb did");
        }
    }
}

sockopt_impl!(TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, libc::tcp_info);
