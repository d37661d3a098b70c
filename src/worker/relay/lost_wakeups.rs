//! Finds sessions with a lost event: bytes to read, room to write, or a dead or ended connection that would cause work,
//! and no event will report it again. It should never find one. If it does, that is a bug of l4lb or of the kernel, and
//! the session continues a moment later instead of never.
//!
//! A timer runs while there are sessions, and looks at a bounded number of them each time, in turn: one call asks for
//! the state of all of them. Fresh readiness proves nothing: its event may be in transit. So a session is suspected
//! first, and only if it has stood still for another while, in spite of all the waits in between, its event is lost.

use std::time::Duration;

use crate::base::ready::Ready;
use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::session::Side;
use crate::sys::Kernel;
use crate::worker::core::Core;
use crate::worker::relay::suspects::{SWEEP_PERIOD, Suspect};
use crate::worker::relay::{Relay, Slot};

/// Time between two looks, if it takes more than one.
const NEXT_LOOK: Duration = Duration::from_millis(250);
/// Sessions per look: 2,048 sockets in one call, which takes about as long as 60 reads.
const SESSIONS_PER_LOOK: usize = 1024;
/// Places walked through per look, taken or not.
pub(super) const PLACES_PER_LOOK: u32 = 4096;
/// A session is looked at after it has been idle for this long.
const QUIET: Duration = Duration::from_secs(1);
/// The event of a suspected session is lost after it has stood still for this long.
const PROOF: Duration = Duration::from_secs(1);
/// Most sides suspected at a time. The next round finds the others.
const SUSPECTS_MAX: usize = 1024;

impl<K: Kernel> Relay<K> {
    pub(in crate::worker) fn on_sweep_timer(&mut self, core: &mut Core<K>) {
        self.sweep.has_timer = false;
        self.prove_suspects(core);
        let has_more = self.find_suspects(core) | self.log_due(core);
        if !self.sessions.is_empty() {
            let period = if has_more { NEXT_LOOK } else { SWEEP_PERIOD };
            self.sweep.arm(core.now + period, &mut core.wheel);
        }
    }

    /// Continues with suspects that have stood still for long enough.
    fn prove_suspects(&mut self, core: &mut Core<K>) {
        let mut still = std::mem::take(&mut self.sweep.still);
        while let Some(&(suspect, known)) = self.sweep.suspects.front()
            && core.now - known >= PROOF
        {
            self.sweep.suspects.pop_front();
            let slot = self.sessions.get(suspect.key);
            let stands = slot.and_then(|slot| suspect_if_idle(slot, suspect.key, suspect.side, core.now));
            // One that has moved meanwhile may stand still again.
            still.extend(stands.filter(|&stands| stands == suspect));
        }
        self.ask(core, &mut still, Self::continue_session);
        self.sweep.still = still;
    }

    /// Returns whether more places remain than one look covers.
    fn find_suspects(&mut self, core: &mut Core<K>) -> bool {
        let mut still = std::mem::take(&mut self.sweep.still);
        let places = self.sessions.places();
        let (mut looked, mut gone_through) = (0, 0);
        while gone_through < places.min(PLACES_PER_LOOK) && looked < SESSIONS_PER_LOOK {
            let place = self.sweep.next % places;
            self.sweep.next = place + 1;
            gone_through += 1;
            let Some((key, slot)) = self.sessions.at(place) else { continue };
            looked += 1;
            still
                .extend(Side::BOTH.into_iter().filter_map(|side| suspect_if_idle(slot, key, side, core.now)));
        }
        self.ask(core, &mut still, |relay, core, suspect, _| {
            if relay.sweep.suspects.len() < SUSPECTS_MAX {
                relay.sweep.suspects.push_back((suspect, core.now));
            }
        });
        self.sweep.still = still;
        gone_through < places
    }

    /// Asks the kernel for the readiness of each side, in one call, and passes on what would cause work.
    fn ask(
        &mut self,
        core: &mut Core<K>,
        still: &mut Vec<Suspect>,
        mut found: impl FnMut(&mut Self, &mut Core<K>, Suspect, Ready),
    ) {
        if still.is_empty() {
            return;
        }
        let mut states = std::mem::take(&mut self.sweep.states);
        let sockets = still.iter().map(|suspect| {
            let slot = self.sessions.get(suspect.key).expect("it was there a moment ago");
            socket(slot, suspect.side).expect("a side that awaits events has a socket")
        });
        core.kernel.states(sockets, &mut states);
        for (suspect, &state) in still.drain(..).zip(&states) {
            let awaited = self.sessions.get(suspect.key).map(|slot| slot.session.awaits(suspect.side));
            if awaited.is_some_and(|awaited| meets(state, awaited)) {
                found(self, core, suspect, state);
            }
        }
        self.sweep.states = states;
    }

