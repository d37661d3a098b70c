//! Sockets that the service manager has opened and passed on: sd_listen_fds(3).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::fstat;
use nix::unistd::geteuid;
use socket2::{Protocol, Socket, Type};

use crate::config::model::Tcp;
use crate::sys::listening::ListeningSocket;
use crate::sys::{reuseport, sockets};

/// Descriptors passed to this process, of any kind.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(String, OwnedFd)>);

/// A listening socket that was passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed<S = Socket> {
    /// The name given by its unit: FileDescriptorName= of systemd.socket(5).
    pub name: String,
    /// The address that the service manager has bound it to.
    pub address: SocketAddr,
    /// Whether an IPv6 socket takes IPv4 clients too.
    pub is_dual_stack: bool,
    /// The socket to accept from.
    pub socket: S,
}

impl Inherited {
    /// Returns the descriptors passed to this process, on the first call. Must be called before anything is opened:
    /// descriptors are passed as numbers.
    pub fn take() -> io::Result<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Self::default());
        }
        let own = |(number, name): (RawFd, String)| {
            // SAFETY: LISTEN_PID names this process, so the number is its to close; it is open, or the call below would
            // have failed; and TAKEN prevents a second owner.
            #[expect(unsafe_code, reason = "a descriptor that comes as a number")]
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            (name, fd)
        };
        Ok(Self(sd_notify::listen_fds_with_names()?.map(own).collect()))
    }

    /// Returns the listening TCP sockets. Other descriptors are closed, with a warning.
    pub fn into_sockets(self) -> Vec<Passed> {
        let mut sockets = Vec::with_capacity(self.0.len());
        for (name, fd) in self.0 {
            match Passed::new(name.clone(), fd) {
                Ok(passed) => sockets.push(passed),
                Err(error) => {
                    log::warn!(name, error:%; "unusable passed descriptor closed");
                }
            }
        }
        sockets
    }
}

impl Passed {
    /// Fails with the reason why it cannot be accepted from.
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

/// Returns whether others may bind beside it: it has SO_REUSEPORT set, and its owner is our user (socket(7)).
pub fn lets_others_bind(listener: &Socket) -> io::Result<bool> {
    let owner = fstat(listener.as_fd())?.st_uid;
    Ok(listener.reuse_port()? && owner == geteuid().as_raw())
}

/// Takes over a socket that another process may have left hidden or refusing, and listens with the present settings.
pub fn adopt_passed(listener: &ListeningSocket, backlog: u32, tcp: &Tcp) -> io::Result<()> {
    reuseport::refuse_none(listener)?;
    sockets::set_listener_options(listener, tcp)?;
    listener.watch_early(tcp)?;
    sockets::set_backlog(listener, backlog)
}

/// Leaves a socket to the other processes that have it: connections begin there.
pub fn hand_back(listener: &Socket) -> io::Result<()> {
    reuseport::refuse_none(listener)?;
    reuseport::steer_to_all(listener)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;
    use std::time::Duration;

    use nix::libc;
    use socket2::Domain;

    use super::*;
    use crate::config::model::Keepalive;
    use crate::sys::{Kernel, Linux};

    const TCP: Tcp = Tcp { nodelay: true, keepalive: None, user_timeout: None };
    const ANY: &str = "127.0.0.1:0";
    /// Far longer than a connection on this machine takes.
    const PATIENCE: Duration = Duration::from_secs(20);

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
    fn a_port_without_reuse_port_cannot_be_bound_twice() {
        for reuse_port in [true, false] {
            assert_eq!(lets_others_bind(&listener(reuse_port)).unwrap(), reuse_port);
        }
    }

    /// linux/in.h. Its value is the port.
    const IP_PROTOCOL: libc::c_int = 52;
    /// Values that are no options: they differ from one connection to the next.
    const NO_OPTIONS: [(libc::c_int, libc::c_int); 9] = [
        (libc::IPPROTO_IP, IP_PROTOCOL),
        (libc::SOL_SOCKET, libc::SO_PEERNAME),
        (libc::SOL_SOCKET, libc::SO_INCOMING_CPU),
        (libc::SOL_SOCKET, libc::SO_MEMINFO),
        (libc::SOL_SOCKET, libc::SO_COOKIE),
        (libc::IPPROTO_TCP, libc::TCP_INFO),
        (libc::IPPROTO_TCP, libc::TCP_QUICKACK),
        (libc::IPPROTO_TCP, libc::TCP_TIMESTAMP),
        (libc::IPPROTO_TCP, libc::TCP_CC_INFO),
    ];
    /// Linux numbers the options of a level from 1 on; 6.18 has fewer than this many at each.
    const OPTIONS_MAX: libc::c_int = 90;

    /// Returns every readable option, by level and name.
    fn options(socket: &Socket) -> BTreeMap<(libc::c_int, libc::c_int), Vec<u8>> {
        let levels = [libc::SOL_SOCKET, libc::IPPROTO_IP, libc::IPPROTO_TCP];
        let names = levels.into_iter().flat_map(|level| (1..=OPTIONS_MAX).map(move |name| (level, name)));
        let read = |(level, name)| {
            let mut value = [0_u8; 64];
            let mut len = 64;
            // SAFETY: the descriptor is open, and the call writes no more than `len` bytes to `value`.
            #[expect(unsafe_code, reason = "no crate reads an option that it does not know")]
            let result = unsafe {
                libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len)
            };
            (result == 0).then(|| ((level, name), value[..len as usize].to_vec()))
        };
        names.filter(|option| !NO_OPTIONS.contains(option)).filter_map(read).collect()
    }

