//! [`Kernel`] over the simulated network. Checks every call of a worker for violations: a byte out of place, a FIN that
//! no peer sent or before a byte, a second FIN, a call on a socket that was given back.

mod pipes;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use l4lb::base::address::Address;
use l4lb::base::ready::Ready;
use l4lb::base::time::Instant;
use l4lb::config::model::{Keepalive, OnRefuse};
use l4lb::config::proxy::Welcome;
use l4lb::session::CloseMode;
use l4lb::stats::RefuseReason;
use l4lb::sys::{Dial, DialSpec, Event, Kernel, Token, Wake};
use nix::libc;

use crate::conn::{Called, Conn, Descriptor, Push, Stage};
use crate::greeting::Kind;
use crate::header;
use crate::network::Net;
use crate::random::{happens, to_usize};

/// The kernel as one worker sees it.
pub(crate) struct SimKernel {
    pub(crate) net: Rc<RefCell<Net>>,
    pub(crate) worker: usize,
}

/// A descriptor of a connection.
pub(crate) struct SimSocket {
    id: usize,
    net: Rc<RefCell<Net>>,
}

/// A descriptor of a listener.
pub(crate) struct SimListener {
    place: usize,
    net: Rc<RefCell<Net>>,
}

/// Two descriptors of a pipe.
pub(crate) struct SimPipe {
    id: usize,
    worker: usize,
    net: Rc<RefCell<Net>>,
}

/// Wakes a worker.
pub(crate) struct SimWake(pub(crate) Arc<AtomicBool>);

impl Wake for SimWake {
    fn wake(&self) -> io::Result<()> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl SimListener {
    pub(crate) fn new(place: usize, net: &Rc<RefCell<Net>>) -> Self {
        Self { place, net: Rc::clone(net) }
    }
}

// A failed check unwinds through the worker that holds these.
impl Drop for SimSocket {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.net.borrow_mut().close(self.id, CloseMode::Close);
        }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.net.borrow_mut().close_listener(self.place);
        }
    }
}

impl Drop for SimPipe {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let mut net = self.net.borrow_mut();
            net.pipes[self.id].is_open = false;
            net.denied.remove(&self.worker);
        }
    }
}

fn result<T>(called: Called<T>) -> io::Result<T> {
    called.map_err(io::Error::from_raw_os_error)
}

impl Kernel for SimKernel {
    type Socket = SimSocket;
    type Listener = SimListener;
    type Pipe = SimPipe;

    fn now(&mut self) -> Instant {
        Instant::from_nanos(self.net.borrow().now)
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        let net = &mut *self.net.borrow_mut();
        let was_full = net.turns[self.worker].end();
        net.coverage.hit_if(was_full, "full turn");
        net.wait(self.worker, timeout, events);
        Ok(())
    }

    fn watch_listener(&mut self, listener: &SimListener, token: Token) -> io::Result<()> {
        let net = &mut *self.net.borrow_mut();
        if happens(&mut net.rng, net.faults.watch) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let listener = &mut net.listeners[listener.place];
        listener.token = Some(token);
        listener.edge = true;
        Ok(())
    }

    fn accept(&mut self, listener: &SimListener) -> io::Result<(SimSocket, SocketAddr)> {
        let (id, address) = result(self.net.borrow_mut().accept(listener.place))?;
        Ok((SimSocket { id, net: Rc::clone(&self.net) }, address))
    }

    fn has_client(&mut self, listener: &SimListener) -> bool {
        !self.net.borrow().listeners[listener.place].queue.is_empty()
    }

    fn close_listener(&mut self, listener: SimListener) {
        drop(listener);
    }

    fn dial(&mut self, spec: &DialSpec<'_>) -> io::Result<SimSocket> {
        let Address::Ip(address) = *spec.address;
        let id = result(self.net.borrow_mut().dial(self.worker, address))?;
        Ok(SimSocket { id, net: Rc::clone(&self.net) })
    }

    fn local_address(&mut self, socket: &SimSocket) -> io::Result<SocketAddr> {
        Ok(header::local_address(socket.id))
    }

