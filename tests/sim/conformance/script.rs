//! The verbs of a script. Everything that can differ between kernels is a line of its transcript.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use l4lb::base::address::Address;
use l4lb::base::slots::Key;
use l4lb::config::model::Tcp;
use l4lb::sys::{Dial, DialSpec, Event, Kernel, Token};
use nix::errno::Errno;

use crate::conformance::{Bench, Ending, Link, Listener, Peer, Socket};

/// Options of every socket: each write leaves at once.
const TCP: Tcp = Tcp { nodelay: true, keepalive: None, user_timeout: None };
/// Bytes per write that fills a send buffer.
const CHUNK: usize = 16 * 1024;
/// Times that a send buffer is filled again, because room turned up.
const REFILLS_MAX: usize = 20;

/// Returns a dial to `address` as all scripts make it.
pub(super) fn dial_spec(address: &Address) -> DialSpec<'_> {
    DialSpec { address, tcp: &TCP }
}

/// The events of a script, line by line.
pub(super) type Transcript = Vec<String>;

/// A script that runs.
pub(super) struct Script<'a, B: Bench> {
    pub(super) bench: &'a mut B,
    lines: Transcript,
    ports: usize,
}

impl<'a, B: Bench> Script<'a, B> {
    pub(super) fn new(bench: &'a mut B) -> Self {
        Self { bench, lines: Vec::new(), ports: 0 }
    }

    pub(super) fn end(self) -> Transcript {
        self.lines
    }

    pub(super) fn note(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Merges equal lines in a row: their number is up to chance.
    pub(super) fn merge_lines(&mut self) {
        self.lines.dedup();
    }

    // --- connections -----------------------------------------------------------------------------------------------

    /// Returns a port on which nothing listens yet.
    pub(super) fn port(&mut self) -> usize {
        self.ports += 1;
        self.ports - 1
    }

    /// Returns an accepted client.
    pub(super) fn client(&mut self) -> Link<Socket<B>> {
        let port = self.port();
        let listener = self.bench.listen(port);
        self.bench.connect(port);
        let link = self.take(&listener);
        self.bench.kernel().close_listener(listener);
        link
    }

    /// Returns an accepted and watched client, after its event of being writable.
    pub(super) fn watched_client(&mut self) -> Link<Socket<B>> {
        let link = self.client();
        self.watch(&link);
        assert_eq!(self.bench.await_events().len(), 1, "a new connection is writable");
        link
    }

    /// The next client of a queue that is not empty.
    pub(super) fn take(&mut self, listener: &Listener<B>) -> Link<Socket<B>> {
        let (socket, address) = self.bench.kernel().accept(listener).expect("a client is queued");
        Link { socket, peer: self.bench.client_at(address) }
    }

    pub(super) fn watch(&mut self, link: &Link<Socket<B>>) {
        self.watch_socket(&link.socket, link.peer.0);
    }

    /// Watches a socket under a number of its own.
    pub(super) fn watch_socket(&mut self, socket: &Socket<B>, number: usize) {
        let index = u32::try_from(number).expect("a few connections");
        let token = Token::Probe(Key { index, generation: 0 });
        self.bench.kernel().watch(socket, token).expect("epoll has room");
    }

    pub(super) fn watch_listener(&mut self, listener: &Listener<B>, number: u32) {
        self.bench.kernel().watch_listener(listener, Token::Listener(number)).expect("epoll has room");
    }

    // --- events ----------------------------------------------------------------------------------------------------

    /// Records the events reported after an action.
    pub(super) fn reported(&mut self) {
        let events = self.bench.await_events();
        self.note(format!("reported: {}", text_of(events)));
    }

    /// Records the events reported by now, after an action without one.
    pub(super) fn events_so_far(&mut self) {
        self.bench.pass();
        let mut events = Vec::new();
        self.bench.kernel().wait(Some(Duration::ZERO), &mut events).expect("epoll works");
        self.note(format!("reported: {}", text_of(events)));
    }

    // --- calls -----------------------------------------------------------------------------------------------------

    pub(super) fn read(&mut self, link: &Link<Socket<B>>, len: usize) {
        let called = self.bench.kernel().read(&link.socket, &mut vec![0; len]);
        self.note(format!("read: {}", count_or_error(called)));
    }

    pub(super) fn write(&mut self, link: &Link<Socket<B>>, len: usize) {
        let called = self.bench.kernel().write(&link.socket, &vec![0; len]);
        self.bench.pass();
        self.note(format!("write: {}", count_or_error(called)));
    }

    /// Writes bytes that the end of our stream follows at once.
    pub(super) fn write_last(&mut self, link: &Link<Socket<B>>, len: usize) {
        let called = self.bench.kernel().write_last(&link.socket, &vec![0; len]);
        self.note(format!("write last: {}", count_or_error(called)));
    }

    /// Writes until not a byte more fits, even after a while; returns the number of bytes.
    pub(super) fn fill(&mut self, link: &Link<Socket<B>>) -> usize {
        let mut written = 0;
        for _ in 0..REFILLS_MAX {
            let more = self.write_all_that_fits(link, CHUNK) + self.write_all_that_fits(link, 1);
            let is_silent = self.bench.await_silence().is_empty();
            if more == 0 && is_silent {
                return written;
            }
            written += more;
        }
        panic!("{written} bytes and still room");
    }

    fn write_all_that_fits(&mut self, link: &Link<Socket<B>>, len: usize) -> usize {
        let mut written = 0;
        loop {
            match self.bench.kernel().write(&link.socket, &[0; CHUNK][..len]) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return written,
                Err(error) => panic!("a write to a peer that does not read: {error}"),
            }
        }
    }

