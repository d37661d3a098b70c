//! What a session has moved, where it stands, and its summary. Changes nothing but what is counted already.

use std::io::ErrorKind;
use std::time::Duration;

use crate::base::time::Instant;
use crate::session::half::{Half, HalfState};
use crate::session::machine::Session;
use crate::session::timeouts::NEVER;
use crate::session::{CloseReason, Direction, Side, Stage, Summary};

impl Session {
    /// Returns the summary of a session that ends at `now` for `reason`.
    pub fn summary(&self, reason: CloseReason, now: Instant) -> Summary {
        let [to_backend, to_client] = self.halves;
        Summary {
            reason,
            reset_by: self.first_error.map(|(side, _)| side),
            half_closed_by: self.half_closed_by(),
            to_backend: to_backend.flushed,
            to_client: to_client.flushed,
            discarded: self.halves.each_ref().map(Half::unpassed),
            connect_time: self.connect_time(),
            duration: now - self.accepted,
            retries: self.retries,
            stage: self.stage(),
        }
    }

    /// Returns its stage, or the stage in which a side died.
    pub fn stage(&self) -> Stage {
        match (self.connect_time(), Side::BOTH.map(|side| self.has_ended(side))) {
            (None, _) if self.endpoint(Side::Client).is_awaited => Stage::Preread,
            (None, _) => Stage::Dialing,
            (Some(_), [false, false]) => Stage::Open,
            (Some(_), [true, true]) => Stage::Ending,
            (Some(_), [true, false] | [false, true]) => Stage::HalfClosed,
        }
    }

    /// Returns the side that has ended its stream, when the other has not.
    pub fn half_closed_by(&self) -> Option<Side> {
        let is_it = |&side: &Side| self.has_ended(side) && !self.has_ended(side.other());
        Side::BOTH.into_iter().find(is_it)
    }

    fn has_ended(&self, side: Side) -> bool {
        matches!(self.half(side.outward()).state, HalfState::Ending | HalfState::Ended)
    }

    /// Returns the moment of accept.
    pub fn accepted_at(&self) -> Instant {
        self.accepted
    }

    /// Returns the time until a backend was connected, from when one could first be dialed: from accept, or from what
    /// was awaited of the client. `None` before that.
    pub fn connect_time(&self) -> Option<Duration> {
        (self.connected != NEVER).then(|| self.connected - self.opened)
    }

    /// Returns the moment of the last activity.
    pub fn last_activity(&self) -> Instant {
        self.last_activity
    }

    /// Returns the bytes written so far, by [`Direction`].
    pub fn given(&self) -> [u64; 2] {
        self.halves.map(|half| half.flushed)
    }

    /// Returns true when a short read of this side, or EAGAIN of a splice, no longer proves that it has nothing left.
    pub fn hides_more(&self, side: Side) -> bool {
        self.endpoint(side).closing
    }

    /// Returns the error that this side has died of, as far as it was taken.
    pub fn error_of(&self, side: Side) -> Option<ErrorKind> {
        self.endpoint(side).error
    }

    /// Returns true when the end of the stream is known and must follow the bytes held.
    pub fn holds_the_last(&self, direction: Direction) -> bool {
        self.half(direction).state == HalfState::Ending
    }

    /// Returns the bytes that the conduit holds for the sink, the header among them.
    pub fn held(&self, direction: Direction) -> usize {
        self.half(direction).held() as usize
    }

    /// Returns the bytes of the header to the backend that were not written. They are of neither stream.
    pub fn unwritten_preface(&self) -> u16 {
        self.half(Direction::ToBackend).prefix()
    }

    /// Returns the time since accept.
    pub fn age(&self, now: Instant) -> Duration {
        now - self.accepted
    }

    /// Returns the bytes taken from the source and not written to the sink, given up or not.
    pub fn unpassed(&self, direction: Direction) -> u64 {
        self.half(direction).unpassed()
    }

    /// Returns the bytes that [`Session::take_uncounted`] would return.
    pub fn uncounted(&self, direction: Direction) -> u64 {
        self.half(direction).uncounted()
    }

    /// Returns whether [`Session::take_uncounted`] would return any bytes.
    pub fn has_uncounted(&self) -> bool {
        self.halves.iter().any(|half| half.uncounted() > 0)
    }

    /// Returns the bytes written since the last call, by [`Direction`].
    pub fn take_uncounted(&mut self) -> [u64; 2] {
        self.halves.each_mut().map(Half::take_uncounted)
    }
}
