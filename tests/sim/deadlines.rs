//! Everything that has stood still for too long must end: after each turn of a worker with timers, no dial and no
//! session may be left with a time that was up a tick ago. The verdict on each session (`oracle.rs`) ensures that none
//! ends too early.

use l4lb::session::Side;
use l4lb::sys::Token;

use crate::conn::{Conn, Descriptor, Nanos};
use crate::network::Net;
use crate::oracle::Patience;

/// A deadline is rounded up to a tick, and falls due in the first turn after it.
const TICK: Nanos = 1_000_000;

/// Panics when a timeout of `worker` is overdue.
pub(crate) fn check(net: &Net, worker: usize, patience: Patience) {
    net.check_openings(worker, patience.preread);
    net.check_hellos(worker, patience.preread);
    for &id in &net.live {
        let conn = &net.conns[id];
        let is_ours = conn.worker == worker && conn.descriptor == Descriptor::Open;
        if let (true, Some(Token::Session(_, Side::Backend))) = (is_ours, conn.token) {
            let client = &net.conns[conn.partner.expect("a session has two sides")];
            Pair { now: net.now, client, backend: conn, id }.check(patience);
        }
    }
}

struct Pair<'a> {
    now: Nanos,
    id: usize,
    client: &'a Conn,
    backend: &'a Conn,
}

impl Pair<'_> {
    fn check(&self, patience: Patience) {
        let Some(connected_at) = self.backend.connected_at else {
            return self.expect_less(self.backend.born, patience.connect, "a dial");
        };
        if self.client.vanished.is_some() || self.backend.vanished.is_some() {
            // It is unknown here when its worker has given it up.
            return;
        }
        let latest = |moment: fn(&Conn) -> Nanos| moment(self.client).max(moment(self.backend));
        let noted_at = latest(|conn| conn.noted_at.unwrap_or(0));
        let moved = latest(|conn| conn.moved.max(conn.taken_at)).max(noted_at).max(connected_at);
        if noted_at > 0 {
            let held_up = latest(|conn| conn.waited_at);
            self.expect_less(moved.max(held_up), patience.half_close, "a session that ends");
        }
        // A reset waits for its peer to accept the bytes before it, for no longer than half_close.
        let is_dead = self.client.dead || self.backend.dead;
        let idle = if is_dead { patience.idle.max(patience.half_close) } else { patience.idle };
        self.expect_less(moved, idle, "a session");
    }

    #[track_caller]
    fn expect_less(&self, since: Nanos, timeout: Nanos, what: &str) {
        let Self { now, id, client, backend } = self;
        let over = (now - since).saturating_sub(timeout);
        assert!(over < TICK, "#{id}: {what} is {over} ns overdue: client {client:?}\nbackend {backend:?}");
    }
}
