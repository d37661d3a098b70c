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
/// For so long at most a backend is waited for to close. A worker waits longer, but holds up no other by it.
const PART_MAX: Duration = Duration::from_secs(1);
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
        // Where one fails, a worker begins the next round.
        spent = if one.finding == Finding::Passed { spent + one.took } else { Duration::ZERO };
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
        let (mut ran_for, mut certificate) = (None, None);
        let outcome = if full.is_zero() {
            Outcome::PutOff("the checks before it have taken the whole interval".to_owned())
        } else if room.is_zero() {
            Outcome::PutOff("there was no time left for it".to_owned())
        } else if let Check::Command(command) = check.check {
            self.run_program(command, &target, limit, &mut ran_for, &mut log)
        } else {
            self.converse(check.check, &target, limit, &mut certificate, &mut log)
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
        // A program is not charged with the wait for its place.
        let took = ran_for.unwrap_or(self.kernel.now() - began);
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
        certificate: &mut Option<Certificate>,
        log: &mut Log<'_>,
    ) -> Outcome {
        let (moments, seen) = channel();
        let Some(mut probe) = Probe::recorded(check, target, &moments) else {
            return Outcome::PutOff("there is nothing to check".to_owned());
        };
        let pool = Arc::clone(&self.subject.pool);
        let spec = DialSpec { address: target, tcp: &pool.tcp };
        let socket = match conversation::dial(self.kernel, &spec, TOKEN) {
            Ok(socket) => socket,
            Err(error) if lacks_resources(&error) => return Outcome::PutOff(error.to_string()),
            Err(error) => {
                probe.on_failed(error.kind());
                return result_of(&probe);
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
        *certificate = probe.certificate().cloned();
        if probe.exchanged_data() && self.kernel.shutdown_write(&socket).is_ok() {
            self.leaving = Some(socket);
        } else {
            self.kernel.reset(socket);
        }
        outcome
    }

    /// Reads what a backend sends behind the result of its last check until it closes.
    fn part(&mut self) {
        let Some(socket) = self.leaving.take() else { return };
        let checks = u32::try_from(self.subject.pool.health.checks().count()).unwrap_or(u32::MAX);
        let deadline = self.kernel.now() + (self.timing.timeout / checks).min(PART_MAX);
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
        ran_for: &mut Option<Duration>,
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
        *ran_for = Some(took);
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
                    self.note(at, ActKind::Expected, expected.in_words(self.secrets));
                }
            }
        }
    }

    fn say(&mut self, at: Duration, kind: ActKind, words: &str) {
        self.note(at, kind, health::printable(words.as_bytes(), self.secrets, false));
    }

    /// Notes words that are safe to print.
    fn note(&mut self, at: Duration, kind: ActKind, words: String) {
        self.push(Raw { at, kind, bytes: Vec::new(), len: 0, words: Some(words) });
    }

    /// Notes bytes. Those that follow others of their kind are one act with them, however the network cuts them. So are
    /// those that may continue the content of a variable: it may begin in one answer and end in the next.
    fn add(&mut self, at: Duration, kind: ActKind, bytes: &[u8]) {
        let place = self.acts.iter().rposition(|raw| raw.kind == kind && raw.words.is_none());
        let is_last = self.left_out == 0 && place.is_some_and(|place| place + 1 == self.acts.len());
        let before = place.map(|place| &mut self.acts[place]);
        match before.filter(|raw| is_last || raw.is_cut() || health::may_go_on(&raw.bytes, self.secrets)) {
            Some(raw) => raw.extend(at, bytes),
            None => {
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
    fn is_cut(&self) -> bool {
        self.bytes.len() < self.len
    }

    fn extend(&mut self, at: Duration, bytes: &[u8]) {
        self.at = at;
        self.len += bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(SHOWN_MAX - self.bytes.len())]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::thread;

    use super::*;
    use crate::config::model::{BackendCheck, FurtherCheck, Pool};
    use crate::config::{self, Overrides};
    use crate::messages::report::Reports;
    use crate::sys::Linux;

    const HOUR: Duration = Duration::from_hours(1);

    fn pool(health: &str) -> Arc<Pool> {
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\nhealth = {{ {health}, \
             interval = \"1h\", timeout = \"1h\" }}\n[[pool.backend]]\naddress = \"127.0.0.1:1\"\n"
        );
        let no_names = &mut |_: &str| Ok(Vec::new());
        let config = config::parse(&text, "test", &Overrides::default(), no_names).unwrap();
        Arc::new(config.pools[0].clone())
    }

    /// What the checks of a backend at `address` find within `time`, and what the control thread is sent meanwhile.
    fn check(pool: Arc<Pool>, address: SocketAddr, time: Duration) -> (Vec<Found>, Receiver<Report>) {
        let mut kernel = Linux::new().unwrap();
        let (reports, inbox) = Reports::new();
        let until = kernel.now() + time;
        let own = BackendCheck::default();
        let (backend, address) = ("a".to_owned(), address.into());
        let subject = Subject { pool, backend, address, own, reports, until };
        let (answer, answered) = sync_channel(1);
        let reply = Box::new(move |found| answer.send(found).unwrap());
        check_now(&mut kernel, CheckNow { subject, reply });
        (answered.recv().unwrap().unwrap(), inbox)
    }

    /// A backend that reads `question`, answers, and closes once the check has.
    fn backend(question: &'static [u8], answer: &'static [u8]) -> SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let (mut client, _) = socket.accept().unwrap();
            client.read_exact(&mut vec![0; question.len()]).unwrap();
            client.write_all(answer).unwrap();
            // It may have been reset.
            let _closed = client.read(&mut [0]);
        });
        address
    }

    #[test]
    fn what_a_check_does_is_shown_and_nothing_is_reported() {
        const FLOOD: &[u8] = &[b'x'; 9_000];
        let pool = pool("type = \"send_expect\", send = \"PING\", contains = \"PONG\"");
        for (answer, finding, shown) in [
            (b"ready: PONG\xff".as_slice(), Finding::Passed, r"ready: PONG\xff"),
            (
                FLOOD,
                Finding::Failed(format!("answer does not contain \"PONG\": got \"{}\"...", "x".repeat(64))),
                &"x".repeat(SHOWN_MAX),
            ),
        ] {
            let (found, inbox) = check(Arc::clone(&pool), backend(b"PING", answer), HOUR);
            let [one] = &found[..] else { panic!("{found:?}") };
            assert_eq!((&one.finding, one.kind, one.left_out), (&finding, "send_expect", 0));
            let kinds: Vec<ActKind> = one.acts.iter().map(|act| act.kind).collect();
            assert_eq!(kinds, [ActKind::Connected, ActKind::Sent, ActKind::Expected, ActKind::Received]);
            let last = &one.acts[3];
            assert_eq!((last.text.as_str(), last.is_cut), (shown, shown.len() == SHOWN_MAX));
            assert!(last.at <= one.took);
            assert!(inbox.try_recv().is_err(), "nothing for the control thread");
        }
    }

    #[test]
    fn a_check_behind_one_that_fails_has_all_its_time() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = "type = \"send_expect\", expect = \"PONG\"";
        let mut pool = Pool::clone(&pool(text));
        (pool.health.interval, pool.health.timeout) = (Duration::from_millis(20), Duration::from_millis(20));
        let (name, written) = ("more".to_owned(), pool.health.written.clone());
        let more = FurtherCheck { name, check: Check::Tcp, written, secrets: Vec::new(), port: None };
        pool.health.more.push(more);
        let (found, _) = check(Arc::new(pool), silent.local_addr().unwrap(), HOUR);
        assert!(matches!(found[0].finding, Finding::Failed(_)), "{found:?}");
        assert_eq!(found[1].limit, Duration::from_millis(20));
    }

    #[test]
    fn the_content_of_a_variable_is_hidden_though_two_answers_share_it() {
        let secrets = [Secret { variable: "WORD".into(), value: "open-sesame".into() }];
        let mut log = Log { secrets: &secrets, began: Instant::default(), acts: Vec::new(), left_out: 0 };
        let at = Duration::ZERO;
        log.add(at, ActKind::Received, b"it is open-");
        log.add(at, ActKind::Sent, b"next");
        log.add(at, ActKind::Received, b"sesame, and");
        log.add(at, ActKind::Sent, b"last");
        log.add(at, ActKind::Received, b"no more");
        let (acts, _) = log.shown();
        let texts: Vec<&str> = acts.iter().map(|act| act.text.as_str()).collect();
        assert_eq!(texts, ["it is ${WORD}, and", "nextlast", "no more"]);
    }

    #[test]
    fn the_end_of_its_time_is_no_result() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let pool = pool("type = \"send_expect\", expect = \"PONG\"");
        for (time, reason) in [
            (Duration::ZERO, "there was no time left for it"),
            (Duration::from_millis(20), "all the time that it had here"),
        ] {
            let (found, _) = check(Arc::clone(&pool), address, time);
            let Finding::Undecided(why) = &found[0].finding else { panic!("{found:?}") };
            assert!(why.ends_with(reason), "{why}");
        }
    }

    #[test]
    fn a_program_that_nobody_runs_is_no_result() {
        let pool = pool("type = \"command\", command = [\"/check\"]");
        let (found, inbox) = check(pool, ([127, 0, 0, 1], 1).into(), Duration::from_millis(20));
        let Finding::Undecided(why) = &found[0].finding else { panic!("{found:?}") };
        assert!(why.starts_with("its program has not run within "), "{why}");
        let Ok(Report::Run(order)) = inbox.try_recv() else { panic!("an order") };
        assert!(!order.is_wanted(), "it is not run later");
        assert_eq!(found[0].acts[0].text, "/check");
    }
}
