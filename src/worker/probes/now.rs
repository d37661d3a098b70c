//! The checks of one backend at once, for an operator: the checks of the workers, driven on a thread that may wait. What they find changes nothing.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::time::Duration;

use super::conversation::{self, READ_LEN, READS_AFTER_RESULT};
use super::header::begin_with_header;
use super::judgement::judge;
use crate::base::address::Address;
use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::config::model::{Check, OneCheck, Secret};
use crate::health::{self, Cause, Conversation, Moment, Probe, Step, Timing};
use crate::messages::check_now::{Act, ActKind, CheckNow, Finding, Found, Subject};
use crate::messages::external::{self, Order, Ran};
use crate::messages::report::Report;
use crate::sys::{DialSpec, Kernel, Token, lacks_resources};
use crate::tls::Certificate;

/// At most this many acts of a check are shown: a script of 32 steps has three each.
const ACTS_MAX: usize = 128;
/// At most this many bytes of one act are shown.
const SHOWN_MAX: usize = 1_024;
/// The kernel of such a check has one socket at a time.
const TOKEN: Token = Token::Probe(Key { index: 0, generation: 0 });

/// Runs all checks of the order, each whatever the one before has found, and answers it. Waits on this thread: for the
/// results no longer than the order permits, and then for the backend to close the last connection.
pub fn check_now<K: Kernel>(kernel: &mut K, order: CheckNow) {
    let CheckNow { subject, reply } = order;
    let pool = Arc::clone(&subject.pool);
    let timing = Timing::new(&pool.health, &subject.own);
    let mut run = Run { kernel, subject, timing, leaving: None };
    let (mut spent, mut found) = (Duration::ZERO, Vec::new());
    for check in pool.health.checks() {
        run.part();
        let one = run.check(check, spent);
        spent += one.took;
        found.push(one);
    }
    reply(Ok(found));
    run.part();
}

struct Run<'k, K: Kernel> {
    kernel: &'k mut K,
    subject: Subject,
    timing: Timing,
    /// The connection of the last check, if its end waits for the backend.
    leaving: Option<K::Socket>,
}

/// How a check has ended.
enum Outcome {
    Judged(Result<(), Cause>),
    /// This machine lacks something.
    PutOff(String),
}

