//! Runs the programs that check backends, on a thread of its own: at most [`PROGRAMS_MAX`] at once, each killed at its
//! limit. Workers order them by way of the control thread, and get the answers into their mailboxes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::base::time::Instant;
use crate::base::token_bucket::TokenBucket;
use crate::config::fd_budget::PROGRAMS_MAX;
use crate::messages::external::{Order, Ran};
use crate::messages::report::REPORTS_LEN;
use crate::sys::{self, Bell, Clock, Exit, Program, Waiter};

/// At most this many orders wait: a worker repeats what does not fit.
const ORDERS_MAX: usize = REPORTS_LEN;
/// At most this many bytes of what a program prints are kept; the rest is read and dropped.
const PRINTED_MAX: usize = 2048;
/// At most this many reads at once of what one program prints.
const READS_MAX: usize = 16;
/// Limit on the wait for the thread at the end: a file system that hangs may hold it up.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before it waits for the programs again where that failed.
const RETRY: Duration = Duration::from_millis(100);
/// What was killed is expected to be gone after this time.
const DEATH_TIMEOUT: Duration = Duration::from_secs(10);
/// At least this long between two lines of log of one kind.
const LOG_PERIOD: Duration = Duration::from_mins(1);

/// Takes orders. Dropped, it ends the thread and kills the programs.
pub(crate) struct CommandChecks {
    orders: SyncSender<Order>,
    bell: Bell,
    is_ended: Arc<AtomicBool>,
    thread: Option<RunningThread>,
}

struct RunningThread {
    handle: JoinHandle<()>,
    /// Disconnected once the thread is over.
    over: Receiver<()>,
}

impl CommandChecks {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, inbox) = sync_channel(ORDERS_MAX);
        let (bell, waiter) = Bell::new()?;
        let is_ended = Arc::<AtomicBool>::default();
        let clock = Clock::of_process();
        let logging = TokenBucket::new(1, LOG_PERIOD, clock.now());
        let thread =
            Thread { inbox, waiter, is_ended: Arc::clone(&is_ended), clock, running: Vec::new(), logging };
        sys::reap_own_children()?;
        let (is_alive, over) = sync_channel(0);
        let run = move || {
            thread.run();
            drop(is_alive);
        };
        let handle = thread::Builder::new().name("l4lb-command".into()).spawn(run)?;
        Ok(Self { orders, bell, is_ended, thread: Some(RunningThread { handle, over }) })
    }

    /// Returns one that puts off every order.
    pub(crate) fn without_thread() -> io::Result<Self> {
        Ok(Self { orders: sync_channel(0).0, bell: Bell::new()?.0, is_ended: Arc::default(), thread: None })
    }

    /// Runs the program of `order` as soon as there is a place. Never waits.
    pub(crate) fn run(&self, order: Order) {
        match self.orders.try_send(order) {
            Ok(()) => self.bell.ring(),
            Err(TrySendError::Full(order)) => {
                order.answer(Ran::PutOff("too many checks wait for a place".to_owned()), Duration::ZERO);
            }
            Err(TrySendError::Disconnected(order)) => {
                order.answer(Ran::PutOff("the thread of the programs has ended".to_owned()), Duration::ZERO);
            }
        }
    }
}

impl Drop for CommandChecks {
    fn drop(&mut self) {
        // Release: the ring is a system call, and orders nothing.
        self.is_ended.store(true, Ordering::Release);
        self.bell.ring();
        let Some(RunningThread { handle, over }) = self.thread.take() else { return };
        // What it runs must not outlast the process, which may end right after this.
        if over.recv_timeout(JOIN_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            log::error!("the thread of the programs of checks hangs: it is left alone");
        } else if handle.join().is_err() {
            log::error!("the thread of the programs of checks panicked");
        }
    }
}

struct Thread {
    inbox: Receiver<Order>,
    waiter: Waiter,
    is_ended: Arc<AtomicBool>,
    clock: Clock,
    running: Vec<Running>,
    logging: TokenBucket,
}

struct Running {
    program: Program,
    /// `None` once it is answered: what was killed keeps its place until it is gone.
    order: Option<Order>,
    started: Instant,
    deadline: Instant,
    printed: Vec<u8>,
    /// Its end of the pipe is closed.
    is_silent: bool,
}

