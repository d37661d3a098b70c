//! [`Kernel`] on Linux: mio for epoll, socket2 for sockets, nix for what neither has.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll};
use nix::libc;
use nix::sys::socket::{MsgFlags, recv};
use socket2::{SockRef, Socket};

use crate::base::address::Address;
use crate::base::ready::Ready;
use crate::base::time::Instant;
use crate::config::model::Keepalive;
use crate::sys::busy_poll::Spin;
use crate::sys::clock::Clock;
use crate::sys::kernel::{Dial, DialSpec, Event, Kernel, Wake};
use crate::sys::listening::ListeningSocket;
use crate::sys::pipe::{self, Pipe};
use crate::sys::poll;
use crate::sys::selftest::kernel_setting;
use crate::sys::sockets;
use crate::sys::tcp_info::{delivery, silence};
use crate::sys::token::Token;

/// Events taken per wait. Those that do not fit are reported by the next wait; none is lost. Longer turns keep the
/// first events waiting: over 1,000 busy connections 1,024 gave a p99 of 27 ms, and 256 of 24.
const EVENTS_MAX: usize = 256;

/// [`Kernel`] on Linux. One per worker.
pub struct Linux {
    poll: Poll,
    events: mio::Events,
    polled: poll::Poll,
    waker: Arc<mio::Waker>,
    clock: Clock,
    /// Present when waits may poll before they sleep.
    spin: Option<Spin>,
    /// The ports that a dial may use as its source: net.ipv4.ip_local_port_range at the start of this worker.
    source_ports: RangeInclusive<u64>,
}

impl Linux {
    /// Returns an epoll instance with a waker. Fails when no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio_token(Token::Wake))?);
        let events = mio::Events::with_capacity(EVENTS_MAX);
        // If the setting cannot be read, any port is assumed possible.
        let source_ports = match kernel_setting("net/ipv4/ip_local_port_range").as_deref() {
            Ok([first, last]) => *first..=*last,
            Ok(_) | Err(_) => 0..=u64::from(u16::MAX),
        };
        Ok(Self {
            poll,
            events,
            polled: poll::Poll::default(),
            waker,
            clock: Clock::of_process(),
            spin: None,
            source_ports,
        })
    }

    /// Returns a kernel that polls for up to `bound` before a wait sleeps, while that pays off; zero never polls.
    #[must_use]
    pub fn with_busy_poll(self, bound: Duration) -> Self {
        Self { spin: (!bound.is_zero()).then(|| Spin::new(bound)), ..self }
    }

    /// Returns the handle that wakes [`Kernel::wait`] from another thread.
    pub fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    /// Waits, polling first where `spin` expects a short wait.
    fn wait_spinning(&mut self, spin: &mut Spin, timeout: Option<Duration>) -> io::Result<()> {
        let began = self.clock.now();
        if !self.poll_until(began + spin.span(timeout))? {
            let spent = self.clock.now() - began;
            self.wait_once(timeout.map(|timeout| timeout.saturating_sub(spent)))?;
        }
        spin.note(self.clock.now() - began, !self.events.is_empty());
        Ok(())
    }

    /// Polls until an event comes or `until` has passed; returns whether there is an event.
    fn poll_until(&mut self, until: Instant) -> io::Result<bool> {
        while self.clock.now() < until {
            self.wait_once(Some(Duration::ZERO))?;
            if !self.events.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits with epoll; a signal ends the wait without events.
    fn wait_once(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result,
        }
    }
}

impl Wake for mio::Waker {
    fn wake(&self) -> io::Result<()> {
        mio::Waker::wake(self)
    }
}

impl Kernel for Linux {
    type Socket = Socket;
    /// Its opener maintains its options; the worker that accepts from it closes it.
    type Listener = Arc<ListeningSocket>;
    type Pipe = Pipe;

    fn now(&mut self) -> Instant {
        self.clock.now()
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        match (self.spin, timeout) {
            // The caller does not wait: there is work left.
            (_, Some(Duration::ZERO)) | (None, _) => self.wait_once(timeout)?,
            (Some(mut spin), _) => {
                self.wait_spinning(&mut spin, timeout)?;
                self.spin = Some(spin);
            }
        }
        events.extend(self.events.iter().map(event));
        Ok(())
    }