impl<K: Kernel> Run<'_, K> {
    /// Runs one check of a round that has taken `spent` so far.
    fn check(&mut self, check: OneCheck<'_>, spent: Duration) -> Found {
        let began = self.kernel.now();
        let (full, room) = (self.timing.limit_after(spent), self.subject.until - began);
        let limit = full.min(room);
        let target = health::target(check.port, &self.subject.own, &self.subject.address);
        let mut log = Log { secrets: check.secrets, began, acts: Vec::new(), left_out: 0 };
        let (outcome, certificate) = if room.is_zero() {
            (Outcome::PutOff("there was no time left for it".to_owned()), None)
        } else if let Check::Command(command) = check.check {
            (self.run_program(command, &target, limit, &mut log), None)
        } else {
            self.converse(check.check, &target, limit, &mut log)
        };
        let is_cut = limit < full && matches!(&outcome, Outcome::Judged(Err(cause)) if cause.is_timeout());
        let finding = match outcome {
            Outcome::Judged(Ok(())) => Finding::Passed,
            Outcome::Judged(Err(_)) if is_cut => {
                Finding::Undecided(format!("no result within {limit:?}, all the time that it had here"))
            }
            Outcome::Judged(Err(cause)) => {
                let cause = self.timing.judged(cause.hiding(check.secrets), limit);
                Finding::Failed(cause.to_string())
            }
            Outcome::PutOff(why) => Finding::Undecided(why),
        };
        let took = self.kernel.now() - began;
        let (acts, left_out) = log.shown();
        let (name, kind) = (check.name.map(str::to_owned), check.check.type_name());
        Found { name, kind, target, finding, took, limit, certificate, acts, left_out }
    }

    /// Runs a check over a connection.
    fn converse(
        &mut self,
        check: &Check,
        target: &Address,
        limit: Duration,
        log: &mut Log<'_>,
    ) -> (Outcome, Option<Certificate>) {
        let (moments, seen) = channel();
        let Some(mut probe) = Probe::recorded(check, target, &moments) else {
            return (Outcome::PutOff("there is nothing to check".to_owned()), None);
        };
        let pool = Arc::clone(&self.subject.pool);
        let spec = DialSpec { address: target, tcp: &pool.tcp };
        let socket = match conversation::dial(self.kernel, &spec, TOKEN) {
            Ok(socket) => socket,
            Err(error) if lacks_resources(&error) => return (Outcome::PutOff(error.to_string()), None),
            Err(error) => {
                probe.on_failed(error.kind());
                return (result_of(&probe), None);
            }
        };
        let header = begin_with_header(self.kernel, &pool, &socket, target, &mut probe);
        let deadline = log.began + limit;
        let mut events = Vec::new();
        let outcome = loop {
            let now = self.kernel.now();
            if let Err(error) = self.kernel.wait(Some(deadline - now), &mut events) {
                break Outcome::PutOff(error.to_string());
            }
            let was_dialing = probe.next_step() == Step::Dial;
            match conversation::report_dial(self.kernel, &socket, &mut probe) {
                Ok(true) => {
                    let now = self.kernel.now();
                    if was_dialing && !matches!(probe.next_step(), Step::Finished(Err(_))) {
                        log.connected(now, &header);
                    }
                    let is_over = conversation::converse(self.kernel, &socket, &mut probe);
                    log.take(&seen, check.tls().is_some(), self.kernel.now());
                    if is_over {
                        break result_of(&probe);
                    }
                }
                Ok(false) => {}
                Err(error) => break Outcome::PutOff(error.to_string()),
            }
            if self.kernel.now() >= deadline {
                probe.on_timeout(limit);
                break result_of(&probe);
            }
        };
        let certificate = probe.certificate().cloned();
        if probe.exchanged_data() && self.kernel.shutdown_write(&socket).is_ok() {
            self.leaving = Some(socket);
        } else {
            self.kernel.reset(socket);
        }
        (outcome, certificate)
    }

    /// Reads what a backend sends behind the result of its last check until it closes, as long as a worker would.
    fn part(&mut self) {
        let Some(socket) = self.leaving.take() else { return };
        let checks = u32::try_from(self.subject.pool.health.checks().count()).unwrap_or(u32::MAX);
        let deadline = self.kernel.now() + self.timing.timeout / checks;
        let (mut buffer, mut events) = ([0; READ_LEN], Vec::new());
        for _ in 0..READS_AFTER_RESULT {
            match self.kernel.read(&socket, &mut buffer) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let now = self.kernel.now();
                    if now >= deadline || self.kernel.wait(Some(deadline - now), &mut events).is_err() {
                        break;
                    }
                }
                Ok(0) | Err(_) => break,
            }
        }
        self.kernel.close(socket);
    }

    /// Runs a check by a program, which the control side does.
    fn run_program(
        &self,
        command: &[String],
        target: &Address,
        limit: Duration,
        log: &mut Log<'_>,
    ) -> Outcome {
        let Subject { pool, backend, reports, until, .. } = &self.subject;
        let variables = external::variables(&pool.name, backend, target);
        let (answer, answered) = sync_channel(1);
        let reply = move |ran, took| _ = answer.try_send((ran, took));
        let (order, ticket) = Order::new(command, variables, limit, reply);
        log.say(Duration::ZERO, ActKind::Ran, &command.join(" "));
        if !reports.try_send(Report::Run(order)) {
            return Outcome::PutOff("the control thread has no room for it".to_owned());
        }
        let answer: Result<(Ran, Duration), _> = answered.recv_timeout(*until - log.began);
        // Kills a program that still runs.
        drop(ticket);
        let (ran, took) = match answer {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                let room = *until - log.began;
                return Outcome::PutOff(format!(
                    "its program has not run within {room:?}: too many others do"
                ));
            }
            Err(RecvTimeoutError::Disconnected) => return Outcome::PutOff("its order was lost".to_owned()),
        };
        if let Ran::Exited { printed, .. } | Ran::Signalled { printed, .. } = &ran
            && !printed.is_empty()
        {
            log.add(took, ActKind::Printed, printed);
        }
        judge(ran).map_or_else(Outcome::PutOff, Outcome::Judged)
    }
}