    fn dial_result(&mut self, socket: &SimSocket) -> Dial {
        self.net.borrow_mut().dial_result(socket.id)
    }

    fn keep_alive(&mut self, socket: &SimSocket, _keepalive: Keepalive) -> io::Result<()> {
        self.net.borrow_mut().keep_alive(socket.id);
        Ok(())
    }

    fn watch(&mut self, socket: &SimSocket, token: Token) -> io::Result<()> {
        result(self.net.borrow_mut().watch(self.worker, socket.id, token))
    }

    fn read(&mut self, socket: &SimSocket, buffer: &mut [u8]) -> io::Result<usize> {
        result(self.net.borrow_mut().read(socket.id, buffer))
    }

    fn peek(&mut self, socket: &SimSocket, buffer: &mut [u8]) -> io::Result<usize> {
        result(self.net.borrow_mut().peek(socket.id, buffer))
    }

    fn write(&mut self, socket: &SimSocket, bytes: &[u8]) -> io::Result<usize> {
        result(self.net.borrow_mut().write(socket.id, bytes, Push::Now))
    }

    fn write_last(&mut self, socket: &SimSocket, bytes: &[u8]) -> io::Result<usize> {
        result(self.net.borrow_mut().write(socket.id, bytes, Push::WithFin))
    }

    fn pipe(&mut self, capacity: usize, least: usize) -> io::Result<SimPipe> {
        let id = result(self.net.borrow_mut().open_pipe(self.worker, capacity, least))?;
        Ok(SimPipe { id, worker: self.worker, net: Rc::clone(&self.net) })
    }

    fn splice_in(&mut self, socket: &SimSocket, pipe: &SimPipe, len: usize) -> io::Result<usize> {
        result(self.net.borrow_mut().splice_in(socket.id, pipe.id, len))
    }

    fn splice_out(&mut self, pipe: &SimPipe, socket: &SimSocket, len: usize) -> io::Result<usize> {
        result(self.net.borrow_mut().splice_out(pipe.id, socket.id, len))
    }

    fn empty_pipe(&mut self, pipe: &SimPipe, buffer: &mut [u8]) -> io::Result<usize> {
        result(self.net.borrow_mut().empty_pipe(pipe.id, buffer))
    }

    fn take_error(&mut self, socket: &SimSocket) -> Option<io::Error> {
        self.net.borrow_mut().take_error(socket.id).map(io::Error::from_raw_os_error)
    }

    fn unacked(&mut self, socket: &SimSocket) -> io::Result<u32> {
        let mut net = self.net.borrow_mut();
        let unacked = net.conn(socket.id).unacked();
        net.note("ask unacked", socket.id, unacked);
        net.hit(socket.id, if unacked == 0 { "AskUnacked Done" } else { "AskUnacked Unacked" });
        Ok(u32::try_from(unacked).expect("a send buffer is small"))
    }

    fn delivery(&mut self, socket: &SimSocket) -> io::Result<(Duration, u32)> {
        let mut net = self.net.borrow_mut();
        let now = net.now;
        let conn = net.conn(socket.id);
        let (quiet, unacked) = (now - conn.taken_at, if conn.dead { 0 } else { conn.unacked() });
        let waiting = unacked > 0;
        if waiting {
            conn.waited_at = now;
        }
        net.note("ask delivery", socket.id, quiet);
        net.hit(socket.id, if waiting { "AskDelivery waiting" } else { "AskDelivery done" });
        Ok((Duration::from_nanos(quiet), u32::try_from(unacked).expect("a send buffer is small")))
    }

    fn has_unread(&mut self, socket: &SimSocket) -> bool {
        self.net.borrow_mut().has_unread(socket.id)
    }

    fn has_ended(&mut self, socket: &SimSocket) -> bool {
        let mut net = self.net.borrow_mut();
        let has_ended = net.conn(socket.id).state().closing;
        net.note("ask end", socket.id, u64::from(has_ended));
        net.hit(socket.id, if has_ended { "Preread of the last" } else { "Preread of a false end" });
        has_ended
    }

