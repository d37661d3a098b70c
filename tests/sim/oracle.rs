//! The verdict on a session that has ended: its log line against the state of the network.

use std::net::SocketAddr;

use l4lb::session::CloseMode;

use crate::conn::{Conn, Descriptor, Nanos, Stage};
use crate::greeting::Kind;
use crate::network::{Net, client_of};
use crate::peer::Seen;
use crate::summaries::Reported;

/// How long a session may stand still, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) connect: Nanos,
    pub(crate) idle: Nanos,
    pub(crate) half_close: Nanos,
    /// For a header.
    pub(crate) preread: Nanos,
}

/// The command to the workers about open sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopOrder {
    /// Nothing.
    Serve,
    /// To cut them: the drain took too long.
    DrainTimeout,
    /// To cut them.
    Stop,
}

/// One session that has ended.
struct Case<'a> {
    id: usize,
    reported: &'a Reported,
    client: &'a Conn,
    /// The backend that it was connected to.
    backend: Option<&'a Conn>,
    now: Nanos,
    patience: Patience,
    /// The address that the log has to have of the client.
    address: SocketAddr,
}

/// Panics unless the session ended as it had to.
pub(crate) fn judge(net: &Net, reported: &Reported, patience: Patience, stop_order: StopOrder) {
    let id = client_of(reported.client);
    let client = &net.conns[id];
    let partner = client.partner.map(|partner| &net.conns[partner]);
    let backend = partner.filter(|_| reported.is_connected);
    let case =
        Case { id, reported, client, backend, now: net.now, patience, address: net.reported_address(id) };
    case.check_counts();
    case.check_reason(partner, stop_order, |dialed| net.roster.is_cut(dialed));
    case.check_close_mode(client, backend);
    if let Some(backend) = backend {
        case.check_close_mode(backend, Some(client));
        case.check_bytes_before_reset(client, backend);
        case.check_bytes_before_reset(backend, client);
    }
}

