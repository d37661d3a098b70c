//! Checks the backends that belong to this worker, between the sessions and on the same wheel. `health` decides what a
//! check sends and means; this module has its sockets and its timer. `assignment` maintains the list of backends.

mod assignment;
pub(super) mod conversation;
mod external;
mod header;
mod judgement;
mod now;
pub(super) mod queue;
mod results;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::base::slots::{GENERATION_BITS, Key};
use crate::base::time::Instant;
use crate::base::timer_wheel::TimerId;
use crate::base::token_bucket::TokenBucket;
use crate::config::model::{self, HealthState};
use crate::health::{self, Cause, Conversation, Probe, Step, Timing, Verdict};
use crate::messages::external::Ticket;
use crate::messages::report::{CheckedBy, Report};
use crate::pool::{Backend, BackendId};
use crate::sys::{DialSpec, Kernel, Token, lacks_resources};
use crate::tls::Certificate;
use crate::worker::core::{Core, Timer};
use conversation::{READ_LEN, READS_AFTER_RESULT};
use header::begin_with_header;
pub use now::check_now;
use queue::{Pace, Queue};
use results::Results;

/// Time until the next look at a check that has timed out while the turn could read no more of handshakes.
const PATIENCE_BEYOND_TIMEOUT: Duration = Duration::from_millis(1);

/// Delayed and late checks are logged at most this often.
const DEFERRAL_LOG_PERIOD: Duration = Duration::from_secs(10);

/// The checks of one worker.
pub(super) struct Probes<K: Kernel> {
    /// Its index among the checking workers; `None` once it retires.
    worker: Option<usize>,
    workers: usize,
    /// The next epoch changes the backends to check.
    is_reassigned: bool,
    /// A backend keeps its place until it is removed; everything that waits for a place ends before it is reused.
    entries: Slab<Entry<K>>,
    by_backend: HashMap<BackendId, u32>,
    /// Counts attempts, so that an event of an ended one does not reach another.
    generation: u32,
    /// Checks that are due while the limit in flight is reached.
    queue: Queue,
    /// Checks with something to read, for which the turn had no steps of handshakes left. In the order of their events.
    postponed: VecDeque<Key>,
    deferral_log: TokenBucket,
}

/// One backend to check. Its timer is armed, unless it is among those that wait.
struct Entry<K: Kernel> {
    backend: Arc<Backend>,
    pool: Arc<model::Pool>,
    /// The settings of its checks, and the timing that follows.
    by: CheckedBy,
    timing: Timing,
    /// The place of the next check, or of the one under way, among those of its pool. All of them in a row are a round.
    turn: usize,
    results: Results,
    verdict: Verdict,
    attempt: Option<Attempt<K>>,
    /// The order for a program, instead of an attempt.
    awaited: Option<Awaited>,
    timer: Option<(TimerId, Instant)>,
    /// When the last check was due, when its round started, and when itself did.
    due: Instant,
    started: Instant,
    began: Instant,
    /// For how long the checks of this round have held a place so far, and the most that the present one may.
    spent: Duration,
    limit: Duration,
    /// For how long it has held its place. Unchanged while there is an attempt.
    pace: Pace,
}

struct Attempt<K: Kernel> {
    socket: K::Socket,
    generation: u32,
    stage: Stage,
    /// Whether it is among those that are postponed.
    is_postponed: bool,
}

impl<K: Kernel> Attempt<K> {
    fn is_expensive(&self) -> bool {
        match &self.stage {
            Stage::Talking(probe) => probe.is_expensive(),
            Stage::Parting => false,
        }
    }
}

/// An order under way.
struct Awaited {
    ticket: Ticket,
    generation: u32,
}

enum Stage {
    /// Dialing, sending, or waiting for the answer.
    Talking(Box<Probe>),
    /// The result is known and our FIN is sent. The rest of the answer is read, because closing a socket with unread
    /// bytes would send a reset.
    Parting,
}

impl<K: Kernel> Probes<K> {
    /// Returns the checks with an open socket.
    pub(super) fn in_flight(&self) -> u64 {
        self.queue.in_flight() as u64
    }

    /// Returns whether a waiting one may start.
    pub(super) fn may_start(&self) -> bool {
        self.queue.next_pace().is_some()
    }

    /// Returns whether the next turn must continue some.
    pub(super) fn has_postponed(&self) -> bool {
        !self.postponed.is_empty()
    }

    /// Sets the limit on checks with a socket.
    pub(super) fn limit(&mut self, checks_max: usize) {
        self.queue.limit(checks_max);
    }
}

