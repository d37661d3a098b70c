//! The syslog daemon as an output: one datagram per line. While it is stuck or gone, its lines wait in their queue, and
//! what no longer fits there is dropped and counted; it is connected to again by itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use log::Level;

use crate::base::token_bucket::TokenBucket;
use crate::logging::queue::Output;
use crate::logging::syslog::Header;
use crate::sys::{self, Clock, LogSocket, Sent, timestamp};

/// Time between tries to reach a daemon that has gone.
const RETRY: Duration = Duration::from_millis(100);
/// A daemon that reads nothing for this long may have been replaced by another one at the same path.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// That lines wait is reported at most this often.
const REPORT_PERIOD: Duration = Duration::from_secs(10);
/// A message that is not taken at this length is lost.
const MESSAGE_LEN_MIN: usize = 64;

pub(super) struct Daemon<L> {
    path: PathBuf,
    header: Header,
    socket: Option<LogSocket>,
    clock: Clock,
    reporting: TokenBucket,
    /// Writes to standard error: what is wrong with the daemon cannot be reported through it.
    direct: L,
    /// Set once its lines go elsewhere: then it must not wait for the daemon any more.
    is_abandoned: Arc<AtomicBool>,
}

impl<L: log::Log> Daemon<L> {
    pub(super) fn new(path: PathBuf, header: Header, direct: L, is_abandoned: Arc<AtomicBool>) -> Self {
        let clock = Clock::start();
        let reporting = TokenBucket::new(1, REPORT_PERIOD, clock.now());
        Self { path, header, socket: None, clock, reporting, direct, is_abandoned }
    }

    /// Sends one line, however long that takes; returns false when it is lost.
    fn send(&mut self, line: &[u8]) -> bool {
        let mut line = line;
        loop {
            let outcome = match self.socket.take().map_or_else(|| LogSocket::connect(&self.path), Ok) {
                Ok(socket) => {
                    let sent = socket.send(line);
                    if !matches!(sent, Sent::Failed(_)) {
                        self.socket = Some(socket);
                    }
                    sent
                }
                Err(error) => Sent::Failed(error),
            };
            // Then each line that is left gets one try.
            let is_abandoned = self.is_abandoned.load(Ordering::Relaxed);
            let patience = if is_abandoned { Duration::ZERO } else { STUCK_AFTER };
            match outcome {
                Sent::Whole => return true,
                Sent::TooLong if line.len() > MESSAGE_LEN_MIN => line = shortened(line),
                Sent::TooLong => return false,
                Sent::Full => {
                    if self.socket.as_ref().is_some_and(|socket| !socket.wait_for_room(patience)) {
                        self.report("the syslog daemon reads nothing, log lines wait", None);
                        self.socket = None;
                    }
                }
                Sent::Failed(error) => {
                    self.report("the syslog daemon cannot be reached, log lines wait", Some(&error));
                    if !is_abandoned {
                        // It may return early, and then the try comes early.
                        thread::park_timeout(RETRY);
                    }
                }
            }
            if is_abandoned {
                return false;
            }
        }
    }

    fn report(&mut self, what: &str, error: Option<&std::io::Error>) {
        // A standard error that is stuck must not hold up what goes to the daemon.
        if !sys::has_room_on_standard_error() || self.reporting.take(self.clock.now()).is_none() {
            return;
        }
        let socket = self.path.display();
        match error {
            Some(error) => log::error!(logger: &self.direct, socket:%, error:%; "{what}"),
            None => log::error!(logger: &self.direct, socket:%; "{what}"),
        }
    }
}

