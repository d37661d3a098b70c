//! Everything outside the process: connections, accept queues, backends, time, and the resources of this machine.

mod delivery;
mod dice;

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use l4lb::base::ready::Ready;
use l4lb::base::rng::Rng;
use l4lb::base::slots::Key;
use l4lb::config::model::OnRefuse;
use l4lb::config::proxy::{ProxyIn, ProxyOut};
use l4lb::config::routing::OnNoSni;
use l4lb::session::{CloseMode, Side};
use l4lb::stats::RefuseReason;
use l4lb::sys::Token;
use nix::libc;

use crate::accounting::Given;
use crate::agents::is_agent;
use crate::backend_model::Roster;
use crate::conn::{Answer, Called, Conn, Descriptor, Nanos, Stage};
use crate::coverage::Coverage;
use crate::faults::Faults;
use crate::peer::{Ending, Peer, Reading, Seen};
use crate::pipe::Pipe;
use crate::random::happens;
use crate::shortage::Shortage;
use crate::stream::Stream;
use crate::trace::Trace;
use crate::turns::Turn;

/// The port of the first backend; the others follow it.
pub(crate) const FIRST_BACKEND_PORT: u16 = 8001;
/// Old tokens kept for stale events.
const OLD_TOKENS_MAX: usize = 4;
/// How long a handshake is under way at most: less than a worker waits for it.
const HANDSHAKE_MAX: Nanos = 1_400_000_000;
/// Errors of accept(2): a lack of resources, a fault of one connection, and errors that should never happen.
const ACCEPT_ERRORS: [(i32, &str); 7] = [
    (libc::EMFILE, "accept EMFILE"),
    (libc::ENFILE, "accept ENFILE"),
    (libc::ENOBUFS, "accept ENOBUFS"),
    (libc::ENOMEM, "accept ENOMEM"),
    (libc::ECONNABORTED, "accept ECONNABORTED"),
    (libc::EPROTO, "accept EPROTO"),
    (libc::EINVAL, "accept EINVAL"),
];
/// Of socket(2) and connect(2).
const DIAL_ERRORS: [i32; 7] = [
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOBUFS,
    libc::EADDRNOTAVAIL,
    libc::ENETUNREACH,
    libc::EPERM,
    libc::ECONNREFUSED,
];

/// The behaviour of a backend towards connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It serves.
    Serving,
    /// Nothing listens.
    Refusing,
    /// The network reports that there is no route.
    Unreachable,
    /// The network does not answer.
    Blackhole,
    /// It accepts and resets.
    Resetting,
    /// It accepts and sends nothing.
    Hung,
}

/// One backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pub(crate) mode: Mode,
    /// Its answer to a check, and to every session if it speaks first.
    pub(crate) answer: &'static [u8],
    /// The number of the pool that it serves.
    pub(crate) home: u64,
}

/// The socket of one listener of one worker.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) worker: usize,
    /// Which of the configuration.
    pub(crate) index: usize,
    pub(crate) token: Option<Token>,
    pub(crate) queue: VecDeque<usize>,
    pub(crate) backlog: usize,
    pub(crate) edge: bool,
    pub(crate) is_open: bool,
    /// Since when no connection begins there; some with a handshake in progress still come.
    pub(crate) retired: Option<Nanos>,
}