    pub(super) fn take_error(&mut self, link: &Link<Socket<B>>) {
        let error = self.bench.kernel().take_error(&link.socket);
        self.note(format!("take error: {}", error.as_ref().map_or("none".into(), name_of)));
    }

    /// Ends our stream, and waits until the peer's kernel knows.
    pub(super) fn shutdown_write(&mut self, link: &Link<Socket<B>>) {
        let called = self.bench.kernel().shutdown_write(&link.socket);
        if called.is_ok() {
            self.bench.await_acks(&link.socket);
        }
        self.note(format!("shutdown write: {}", done_or_error(called)));
    }

    pub(super) fn unacked(&mut self, link: &Link<Socket<B>>) -> u32 {
        self.bench.pass();
        self.bench.kernel().unacked(&link.socket).expect("it is a connection")
    }

    pub(super) fn silence(&mut self, link: &Link<Socket<B>>) {
        let silence = self.bench.kernel().silence(&link.socket).expect("it is a connection");
        self.note(format!("silence: {silence:?}"));
    }

    pub(super) fn dial(&mut self, address: SocketAddr) -> Socket<B> {
        self.bench.kernel().dial(&dial_spec(&address.into())).expect("a dial begins")
    }

    pub(super) fn dial_result(&mut self, socket: &Socket<B>) {
        let line = match self.bench.kernel().dial_result(socket) {
            Dial::Pending => "pending".into(),
            Dial::Connected => "connected".into(),
            Dial::ToItself => "to itself".into(),
            Dial::Lost(error) => format!("lost {}", name_of(&error)),
            Dial::Failed(error) => format!("failed {}", name_of(&error)),
        };
        self.note(format!("dial: {line}"));
    }

    /// Accepts the next client, or records why not.
    pub(super) fn accept(&mut self, listener: &Listener<B>) -> Option<Link<Socket<B>>> {
        match self.bench.kernel().accept(listener) {
            Ok((socket, address)) => {
                self.note("accept: a client");
                Some(Link { socket, peer: self.bench.client_at(address) })
            }
            Err(error) => {
                self.note(format!("accept: {}", name_of(&error)));
                None
            }
        }
    }

    // --- peers -----------------------------------------------------------------------------------------------------

    pub(super) fn peer_ends(&mut self, peer: Peer) {
        let line = match self.bench.receive_end(peer) {
            Ending::Fin { behind } => format!("peer: FIN behind {behind}"),
            Ending::Reset { behind } => format!("peer: reset behind {behind}"),
        };
        self.note(line);
    }
}

fn text_of(mut events: Vec<Event>) -> String {
    events.sort_by_key(|event| event.token.pack());
    let texts: Vec<String> = events.iter().map(text_of_one).collect();
    if texts.is_empty() { "nothing".into() } else { texts.join(", ") }
}

fn text_of_one(event: &Event) -> String {
    let listener = matches!(event.token, Token::Listener(_)).then_some("listener");
    let ready = event.ready;
    let flags = [
        (ready.readable, "readable"),
        (ready.writable, "writable"),
        (ready.closing, "closing"),
        (ready.failing, "failing"),
    ];
    let flags = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name);
    listener.into_iter().chain(flags).collect::<Vec<_>>().join(" ")
}

pub(super) fn count_or_error(called: io::Result<usize>) -> String {
    called.map_or_else(|error| name_of(&error), |bytes| bytes.to_string())
}

pub(super) fn done_or_error(called: io::Result<()>) -> String {
    called.map_or_else(|error| name_of(&error), |()| "done".into())
}

fn name_of(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |raw| format!("{:?}", Errno::from_raw(raw)))
}
