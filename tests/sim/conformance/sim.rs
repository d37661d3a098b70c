//! The simulated kernel on the bench: nothing goes wrong, and everything arrives at once.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use l4lb::base::rng::Rng;
use l4lb::sys::{Event, Kernel};

use crate::conformance::script::dial_spec;
use crate::conformance::{self as bench, Bench, Link, Peer};
use crate::conn::{Conn, Packet};
use crate::faults::Faults;
use crate::kernel::{SimKernel, SimListener, SimSocket};
use crate::network::{Backend, FIRST_BACKEND_PORT, Listener, Mode, Net, client_of};
use crate::peer::{Ending, Peer as SimPeer, Reading, Seen};
use crate::trace::Trace;
use crate::turns::Turn;

/// The size of the send buffer of each connection, and of the receive buffer of its peer.
const SEND_BUFFER: u64 = 1 << 20;
const WINDOW: u64 = 1 << 16;
const BACKLOG: usize = 128;
/// The chance of what is certain.
const CERTAIN: u64 = 1_000_000;

/// See the module.
pub(super) struct SimBench {
    net: Rc<RefCell<Net>>,
    kernel: SimKernel,
}

impl SimBench {
    pub(super) fn new() -> Self {
        let mut net = Net::new(Rng::new(0), Faults::none(), Trace::new(false));
        // A script closes listeners as it likes.
        net.is_ending = true;
        net.wakes = vec![Arc::default()];
        net.turns = vec![Turn::default()];
        let net = Rc::new(RefCell::new(net));
        let kernel = SimKernel { net: Rc::clone(&net), worker: 0 };
        Self { net, kernel }
    }

    /// Acts on the connection of a peer, and carries out all consequences.
    fn with<T>(&mut self, peer: Peer, act: impl FnOnce(&mut Conn) -> T) -> T {
        self.pass();
        let result = act(&mut self.net.borrow_mut().conns[peer.0]);
        self.pass();
        result
    }

    fn dial(&mut self, backend: bench::Backend) -> SimSocket {
        let address = self.backend(backend);
        self.kernel.dial(&dial_spec(&address.into())).expect("a dial begins")
    }
}

/// A peer that only follows the script.
fn scripted_peer() -> SimPeer {
    SimPeer::new(0, 0, Ending::Never, Reading::Stopped, WINDOW)
}

fn send(conn: &mut Conn, bytes: usize) {
    conn.sent += bytes as u64;
    conn.flight.push_back(Packet::Data(u32::try_from(bytes).expect("a segment")));
}

/// Lets the peer read everything that its kernel has.
fn receive_all(conn: &mut Conn) -> usize {
    let bytes = conn.delivered - conn.peer.received;
    conn.peer.received = conn.delivered;
    usize::try_from(bytes).expect("a few bytes")
}

impl Bench for SimBench {
    type K = SimKernel;

    fn kernel(&mut self) -> &mut SimKernel {
        &mut self.kernel
    }

    fn pass(&mut self) {
        let net = &mut *self.net.borrow_mut();
        for conn in &mut net.conns {
            conn.answer();
            while conn.arrive() || conn.deliver(u64::MAX, net.now) {}
        }
    }

    fn await_events(&mut self) -> Vec<Event> {
        self.pass();
        let mut events = Vec::new();
        self.kernel.wait(Some(Duration::ZERO), &mut events).expect("it never fails");
        events
    }

    fn await_silence(&mut self) -> Vec<Event> {
        self.await_events()
    }

    fn await_acks(&mut self, socket: &SimSocket) {
        self.pass();
        assert_eq!(self.kernel.unacked(socket).expect("it never fails"), 0);
    }

    fn listen(&mut self, port: usize) -> SimListener {
        let place = self.net.borrow().listeners.len();
        self.net.borrow_mut().listeners.push(Listener::new(0, port, BACKLOG));
        SimListener::new(place, &self.net)
    }

    fn connect(&mut self, port: usize) -> Peer {
        let net = &mut *self.net.borrow_mut();
        assert!(net.connect(port, scripted_peer()), "somebody listens");
        let id = net.conns.len() - 1;
        net.conns[id].send_buffer = SEND_BUFFER;
        Peer(id)
    }

    fn client_at(&self, address: SocketAddr) -> Peer {
        Peer(client_of(address))
    }

    fn reset_queued(&mut self, peer: Peer, bytes: usize) {
        self.with(peer, |conn| {
            send(conn, bytes);
            conn.peer_resets()
        });
    }

    fn backend(&mut self, backend: bench::Backend) -> SocketAddr {
        let mode = match backend {
            // It accepts and sends nothing unless scripted.
            bench::Backend::Listening => Mode::Hung,
            bench::Backend::Closed => Mode::Refusing,
            bench::Backend::Full => Mode::Blackhole,
        };
        let net = &mut *self.net.borrow_mut();
        net.backends.push(Backend { mode, answer: b"", home: 0 });
        let last = u16::try_from(net.backends.len() - 1).expect("a few");
        SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_BACKEND_PORT + last))
    }

    fn dialed(&mut self) -> Peer {
        let id = self.net.borrow().conns.len() - 1;
        self.with(Peer(id), |conn| {
            conn.peer = scripted_peer();
            conn.send_buffer = SEND_BUFFER;
        });
        Peer(id)
    }

    fn dial_itself(&mut self) -> SimSocket {
        self.net.borrow_mut().faults.self_connect = CERTAIN;
        let socket = self.dial(bench::Backend::Closed);
        self.net.borrow_mut().faults.self_connect = 0;
        self.pass();
        socket
    }

    fn send(&mut self, link: &Link<SimSocket>, bytes: usize) {
        self.with(link.peer, |conn| send(conn, bytes));
    }

    fn send_to_closed(&mut self, peer: Peer, bytes: usize) {
        self.with(peer, |conn| send(conn, bytes));
        self.with(peer, |conn| assert_eq!(conn.peer.seen, Seen::Reset));
    }

    fn receive(&mut self, peer: Peer, bytes: usize) {
        let mut left = bytes as u64;
        while left > 0 {
            let received = self.with(peer, |conn| {
                let received = left.min(conn.delivered - conn.peer.received);
                conn.peer.received += received;
                received
            });
            assert!(received > 0, "{left} of {bytes} bytes never come");
            left -= received;
        }
    }

    fn receive_end(&mut self, peer: Peer) -> bench::Ending {
        let mut behind = 0;
        loop {
            let received = self.with(peer, receive_all);
            behind += received;
            if received == 0 {
                break;
            }
        }
        self.with(peer, |conn| match conn.peer.seen {
            Seen::Reset => bench::Ending::Reset { behind },
            Seen::Open | Seen::Fin => {
                assert!(conn.fin_delivered, "no end in sight");
                bench::Ending::Fin { behind }
            }
        })
    }

    fn is_silent(&mut self, peer: Peer) -> bool {
        self.with(peer, |conn| {
            conn.peer.seen == Seen::Open && !conn.fin_delivered && conn.delivered == conn.peer.received
        })
    }

    fn fin(&mut self, link: &Link<SimSocket>) {
        self.with(link.peer, Conn::peer_fins);
    }

    fn reset(&mut self, link: &Link<SimSocket>) {
        self.with(link.peer, Conn::peer_resets);
    }

    fn close(&mut self, link: &Link<SimSocket>) {
        self.with(link.peer, Conn::peer_closes);
    }

    fn exhaust_descriptors(&mut self) {
        let net = &mut *self.net.borrow_mut();
        net.faults.fds = net.descriptors();
    }
}