/// See the module.
pub(crate) struct Net {
    pub(crate) now: Nanos,
    /// The longest that a wait without events lasts this time.
    pub(crate) stride: Nanos,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) conns: Vec<Conn>,
    /// Connections to which something may still happen.
    pub(crate) live: Vec<usize>,
    pub(crate) listeners: Vec<Listener>,
    /// By port.
    pub(crate) backends: Vec<Backend>,
    /// The workers' permissions.
    pub(crate) roster: Roster,
    pub(crate) pipes: Vec<Pipe>,
    pub(crate) shortage: Shortage,
    /// When workers were last denied one; without those that have closed one since.
    pub(crate) denied: HashMap<usize, Nanos>,
    /// Whether each worker has been woken.
    pub(crate) wakes: Vec<Arc<AtomicBool>>,
    clients: HashMap<(usize, u64), usize>,
    /// Tokens of what is over, by worker; reported again in stale events.
    old_tokens: VecDeque<(usize, Token)>,
    /// Events reported for connections that were over.
    pub(crate) stale_told: u64,
    /// Connections of clients that were given back in this turn.
    pub(crate) ended: Vec<usize>,
    /// Connections that were accepted.
    pub(crate) accepted: u64,
    /// Connections that were accepted and had to be refused, by [`RefuseReason::index`].
    pub(crate) refused: [u64; RefuseReason::ALL.len()],
    /// Whether all listeners have the lists of networks of [`LISTS`](crate::greeting::LISTS).
    pub(crate) has_lists: bool,
    /// What all listeners answer to clients that they refuse.
    pub(crate) on_refuse: OnRefuse,
    /// The balancers in front of all listeners, if their headers are read.
    pub(crate) listens_behind: Option<ProxyIn>,
    /// What becomes of clients that name no server at any listener, if hellos are read.
    pub(crate) reads_hellos: Option<OnNoSni>,
    /// Whether these clients are of PostgreSQL.
    pub(crate) is_postgres: bool,
    /// Bytes of headers, and of requests for TLS and answers to them, that all workers have taken.
    pub(crate) header_bytes_taken: u64,
    /// Dials that failed for another reason than the lack of a port.
    pub(crate) exhausted: u64,
    /// When a dial to a port failed at once; for ever where it lacked a port of ours, for which others may still wait.
    failed_at: HashMap<u16, Nanos>,
    /// Bytes that each worker has written to the peers of its sessions.
    pub(crate) given: Vec<Given>,
    /// Bytes of headers that each worker has written to the backends of its sessions.
    pub(crate) header_bytes: Vec<u64>,
    /// The header that all backends expect.
    pub(crate) proxy: Option<ProxyOut>,
    /// Bytes that all workers have read from them.
    pub(crate) taken: u64,
    /// Bytes that peers may still get to send.
    pub(crate) bytes_left: u64,
    /// The work of each worker since its last wait.
    pub(crate) turns: Vec<Turn>,
    /// Events that were never reported.
    pub(crate) edges_lost: u64,
    /// Whether the workers got the command to cut open sessions.
    pub(crate) is_stopping: bool,
    /// Whether they got the command to drain or to cut.
    pub(crate) is_ending: bool,
    /// Whether backends behave well.
    pub(crate) peers_behave: bool,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Trace,
    candidates: Vec<Token>,
}

impl Net {
    pub(crate) fn new(mut rng: Rng, faults: Faults, trace: Trace) -> Self {
        // Now and then shortly before a counter of 32 bits would wrap: in milliseconds, after 49.7 days.
        let now = [1_000_000_000, (u64::from(u32::MAX) - 4_000) * 1_000_000];
        let now = now[usize::from(rng.below(4) == 0)];
        Self {
            now,
            stride: 0,
            rng,
            faults,
            conns: Vec::new(),
            live: Vec::new(),
            listeners: Vec::new(),
            backends: Vec::new(),
            roster: Roster::default(),
            pipes: Vec::new(),
            shortage: Shortage::default(),
            denied: HashMap::new(),
            wakes: Vec::new(),
            clients: HashMap::new(),
            old_tokens: VecDeque::new(),
            stale_told: 0,
            ended: Vec::new(),
            accepted: 0,
            refused: [0; RefuseReason::ALL.len()],
            has_lists: false,
            on_refuse: OnRefuse::Reset,
            listens_behind: None,
            reads_hellos: None,
            is_postgres: false,
            header_bytes_taken: 0,
            exhausted: 0,
            failed_at: HashMap::new(),
            given: Vec::new(),
            header_bytes: Vec::new(),
            proxy: None,
            taken: 0,
            turns: Vec::new(),
            bytes_left: 2 << 20,
            edges_lost: 0,
            is_stopping: false,
            is_ending: false,
            peers_behave: false,
            coverage: Coverage::default(),
            trace,
            candidates: Vec::new(),
        }
    }

    // --- open resources --------------------------------------------------------------------------------------------

    /// Descriptors in use.
    pub(crate) fn descriptors(&self) -> usize {
        let listeners = self.listeners.iter().filter(|listener| listener.is_open).count();
        self.sockets() + listeners + 2 * self.pipes_open()
    }

    /// Pipes in use.
    pub(crate) fn pipes_open(&self) -> usize {
        self.pipes.iter().filter(|pipe| pipe.is_open).count()
    }

