//! Events from outside: packets arrive, peers act, backends change, connections are lost.

use l4lb::base::ready::Ready;
use l4lb::sys::Token;

use crate::conn::Stage;
use crate::network::{Listener, Mode, Net};
use crate::random::happens;

impl Listener {
    pub(crate) fn new(worker: usize, index: usize, backlog: usize) -> Self {
        Self {
            worker,
            index,
            token: None,
            queue: [].into(),
            backlog,
            edge: false,
            is_open: true,
            retired: None,
        }
    }
}

impl Net {
    /// Forgets connections to which nothing can happen any more.
    pub(crate) fn bury(&mut self) {
        let Self { live, conns, .. } = self;
        live.retain(|&id| !conns[id].is_over());
    }

    /// Lets something happen to one connection, and perhaps to one backend.
    pub(crate) fn happen(&mut self) {
        if happens(&mut self.rng, self.faults.backend) {
            let place = self.below(self.backends.len());
            self.backends[place].mode = Mode::draw(&mut self.rng);
        }
        if self.live.is_empty() {
            return;
        }
        let place = self.below(self.live.len());
        let id = self.live[place];
        if happens(&mut self.rng, self.faults.reset) && !self.conns[id].is_itself {
            self.conns[id].peer_resets();
        }
        if happens(&mut self.rng, self.faults.vanish) {
            let now = self.now;
            self.conns[id].vanished.get_or_insert(now);
        }
        let bytes = 1 << self.rng.below(18);
        let answers = !happens(&mut self.rng, self.faults.slow_dial);
        let Self { conns, rng, now, .. } = self;
        let conn = &mut conns[id];
        match rng.below(8) {
            0 if answers => conn.answer(),
            0 => {}
            1..3 => _ = conn.arrive(),
            3..5 => _ = conn.deliver(bytes, *now),
            5..7 => _ = conn.peer_acts(rng),
            _ => {
                if answers {
                    conn.answer();
                }
                conn.peer_acts(rng);
                while conn.arrive() {}
                conn.deliver(bytes, *now);
            }
        }
    }

    /// Lets everything happen that can happen to any connection; returns false when there is nothing.
    pub(crate) fn happen_all(&mut self) -> bool {
        let Self { conns, live, rng, now, .. } = self;
        let mut moved = false;
        for &id in live.iter() {
            let conn = &mut conns[id];
            moved |= matches!(conn.stage, Stage::Dialing(_)) && !conn.dead;
            conn.answer();
            moved |= conn.peer_acts(rng);
            while conn.arrive() {
                moved = true;
            }
            moved |= conn.deliver(u64::MAX, *now);
        }
        moved
    }

    /// Returns the readiness to report for an edge: none, if the edge is lost. That of a dial never is: its timeout
    /// finds out.
    pub(crate) fn lose(&mut self, token: Token, is_dialing: bool, ready: Ready) -> Ready {
        let may_be_lost = matches!(token, Token::Session(..)) && !is_dialing && ready != Ready::default();
        if !may_be_lost || !happens(&mut self.rng, self.faults.lost_edge) {
            return ready;
        }
        self.edges_lost += 1;
        self.coverage.hit(match ready {
            Ready { failing: true, .. } => "death lost",
            Ready { closing: true, .. } => "end lost",
            Ready { readable: true, .. } => "bytes lost",
            Ready { .. } => "room lost",
        });
        Ready::default()
    }

    /// Marks the clients in accept queues: a drain must serve them.
    pub(crate) fn mark_queued(&mut self) {
        let Self { conns, listeners, .. } = self;
        listeners
            .iter()
            .flat_map(|listener| &listener.queue)
            .for_each(|&id| conns[id].queued_at_drain = true);
    }
}