    fn states<'a>(&mut self, sockets: impl Iterator<Item = &'a SimSocket>, states: &mut Vec<Ready>) {
        let mut net = self.net.borrow_mut();
        states.clear();
        states.extend(sockets.map(|socket| {
            let conn = net.conn(socket.id);
            // An event that is still to be reported is not lost, however long this network keeps it.
            if conn.edge { Ready::default() } else { conn.state() }
        }));
    }

    fn silence(&mut self, socket: &SimSocket) -> io::Result<Option<Duration>> {
        let mut net = self.net.borrow_mut();
        let now = net.now;
        let silence = net.conn(socket.id).silence(now);
        net.note("ask silence", socket.id, silence.unwrap_or(u64::MAX));
        net.hit(socket.id, if silence.is_none() { "AskSilence Done" } else { "AskSilence Silent" });
        Ok(silence.map(Duration::from_nanos))
    }

    fn shutdown_write(&mut self, socket: &SimSocket) -> io::Result<()> {
        result(self.net.borrow_mut().shutdown_write(socket.id))
    }

    fn reset(&mut self, socket: SimSocket) {
        self.net.borrow_mut().close(socket.id, CloseMode::Reset);
    }

    fn close(&mut self, socket: SimSocket) {
        drop(socket);
    }
}

/// The system calls on one connection, each with its dice, its checks and its line in the trace.
impl Net {
    fn conn(&mut self, id: usize) -> &mut Conn {
        let conn = &mut self.conns[id];
        assert_eq!(conn.descriptor, Descriptor::Open, "#{id}: a call on a descriptor that was given back");
        conn
    }

    fn note(&mut self, call: &'static str, id: usize, value: u64) {
        self.trace.note(self.now, call, id, value);
    }

    /// Counts the outcome of an op of a session; checks and dials are counted elsewhere.
    fn hit(&mut self, id: usize, point: &'static str) {
        if let Some(Token::Session(..)) = self.conns[id].token {
            self.coverage.hit(point);
        }
    }

    pub(crate) fn dial_result(&mut self, id: usize) -> Dial {
        let now = self.now;
        let conn = self.conn(id);
        let (dial, point) = match conn.take_error(now).map(io::Error::from_raw_os_error) {
            Some(error) if conn.unread() > 0 => (Dial::Lost(error), "dial Lost"),
            Some(error) => (Dial::Failed(error), "dial Failed"),
            None if conn.dead => (Dial::Pending, "dial Pending"),
            None => match conn.stage {
                Stage::Dialing(_) => (Dial::Pending, "dial Pending"),
                Stage::Open if conn.is_itself => (Dial::ToItself, "dial ToItself"),
                Stage::Open | Stage::Queued => (Dial::Connected, "dial Connected"),
            },
        };
        // One that is asked for TLS is connected once it has granted it.
        if let (Dial::Connected | Dial::Lost(_), true) = (&dial, self.conns[id].negotiation.bytes.is_empty())
        {
            self.conns[id].connected_at.get_or_insert(now);
        }
        self.note(point, id, 0);
        self.coverage.hit(point);
        let client = self.conns[id].partner.map(|client| &self.conns[client]);
        let outlived = matches!(dial, Dial::Connected) && client.is_some_and(Conn::has_left_bytes);
        self.coverage.hit_if(outlived, "dial for bytes of the dead");
        dial
    }

    pub(crate) fn keep_alive(&mut self, id: usize) {
        let conn = self.conn(id);
        assert_eq!(conn.stage, Stage::Open, "#{id}: keepalive of a dial");
        assert!(!std::mem::replace(&mut conn.kept_alive, true), "#{id}: keepalive was asked for before");
        self.note("keep alive", id, 0);
        self.coverage.hit("kept alive");
    }