    fn accepted(listener: &Socket) -> (Socket, Socket) {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.connect(&listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    /// Urgent bytes of clients of a passed socket were taken out of the stream: SO_OOBINLINE was only set on our own
    /// sockets.
    #[test]
    fn a_passed_socket_has_every_option_of_our_own_sockets() {
        let keepalive =
            Keepalive { idle: Duration::from_secs(7), interval: Duration::from_secs(3), count: 2 };
        let other = Tcp { nodelay: false, keepalive: Some(keepalive), user_timeout: None };
        for (first, second) in [(TCP, other), (other, TCP)] {
            let own = sockets::listen(ANY.parse().unwrap(), 1, 16, &first).unwrap().remove(0);
            let passed = listener(true);
            passed.set_reuse_address(true).unwrap();
            let passed = ListeningSocket::from(Passed::new("web".into(), passed.into()).unwrap().socket);
            adopt_passed(&passed, 16, &first).unwrap();
            for tcp in [first, second] {
                sockets::set_listener_options(&own, &tcp).unwrap();
                sockets::set_listener_options(&passed, &tcp).unwrap();
                let known = options(&own);
                assert!(known.len() > 60, "{} options", known.len());
                assert_eq!(options(&passed), known, "of the listener, {tcp:?}");
                let ([ours, _client], [theirs, _other]) =
                    (<[Socket; 2]>::from(accepted(&own)), <[Socket; 2]>::from(accepted(&passed)));
                assert_eq!(options(&theirs), options(&ours), "of what is accepted, {tcp:?}");
            }
        }
    }

    /// The very first client, for which the service manager starts the process, is always one of them.
    #[test]
    fn connections_queued_in_a_passed_socket_get_the_options_they_did_not_inherit() {
        let passed = Passed::new("web".into(), listener(true).into()).unwrap().socket;
        let passed = Arc::new(ListeningSocket::from(passed));
        let address = passed.local_addr().unwrap().as_socket().unwrap();
        let early = TcpStream::connect(address).unwrap();
        adopt_passed(&passed, 16, &TCP).unwrap();
        let late = TcpStream::connect(address).unwrap();
        let mut kernel = Linux::new().unwrap();
        for client in [early, late] {
            let (accepted, from) = kernel.accept(&passed).unwrap();
            assert_eq!(from, client.local_addr().unwrap());
            assert!(accepted.out_of_band_inline().unwrap() && accepted.tcp_nodelay().unwrap());
        }
    }

    #[test]
    fn a_socket_is_taken_up_and_handed_back_as_new_ones_are() {
        let socket = ListeningSocket::from(listener(true));
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let adopt_passed = |socket: &ListeningSocket| adopt_passed(socket, 16, &TCP);
        for change in [adopt_passed, |socket: &ListeningSocket| hand_back(socket)] {
            reuseport::refuse_new(&socket).unwrap();
            change(&socket).unwrap();
            assert!(TcpStream::connect_timeout(&address, PATIENCE).is_ok());
        }
        assert!(socket.tcp_nodelay().unwrap(), "its options are those of the pool");
    }
}