    /// Connections in use.
    pub(crate) fn sockets(&self) -> usize {
        self.live.iter().filter(|&&id| self.conns[id].descriptor == Descriptor::Open).count()
    }

    // --- listeners -------------------------------------------------------------------------------------------------

    /// Connects a client to the listener `index`; returns false when no socket listens or all queues are full.
    pub(crate) fn connect(&mut self, index: usize, peer: Peer) -> bool {
        self.connect_within(index, peer, 0)
    }

    /// The same with room for `more` more clients, except at a retiring listener: it serves as many as its queue holds.
    pub(crate) fn connect_within(&mut self, index: usize, peer: Peer, more: usize) -> bool {
        let open: Vec<usize> = (0..self.listeners.len())
            .filter(|&place| {
                let listener = &self.listeners[place];
                let may_come = listener.retired.is_none_or(|since| self.now < since + HANDSHAKE_MAX);
                listener.is_open
                    && may_come
                    && listener.index == index
                    && listener.queue.len()
                        <= listener.backlog + if listener.retired.is_none() { more } else { 0 }
            })
            .collect();
        if open.is_empty() {
            return false;
        }
        let place = open[self.below(open.len())];
        self.coverage.hit_if(self.listeners[place].retired.is_some(), "late handshake");
        let id = self.add(Stage::Queued, peer);
        self.greet(id);
        self.begin_with_hello(id);
        let listener = &mut self.listeners[place];
        listener.queue.push_back(id);
        listener.edge = true;
        self.trace.note(self.now, "client connects", id, place as u64);
        true
    }

    pub(crate) fn add(&mut self, stage: Stage, peer: Peer) -> usize {
        let id = self.conns.len();
        let send_buffer = 1 << (9 + self.rng.below(14));
        let stream = Stream::Coded(id as u64 + 1);
        self.conns.push(Conn::new(stage, stream, peer, send_buffer, self.now));
        self.live.push(id);
        id
    }

    /// accept4(2).
    pub(crate) fn accept(&mut self, place: usize) -> Called<(usize, SocketAddr)> {
        self.turns[self.listeners[place].worker].note_accept();
        let called = self.accept_next(place);
        match called {
            Ok((id, _)) => self.trace.note(self.now, "accept", id, place as u64),
            Err(error) => self.trace.fail(self.now, "accept", place, error),
        }
        called
    }

    fn accept_next(&mut self, place: usize) -> Called<(usize, SocketAddr)> {
        if happens(&mut self.rng, self.faults.accept) {
            let (error, point) = ACCEPT_ERRORS[self.below(ACCEPT_ERRORS.len())];
            if let libc::ECONNABORTED | libc::EPROTO = error {
                let Some(id) = self.listeners[place].queue.pop_front() else { return Err(libc::EAGAIN) };
                self.forget_queued(id);
            }
            self.coverage.hit(point);
            return Err(error);
        }
        // The descriptor comes first, whether a client waits or not.
        if self.lacks_descriptors() {
            self.coverage.hit("accept EMFILE");
            return Err(libc::EMFILE);
        }
        if self.listeners[place].queue.is_empty() {
            self.coverage.hit("accept EAGAIN");
            return Err(libc::EAGAIN);
        }
        let id = self.listeners[place].queue.pop_front().expect("it is not empty");
        let conn = &mut self.conns[id];
        conn.stage = Stage::Open;
        conn.descriptor = Descriptor::Open;
        conn.worker = self.listeners[place].worker;
        conn.moved = self.now;
        match self.refusal(id) {
            Some(reason) => self.refused[reason.index()] += 1,
            None => self.accepted += 1,
        }
        Ok((id, self.peer_address(id)))
    }

    /// A connection that was never accepted is reset.
    fn forget_queued(&mut self, id: usize) {
        let conn = &mut self.conns[id];
        conn.peer.seen = Seen::Reset;
        conn.descriptor = Descriptor::Closed(CloseMode::Reset);
        conn.dead = true;
    }

    pub(crate) fn close_listener(&mut self, place: usize) {
        let listener = &mut self.listeners[place];
        if !std::mem::replace(&mut listener.is_open, false) {
            return;
        }
        listener.token = None;
        let serves = |id: &&usize| self.conns[**id].queued_at_drain && !self.is_stopping;
        assert_eq!(listener.queue.iter().find(serves), None, "a drain left a client in the queue");
        let is_served = self.is_ending || listener.queue.is_empty();
        assert!(is_served, "a listener that goes left clients in the queue: {listener:?}");
        for id in std::mem::take(&mut listener.queue) {
            self.forget_queued(id);
        }
        self.trace.note(self.now, "close listener", place, 0);
    }