    pub(crate) fn read(&mut self, id: usize, buffer: &mut [u8]) -> Called<usize> {
        let now = self.now;
        let mut len = buffer.len() as u64;
        let is_cut = happens(&mut self.rng, self.faults.short_read);
        let unread = self.conn(id).unread();
        if is_cut && unread > 1 {
            // The rest arrives right after this call, and is reported.
            let most = if self.rng.below(2) == 0 { unread - 1 } else { 1 + unread / 40 };
            len = len.min(1 + self.rng.below(most));
            self.conns[id].edge = true;
        }
        let start = self.conns[id].read;
        let called = self.conns[id].read(len, now);
        if start < self.conns[id].prefix() {
            return match self.conns[id].dialed_port {
                Some(_) => self.take_answer(id, called, buffer),
                None => self.take_header(id, start, called, buffer),
            };
        }
        self.hit_fill(id, called, Some(buffer.len() as u64));
        // What leaves with a header is copied behind it.
        let partner = self.conns[id].partner.map(|partner| &self.conns[partner]);
        let joins = partner.is_some_and(|partner| partner.written < partner.header.len() as u64);
        if let (Some(Token::Session(..)), false) = (self.conns[id].token, joins) {
            self.shortage.on_copy(id);
        }
        if let Ok(bytes) = called {
            self.conns[id].copy_to(start, &mut buffer[..to_usize(bytes)]);
        }
        self.reported("read", id, called)
    }

    /// A read that begins within a header must not go past its end.
    fn take_header(
        &mut self,
        id: usize,
        start: u64,
        called: Called<u64>,
        buffer: &mut [u8],
    ) -> Called<usize> {
        let bytes = called.expect("they were there a moment ago");
        let conn = &self.conns[id];
        let end = if start < conn.greeting.len() { conn.greeting.len() } else { conn.prefix() };
        assert!(start + bytes <= end, "#{id}: payload is taken with the header");
        assert!(
            !matches!(conn.greeting.kind, Kind::Bad | Kind::Cut),
            "#{id}: a header that is none is taken"
        );
        conn.copy_to(start, &mut buffer[..to_usize(bytes)]);
        self.header_bytes_taken += bytes;
        self.coverage.hit(if end == conn.prefix() && self.is_postgres {
            "request taken"
        } else {
            "header taken"
        });
        self.reported("take header", id, Ok(bytes))
    }

    /// A read of the answer of a backend that was asked for TLS.
    fn take_answer(&mut self, id: usize, called: Called<u64>, buffer: &mut [u8]) -> Called<usize> {
        let Ok(bytes @ 1..) = called else { return self.reported("await answer", id, called) };
        let conn = &mut self.conns[id];
        conn.copy_to(0, &mut buffer[..to_usize(bytes)]);
        conn.negotiation.is_stuffed = bytes > conn.negotiation.len();
        self.header_bytes_taken += bytes;
        let is_granted = !conn.has_yet_to_grant();
        if is_granted {
            conn.connected_at = Some(self.now);
        }
        let point = match (conn.negotiation.is_stuffed, is_granted) {
            (true, _) => "answer stuffed",
            (false, true) => "TLS granted",
            (false, false) => "TLS refused",
        };
        self.coverage.hit(point);
        self.reported("take answer", id, Ok(bytes))
    }

    fn peek(&mut self, id: usize, buffer: &mut [u8]) -> Called<usize> {
        let now = self.now;
        let is_opening = self.welcome(id) == Welcome::Header || self.reads_hellos.is_some();
        assert!(is_opening, "#{id}: a client is peeked at that must send nothing");
        let called = self.conn(id).peek(buffer.len() as u64, now);
        let (reads_hellos, is_postgres) = (self.reads_hellos.is_some(), self.is_postgres);
        let conn = &mut self.conns[id];
        if let Ok(bytes) = called {
            conn.copy_to(conn.read, &mut buffer[..to_usize(bytes)]);
            if reads_hellos {
                conn.note_look(is_postgres);
            }
        }
        let left = conn.has_left_its_hello;
        self.coverage.hit_if(left, "Preread of a hello that was left");
        let conn = &self.conns[id];
        let greeting = conn.greeting.len();
        self.hit(
            id,
            match called {
                Ok(0) => "Preread Eof",
                Ok(bytes) if bytes < greeting => "Preread of a part",
                Ok(bytes) if bytes > greeting => "Preread with payload",
                Ok(_) => "Preread",
                Err(libc::EAGAIN) => "Preread WouldBlock",
                Err(_) => "Preread Failed",
            },
        );
        self.reported("peek", id, called)
    }

