//! What is drawn for each peer.

use super::Net;
use crate::peer::{Ending, Peer, Reading};
use crate::random::{self, happens};

impl Net {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        random::below(&mut self.rng, bound)
    }

    /// Draws how much a peer sends in all: mostly little, and over a seed no more than there is time for.
    pub(super) fn draw_total(&mut self) -> u64 {
        let most = match self.rng.below(16) {
            0 | 1 => 1,
            2..8 => 200,
            8..13 => 8_000,
            13 | 14 => 200_000,
            _ => 1 << 20,
        };
        let total = self.rng.below(most + 1).min(self.bytes_left);
        self.bytes_left -= total;
        total
    }

    fn draw_peer(&mut self, usual: Ending) -> Peer {
        let total = self.draw_total();
        let after_received = if self.rng.below(3) == 0 { self.rng.below(300) } else { 0 };
        let ending = match self.rng.below(6) {
            0 => Ending::Fin,
            1 => usual,
            2 => Ending::FinAfterFin,
            3 => Ending::Reset { after: self.rng.below(total + 1) },
            4 => Ending::Close { after: self.rng.below(total + 1) },
            _ => Ending::Never,
        };
        let is_stuck = happens(&mut self.rng, self.faults.stuck);
        let reading = match self.rng.below(8) {
            _ if is_stuck => Reading::Stopped,
            0 => Reading::Stopped,
            1 => Reading::Slow,
            _ => Reading::Eager,
        };
        let window = 1 << (8 + self.rng.below(10));
        Peer::new(total, after_received, ending, reading, window)
    }

    pub(crate) fn draw_client(&mut self) -> Peer {
        self.draw_peer(Ending::Fin)
    }

    pub(super) fn draw_backend(&mut self) -> Peer {
        if self.peers_behave {
            return Peer::well_behaved(self.rng.below(5_000));
        }
        self.draw_peer(Ending::FinAfterFin)
    }
}