fn result_of(probe: &Probe) -> Outcome {
    match probe.next_step() {
        Step::Finished(result) => Outcome::Judged(result.map_err(Clone::clone)),
        Step::Dial | Step::Send(_) | Step::Receive => Outcome::PutOff("it has no result".to_owned()),
    }
}

/// What happens in a check, as it will be shown.
struct Log<'s> {
    secrets: &'s [Secret],
    began: Instant,
    acts: Vec<Raw>,
    left_out: usize,
}

/// One thing that has happened: bytes as they are, or words.
struct Raw {
    at: Duration,
    kind: ActKind,
    /// The first [`SHOWN_MAX`] of them.
    bytes: Vec<u8>,
    len: usize,
    words: Option<String>,
}

impl Log<'_> {
    /// Notes the end of the dial, with the header that is sent first.
    fn connected(&mut self, now: Instant, header: &[u8]) {
        let at = now - self.began;
        self.say(at, ActKind::Connected, "");
        if !header.is_empty() {
            self.add(at, ActKind::Header, header);
        }
    }

    /// Notes what an exchange has done until `now`.
    fn take(&mut self, seen: &Receiver<Moment>, is_tls: bool, now: Instant) {
        let at = now - self.began;
        for moment in seen.try_iter() {
            match moment {
                Moment::Begun if is_tls => self.say(at, ActKind::Secured, ""),
                Moment::Begun => {}
                Moment::Sent(bytes) => self.add(at, ActKind::Sent, &bytes),
                Moment::Received(bytes) => self.add(at, ActKind::Received, &bytes),
                Moment::Expects(expected) => {
                    let words = expected.in_words(self.secrets);
                    self.push(Raw {
                        at,
                        kind: ActKind::Expected,
                        bytes: Vec::new(),
                        len: 0,
                        words: Some(words),
                    });
                }
            }
        }
    }

    fn say(&mut self, at: Duration, kind: ActKind, words: &str) {
        let words = Some(health::printable(words.as_bytes(), self.secrets, false));
        self.push(Raw { at, kind, bytes: Vec::new(), len: 0, words });
    }

    /// Notes bytes. Those that follow others of their kind are one act with them, however the network cuts them: the
    /// content of a variable may begin in one piece and end in the next.
    fn add(&mut self, at: Duration, kind: ActKind, bytes: &[u8]) {
        match self.acts.last_mut() {
            Some(last) if last.kind == kind && self.left_out == 0 => last.extend(at, bytes),
            _ => {
                let mut raw = Raw { at, kind, bytes: Vec::new(), len: 0, words: None };
                raw.extend(at, bytes);
                self.push(raw);
            }
        }
    }

    fn push(&mut self, raw: Raw) {
        if self.acts.len() < ACTS_MAX {
            self.acts.push(raw);
        } else {
            self.left_out += 1;
        }
    }

    /// Returns what is shown, and how much of it is left out.
    fn shown(self) -> (Vec<Act>, usize) {
        let Self { secrets, acts, left_out, .. } = self;
        let acts = acts.into_iter().map(|Raw { at, kind, bytes, len, words }| {
            let is_cut = bytes.len() < len;
            let text = words.unwrap_or_else(|| health::printable(&bytes, secrets, is_cut));
            Act { at, kind, text, len: len as u64, is_cut }
        });
        (acts.collect(), left_out)
    }
}

impl Raw {
    fn extend(&mut self, at: Duration, bytes: &[u8]) {
        self.at = at;
        self.len += bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(SHOWN_MAX - self.bytes.len())]);
    }
}