    // --- dials -----------------------------------------------------------------------------------------------------

    /// socket(2) and connect(2).
    pub(crate) fn dial(&mut self, worker: usize, address: SocketAddr) -> Called<usize> {
        let called = self.dial_now(worker, address);
        match called {
            Ok(id) => self.trace.note(self.now, "dial", id, u64::from(address.port())),
            Err(error) => {
                let lacks_port = error == libc::EADDRNOTAVAIL;
                self.exhausted += u64::from(!lacks_port);
                let until = if lacks_port { Nanos::MAX } else { self.now };
                let failed_at = self.failed_at.entry(address.port()).or_default();
                *failed_at = until.max(*failed_at);
                self.trace.fail(self.now, "dial", usize::from(address.port()), error);
            }
        }
        called
    }

    fn dial_now(&mut self, worker: usize, address: SocketAddr) -> Called<usize> {
        if happens(&mut self.rng, self.faults.dial) {
            return Err(DIAL_ERRORS[self.below(DIAL_ERRORS.len())]);
        }
        if self.lacks_descriptors() {
            return Err(libc::EMFILE);
        }
        if self.lacks_ports(address.port()) {
            self.coverage.hit("no port left");
            return Err(libc::EADDRNOTAVAIL);
        }
        if is_agent(address.port()) {
            return self.dial_agent(worker, address.port());
        }
        let backend = self.backends[usize::from(address.port() - FIRST_BACKEND_PORT)];
        let answer = match backend.mode {
            Mode::Refusing if happens(&mut self.rng, self.faults.self_connect) => Answer::Itself,
            Mode::Serving | Mode::Resetting | Mode::Hung => Answer::Accept,
            Mode::Refusing => Answer::Refuse(libc::ECONNREFUSED),
            Mode::Unreachable if self.rng.below(2) == 0 => return Err(libc::ENETUNREACH),
            Mode::Unreachable => Answer::Refuse(libc::EHOSTUNREACH),
            Mode::Blackhole => Answer::Silence,
        };
        let peer = match backend.mode {
            // A self-connected socket receives its own bytes, and none were sent.
            _ if answer == Answer::Itself => Peer::new(0, 0, Ending::Never, Reading::Stopped, 1 << 16),
            Mode::Resetting => Peer::new(0, 0, Ending::Reset { after: 0 }, Reading::Eager, 1 << 16),
            Mode::Hung => Peer::new(0, 0, Ending::Never, Reading::Stopped, 1 << 16),
            Mode::Serving | Mode::Refusing | Mode::Unreachable | Mode::Blackhole => self.draw_backend(),
        };
        let id = self.add(Stage::Dialing(answer), peer);
        self.conns[id].worker = worker;
        self.conns[id].dialed_port = Some(address.port());
        self.conns[id].literal = (backend.mode == Mode::Serving).then_some(backend.answer);
        Ok(id)
    }

    // --- epoll -----------------------------------------------------------------------------------------------------

    /// epoll_ctl(2). Earlier changes of a connection are reported at once.
    pub(crate) fn watch(&mut self, worker: usize, id: usize, token: Token) -> Called<()> {
        if happens(&mut self.rng, self.faults.watch) {
            self.exhausted += 1;
            self.conns[id].is_unwatchable = true;
            self.failed_at.extend(self.conns[id].dialed_port.map(|port| (port, Nanos::MAX)));
            self.trace.fail(self.now, "watch", id, libc::ENOSPC);
            return Err(libc::ENOSPC);
        }
        self.check_target(id, token);
        let conn = &mut self.conns[id];
        if conn.worker != worker {
            assert_eq!((conn.token, conn.dialed_port), (None, None), "#{id}: watched by two workers");
            conn.worker = worker;
            self.coverage.hit("handed over");
        }
        conn.token = Some(token);
        conn.edge = true;
        match token {
            Token::Session(key, Side::Client) => {
                // Its time for a header and a hello begins.
                conn.moved = self.now;
                conn.opened = self.now;
                self.clients.insert((conn.worker, pack(key)), id);
            }
            Token::Session(key, Side::Backend) => {
                let client = self.clients[&(conn.worker, pack(key))];
                conn.partner = Some(client);
                let port = conn.dialed_port.expect("backends are dialed");
                let may_have_failed = |port| self.may_have_failed(&self.conns[client], port);
                let is_later = self.roster.check_tier(worker, port, may_have_failed);
                self.coverage.hit_if(is_later, "later tier");
                let client = &mut self.conns[client];
                assert!(
                    !client.has_left_its_hello,
                    "#{id}: dialed for a client that has reset within its hello"
                );
                client.partner = Some(id);
                client.settle_negotiation();
                assert!(!client.dialed.contains(&port), "#{id}: dialed again for the same client");
                let is_retry = client.has_left_bytes() && !client.dialed.is_empty();
                client.dialed.push(port);
                client.dialed_ever.push(port);
                self.coverage.hit_if(is_retry, "redial for bytes of the dead");
            }
            Token::Probe(_) => self.becomes_check(id),
            Token::Agent(_) => {}
            Token::Listener(_) | Token::Wake => panic!("a connection watched as {token:?}"),
        }
        self.expect_header(id, token);
        Ok(())
    }