impl Thread {
    fn run(mut self) {
        while !self.is_ended.load(Ordering::Acquire) {
            self.start_ordered();
            let now = self.clock.now();
            let deadlines = self.running.iter().filter(|running| running.order.is_some());
            let next = deadlines.map(|running| running.deadline - now).min();
            let programs = self.running.iter().map(|running| (&running.program, !running.is_silent));
            if let Err(error) = self.waiter.wait(programs, next) {
                // A lack of memory passes.
                if self.logging.take(self.clock.now()).is_some() {
                    log::warn!(error:%; "cannot wait for the programs of checks");
                }
                thread::park_timeout(RETRY);
            }
            let now = self.clock.now();
            self.running.retain_mut(|running| running.is_left(now));
            self.report_undead(now);
        }
    }

    /// Logs programs that were killed and are still there: each takes a place.
    fn report_undead(&mut self, now: Instant) {
        let is_undead =
            |running: &&Running| running.order.is_none() && now > running.deadline + DEATH_TIMEOUT;
        let undead = self.running.iter().filter(is_undead).count();
        if undead > 0 && self.logging.take(now).is_some() {
            log::warn!(programs = undead, places = PROGRAMS_MAX; "programs of checks do not end though they were killed");
        }
    }

    /// Starts what is ordered, as far as there is room.
    fn start_ordered(&mut self) {
        while self.running.len() < PROGRAMS_MAX
            && let Ok(order) = self.inbox.try_recv()
        {
            if order.is_wanted() {
                self.running.extend(started(order, self.clock.now()));
            }
        }
    }
}

/// Starts the program of `order`, or answers why it cannot.
fn started(order: Order, now: Instant) -> Option<Running> {
    let path = order.command.first().map_or("", String::as_str);
    let program =
        sys::may_run(None, Path::new(path)).and_then(|()| Program::start(&order.command, &order.variables));
    match program {
        Ok(program) => {
            let deadline = now + order.limit;
            let order = Some(order);
            Some(Running { program, order, started: now, deadline, printed: Vec::new(), is_silent: false })
        }
        Err(error) => {
            let what = format!("cannot run {path}: {error}");
            let ran = if sys::lacks_for_program(&error) { Ran::PutOff(what) } else { Ran::NoProgram(what) };
            order.answer(ran, Duration::ZERO);
            None
        }
    }
}

impl Running {
    /// Takes note of what the program has done. Returns false once it is gone.
    fn is_left(&mut self, now: Instant) -> bool {
        // First: what it has printed before its end is in the pipe then.
        let exit = self.program.try_exit();
        self.read();
        match exit {
            Ok(None) => {}
            Ok(Some(exit)) => {
                let printed = std::mem::take(&mut self.printed);
                self.answer(
                    match exit {
                        Exit::Status(status) => Ran::Exited { status, printed },
                        Exit::Signal(signal) => Ran::Signalled { signal, printed },
                    },
                    now,
                );
                return false;
            }
            Err(error) => {
                self.answer(Ran::PutOff(format!("cannot wait for it: {error}")), now);
                return false;
            }
        }
        let is_unwanted = self.order.as_ref().is_some_and(|order| !order.is_wanted());
        if is_unwanted || (self.order.is_some() && now >= self.deadline) {
            self.program.kill();
            let limit = self.deadline - self.started;
            self.answer(Ran::TimedOut { limit }, now);
        }
        true
    }