/// Returns three quarters of a message, to the end of a character.
fn shortened(message: &[u8]) -> &[u8] {
    let mut end = message.len() / 4 * 3;
    // Bytes within a character of UTF-8 begin with 10.
    while end > 0 && message[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &message[..end]
}

impl<L: log::Log + 'static> Output for Daemon<L> {
    fn write(&mut self, batch: &[u8]) -> u64 {
        let lines = batch.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| u64::from(!self.send(line))).sum()
    }

    /// The next line finds the daemon anew.
    fn reopen(&mut self) {
        self.socket = None;
    }

    fn report_dropped(&mut self, lines: u64) {
        let words = format!("log lines were dropped: the syslog daemon did not keep up lines={lines}");
        let message = self.header.message(Level::Warn, timestamp(), "process", &words);
        let _lost = self.send(message.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::PoisonError;

    use super::*;
    use crate::config::model::{Facility, Syslog, SyslogHeader};
    use crate::logging::backlog::LINES_MAX;
    use crate::logging::queue::tests::COUNT;
    use crate::logging::queue::{Queue, Sink, spawn};

    const PATIENCE: Duration = Duration::from_secs(30);

    struct NoLog;

    impl log::Log for NoLog {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            false
        }

        fn log(&self, _: &log::Record<'_>) {}

        fn flush(&self) {}
    }

    struct Receiver {
        folder: tempfile::TempDir,
        socket: UnixDatagram,
    }

    impl Receiver {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = bind(&folder);
            Self { folder, socket }
        }

        fn daemon(&self) -> Daemon<NoLog> {
            let path = self.folder.path().join("log");
            let settings = Syslog {
                socket: path.clone(),
                facility: Facility::DAEMON,
                app_name: "l4lb".into(),
                header: SyslogHeader::Rfc5424,
            };
            Daemon::new(path, Header::new(&settings, Some("lb"), 7), NoLog, Arc::default())
        }

        /// Ends, and another one takes its place.
        fn restarts(&mut self) {
            std::fs::remove_file(self.folder.path().join("log")).unwrap();
            self.socket = bind(&self.folder);
        }

        fn next(&self) -> String {
            let mut message = vec![0; 1 << 20];
            let len = self.socket.recv(&mut message).unwrap();
            String::from_utf8(message[..len].to_vec()).unwrap()
        }
    }

    fn bind(folder: &tempfile::TempDir) -> UnixDatagram {
        let socket = UnixDatagram::bind(folder.path().join("log")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    #[test]
    fn each_line_is_a_message_also_of_a_daemon_that_was_started_anew() {
        let mut receiver = Receiver::start();
        let mut daemon = receiver.daemon();
        assert_eq!(daemon.write(b"one\ntwo\n"), 0);
        assert_eq!([receiver.next(), receiver.next()], ["one", "two"]);
        receiver.restarts();
        assert_eq!(daemon.write(b"three\n"), 0);
        assert_eq!(receiver.next(), "three");
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_at_the_end_of_a_character() {
        let receiver = Receiver::start();
        let mut daemon = receiver.daemon();
        let long = "é".repeat(1 << 20);
        assert_eq!(daemon.write(format!("{long}\n").as_bytes()), 0);
        let message = receiver.next();
        assert!(message.len() > 10_000 && long.starts_with(&message), "{}", message.len());
    }

    #[test]
    fn lines_wait_for_a_daemon_that_reads_nothing_and_what_does_not_fit_is_reported() {
        let _mine = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = Receiver::start();
        let (queue, waiting) = Queue::new();
        let mut sink = Sink::new(&queue);
        let mut put = |count: usize| {
            for number in 0..count {
                std::io::Write::write_all(&mut sink, format!("{number:0100}\n").as_bytes()).unwrap();
            }
        };
        // More than the queues of the kernel and of this process hold.
        put(LINES_MAX + 3);
        let daemon = receiver.daemon();
        spawn("test", waiting, daemon).unwrap();
        // All of them and the report: what is left at the end would count as dropped.
        let messages: Vec<String> = (0..=LINES_MAX).map(|_| receiver.next()).collect();
        let words = " process - log lines were dropped: the syslog daemon did not keep up lines=3";
        assert_eq!(messages.iter().filter(|message| message.ends_with(words)).count(), 1);
    }

    #[test]
    fn an_output_that_is_not_used_any_more_does_not_wait_for_the_daemon() {
        let receiver = Receiver::start();
        std::fs::remove_file(receiver.folder.path().join("log")).unwrap();
        let mut daemon = receiver.daemon();
        daemon.is_abandoned.store(true, Ordering::Relaxed);
        assert_eq!(daemon.write(b"one\ntwo\n"), 2);
    }
}