impl<K: Kernel> Probes<K> {
    pub(super) fn on_timer(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.timer = None;
        match &mut entry.attempt {
            None if entry.awaited.is_some() => self.look_after_order(core, index),
            None => {
                entry.due = core.now;
                self.queue.push(entry.backend.pool, index, entry.pace);
            }
            Some(attempt) if attempt.is_expensive() && !core.turn.take_handshake_step() => {
                // What it may have received in time is read once there is time for that.
                let when = core.now + PATIENCE_BEYOND_TIMEOUT;
                self.arm_probe(core, index, when);
            }
            Some(Attempt { stage: Stage::Talking(_), .. }) => {
                // This turn may be late, and its wait may have had no room for the event of an answer that was in time.
                self.continue_check(core, index);
                self.time_out(core, index);
            }
            Some(Attempt { stage: Stage::Parting, .. }) => self.finish_attempt(core, index),
        }
    }

    /// Ends a check without a result.
    fn time_out(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &mut self.entries[index as usize];
        if let Some(Attempt { stage: Stage::Talking(probe), .. }) = &mut entry.attempt {
            probe.on_timeout(entry.limit);
            self.converse(core, index);
        }
    }

    /// Continues postponed checks, and starts due ones, as many as the limits of flight and turn allow.
    pub(super) fn start_waiting(&mut self, core: &mut Core<K>) {
        while !self.postponed.is_empty()
            && core.turn.take_handshake_step()
            && let Some(Key { index, generation }) = self.postponed.pop_front()
        {
            let attempt = self.entries.get_mut(index as usize).and_then(|entry| entry.attempt.as_mut());
            if let Some(attempt) = attempt.filter(|attempt| attempt.generation == generation) {
                attempt.is_postponed = false;
                self.continue_check(core, index);
            }
        }
        while core.turn.take_check()
            && let Some(index) = self.queue.pop()
        {
            self.log_if_late(core, index, "too many backends are silent");
            self.start_probe(core, index);
        }
    }

    /// Logs late checks. Silent backends hold their place for the whole timeout: with enough of them checks are late,
    /// and so are verdicts.
    fn log_if_late(&mut self, core: &mut Core<K>, index: u32, why: &str) {
        let Entry { pool, due, timing, .. } = &self.entries[index as usize];
        let late = core.now - *due;
        if late > timing.interval
            && let Some(untold) = self.deferral_log.take(core.now)
        {
            let waiting = self.queue.len();
            log::warn!(pool:% = pool.name, late:?, waiting, untold; "checks are late: {why}");
        }
    }

    fn start_probe(&mut self, core: &mut Core<K>, index: u32) {
        self.take_dial_failures(core, index);
        self.generation = (self.generation + 1) % (1 << GENERATION_BITS);
        let generation = self.generation;
        let entry = &mut self.entries[index as usize];
        entry.began = core.now;
        if entry.turn == 0 {
            (entry.started, entry.spent) = (core.now, Duration::ZERO);
        }
        entry.limit = entry.timing.limit_after(entry.spent);
        if entry.is_paused() {
            return self.pause_probe(core, index);
        }
        let key = Key { index, generation };
        if self.order_program(core, key) {
            return;
        }
        let entry = &mut self.entries[index as usize];
        let Some((probe, target)) = entry.probe() else { return };
        let token = Token::Probe(key);
        let spec = DialSpec { address: &target, tcp: &entry.pool.tcp };
        match conversation::dial(&mut core.kernel, &spec, token) {
            Ok(socket) => {
                let mut probe = probe;
                begin_with_header(&mut core.kernel, &entry.pool, &socket, &target, &mut probe);
                let stage = Stage::Talking(Box::new(probe));
                entry.attempt = Some(Attempt { socket, generation, stage, is_postponed: false });
                self.queue.enter(entry.pace);
                let when = core.now + entry.limit;
                self.arm_probe(core, index, when);
            }
            Err(error) if lacks_resources(&error) => self.defer_probe(core, index, &error),
            Err(error) => {
                let mut probe = probe;
                probe.on_failed(error.kind());
                self.on_check_result(core, index, probe_result(&probe));
                self.schedule_probe(core, index);
            }
        }
    }