    /// A serving backend answers a check as the check requires. One that hangs may send without end instead.
    fn becomes_check(&mut self, id: usize) {
        let conn = &mut self.conns[id];
        let is_hung = conn.peer.ending == Ending::Never && conn.stage != Stage::Dialing(Answer::Itself);
        if let Some(answer) = conn.literal {
            conn.stream = Stream::Literal(answer);
            conn.peer = Peer::new(answer.len() as u64, 0, Ending::FinAfterFin, Reading::Eager, 1 << 16);
        } else if is_hung && id.is_multiple_of(2) {
            conn.stream = Stream::Literal(b"");
            conn.peer = Peer::new(1 << 17, 0, Ending::Never, Reading::Stopped, 1 << 16);
            self.coverage.hit("oversized answer");
        }
    }

    /// Returns whether a dial for `client` to that port may have failed.
    pub(crate) fn may_have_failed(&self, client: &Conn, port: u16) -> bool {
        client.dialed_ever.contains(&port) || self.failed_at.get(&port).is_some_and(|at| *at >= client.born)
    }

    /// Must be called when a client's connection is given back, and its session is over.
    pub(crate) fn note_end(&mut self, id: usize) {
        self.ended.push(id);
        self.note_old(id);
    }

    /// Events of a connection that is over may come late.
    pub(crate) fn note_old(&mut self, id: usize) {
        let conn = &self.conns[id];
        if let Some(token) = conn.token {
            self.old_tokens.push_back((conn.worker, token));
            self.old_tokens.truncate(OLD_TOKENS_MAX);
        }
    }
}

const READABLE: Ready = Ready { readable: true, writable: false, closing: false, failing: false };

/// Each connection of a client has an address of its own.
pub(crate) fn client_address(id: usize) -> SocketAddr {
    let id = u32::try_from(id).expect("fewer connections");
    SocketAddr::from((Ipv4Addr::from(0x0A00_0000 | id >> 4), 1_024 + u16::try_from(id & 15).expect("4 bits")))
}

/// The balancer in front through which that client comes: one of 172.16.0.0/12, and for each client another.
pub(crate) fn front_address(id: usize) -> SocketAddr {
    let id = u32::try_from(id).expect("fewer connections");
    SocketAddr::from((Ipv4Addr::from(0xAC10_0000 | id >> 4), 1_024 + u16::try_from(id & 15).expect("4 bits")))
}

/// The address of a client that is in the lists of the listeners: one of 192.160.0.0/12, and for each client another.
pub(crate) fn listed_address(id: usize) -> SocketAddr {
    let id = u32::try_from(id).expect("fewer connections");
    SocketAddr::from((Ipv4Addr::from(0xC0A0_0000 | id >> 4), 1_024 + u16::try_from(id & 15).expect("4 bits")))
}

/// The connection of the client with that address, or through that balancer in front.
pub(crate) fn client_of(address: SocketAddr) -> usize {
    let SocketAddr::V4(address) = address else { panic!("clients are of IPv4") };
    (u32::from(*address.ip()) & 0x000F_FFFF) as usize * 16 + usize::from(address.port() - 1_024)
}

fn pack(key: Key) -> u64 {
    u64::from(key.generation) << 32 | u64::from(key.index)
}