    /// Acts as if the event had come.
    fn continue_session(&mut self, core: &mut Core<K>, suspect: Suspect, ready: Ready) {
        let Suspect { key, side, .. } = suspect;
        core.stats.lost_wakeups.add(1);
        if let Some(untold) = self.sweep.log.take(core.now) {
            let session = core.id_of(key);
            log::warn!(session:%, side:% = side.as_str(), untold; "a session waited for an event that was lost");
        }
        if let Some(slot) = self.sessions.get_mut(key) {
            slot.session.on_ready(side, ready);
            self.drive(core, key);
            self.expire(core, key);
        }
    }
}

/// Returns the side, if the session stands still and an event of that side could cause work.
fn suspect_if_idle<K: Kernel>(slot: &Slot<K>, key: Key, side: Side, now: Instant) -> Option<Suspect> {
    let since = slot.session.last_activity();
    let waits = !slot.queued && slot.session.awaits(side) != Ready::default();
    (waits && now - since >= QUIET && socket(slot, side).is_some()).then_some(Suspect { key, side, since })
}

fn socket<K: Kernel>(slot: &Slot<K>, side: Side) -> Option<&K::Socket> {
    match side {
        Side::Client => Some(&slot.client),
        Side::Backend => slot.backend.as_ref(),
    }
}

/// Returns whether a condition that is waited for holds.
fn meets(state: Ready, awaited: Ready) -> bool {
    state.readable && awaited.readable
        || state.writable && awaited.writable
        || state.failing && awaited.failing
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpStream};

    use super::*;
    use crate::worker::test_worker::Bench;

    /// Takes the events, which the kernel reports once, and drops them.
    fn lose_events(bench: &mut Bench) {
        let mut lost = Vec::new();
        bench.worker.core.kernel.wait(None, &mut lost).unwrap();
        assert!(!lost.is_empty());
    }

    /// The client closes with bytes unread, which is a reset (RFC 2525, 2.17).
    fn reset(bench: &mut Bench, client: TcpStream, served: &mut TcpStream) {
        let before = bench.worker.core.stats.taken[1].get();
        served.write_all(b"unread").unwrap();
        bench.turn_until(|worker| worker.core.stats.taken[1].get() > before);
        drop(client);
    }

    #[test]
    fn a_session_whose_event_was_lost_continues() {
        let mut bench = Bench::new("retries = 1");
        let (mut client, mut served) = bench.session();
        client.write_all(b"forgotten").unwrap();
        lose_events(&mut bench);
        bench.turn_until(|worker| worker.core.stats.lost_wakeups.get() == 1);
        let mut received = [0; 9];
        served.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"forgotten");
        // Both sides have been idle for long enough, and nothing else was found.
        let looks = bench.worker.core.now + 3 * SWEEP_PERIOD;
        bench.turn_until(|worker| worker.core.now >= looks);
        assert_eq!(bench.worker.core.stats.lost_wakeups.get(), 1);
    }

    /// Only bytes were looked for: a session with a lost end or reset stayed until its idle timeout.
    #[test]
    fn a_session_whose_end_was_lost_passes_it_on() {
        let mut bench = Bench::new("retries = 1");
        let (client, mut served) = bench.session();
        client.shutdown(Shutdown::Write).unwrap();
        lose_events(&mut bench);
        bench.turn_until(|worker| worker.core.stats.lost_wakeups.get() == 1);
        assert_eq!(served.read(&mut [0; 9]).unwrap(), 0);
        // It is half closed now, and nothing else was lost.
        let looks = bench.worker.core.now + 3 * SWEEP_PERIOD;
        bench.turn_until(|worker| worker.core.now >= looks);
        assert_eq!(bench.worker.core.stats.lost_wakeups.get(), 1);
    }

    #[test]
    fn a_session_whose_reset_was_lost_passes_it_on() {
        let mut bench = Bench::new("retries = 1");
        for half_closed in [false, true] {
            let before = bench.worker.core.stats.lost_wakeups.get();
            let (client, mut served) = bench.session();
            if half_closed {
                // From now on no read meets the error.
                client.shutdown(Shutdown::Write).unwrap();
                lose_nothing(&mut bench, &mut served);
            }
            reset(&mut bench, client, &mut served);
            lose_events(&mut bench);
            bench.turn_until(|worker| worker.core.stats.lost_wakeups.get() > before);
            bench.turn_until(|worker| worker.relay.sessions.is_empty());
            if !half_closed {
                assert_eq!(served.read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            }
        }
    }

    /// Turns until the backend has the end of the stream.
    fn lose_nothing(bench: &mut Bench, served: &mut TcpStream) {
        served.set_nonblocking(true).unwrap();
        while served.read(&mut [0; 9]).is_err() {
            bench.turn_at_once();
        }
        // The effects of the end itself are reported too.
        bench.turn_at_once();
    }

    #[test]
    fn a_round_through_a_hundred_thousand_sessions_takes_less_than_half_a_minute() {
        let looks = u32::try_from(100_000usize.div_ceil(SESSIONS_PER_LOOK)).unwrap();
        assert!(looks * NEXT_LOOK <= Duration::from_secs(30));
        assert!(usize::try_from(PLACES_PER_LOOK).unwrap() >= SESSIONS_PER_LOOK);
    }
}
