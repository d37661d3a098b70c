//! The way of a line: from whoever logs it, through a bounded queue, to a thread that writes many at once.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::logging::lines::Lines;

/// Lines that wait to be written at most.
const LINES_MAX: usize = 8192;
/// Lines are written together up to this many bytes.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the end of the process waits for lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines that were logged and that nobody can read, since the start of the process.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that were logged and are nowhere to be read, since the start of the process: a queue was full, or what it goes to
/// could not be written, or not in time for the end.
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
    /// Lines on their way: in the queue, or taken from it and not written yet.
    waiting: AtomicU64,
    /// Who is to be told once no line waits.
    flushed: Mutex<Vec<SyncSender<()>>>,
    /// To tell of lines that did not fit.
    dropped: AtomicU64,
    reopen: AtomicBool,
}

impl Asked {
    fn flushed(&self) -> MutexGuard<'_, Vec<SyncSender<()>>> {
        // Nobody panics between its changes, each of which is one call.
        self.flushed.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    /// Waits until every line is written; not for ever, because the process must end. The error is how many are left, which
    /// count as dropped.
    pub(super) fn flush(&self) -> Result<(), u64> {
        let (done, written) = sync_channel(1);
        self.asked.flushed().push(done);
        // Where it does not fit there is a line to write, and it looks after that.
        let _awake = self.messages.try_send(Message::Look);
        if written.recv_timeout(FLUSH_TIMEOUT).is_ok() {
            return Ok(());
        }
        let left = self.asked.waiting.load(Ordering::Acquire);
        DROPPED.fetch_add(left, Ordering::Relaxed);
        Err(left)
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
        let asked = &self.0.asked;
        // Before it can be written, so that there are never fewer than none.
        asked.waiting.fetch_add(1, Ordering::Relaxed);
        if self.0.messages.try_send(Message::Line(line.to_vec())).is_err() {
            asked.waiting.fetch_sub(1, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
            asked.dropped.fetch_add(1, Ordering::Relaxed);
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
        let mut taken = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    batch.extend_from_slice(&line);
                    taken += 1;
                }
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
        match asked.dropped.swap(0, Ordering::Relaxed) {
            0 => {}
            lines => output.tell_dropped(lines),
        }
        // Told of before anybody hears that it is done.
        asked.waiting.fetch_sub(taken, Ordering::Release);
        acknowledge(asked);
    }
}

/// Tells who waits for it that every line is written.
fn acknowledge(asked: &Asked) {
    let mut flushed = asked.flushed();
    // Looked at behind the lock: what was put before somebody asked is counted by now.
    if !flushed.is_empty() && asked.waiting.load(Ordering::Acquire) == 0 {
        for done in flushed.drain(..) {
            let _gave_up = done.try_send(());
        }
    }
}

/// Standard error, and a logger that writes to it without a queue.
pub(super) struct StandardError<W, L> {
    lines: Lines<W>,
    direct: L,
    /// Lines that could not be written and are not told of yet.
    lost: u64,
}

impl<W: Write, L: log::Log> StandardError<W, L> {
    pub(super) fn new(to: W, direct: L) -> Self {
        Self { lines: Lines::new(to, false), direct, lost: 0 }
    }
}

impl<W: Write + Send + 'static, L: log::Log + 'static> Output for StandardError<W, L> {
    fn write(&mut self, batch: &[u8]) -> u64 {
        if let Err((lines, _)) = self.lines.write(batch) {
            // Nobody is left to tell about an error of standard error itself, until it can be written again.
            self.lost += lines;
            return lines;
        }
        let lines = std::mem::take(&mut self.lost);
        if lines > 0 {
            log::warn!(logger: &self.direct, lines; "log lines were lost: standard error could not be written");
        }
        0
    }

    fn reopen(&mut self) {}

    fn tell_dropped(&mut self, lines: u64) {
        // Where even a line end does not fit, what follows does not either.
        let _full = self.lines.heal();
        log::warn!(logger: &self.direct, lines; "log lines were dropped: standard error did not keep up");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::lines::tests::Room;

    /// Held by who looks at what is counted for the whole process.
    static COUNT: Mutex<()> = Mutex::new(());

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

    /// So long that a queue of them is written in several batches.
    fn line(number: usize) -> String {
        format!("{number:040}")
    }

    /// A queue with so many lines in it or dropped.
    fn filled(count: usize) -> (Queue, Receiver<Message>) {
        let (queue, lines) = Queue::new();
        let mut sink = Sink::new(&queue);
        (0..count).for_each(|number| sink.write_all((line(number) + "\n").as_bytes()).unwrap());
        (queue, lines)
    }

    #[test]
    fn lines_that_do_not_fit_are_told_once_and_counted_for_good() {
        const TOO_MANY: usize = 3;
        let _mine = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, paper) = (dropped(), Paper::default());
        let (queue, lines) = filled(LINES_MAX + TOO_MANY);
        assert_eq!(dropped() - before, TOO_MANY as u64);
        queue.reopen();
        spawn("test", lines, queue.clone(), paper.clone()).unwrap();
        // The queue is full: it is asked for beside it. Once is enough to have everything written and told.
        assert_eq!(queue.flush(), Ok(()));
        let (written, told) = paper.0.lock().unwrap().clone();
        assert_eq!((written.len(), told), (LINES_MAX + 1, TOO_MANY as u64));
        assert_eq!(
            (&*written[0], &*written[1]),
            ("(reopened)", &*line(0)),
            "asked for before anything was written"
        );
        assert!(dropped() - before > TOO_MANY as u64, "those that could not be written count too");
    }

    #[test]
    fn what_nobody_has_written_when_the_process_ends_is_counted() {
        let _mine = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        let before = dropped();
        let (stuck, _lines) = filled(LINES_MAX);
        assert_eq!(stuck.flush(), Err(LINES_MAX as u64));
        assert_eq!(dropped() - before, LINES_MAX as u64);
        let (gone, lines) = filled(0);
        drop(lines);
        assert_eq!(Sink::new(&gone).write(b"one\n").unwrap(), 4);
        assert_eq!(dropped() - before, LINES_MAX as u64 + 1);
    }

    /// Remembers what it is told.
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl log::Log for Told {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            self.0.lock().unwrap().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    #[test]
    fn what_standard_error_does_not_take_is_lost_told_later_and_tears_no_other_line() {
        // Without a logger nothing is told at all.
        log::set_max_level(log::LevelFilter::Warn);
        let room = Room::default();
        let mut output = StandardError::new(room.clone(), Told::default());
        room.make(6);
        assert_eq!(output.write(b"one\ntwo\n"), 1);
        assert_eq!(output.write(b"six\n"), 1);
        assert_eq!(*output.direct.0.lock().unwrap(), [""; 0]);
        room.make(100);
        output.tell_dropped(1);
        assert_eq!(output.write(b"ten\n"), 0);
        assert_eq!(room.text(), "one\ntw\nten\n");
        let told = output.direct.0.lock().unwrap();
        let [dropped, lost] = &told[..] else { panic!("{told:?}") };
        assert!(dropped.contains("did not keep up") && lost.contains("could not be written"), "{told:?}");
    }
}