    /// A lack of resources here means nothing for the backend: the check is done a little later.
    fn defer_probe(&mut self, core: &mut Core<K>, index: u32, error: &io::Error) {
        core.stats.checks_deferred.add(1);
        let Entry { backend, pool, timing, .. } = &self.entries[index as usize];
        let wait = timing.fast_interval;
        if let Some(untold) = self.deferral_log.take(core.now) {
            let (pool, backend) = (&pool.name, &backend.name);
            log::warn!(pool:%, backend:%, error:%, untold; "a check is put off, its backend keeps its state");
        }
        let when = core.now + wait;
        self.arm_probe(core, index, when);
    }

    pub(super) fn on_event(&mut self, core: &mut Core<K>, key: Key) {
        let attempt = self.entries.get_mut(key.index as usize).and_then(|entry| entry.attempt.as_mut());
        let Some(attempt) = attempt.filter(|attempt| attempt.generation == key.generation) else {
            core.stats.stale_events.add(1);
            return;
        };
        // The first that came is the first that continues: no event overtakes those that wait.
        let is_free =
            !attempt.is_expensive() || (self.postponed.is_empty() && core.turn.take_handshake_step());
        if is_free {
            self.continue_check(core, key.index);
        } else if !std::mem::replace(&mut attempt.is_postponed, true) {
            self.postponed.push_back(key);
        }
    }

    /// Continues the check in progress as far as possible.
    fn continue_check(&mut self, core: &mut Core<K>, index: u32) {
        let Some(attempt) = &mut self.entries[index as usize].attempt else { return };
        let Stage::Talking(probe) = &mut attempt.stage else { return self.read_rest(core, index) };
        match conversation::report_dial(&mut core.kernel, &attempt.socket, &mut **probe) {
            Ok(true) => self.converse(core, index),
            Ok(false) => {}
            Err(error) => {
                self.end_attempt(core, index);
                self.defer_probe(core, index, &error);
            }
        }
    }

    /// Runs the steps of the check until it waits or has its result.
    fn converse(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &mut self.entries[index as usize];
        let Some(Attempt { socket, stage: Stage::Talking(probe), .. }) = &mut entry.attempt else { return };
        if conversation::converse(&mut core.kernel, socket, &mut **probe) {
            let (result, exchanged) = (probe_result(probe), probe.exchanged_data());
            let certificate = probe.certificate().cloned();
            self.note_certificate(core, index, certificate);
            self.on_check_result(core, index, result);
            if exchanged { self.start_parting(core, index) } else { self.finish_attempt(core, index) }
        }
    }

    fn start_parting(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &mut self.entries[index as usize];
        let Some(attempt) = &mut entry.attempt else { return };
        attempt.stage = Stage::Parting;
        match core.kernel.shutdown_write(&attempt.socket) {
            Ok(()) => {
                let when = core.now + entry.parting_max();
                self.arm_probe(core, index, when);
                self.read_rest(core, index);
            }
            // The backend has reset the connection after its answer.
            Err(_) => self.finish_attempt(core, index),
        }
    }

    fn read_rest(&mut self, core: &mut Core<K>, index: u32) {
        let Some(attempt) = &self.entries[index as usize].attempt else { return };
        let mut buffer = [0; READ_LEN];
        for _ in 0..READS_AFTER_RESULT {
            match core.kernel.read(&attempt.socket, &mut buffer) {
                Ok(0) => return self.finish_attempt(core, index),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.finish_attempt(core, index),
            }
        }
        // It sends more than an answer.
        self.finish_attempt(core, index);
    }

    /// Closes the socket of an attempt with a result. The next check of the round waits for a place, the next round for
    /// its time.
    fn finish_attempt(&mut self, core: &mut Core<K>, index: u32) {
        self.end_attempt(core, index);
        let entry = &mut self.entries[index as usize];
        if entry.turn == 0 {
            return self.schedule_probe(core, index);
        }
        if let Some((timer, _)) = entry.timer.take() {
            core.wheel.cancel(timer);
        }
        entry.due = core.now;
        self.queue.push(entry.backend.pool, index, entry.pace);
    }

    fn end_attempt(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.awaited = None;
        let Some(attempt) = entry.attempt.take() else { return };
        self.queue.leave(entry.pace);
        entry.pace = conversation::pace_of(core.now - entry.began, entry.timing.timeout);
        match attempt.stage {
            // No bytes were exchanged: a reset spares both sides the TIME_WAIT.
            Stage::Talking(_) => core.kernel.reset(attempt.socket),
            Stage::Parting => core.kernel.close(attempt.socket),
        }
    }

    fn schedule_probe(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &self.entries[index as usize];
        let delay = health::next_delay(&entry.timing, entry.verdict.in_transition(), &mut core.rng);
        let when = (entry.started + delay).max(core.now);
        self.arm_probe(core, index, when);
    }