    fn answer(&mut self, ran: Ran, now: Instant) {
        if let Some(order) = self.order.take() {
            order.answer(ran, now - self.started);
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..READS_MAX {
            match self.program.read(&mut buffer) {
                Ok(count @ 1..) => {
                    let room = PRINTED_MAX.saturating_sub(self.printed.len());
                    self.printed.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => {
                    self.is_silent = true;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::messages::external::{Ticket, variables};

    const PATIENCE: Duration = Duration::from_secs(30);
    /// Longer than any test.
    const LONG: Duration = Duration::from_hours(1);

    fn order(script: &str, limit: Duration) -> (Order, Ticket, Receiver<Ran>) {
        let (answer, answered) = channel();
        let target = std::net::SocketAddr::from(([10, 0, 0, 1], 80)).into();
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        let reply = move |ran, _| _ = answer.send(ran);
        let (order, ticket) = Order::new(&command, variables("web", "a", &target), limit, reply);
        (order, ticket, answered)
    }

    fn run(checks: &CommandChecks, script: &str, limit: Duration) -> Ran {
        let (order, _ticket, answered) = order(script, limit);
        checks.run(order);
        answered.recv_timeout(PATIENCE).unwrap()
    }

    #[test]
    fn a_program_is_judged_by_its_status() {
        let checks = CommandChecks::start().unwrap();
        let ran = run(&checks, "echo $L4LB_POOL/$L4LB_BACKEND $L4LB_ADDRESS $L4LB_PORT", LONG);
        assert_eq!(ran, Ran::Exited { status: 0, printed: b"web/a 10.0.0.1 80\n".to_vec() });
        assert_eq!(run(&checks, "exit 7", LONG), Ran::Exited { status: 7, printed: Vec::new() });
        assert_eq!(run(&checks, "kill -15 $$", LONG), Ran::Signalled { signal: 15, printed: Vec::new() });
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_at_its_limit() {
        let checks = CommandChecks::start().unwrap();
        let limit = Duration::from_millis(20);
        for script in ["sleep 1000", "trap '' TERM INT HUP; while :; do sleep 1000; done", "exec yes"] {
            assert_eq!(run(&checks, script, limit), Ran::TimedOut { limit }, "{script}");
        }
    }

    #[test]
    fn a_program_may_print_more_than_is_kept() {
        let checks = CommandChecks::start().unwrap();
        let Ran::Exited { status: 0, printed } = run(&checks, "yes | head -c 300000", LONG) else {
            panic!("another end")
        };
        assert_eq!(printed.len(), PRINTED_MAX);
    }

    #[test]
    fn a_missing_program_is_named() {
        let checks = CommandChecks::start().unwrap();
        let (mut order, _ticket, answered) = order("", LONG);
        order.command = vec!["/no/such/program".to_owned()];
        checks.run(order);
        let ran = answered.recv_timeout(PATIENCE).unwrap();
        let what = "cannot run /no/such/program: No such file or directory (os error 2)";
        assert_eq!(ran, Ran::NoProgram(what.to_owned()));
    }

    #[test]
    fn only_so_many_run_at_once_and_the_others_wait_for_their_turn() {
        let checks = CommandChecks::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (begun, end) = (folder.path().join("begun"), folder.path().join("end"));
        let script =
            format!("echo >>{}; until [ -e {} ]; do sleep 0.02; done", begun.display(), end.display());
        let waiting: Vec<_> = (0..PROGRAMS_MAX + 3)
            .map(|_| {
                let (order, ticket, answered) = order(&script, LONG);
                checks.run(order);
                (ticket, answered)
            })
            .collect();
        let running = || std::fs::read(&begun).map_or(0, |bytes| bytes.len());
        while running() < PROGRAMS_MAX {
            thread::yield_now();
        }
        let (last, _ticket, last_answered) = order("exit 5", LONG);
        checks.run(last);
        assert_eq!(running(), PROGRAMS_MAX);
        std::fs::write(&end, "").unwrap();
        for (_ticket, answered) in &waiting {
            assert!(matches!(answered.recv_timeout(PATIENCE), Ok(Ran::Exited { status: 0, .. })));
        }
        assert!(matches!(last_answered.recv_timeout(PATIENCE), Ok(Ran::Exited { status: 5, .. })));
        assert_eq!(running(), PROGRAMS_MAX + 3);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_not_run() {
        let checks = CommandChecks::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ran");
        let (unwanted, ticket, answered) = order(&format!("echo >{}", path.display()), LONG);
        drop(ticket);
        checks.run(unwanted);
        assert!(answered.recv_timeout(PATIENCE).is_err(), "dropped without an answer");
        assert!(!path.exists());
    }

    #[test]
    fn the_end_of_the_process_kills_what_runs() {
        let checks = CommandChecks::start().unwrap();
        let (order, ticket, answered) = order("sleep 1000", LONG);
        checks.run(order);
        drop(checks);
        assert!(answered.recv_timeout(PATIENCE).is_err(), "dropped without an answer");
        assert!(ticket.is_void());
    }
}