    fn watch_listener(&mut self, listener: &Arc<ListeningSocket>, token: Token) -> io::Result<()> {
        let fd = listener.as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&fd), mio_token(token), Interest::READABLE)
    }

    fn accept(&mut self, listener: &Arc<ListeningSocket>) -> io::Result<(Socket, SocketAddr)> {
        let (socket, address) = retry(|| listener.accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC))?;
        listener.on_accepted(&socket);
        let address = address.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok((socket, SocketAddr::new(address.ip().to_canonical(), address.port())))
    }

    fn has_client(&mut self, listener: &Arc<ListeningSocket>) -> bool {
        poll::has_client(listener.as_raw_fd())
    }

    fn close_listener(&mut self, listener: Arc<ListeningSocket>) {
        // A listener with a descriptor duplicated to another process stays in this epoll after close(2).
        let fd = listener.as_raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&fd)) {
            log::warn!(error:%; "cannot remove a listener from epoll");
        }
    }

    fn dial(&mut self, spec: &DialSpec<'_>) -> io::Result<Socket> {
        sockets::dial(spec)
    }

    fn local_address(&mut self, socket: &Socket) -> io::Result<SocketAddr> {
        socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    fn dial_result(&mut self, socket: &Socket) -> Dial {
        // Event flags are no proof: EPOLLHUP may come with a connect that succeeds. Ask the socket.
        if let Some(error) = self.take_error(socket) {
            // The peer may have accepted, written and reset before this thread had its turn. A reset leaves earlier
            // bytes in the receive queue.
            return if sockets::has_unread(socket) { Dial::Lost(error) } else { Dial::Failed(error) };
        }
        let peer = match socket.peer_addr() {
            Ok(peer) => peer,
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Dial::Pending,
            Err(error) => return Dial::Failed(error),
        };
        match socket.local_addr() {
            Ok(local) if local.as_socket() == peer.as_socket() => Dial::ToItself,
            Ok(_) => Dial::Connected,
            Err(error) => Dial::Failed(error),
        }
    }

    fn dial_result_of_event(&mut self, socket: &Socket, address: &Address, ready: Ready) -> Dial {
        let Address::Ip(address) = *address;
        // tcp_poll: EPOLLOUT is never reported in SYN_SENT, and EPOLLERR or EPOLLHUP always after a failure.
        if !ready.writable || ready.failing {
            return self.dial_result(socket);
        }
        if !self.source_ports.contains(&u64::from(address.port())) {
            return Dial::Connected;
        }
        match socket.local_addr() {
            Ok(local) if local.as_socket() == Some(address) => Dial::ToItself,
            Ok(_) => Dial::Connected,
            Err(error) => Dial::Failed(error),
        }
    }

    fn keep_alive(&mut self, socket: &Socket, keepalive: Keepalive) -> io::Result<()> {
        sockets::keep_alive(socket, keepalive)
    }

    fn watch(&mut self, socket: &Socket, token: Token) -> io::Result<()> {
        let fd = socket.as_raw_fd();
        // PRIORITY: a read stops at urgent data, so a short read must not be taken for an empty socket.
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.poll.registry().register(&mut SourceFd(&fd), mio_token(token), interest)
    }

    fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = socket;
        retry(|| io::Read::read(&mut socket, buffer))
    }

    fn peek(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_PEEK).map_err(io::Error::from))
    }

    fn write(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        retry(|| socket.send_with_flags(bytes, libc::MSG_NOSIGNAL))
    }

    fn write_last(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        // send(2), MSG_MORE: a segment that is not full waits for more, or a fifth of a second. shutdown(2) sends it.
        retry(|| socket.send_with_flags(bytes, libc::MSG_NOSIGNAL | libc::MSG_MORE))
    }

    fn pipe(&mut self, capacity: usize, least: usize) -> io::Result<Pipe> {
        pipe::open(capacity, least)
    }

    fn splice_in(&mut self, socket: &Socket, pipe: &Pipe, len: usize) -> io::Result<usize> {
        retry(|| pipe::fill(socket, pipe, len))
    }

    fn splice_out(&mut self, pipe: &Pipe, socket: &Socket, len: usize) -> io::Result<usize> {
        retry(|| pipe::flush(pipe, socket, len))
    }

    fn empty_pipe(&mut self, pipe: &Pipe, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| pipe::empty(pipe, buffer))
    }

    fn take_error(&mut self, socket: &Socket) -> Option<io::Error> {
        socket.take_error().unwrap_or_else(Some)
    }

    fn unacked(&mut self, socket: &Socket) -> io::Result<u32> {
        sockets::unacked(socket)
    }

    fn delivery(&mut self, socket: &Socket) -> io::Result<(Duration, u32)> {
        delivery(socket)
    }

    fn has_unread(&mut self, socket: &Socket) -> bool {
        sockets::has_unread(socket)
    }

    fn has_ended(&mut self, socket: &Socket) -> bool {
        poll::has_ended(socket.as_raw_fd())
    }

    fn states<'a>(&mut self, sockets: impl Iterator<Item = &'a Socket>, states: &mut Vec<Ready>) {
        self.polled.ask(sockets, states);
    }

    fn silence(&mut self, socket: &Socket) -> io::Result<Option<Duration>> {
        silence(socket)
    }

    fn shutdown_write(&mut self, socket: &Socket) -> io::Result<()> {
        socket.shutdown(std::net::Shutdown::Write)
    }

    fn reset(&mut self, socket: Socket) {
        // socket(7) SO_LINGER: zero seconds makes close(2) send a reset and drop unsent bytes.
        if let Err(error) = SockRef::from(&socket).set_linger(Some(Duration::ZERO)) {
            log::debug!(error:%; "reset: the connection is gone already");
        }
    }

    fn close(&mut self, socket: Socket) {
        drop(socket);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the assertion says why not")]
fn mio_token(token: Token) -> mio::Token {
    const { assert!(usize::BITS == u64::BITS, "tokens need all 64 bits of epoll_data") };
    mio::Token(token.pack() as usize)
}

fn event(event: &mio::event::Event) -> Event {
    let hangup = event.is_write_closed();
    let failing = event.is_error() || hangup;
    Event {
        token: Token::unpack(event.token().0 as u64),
        ready: Ready {
            readable: event.is_readable() || event.is_read_closed() || failing,
            writable: event.is_writable() || failing,
            closing: event.is_read_closed() || event.is_priority() || failing,
            failing,
        },
    }
}

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
    use std::sync::Barrier;
    use std::thread;

    use socket2::{Domain, Type};

    use super::*;
    use crate::config::model::Tcp;

    const TCP: Tcp = Tcp { nodelay: true, keepalive: None, user_timeout: None };

    fn any_port() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    }

    /// The event of a dial that has succeeded.
    const CONNECTED: Ready = Ready { readable: false, writable: true, closing: false, failing: false };

    /// A connection that was dialed and accepted.
    fn connected(kernel: &mut Linux) -> (Socket, Socket) {
        let listener = sockets::listen(any_port(), 1, 1, &TCP).unwrap().remove(0);
        let listener = Arc::new(ListeningSocket::from(listener));
        let address = listener.local_addr().unwrap().as_socket().unwrap().into();
        let dialed = kernel.dial(&DialSpec { address: &address, tcp: &TCP }).unwrap();
        kernel.watch_listener(&listener, Token::Listener(0)).unwrap();
        kernel.wait(None, &mut Vec::new()).unwrap();
        let (accepted, address) = kernel.accept(&listener).unwrap();
        assert_eq!(Some(address), dialed.local_addr().unwrap().as_socket());
        (dialed, accepted)
    }

    /// Case 52.
    #[test]
    fn a_socket_that_is_connected_to_itself_is_found_out() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&any_port().into()).unwrap();
        socket.connect(&socket.local_addr().unwrap()).unwrap();
        let (mut kernel, address) =
            (Linux::new().unwrap(), socket.local_addr().unwrap().as_socket().unwrap().into());
        assert!(matches!(kernel.dial_result(&socket), Dial::ToItself));
        kernel.source_ports = 0..=u64::from(u16::MAX);
        assert!(matches!(kernel.dial_result_of_event(&socket, &address, CONNECTED), Dial::ToItself));
    }

    #[test]
    fn a_dial_is_only_taken_for_connected_without_a_question_where_its_event_proves_it() {
        let mut kernel = Linux::new().unwrap();
        let unanswered = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        for source_ports in [0..=0, 0..=u64::from(u16::MAX)] {
            kernel.source_ports = source_ports;
            let (dialed, accepted) = connected(&mut kernel);
            let address = dialed.peer_addr().unwrap().as_socket().unwrap().into();
            assert!(matches!(kernel.dial_result_of_event(&dialed, &address, CONNECTED), Dial::Connected));
            let told_nothing = kernel.dial_result_of_event(&unanswered, &address, Ready::default());
            assert!(matches!(told_nothing, Dial::Pending), "{told_nothing:?}");
            kernel.reset(accepted);
            let failing = Ready { failing: true, ..CONNECTED };
            assert!(matches!(kernel.dial_result_of_event(&dialed, &address, failing), Dial::Failed(_)));
        }
    }

    #[test]
    fn a_dial_without_an_answer_yet_is_pending() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(matches!(Linux::new().unwrap().dial_result(&socket), Dial::Pending));
    }

    #[test]
    fn an_accepted_socket_inherits_the_options_of_its_listener() {
        let (_dialed, accepted) = connected(&mut Linux::new().unwrap());
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.out_of_band_inline().unwrap());
        assert!(accepted.nonblocking().unwrap());
    }

    #[test]
    fn bytes_are_unacked_until_the_kernel_of_the_peer_has_them() {
        let mut kernel = Linux::new().unwrap();
        let (dialed, accepted) = connected(&mut kernel);
        assert_eq!(kernel.write(&dialed, b"hello").unwrap(), 5);
        let mut buffer = [0; 8];
        kernel.watch(&accepted, Token::Wake).unwrap();
        kernel.wait(None, &mut Vec::new()).unwrap();
        while kernel.read(&accepted, &mut buffer).is_err() {
            kernel.wait(None, &mut Vec::new()).unwrap();
        }
        assert_eq!(kernel.unacked(&dialed).unwrap(), 0);
        assert_eq!(kernel.silence(&dialed).unwrap(), None);
    }

    #[test]
    fn the_state_of_many_sockets_matches_the_event_of_each() {
        let mut kernel = Linux::new().unwrap();
        let (quiet, _other) = connected(&mut kernel);
        let (connected_one, mut speaks) = connected(&mut kernel);
        let (ended, ends) = connected(&mut kernel);
        let (lost, dies) = connected(&mut kernel);
        io::Write::write_all(&mut speaks, b"hello").unwrap();
        kernel.shutdown_write(&ends).unwrap();
        kernel.reset(dies);
        let open = Ready { writable: true, ..Ready::default() };
        let [readable, ending] = [false, true].map(|closing| Ready { readable: true, closing, ..open });
        let dead = Ready { failing: true, ..ending };
        let mut states = Vec::new();
        for _ in 0..1_000 {
            // Bytes sent are there a moment later.
            kernel.states([&quiet, &connected_one, &ended, &lost].into_iter(), &mut states);
            if states == [open, readable, ending, dead] {
                break;
            }
            thread::yield_now();
        }
        assert_eq!(states, [open, readable, ending, dead]);
        // The error is taken once; what remains is not reported again.
        assert!(kernel.take_error(&lost).is_some());
        kernel.states([&lost].into_iter(), &mut states);
        assert!(!states[0].failing, "{states:?}");
    }

    #[test]
    fn a_wait_that_polls_receives_and_ends_like_one_that_sleeps() {
        const TIMEOUT: Duration = Duration::from_millis(5);
        // Shorter than the timeout, so that it sleeps in the end; and longer, so that it does not.
        for bound in [Duration::from_millis(1), Duration::from_secs(1)] {
            let mut kernel = Linux::new().unwrap();
            let (_dialed, accepted) = connected(&mut kernel);
            kernel.spin = Some(Spin::eager(bound));
            let (began, mut events) = (kernel.now(), vec![]);
            kernel.wait(Some(TIMEOUT), &mut events).unwrap();
            assert!(events.is_empty(), "{bound:?}: {events:?}");
            assert!(kernel.now() - began >= TIMEOUT, "{bound:?}: too early");

            kernel.watch(&accepted, Token::Listener(7)).unwrap();
            kernel.wait(None, &mut events).unwrap();
            assert_eq!(events.iter().map(|event| event.token).collect::<Vec<_>>(), [Token::Listener(7)]);
            thread::scope(|scope| {
                let waker = kernel.waker();
                scope.spawn(move || waker.wake().unwrap());
                kernel.wait(None, &mut events).unwrap();
            });
            assert_eq!(events.iter().map(|event| event.token).collect::<Vec<_>>(), [Token::Wake]);
        }
    }

    #[test]
    fn no_wait_polls_unless_it_is_asked_to() {
        let kernel = Linux::new().unwrap();
        assert!(kernel.spin.is_none());
        assert!(kernel.with_busy_poll(Duration::ZERO).spin.is_none());
    }

    #[test]
    fn the_last_bytes_wait_for_the_fin_and_go_out_with_it() {
        const TRIES: usize = 20;
        let mut kernel = Linux::new().unwrap();
        // The kernel waits a fifth of a second at most: a try in which this thread was descheduled does not count.
        let waited = (0..TRIES).any(|_| {
            let (dialed, accepted) = connected(&mut kernel);
            let mut buffer = [0; 8];
            assert_eq!(kernel.write_last(&dialed, b"hello").unwrap(), 5);
            let nothing_yet = kernel.read(&accepted, &mut buffer).is_err();
            kernel.shutdown_write(&dialed).unwrap();
            if nothing_yet {
                assert_eq!(kernel.read(&accepted, &mut buffer).unwrap(), 5, "before the FIN had left");
                assert_eq!(kernel.read(&accepted, &mut buffer).unwrap(), 0, "apart from its bytes");
            }
            nothing_yet
        });
        assert!(waited, "what can wait leaves at once");
    }

    #[test]
    fn a_reset_is_an_error_at_the_peer_and_a_close_an_end() {
        let mut kernel = Linux::new().unwrap();
        for (reset, expected) in [(true, Err(io::ErrorKind::ConnectionReset)), (false, Ok(0))] {
            let (dialed, accepted) = connected(&mut kernel);
            if reset {
                kernel.reset(dialed);
            } else {
                kernel.close(dialed);
            }
            kernel.watch(&accepted, Token::Wake).unwrap();
            kernel.wait(None, &mut Vec::new()).unwrap();
            assert_eq!(kernel.read(&accepted, &mut [0; 8]).map_err(|error| error.kind()), expected);
        }
    }

    #[test]
    fn an_address_that_another_socket_listens_on_is_noticed() {
        let holder = TcpListener::bind(any_port()).unwrap();
        let taken = holder.local_addr().unwrap();
        assert_eq!(sockets::listen(taken, 2, 1, &TCP).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let me = std::process::id().to_string();
        assert!(crate::sys::holder_of(taken).contains(&me));
    }

    /// Two that found the address free at the same moment shared it, and each got a part of the clients.
    #[test]
    fn two_processes_that_begin_at_the_same_moment_never_share_an_address() {
        const ROUNDS: usize = 300;
        for _ in 0..ROUNDS {
            let free = TcpListener::bind(any_port()).and_then(|socket| socket.local_addr()).unwrap();
            let begin = Barrier::new(2);
            let start_listening = || {
                begin.wait();
                sockets::listen(free, 2, 1, &TCP)
            };
            let results = thread::scope(|scope| {
                let rivals = [scope.spawn(start_listening), scope.spawn(start_listening)];
                rivals.map(|rival| rival.join().unwrap())
            });
            // Each may have seen the other, so that neither gets the address.
            assert!(results.iter().any(Result::is_err), "both listen on {free}");
        }
    }

    #[test]
    fn connections_are_spread_over_all_that_share_an_address() {
        for host in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let mut kernel = Linux::new().unwrap();
            let listeners = sockets::listen(SocketAddr::new(host, 0), 3, 128, &TCP).unwrap();
            let listeners: Vec<Arc<ListeningSocket>> =
                listeners.into_iter().map(|listener| Arc::new(listener.into())).collect();
            let address = listeners[0].local_addr().unwrap().as_socket().unwrap();
            for (listener, index) in listeners.iter().zip(0..) {
                kernel.watch_listener(listener, Token::Listener(index)).unwrap();
            }
            let (mut clients, mut events, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
            while seen.len() < listeners.len() {
                // 64 clients in a row miss one of three sockets once in 60 billion runs.
                assert!(clients.len() < 64, "only {seen:?}");
                clients.push(kernel.dial(&DialSpec { address: &address.into(), tcp: &TCP }).unwrap());
                kernel.wait(None, &mut events).unwrap();
                seen.extend(events.iter().map(|event| event.token.pack()));
            }
        }
    }
}