    /// Counts a fill: by copy into a buffer of `len` bytes, or by splice.
    fn hit_fill(&mut self, id: usize, called: Called<u64>, len: Option<u64>) {
        let point = match (called, len) {
            (Ok(0), Some(_)) => "Fill Eof",
            (Ok(bytes), Some(len)) if bytes < len => "Fill Drained",
            (Ok(_), Some(_)) => "Fill Moved",
            (Ok(0), None) => "spliced end",
            (Ok(_), None) => "Fill spliced",
            (Err(libc::EAGAIN), Some(_)) => "Fill WouldBlock",
            (Err(libc::EAGAIN), None) => "splice WouldBlock",
            (Err(_), _) => "Fill Failed",
        };
        self.hit(id, point);
        if let (Ok(bytes @ 1..), Some(Token::Session(key, _))) = (called, self.conns[id].token) {
            self.taken += bytes;
            self.turns[self.conns[id].worker].note(key, bytes, true);
        }
        if let Ok(1..) = called {
            let by_splice = len.is_none();
            let before = self.conns[id].by_splice.replace(by_splice);
            self.coverage.hit_if(
                before == Some(!by_splice),
                if by_splice { "copy to splice" } else { "splice to copy" },
            );
        }
    }

    fn reported(&mut self, call: &'static str, id: usize, called: Called<u64>) -> Called<usize> {
        match called {
            Ok(bytes) => self.trace.note(self.now, call, id, bytes),
            Err(error) => self.trace.fail(self.now, call, id, error),
        }
        called.map(to_usize)
    }

    pub(crate) fn write(&mut self, id: usize, bytes: &[u8], push: Push) -> Called<usize> {
        let now = self.now;
        let start = self.conn(id).written;
        let called = match self.draw_room(id, bytes.len() as u64) {
            // A kernel without room for everything sends the accepted part.
            Some(len) if len < bytes.len() as u64 => self.conns[id].write(len, Push::Now, now),
            Some(len) => self.conns[id].write(len, push, now),
            None => Err(libc::EAGAIN),
        };
        match (called, self.conns[id].token) {
            (Ok(len), Some(Token::Session(..))) => self.check_bytes(id, start, &bytes[..to_usize(len)]),
            (Ok(len), Some(Token::Probe(_))) => _ = self.check_header(id, start, &bytes[..to_usize(len)]),
            _ => {}
        }
        self.hit_flush(id, called);
        self.coverage.hit_if(push == Push::WithFin && called.is_ok(), "Flush of the last");
        self.note_written(id, called.unwrap_or(0));
        self.reported("write", id, called)
    }

    /// Draws how much of `len` a write accepts at most; `None` when it meets a buffer that is full only for the moment.
    fn draw_room(&mut self, id: usize, len: u64) -> Option<u64> {
        if self.conns[id].dead || !happens(&mut self.rng, self.faults.short_write) {
            return Some(len);
        }
        let room = self.rng.below(len + 1);
        if room == 0 {
            self.conns[id].meet_full_buffer();
        }
        (room > 0).then_some(room)
    }

    /// Bytes of a check to a backend are not counted, those of a header apart.
    fn note_written(&mut self, id: usize, bytes: u64) {
        let conn = &self.conns[id];
        if let Some(Token::Session(key, side)) = conn.token {
            let before = conn.written - bytes;
            let of_header = bytes.min((conn.header.len() as u64).saturating_sub(before));
            self.given[conn.worker][side.inward() as usize] += bytes - of_header;
            self.header_bytes[conn.worker] += of_header;
            self.turns[conn.worker].note(key, bytes, false);
            self.coverage.hit_if(of_header > 0 && bytes > of_header, "header with bytes");
            self.coverage.hit_if(of_header > 0 && before > 0, "header in pieces");
        }
    }

