//! The way of a line: from whoever logs it, through a bounded queue, to a thread that writes many at once.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that wait to be written at most.
const LINES_MAX: usize = 8192;
/// Lines are written together up to this many bytes.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the end of the process waits for lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines that were logged and that nobody can read, since the start of the process.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that were logged and are nowhere to be read, since the start of the process: a queue was full, or the access
/// log could not be written.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Where batches go.
pub(super) trait Output: Send + 'static {
    /// Writes whole lines, and tells of those that it cannot write. Returns how many that are.
    fn write(&mut self, batch: &[u8]) -> u64;

    /// Opens what it writes to again.
    fn reopen(&mut self);

    /// Tells of lines that did not fit into the queue.
    fn tell_dropped(&mut self, lines: u64);
}

pub(super) enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
    /// Look at what has been asked for beside the queue.
    Look,
}

/// Where lines are put.
#[derive(Clone)]
pub(super) struct Queue {
    messages: SyncSender<Message>,
    asked: Arc<Asked>,
}

/// What is asked of the thread that writes. Beside the queue, because that may be full.
#[derive(Default)]
struct Asked {
    /// To tell of lines that did not fit.
    dropped: AtomicU64,
    reopen: AtomicBool,
}

impl Queue {
    /// The queue and its other end, which goes to [`spawn`].
    pub(super) fn new() -> (Self, Receiver<Message>) {
        let (messages, lines) = sync_channel(LINES_MAX);
        (Self { messages, asked: Arc::default() }, lines)
    }

    /// Has the output opened again before anything else is written.
    pub(super) fn reopen(&self) {
        self.asked.reopen.store(true, Ordering::Release);
        // Where it does not fit there is a line to write, and it looks before that.
        let _awake = self.messages.try_send(Message::Look);
    }

    /// Waits until what is in the queue is written; not for ever, because the process must end.
    pub(super) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.messages.try_send(Message::Flush(done)).is_ok() {
            let _stuck = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// What env_logger writes to: one call a line.
pub(super) struct Sink(Queue);

impl Sink {
    pub(super) fn new(queue: &Queue) -> Self {
        Self(queue.clone())
    }
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.0.messages.try_send(Message::Line(line.to_vec())) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            self.0.asked.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the thread that writes to `output` what is put into `queue`, whose other end is `lines`.
pub(super) fn spawn(
    name: &str,
    lines: Receiver<Message>,
    queue: Queue,
    mut output: impl Output,
) -> io::Result<()> {
    let asked = queue.asked;
    thread::Builder::new().name(name.into()).spawn(move || write_lines(&lines, &asked, &mut output))?;
    Ok(())
}

fn write_lines(lines: &Receiver<Message>, asked: &Asked, output: &mut impl Output) {
    let mut batch = Vec::new();
    while let Ok(first) = lines.recv() {
        let mut flushed = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::Flush(done) => flushed.push(done),
                Message::Look => {}
            }
            next = if batch.len() < BATCH_BYTES { lines.try_recv().ok() } else { None };
        }
        if asked.reopen.swap(false, Ordering::Acquire) {
            output.reopen();
        }
        if !batch.is_empty() {
            DROPPED.fetch_add(output.write(&batch), Ordering::Relaxed);
            batch.clear();
        }
        for done in flushed {
            let _gave_up = done.try_send(());
        }
        match asked.dropped.swap(0, Ordering::Relaxed) {
            0 => {}
            lines => output.tell_dropped(lines),
        }
    }
}

/// Standard error, and a logger that writes to it without a queue.
pub(super) struct StandardError<L>(pub(super) L);

impl<L: log::Log + 'static> Output for StandardError<L> {
    fn write(&mut self, batch: &[u8]) -> u64 {
        // Nobody is left to tell about an error of standard error itself.
        let _gone = io::stderr().write_all(batch);
        0
    }

    fn reopen(&mut self) {}

    fn tell_dropped(&mut self, lines: u64) {
        log::warn!(logger: &self.0, lines; "log lines were dropped: standard error did not keep up");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// What was written, and what it was told of.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<(Vec<String>, u64)>>);

    impl Paper {
        fn note(&self, what: &str) {
            self.0.lock().unwrap().0.push(what.to_owned());
        }
    }

    impl Output for Paper {
        fn write(&mut self, batch: &[u8]) -> u64 {
            String::from_utf8_lossy(batch).lines().for_each(|line| self.note(line));
            1
        }

        fn reopen(&mut self) {
            self.note("(reopened)");
        }

        fn tell_dropped(&mut self, lines: u64) {
            self.0.lock().unwrap().1 += lines;
        }
    }

    #[test]
    fn lines_that_do_not_fit_are_told_once_and_counted_for_good() {
        const TOO_MANY: u64 = 3;
        let (before, paper) = (dropped(), Paper::default());
        let (queue, lines) = Queue::new();
        let mut sink = Sink::new(&queue);
        (0..LINES_MAX as u64 + TOO_MANY)
            .for_each(|line| sink.write_all(format!("{line}\n").as_bytes()).unwrap());
        // No other test of this process logs through a queue.
        assert_eq!(dropped() - before, TOO_MANY);
        queue.reopen();
        spawn("test", lines, queue.clone(), paper.clone()).unwrap();
        queue.flush_patiently();
        let (written, told) = paper.0.lock().unwrap().clone();
        assert_eq!((written.len(), told), (LINES_MAX + 1, TOO_MANY));
        assert_eq!(
            (&*written[0], &*written[1]),
            ("(reopened)", "0"),
            "asked for before anything was written"
        );
        assert!(dropped() - before > TOO_MANY, "those that could not be written count too");
    }

    impl Queue {
        /// Waits until what is in the queue is written, and told.
        fn flush_patiently(&self) {
            for _ in 0..2 {
                let (done, written) = sync_channel(1);
                self.messages.send(Message::Flush(done)).unwrap();
                written.recv().unwrap();
            }
        }
    }
}
