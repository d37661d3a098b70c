//! Bounds on a worker's turn between two waits: every event meanwhile waits for all of it, so it must be bounded
//! however many sessions have however much to do.

use std::collections::HashMap;

use l4lb::base::slots::Key;

/// Bytes that one worker may move in one turn, in and out: the budget of a turn (`worker/budget.rs`), and the excess of
/// the last calls of its last session.
const MOVED_MAX: u64 = 6 << 20;
/// Times that it may read for one session: less than twice the share of one.
const FILLS_PER_SESSION_MAX: u32 = 2 * 16;
/// Times that it may call accept, over all its listeners.
const ACCEPTS_MAX: u32 = 64;

/// The work of one worker since its last wait.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    moved: u64,
    accepts: u32,
    fills: HashMap<Key, u32>,
}

impl Turn {
    /// It read or wrote this many bytes for a session.
    pub(crate) fn note(&mut self, session: Key, bytes: u64, is_fill: bool) {
        self.moved += bytes;
        assert!(self.moved <= MOVED_MAX, "a worker moves {} bytes in one turn", self.moved);
        if is_fill {
            let fills = self.fills.entry(session).or_default();
            *fills += 1;
            assert!(*fills <= FILLS_PER_SESSION_MAX, "a session has {fills} fills in one turn");
        }
    }

    /// It called accept.
    pub(crate) fn note_accept(&mut self) {
        self.accepts += 1;
        assert!(self.accepts <= ACCEPTS_MAX, "a worker calls accept {} times in one turn", self.accepts);
    }

    /// It waits. Returns whether it had about as much to do as its budget allows.
    pub(crate) fn end(&mut self) -> bool {
        self.fills.clear();
        let was_full = self.moved > MOVED_MAX / 2 || self.accepts == ACCEPTS_MAX;
        (self.moved, self.accepts) = (0, 0);
        was_full
    }
}
