//! Sockets that the service manager has opened and passed on: sd_listen_fds(3).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::fstat;
use nix::unistd::geteuid;
use socket2::{Protocol, Socket, Type};

use crate::config::model::Tcp;
use crate::sys::{sockets, steer};

/// What was passed to this process, whatever it is.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(String, OwnedFd)>);

/// A listening socket that was passed on.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed<S = Socket> {
    /// What its unit calls it: FileDescriptorName= of systemd.socket(5).
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it takes IPv4 clients too, if it is one of IPv6.
    pub is_dual_stack: bool,
    /// What to accept from.
    pub socket: S,
}

impl Inherited {
    /// What was passed to this process, the first time. To be asked for before anything is opened: files are passed as
    /// numbers.
    pub fn take() -> io::Result<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Self::default());
        }
        let own = |(number, name): (RawFd, String)| {
            // SAFETY: LISTEN_PID names this process, so the number is its to close; it is open, or the call below had
            // failed; and TAKEN lets nobody take it twice.
            #[expect(unsafe_code, reason = "a descriptor that comes as a number")]
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            (name, fd)
        };
        Ok(Self(sd_notify::listen_fds_with_names()?.map(own).collect()))
    }

    /// The listening TCP sockets among it. What else there is is closed, and told.
    pub fn into_sockets(self) -> Vec<Passed> {
        let mut sockets = Vec::with_capacity(self.0.len());
        for (name, fd) in self.0 {
            match Passed::new(name.clone(), fd) {
                Ok(passed) => sockets.push(passed),
                Err(error) => {
                    log::warn!(name, error:%; "a file that was passed to this process is of no use, closed");
                }
            }
        }
        sockets
    }
}

impl Passed {
    /// An error says why it cannot be accepted from.
    fn new(name: String, fd: OwnedFd) -> io::Result<Self> {
        let refused = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let socket = Socket::from(fd);
        if socket.r#type()? != Type::STREAM {
            return Err(refused("it is no stream socket"));
        }
        let Some(address) = socket.local_addr()?.as_socket() else {
            return Err(refused("it is no socket of IPv4 or IPv6"));
        };
        if socket.protocol()? != Some(Protocol::TCP) {
            return Err(refused("it does not speak TCP"));
        }
        if !socket.is_listener()? {
            return Err(refused("it does not listen"));
        }
        let is_dual_stack = address.is_ipv6() && !socket.only_v6()?;
        socket.set_nonblocking(true)?;
        Ok(Self { name, address, is_dual_stack, socket })
    }
}

/// Whether others may bind beside it. socket(7), SO_REUSEPORT: it has set that, and its owner is who we are.
pub fn lets_others_bind(listener: &Socket) -> io::Result<bool> {
    let owner = fstat(listener.as_fd())?.st_uid;
    Ok(listener.reuse_port()? && owner == geteuid().as_raw())
}

/// What [`listen`](crate::sys::listen) does, with sockets that listen already, one at least. `count` of them, by opening
/// more beside them; or those alone, where others may not bind beside them.
pub fn listen_on(passed: Vec<Passed>, count: usize, backlog: u32, tcp: &Tcp) -> io::Result<Vec<Socket>> {
    let mut sockets: Vec<Socket> = passed.into_iter().map(|passed| passed.socket).collect();
    for socket in &sockets {
        // The process that had it before may have removed its listener while it ran.
        steer::refuse_none(socket)?;
        sockets::set_listener_options(socket, tcp)?;
        sockets::set_backlog(socket, backlog)?;
    }
    let wanted = count.saturating_sub(sockets.len());
    if wanted > 0 && lets_others_bind(&sockets[0])? {
        let beside = sockets::bind_beside(&sockets[0], wanted, tcp)?;
        for socket in &beside {
            sockets::set_backlog(socket, backlog)?;
        }
        sockets.extend(beside);
    }
    steer::steer_to_all(&sockets[0])?;
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use socket2::Domain;

    use super::*;

    const TCP: Tcp = Tcp { nodelay: true, keepalive: None, user_timeout: None };
    const ANY: &str = "127.0.0.1:0";

    fn listener(reuse_port: bool) -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(reuse_port).unwrap();
        socket.bind(&ANY.parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(1).unwrap();
        socket
    }

    #[test]
    fn only_a_listening_tcp_socket_is_of_use() {
        let listener = TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(dir.path().join("socket")).unwrap();
        let file = tempfile::tempfile().unwrap();
        let cases: [(OwnedFd, Result<SocketAddr, &str>); 5] = [
            (listener.into(), Ok(address)),
            (stream.into(), Err("it does not listen")),
            (UdpSocket::bind(ANY).unwrap().into(), Err("it is no stream socket")),
            (unix.into(), Err("it is no socket of IPv4 or IPv6")),
            (file.into(), Err("Socket operation on non-socket (os error 88)")),
        ];
        for (fd, expected) in cases {
            let passed = Passed::new("web".into(), fd).map(|passed| passed.address);
            assert_eq!(passed.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn others_are_opened_beside_a_socket_that_shares_its_port_and_none_beside_another() {
        for (reuse_port, expected) in [(true, 3), (false, 1)] {
            let passed = Passed::new("web".into(), listener(reuse_port).into()).unwrap();
            let address = passed.address;
            let sockets = listen_on(vec![passed], 3, 16, &TCP).unwrap();
            assert_eq!(sockets.len(), expected, "SO_REUSEPORT: {reuse_port}");
            for socket in &sockets {
                assert_eq!(socket.local_addr().unwrap().as_socket(), Some(address));
                assert!(socket.is_listener().unwrap() && socket.nonblocking().unwrap());
                assert!(socket.tcp_nodelay().unwrap(), "its options are those of the pool");
            }
        }
    }

    #[test]
    fn as_many_as_were_passed_are_used() {
        let first = listener(true);
        let address = first.local_addr().unwrap();
        let second = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        second.set_reuse_port(true).unwrap();
        second.bind(&address).unwrap();
        second.listen(1).unwrap();
        let passed = [first, second].map(|socket| Passed::new("web".into(), socket.into()).unwrap());
        assert_eq!(listen_on(passed.into(), 1, 16, &TCP).unwrap().len(), 2);
    }
}