impl Case<'_> {
    #[track_caller]
    fn expect(&self, holds: bool, what: &str) {
        let Self { id, reported, client, backend, .. } = self;
        assert!(holds, "client #{id}: {what}: reported {reported:?}\nclient {client:?}\nbackend {backend:?}");
    }

    fn check_counts(&self) {
        let Self { reported, client, backend, .. } = self;
        self.expect(reported.to_client == client.relayed(), "bytes reported to be given to the client");
        self.expect(reported.to_backend == backend.map_or(0, Conn::relayed), "and to the backend");
        self.expect(
            backend.is_some() || client.payload(client.read) == 0,
            "bytes were read with nowhere to go",
        );
        self.expect(reported.client == self.address, "the address of the client");
        let stood = backend.is_none_or(|backend| backend.stage == Stage::Open && !backend.is_itself);
        self.expect(stood, "reported as connected to a backend that was not");
        let has_granted = backend.is_none_or(|backend| !backend.has_yet_to_grant());
        self.expect(has_granted, "reported as connected to a backend that has not granted TLS");
    }

    /// Returns whether the client has not sent a whole header.
    fn waits_for_header(&self) -> bool {
        self.client.greeting.kind != Kind::Nothing && !self.client.has_greeted()
    }

    /// Returns whether it is a check of a balancer in front that has ended by a reset without a byte.
    fn is_local_and_gone(&self) -> bool {
        let client = self.client;
        client.greeting.kind == Kind::Local && client.dead && client.payload(client.read) == 0
    }

    /// Returns for how long nothing has moved.
    fn stillness(&self) -> Nanos {
        self.now - self.client.moved.max(self.backend.map_or(0, |backend| backend.moved))
    }

    /// Returns for how long no bytes, not even earlier ones, have reached a peer's kernel.
    fn quiet(&self) -> Nanos {
        // Bytes that a peer accepted before it died do not count: its socket is not asked.
        let taken_at = |conn: &Conn| if conn.dead { 0 } else { conn.taken_at };
        let taken_at = taken_at(self.client).max(self.backend.map_or(0, taken_at));
        self.stillness().min(self.now - taken_at)
    }

    fn check_reason(&self, partner: Option<&Conn>, stop_order: StopOrder, is_cut: impl Fn(&Conn) -> bool) {
        let Self { reported, client, backend, now, patience, .. } = *self;
        let lost = |conn: &Conn| conn.dead || conn.vanished.is_some();
        let connected = backend.is_some();
        // Of a header that it began with.
        let is_part = client.arrived < client.greeting.len() || client.greeting.kind == Kind::Cut;
        let is_late = now - client.opened >= patience.preread;
        let fits = match reported.reason.as_str() {
            reason if !connected && client.is_turned_away(reason, is_late) => true,
            "client_gone" if !connected && client.dead && client.lacks_hello() => true,
            "client_gone" if !connected && client.has_left_its_request() => true,
            "tls_refused" => !connected && partner.is_some_and(Conn::has_refused),
            "done" if self.is_local_and_gone() => true,
            "done" => {
                backend.is_some_and(|backend| is_complete(client, backend) && is_complete(backend, client))
            }
            "client_reset" => connected && client.dead,
            "client_lost" => connected && lost(client),
            "backend_reset" => backend.is_some_and(|backend| backend.dead),
            "backend_lost" => backend.is_some_and(lost),
            // Bytes sent before its reset count, even if no backend has received them yet.
            "client_gone" if self.waits_for_header() => (client.dead || client.fin_in) && is_part,
            "client_gone" => !connected && client.dead && client.unread() == 0,
            "proxy_bad" => !connected && client.greeting.kind == Kind::Bad && client.arrived > 0,
            "preread_timeout" => !connected && is_part && now - client.moved >= patience.preread,
            "connect_timeout" => {
                // Or the kernel had given it up.
                let waited =
                    |dialed: &Conn| now - dialed.born >= patience.connect || dialed.vanished.is_some();
                !connected && partner.is_some_and(waited)
            }
            "no_backend" | "connect_refused" | "connect_unreachable" | "connect_failed" => !connected,
            // The missing resource may come: a port as well as a descriptor.
            "local_limit" => !connected && (client.is_unwatchable || now - client.moved >= patience.connect),
            "idle_timeout" => self.quiet() >= patience.idle,
            "half_close_timeout" => self.quiet() >= patience.half_close,
            "backend_removed" => partner.is_some_and(is_cut),
            "drain_timeout" => stop_order == StopOrder::DrainTimeout,
            "stopped" => stop_order == StopOrder::Stop,
            // Their number is checked against the answers of the workers.
            "killed" => true,
            _ => false,
        };
        self.expect(fits, "the reason does not fit");
    }

    /// A connection may be closed with close(2) only when both its streams have ended and nothing is left to read:
    /// otherwise that would be an end that no peer sent, or a reset in disguise. It must be reset only if necessary.
    fn check_close_mode(&self, conn: &Conn, partner: Option<&Conn>) {
        let Descriptor::Closed(close_mode) = conn.descriptor else {
            return self.expect(false, "a connection was not given back");
        };
        if conn.dead {
            return;
        }
        match close_mode {
            CloseMode::Close => {
                self.expect(conn.fin_in && conn.fin_out, "closed before both streams had ended");
                self.expect(conn.unread() == 0, "closed with bytes unread");
            }
            CloseMode::Reset => {
                let is_local = self.is_local_and_gone();
                self.expect(self.reported.reason != "done" || is_local, "reset though it was done");
                let partner_died = partner.is_some_and(|partner| partner.dead) && conn.vanished.is_none();
                let waited = conn.unacked() == 0 || self.stillness() >= self.patience.half_close;
                let was_cut = matches!(
                    self.reported.reason.as_str(),
                    "stopped" | "killed" | "drain_timeout" | "backend_removed" | "idle_timeout"
                );
                self.expect(!partner_died || waited || was_cut, "reset before its peer had the last bytes");
            }
        }
    }

    /// Bytes before a reset must be passed on before it, as long as the sink accepts them.
    fn check_bytes_before_reset(&self, source: &Conn, sink: &Conn) {
        let is_reset = source.dead && !source.fin_in;
        let by_itself = self.reported.reason.ends_with("_reset");
        if is_reset && by_itself && !sink.dead && sink.vanished.is_none() {
            self.expect(
                sink.relayed() == source.payload(source.arrived),
                "bytes in front of a reset were not passed on",
            );
        }
    }
}

/// Returns whether everything that `source` has sent, and its end, was passed on to `sink`.
fn is_complete(source: &Conn, sink: &Conn) -> bool {
    source.fin_in && sink.relayed() == source.payload(source.sent) && sink.fin_out
}

/// Panics unless both peers of a completed session have seen that, each for itself.
pub(crate) fn judge_peers(net: &Net, id: usize) {
    let client = &net.conns[id];
    if client.greeting.kind == Kind::Local && client.dead {
        return;
    }
    let backend = &net.conns[client.partner.expect("it is done")];
    for (peer, sender) in [(client, backend), (backend, client)] {
        if peer.peer.is_gone() || peer.vanished.is_some() || peer.dead {
            continue;
        }
        assert_eq!(peer.peer.seen, Seen::Fin, "client #{id} is done: {peer:?}");
        let received = peer.peer.received - peer.header.len() as u64;
        assert_eq!(received, sender.payload(sender.sent), "client #{id} is done: {peer:?}");
    }
}