    fn arm_probe(&mut self, core: &mut Core<K>, index: u32, when: Instant) {
        let entry = &mut self.entries[index as usize];
        if let Some((timer, _)) = entry.timer.take() {
            core.wheel.cancel(timer);
        }
        entry.timer = Some((core.wheel.arm(when, Timer::Probe(index)), when));
    }

    fn on_check_result(&mut self, core: &mut Core<K>, index: u32, result: Result<(), Cause>) {
        let entry = &mut self.entries[index as usize];
        if entry.is_paused() {
            return;
        }
        let result = result.map_err(|cause| entry.judged(cause));
        let (latency, counts) = (core.now - entry.began, &entry.backend.stats);
        core.stats.check_latency.observe(latency);
        counts.last_check_nanos.set(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        if entry.results.is_news(entry.turn, &result, core.now) {
            let failure = result.as_ref().err().map(Cause::to_string);
            let (backend, by, check) = (entry.backend.id, entry.by, entry.turn);
            // Without room for it, the next result like this is news.
            if core.reports.try_send(Report::Checked { backend, by, check, failure: failure.clone() }) {
                entry.results.note(entry.turn, failure, core.now);
            }
        }
        let (name, is_last) = entry.name_and_rank();
        entry.turn = if result.is_ok() && !is_last { entry.turn + 1 } else { 0 };
        entry.spent += latency;
        let verdict = &mut entry.verdict;
        // Its last owner may have changed it since this one took over.
        verdict.adopt(entry.backend.checked_health());
        let from = verdict.state();
        match result {
            Ok(()) => {
                core.stats.checks_passed.add(1);
                counts.checks_passed.add(1);
                if is_last && let Some(to) = verdict.on_success() {
                    self.on_transition(core, index, from, to, "check passed".into());
                }
            }
            Err(cause) => {
                core.stats.checks_failed.add(1);
                counts.checks_failed.add(1);
                if let Some(to) = verdict.on_failure() {
                    self.on_transition(core, index, from, to, format!("check{name} failed: {cause}"));
                }
            }
        }
    }

    /// Reports the certificate that a check was shown, if it is news.
    fn note_certificate(&mut self, core: &mut Core<K>, index: u32, certificate: Option<Certificate>) {
        let Some(certificate) = certificate else { return };
        let Entry { backend, results, turn: check, by, .. } = &mut self.entries[index as usize];
        let (id, check, by) = (backend.id, *check, *by);
        if results.is_news_of(check, &certificate, core.now) {
            let shown = Box::new(certificate.clone());
            if core.reports.try_send(Report::Certificate { backend: id, by, check, certificate: shown }) {
                results.note_certificate(check, certificate, core.now);
            }
        }
        // Without room for the report the last owner's is the best known.
        if let Some(end) = results.first_end() {
            backend.stats.certificate_not_after.set(end);
        }
    }

    /// Counts failed dials of sessions as failed checks, and brings the next check forward.
    pub(super) fn on_dials_failed(&mut self, core: &mut Core<K>, backend: BackendId) {
        // Backends that are not checked keep their state: nothing would bring them up again.
        let Some(&index) = self.by_backend.get(&backend) else { return };
        self.take_dial_failures(core, index);
        let entry = &self.entries[index as usize];
        let soon = (entry.started + entry.timing.fast_interval).max(core.now);
        if !entry.is_under_way() && entry.timer.is_some_and(|(_, when)| soon < when) {
            self.arm_probe(core, index, soon);
        }
    }

    fn take_dial_failures(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &mut self.entries[index as usize];
        let failures = entry.backend.take_dial_failures();
        if entry.is_paused() {
            return;
        }
        entry.verdict.adopt(entry.backend.checked_health());
        // More than `fall` failures prove no more than `fall`.
        for _ in 0..failures.min(entry.pool.health.fall) {
            let entry = &mut self.entries[index as usize];
            let from = entry.verdict.state();
            if let Some(to) = entry.verdict.on_failure() {
                self.on_transition(core, index, from, to, "dials of sessions failed".into());
            }
        }
    }

    fn on_transition(
        &self,
        core: &mut Core<K>,
        index: u32,
        from: HealthState,
        to: HealthState,
        reason: String,
    ) {
        let backend = &self.entries[index as usize].backend;
        backend.set_health(to);
        core.stats.transitions.add(1);
        backend.stats.transitions.add(1);
        backend.stats.last_transition_nanos.set(core.now.as_nanos());
        core.reports.send(Report::Health { backend: backend.id, from, to, reason });
    }
}

fn probe_result(probe: &Probe) -> Result<(), Cause> {
    match probe.next_step() {
        Step::Finished(result) => result.map_err(Clone::clone),
        Step::Dial | Step::Send(_) | Step::Receive => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::sys::Linux;
    use crate::worker::Worker;
    use crate::worker::test_worker::Bench;

    impl Worker<Linux> {
        /// As if the timer of a check had fired now.
        pub(super) fn fires(&mut self, index: u32) {
            let (timer, _) = self.probes.entries[index as usize].timer.unwrap();
            self.core.wheel.cancel(timer);
            self.probes.on_timer(&mut self.core, index);
        }
    }

    /// A backend that had answered in time went down because our own turn was late.
    #[test]
    fn an_answer_that_waits_in_the_socket_wins_over_a_timeout() {
        let mut bench = Bench::with_checks(
            "type = \"send_expect\", send = \"PING\", expect = \"PONG\", interval = \"1h\"",
            0,
        );
        let (index, _) =
            bench.worker.probes.entries.iter().find(|(_, entry)| entry.backend.name == "b").unwrap();
        let index = u32::try_from(index).unwrap();
        let backend = Arc::clone(&bench.worker.probes.entries[index as usize].backend);
        let outcome = || (backend.stats.checks_passed.get(), backend.stats.checks_failed.get());
        for (answer, expected) in [("PONG", (1, 0)), ("", (1, 1))] {
            bench.worker.fires(index);
            bench.turn_at_once();
            let (mut served, _) = bench.backend.accept().unwrap();
            bench.turn_at_once();
            served.read_exact(&mut [0; 4]).unwrap();
            served.write_all(answer.as_bytes()).unwrap();
            bench.worker.fires(index);
            assert_eq!(outcome(), expected, "{answer:?}");
            drop(served);
            bench.turn_until(|worker| worker.probes.entries[index as usize].attempt.is_none());
        }
    }

    /// After a stop of the process all checks are due at once.
    #[test]
    fn a_turn_starts_no_more_checks_than_it_may() {
        let mut bench = Bench::with_checks("type = \"tcp\", interval = \"1h\"", 300);
        let checks = u32::try_from(bench.worker.probes.entries.len()).unwrap();
        (0..checks).for_each(|index| bench.worker.fires(index));
        let mut starts = Vec::new();
        while bench.worker.probes.may_start() {
            let before = bench.worker.probes.generation;
            assert_eq!(bench.worker.next_timeout(), Some(Duration::ZERO), "the rest continues at once");
            bench.turn_at_once();
            bench.worker.audit();
            starts.push(bench.worker.probes.generation - before);
        }
        assert_eq!(starts.iter().sum::<u32>(), checks);
        assert!(starts.len() > 4 && starts.iter().all(|&started| started <= 64), "{starts:?}");
    }

    /// A handshake takes as long as hundreds of small reads: other clients waited for all that were due.
    #[test]
    fn a_turn_makes_no_more_steps_of_handshakes_than_it_may() {
        let backends = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = backends.local_addr().unwrap().port();
        let health =
            format!("type = \"tls\", tls = {{ verify = \"none\" }}, interval = \"1h\", port = {port}");
        let mut bench = Bench::with_checks(&health, 48);
        let checks = bench.worker.probes.entries.len();
        (0..u32::try_from(checks).unwrap()).for_each(|index| bench.worker.fires(index));
        let greeted = |worker: &Worker<Linux>| {
            let talks = |entry: &Entry<Linux>| match &entry.attempt {
                Some(Attempt { stage: Stage::Talking(probe), .. }) => probe.next_step() != Step::Dial,
                Some(Attempt { stage: Stage::Parting, .. }) | None => false,
            };
            worker.probes.entries.iter().filter(|(_, entry)| talks(entry)).count()
        };
        let mut steps = Vec::new();
        while greeted(&bench.worker) < checks {
            let before = greeted(&bench.worker);
            if bench.worker.probes.has_postponed() {
                assert_eq!(bench.worker.next_timeout(), Some(Duration::ZERO), "the rest continues at once");
            }
            bench.turn_at_once();
            bench.worker.audit();
            steps.push(greeted(&bench.worker) - before);
        }
        assert!(steps.iter().all(|&made| made <= 8), "{steps:?}");
        assert_eq!(
            bench.worker.probes.entries.iter().filter(|(_, entry)| entry.attempt.is_some()).count(),
            checks
        );
    }
}
