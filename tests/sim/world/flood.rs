//! More work than one turn may do: many clients send a lot to reading backends, while no worker turns.

use super::{MOMENT, ROUND, World};
use crate::peer::Peer;

/// One seed in so many has a flood.
const SEEDS_PER_FLOOD: u64 = 16;
const CLIENTS: usize = 10;
/// Clients that come to each listener at once: to two of them more than a turn may take, to none of them alone.
const CROWD: usize = 48;
/// Bytes sent by each of them.
const BYTES: u64 = 1 << 20;
/// Bytes that each socket accepts before its peer does.
const SEND_BUFFER: u64 = 4 << 20;
/// Rounds in which the clients come and the first of them are connected to a backend.
const ROUNDS_BEFORE: u32 = 5;
/// Rounds in which no worker turns: more than they need to send all.
const ROUNDS_STUCK: u32 = 400;

impl World {
    /// No peer sends anything, and all end.
    fn crowd(&mut self) {
        // When few sessions are allowed, accepting pauses.
        self.net.borrow_mut().stride = ROUND;
        for group in &self.groups {
            for _ in 0..CROWD {
                self.net.borrow_mut().connect_within(group.id.0 as usize, Peer::well_behaved(0), CROWD);
            }
        }
        self.come_to_rest();
    }

    /// In some seeds: a flood, of which every byte must arrive. The bounds of a turn hold meanwhile.
    pub(super) fn flood(&mut self) {
        // A listener that is to be removed, unknown to its worker yet, would leave some of a crowd in its queue.
        if self.is_draining || self.late.contains(&true) || self.rng.below(SEEDS_PER_FLOOD) > 0 {
            return;
        }
        self.crowd();
        self.net.borrow_mut().stride = MOMENT;
        for client in 0..CLIENTS {
            let group = self.groups[client % self.groups.len()].id.0 as usize;
            // A queue may be full.
            self.net.borrow_mut().connect(group, Peer::well_behaved(BYTES));
        }
        for _ in 0..ROUNDS_BEFORE {
            self.round();
        }
        {
            let net = &mut *self.net.borrow_mut();
            // As long as pauses of a worker: from now on time passes.
            net.stride = ROUND;
            for &id in &net.live {
                net.conns[id].send_buffer = SEND_BUFFER;
            }
            for _ in 0..ROUNDS_STUCK {
                net.happen_all();
            }
        }
        self.coverage.hit("flood");
        self.come_to_rest();
    }
}