    fn hit_flush(&mut self, id: usize, called: Called<u64>) {
        self.hit(
            id,
            match called {
                Ok(_) => "Flush Moved",
                Err(libc::EAGAIN) => "Flush WouldBlock",
                Err(_) => "Flush Failed",
            },
        );
    }

    /// Bytes written to one side must be those read from the other, in their place behind the header.
    fn check_bytes(&self, id: usize, start: u64, bytes: &[u8]) {
        let (start, bytes) = self.check_header(id, start, bytes);
        if bytes.is_empty() {
            return;
        }
        let source = &self.conns[self.conns[id].partner.expect("only pairs are written to")];
        if let Some(place) = source.stream.mismatch(start, bytes) {
            panic!("#{id}: byte {place} written to it is not the one that its partner sent");
        }
        let end = start + bytes.len() as u64;
        assert!(end <= source.payload(source.read), "#{id}: byte {end} was written before it was read");
    }

    pub(crate) fn take_error(&mut self, id: usize) -> Option<i32> {
        let now = self.now;
        let error = self.conn(id).take_error(now);
        self.hit(id, if error.is_some() { "TakeError Failed" } else { "TakeError Done" });
        self.note("take error", id, error.map_or(0, i32::unsigned_abs).into());
        error
    }

    fn has_unread(&mut self, id: usize) -> bool {
        let has_unread = self.conn(id).unread() > 0;
        self.hit(id, if has_unread { "AskUnread Unread" } else { "AskUnread Done" });
        self.note("ask unread", id, u64::from(has_unread));
        has_unread
    }

    pub(crate) fn shutdown_write(&mut self, id: usize) -> Called<()> {
        let now = self.now;
        assert!(!self.conn(id).fin_out, "#{id}: a second FIN");
        let called = self.conns[id].shutdown_write(now);
        self.hit(id, if called.is_ok() { "ShutdownWrite Done" } else { "ShutdownWrite Failed" });
        if let (Ok(()), Some(Token::Session(..))) = (called, self.conns[id].token) {
            let conn = &self.conns[id];
            let source = &self.conns[conn.partner.expect("only pairs end")];
            assert!(source.fin_in, "#{id}: a FIN that its partner did not send");
            assert_eq!(conn.relayed(), source.payload(source.sent), "#{id}: a FIN in front of a byte");
            assert!(conn.written >= conn.header.len() as u64, "#{id}: a FIN in front of the header");
        }
        self.note("shutdown write", id, u64::from(called.is_err()));
        called
    }

    /// A client that may not connect is reset before anything is read.
    fn check_refusal(&mut self, id: usize, close_mode: CloseMode) {
        let conn = &self.conns[id];
        let expected = match self.on_refuse {
            OnRefuse::Reset => CloseMode::Reset,
            OnRefuse::Close => CloseMode::Close,
        };
        assert_eq!((close_mode, conn.read, conn.token), (expected, 0, None), "#{id}: it is refused");
        self.coverage.hit(match self.refusal(id) {
            Some(RefuseReason::Denied) => "client denied",
            _ => "client refused",
        });
    }

    pub(crate) fn close(&mut self, id: usize, close_mode: CloseMode) {
        if self.conns[id].descriptor != Descriptor::Open {
            return;
        }
        self.note(
            if close_mode == CloseMode::Close { "close" } else { "reset" },
            id,
            self.conns[id].unread(),
        );
        match (self.conns[id].dialed_port, self.conns[id].token) {
            (None, _) if self.refusal(id).is_some() => self.check_refusal(id, close_mode),
            (None, _) => self.note_end(id),
            (Some(_), Some(Token::Probe(_) | Token::Agent(_))) => self.note_old(id),
            (Some(_), _) => {}
        }
        self.conns[id].close(close_mode);
    }
}
