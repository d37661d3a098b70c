//! The path of a line: through a bounded queue to a thread that writes many at once. A line of a finished session does
//! not wake that thread: it writes the lines of the last [`GATHER_PERIOD`], and sleeps only once there are none.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::logging::backlog::{Backlog, Put, Writer};
use crate::logging::lines::Lines;

/// Time for which lines that are not urgent gather, unless a batch is full before.
const GATHER_PERIOD: Duration = Duration::from_millis(10);
/// Limit on the wait for lines to be written at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines lost since the start of the process.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns the lines lost since the start of the process: a queue was full, or its output could not be written, or not
/// before the end.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

pub(super) trait Output: Send + 'static {
    /// Writes whole lines and reports those that it cannot write. Returns their number.
    fn write(&mut self, batch: &[u8]) -> u64;

    fn reopen(&mut self);

    /// Reports lines that did not fit into the queue.
    fn report_dropped(&mut self, lines: u64);
}

#[derive(Clone)]
pub(super) struct Queue(Arc<Shared>);

/// The writer's end of a queue. Once it is dropped, the queue accepts no more lines.
pub(super) struct Waiting(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Must be held only to put a line in or to take a batch out, never to write one.
    state: Mutex<State>,
    /// Signals work to the thread.
    work: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct State {
    backlog: Backlog,
    /// Lines put in, and the part of them that is written or lost.
    put: u64,
    done: u64,
    /// Number of threads that wait for lines to be written.
    flushing: usize,
    /// Lines that did not fit, not reported yet.
    dropped: u64,
    /// The output must be reopened.
    reopen: bool,
    /// No more lines will come.
    is_closed: bool,
    is_gone: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_now(&self, mut state: MutexGuard<'_, State>) {
        let must_wake = state.backlog.write_now();
        drop(state);
        if must_wake {
            self.work.notify_one();
        }
    }

    /// Waits until there is work, and then for more of it unless it is urgent.
    fn wait(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        loop {
            if !state.backlog.is_due() {
                state = self.rest(state, Writer::Gathering);
            }
            if !state.backlog.is_empty() || state.is_closed {
                return state;
            }
            state = self.rest(state, Writer::Asleep);
        }
    }

    fn rest<'s>(&'s self, mut state: MutexGuard<'s, State>, how: Writer) -> MutexGuard<'s, State> {
        state.backlog.writer = how;
        let rests = |state: &mut State| state.backlog.writer == how;
        state = match how {
            Writer::Awake => state,
            Writer::Gathering => {
                let waited = self.work.wait_timeout_while(state, GATHER_PERIOD, rests);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            Writer::Asleep => self.work.wait_while(state, rests).unwrap_or_else(PoisonError::into_inner),
        };
        state.backlog.writer = Writer::Awake;
        state
    }
}

impl Queue {
    /// Returns the queue and the writer's end of it, which must be passed to [`spawn`].
    pub(super) fn new() -> (Self, Waiting) {
        let shared = Arc::<Shared>::default();
        (Self(Arc::clone(&shared)), Waiting(shared))
    }

    /// Requests that the lines put in are written now.
    pub(super) fn write_now(&self) {
        self.0.write_now(self.0.lock());
    }

    /// Requests that the output is reopened before the next line is written.
    pub(super) fn reopen(&self) {
        let mut state = self.0.lock();
        state.reopen = true;
        self.0.write_now(state);
    }

    /// Requests that the thread writes the lines put in, and ends.
    pub(super) fn close(&self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        self.0.write_now(state);
    }

    /// Waits until every line put in before is written; at most [`FLUSH_TIMEOUT`], because the process must end. Fails
    /// with the number of lines left, which count as dropped.
    pub(super) fn flush(&self) -> Result<(), u64> {
        let mut state = self.0.lock();
        let put = state.put;
        state.flushing += 1;
        self.0.write_now(state);
        let is_left = |state: &mut State| state.done < put;
        let waited = self.0.written.wait_timeout_while(self.0.lock(), FLUSH_TIMEOUT, is_left);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.flushing -= 1;
        if state.done >= put {
            return Ok(());
        }
        let left = state.put - state.done;
        DROPPED.fetch_add(left, Ordering::Relaxed);
        Err(left)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.lock().is_gone = true;
    }
}

/// The output of env_logger: one call per line.
pub(super) struct Sink(Queue);

impl Sink {
    pub(super) fn new(queue: &Queue) -> Self {
        Self(queue.clone())
    }
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Self(Queue(shared)) = self;
        let mut state = shared.lock();
        let put = if state.is_gone { Put::Dropped } else { state.backlog.put(line) };
        *if put == Put::Dropped { &mut state.dropped } else { &mut state.put } += 1;
        drop(state);
        match put {
            Put::Kept => {}
            Put::Wake => shared.work.notify_one(),
            Put::Dropped => _ = DROPPED.fetch_add(1, Ordering::Relaxed),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the thread that writes the lines of `waiting` to `output`.
pub(super) fn spawn(name: &str, waiting: Waiting, mut output: impl Output) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(move || while write_all(&waiting.0, &mut output) {})?;
    Ok(())
}

/// Waits for lines and writes them; returns false once no more will come.
fn write_all(shared: &Shared, output: &mut impl Output) -> bool {
    let mut state = shared.wait();
    loop {
        while std::mem::take(&mut state.reopen) {
            drop(state);
            output.reopen();
            state = shared.lock();
        }
        let Some(batch) = state.backlog.take() else { return !state.is_closed };
        drop(state);
        DROPPED.fetch_add(output.write(&batch.bytes), Ordering::Relaxed);
        let dropped = std::mem::take(&mut shared.lock().dropped);
        if dropped > 0 {
            output.report_dropped(dropped);
        }
        state = shared.lock();
        // Reported before a waiting flush returns.
        state.done += batch.lines;
        state.backlog.recycle(batch);
        if state.flushing > 0 {
            shared.written.notify_all();
        }
    }
}

/// Standard error, and a logger that writes to it without a queue.
pub(super) struct StandardError<W, L> {
    lines: Lines<W>,
    direct: L,
    /// Lines that could not be written and are not reported yet.
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
            // An error of standard error itself can only be reported once it can be written again.
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

    fn report_dropped(&mut self, lines: u64) {
        // If even a line end does not fit, the next line does not either.
        let _full = self.lines.heal();
        log::warn!(logger: &self.direct, lines; "log lines were dropped: standard error did not keep up");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::logging::backlog::LINES_MAX;
    use crate::logging::lines::tests::Room;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Held by tests that look at process-wide counts.
    pub(in crate::logging) static COUNT: Mutex<()> = Mutex::new(());

    /// The lines written, and the number reported as dropped.
    #[derive(Clone, Default)]
    struct MemoryOutput(Arc<Mutex<(Vec<String>, u64)>>);

    impl MemoryOutput {
        fn note(&self, what: &str) {
            self.0.lock().unwrap().0.push(what.to_owned());
        }
    }

    impl Output for MemoryOutput {
        fn write(&mut self, batch: &[u8]) -> u64 {
            String::from_utf8_lossy(batch).lines().for_each(|line| self.note(line));
            1
        }

        fn reopen(&mut self) {
            self.note("(reopened)");
        }

        fn report_dropped(&mut self, lines: u64) {
            self.0.lock().unwrap().1 += lines;
        }
    }

    /// So long that a queue of them takes several batches.
    fn line(number: usize) -> String {
        format!("{number:040}")
    }

    /// Returns a queue with `count` lines, some of them dropped when it is full.
    fn filled(count: usize) -> (Queue, Waiting) {
        let (queue, lines) = Queue::new();
        let mut sink = Sink::new(&queue);
        (0..count).for_each(|number| sink.write_all((line(number) + "\n").as_bytes()).unwrap());
        (queue, lines)
    }

    #[test]
    fn lines_that_do_not_fit_are_reported_once_and_always_counted() {
        const TOO_MANY: usize = 3;
        let _mine = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, paper) = (dropped(), MemoryOutput::default());
        let (queue, lines) = filled(LINES_MAX + TOO_MANY);
        assert_eq!(dropped() - before, TOO_MANY as u64);
        queue.reopen();
        spawn("test", lines, paper.clone()).unwrap();
        // The queue is full, so the request goes past it. One flush is enough to have everything written and reported.
        assert_eq!(queue.flush(), Ok(()));
        let (written, reported) = paper.0.lock().unwrap().clone();
        assert_eq!((written.len(), reported), (LINES_MAX + 1, TOO_MANY as u64));
        assert_eq!(
            (&*written[0], &*written[1]),
            ("(reopened)", &*line(0)),
            "asked for before anything was written"
        );
        assert!(dropped() - before > TOO_MANY as u64, "those that could not be written count too");
    }

    #[test]
    fn unwritten_lines_at_the_end_of_the_process_are_counted() {
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

    struct Wire(std::sync::mpsc::Sender<String>);

    impl Output for Wire {
        fn write(&mut self, batch: &[u8]) -> u64 {
            self.0.send(String::from_utf8_lossy(batch).into_owned()).unwrap();
            0
        }

        fn reopen(&mut self) {
            self.0.send("(reopened)".to_owned()).unwrap();
        }

        fn report_dropped(&mut self, lines: u64) {
            panic!("{lines} lines were dropped");
        }
    }

    /// Returns the queue of a running thread, and the receiver of what it writes.
    fn running() -> (Queue, std::sync::mpsc::Receiver<String>) {
        let (queue, lines) = Queue::new();
        let (sender, written) = std::sync::mpsc::channel();
        spawn("test", lines, Wire(sender)).unwrap();
        (queue, written)
    }

    #[test]
    fn a_line_without_a_request_to_write_is_written_by_itself() {
        let (queue, written) = running();
        let mut sink = Sink::new(&queue);
        // The thread sleeps, gathers or writes when they arrive: in every case nothing is left over.
        for number in 0..50 {
            sink.write_all(format!("{number}\n").as_bytes()).unwrap();
            assert_eq!(written.recv_timeout(PATIENCE).unwrap(), format!("{number}\n"));
        }
    }

    #[test]
    fn nothing_is_lost_or_out_of_order_where_many_put_lines_in_and_the_output_is_opened_again() {
        const LINES: usize = 1000;
        let (queue, written) = running();
        thread::scope(|scope| {
            for producer in 0..4 {
                let mut sink = Sink::new(&queue);
                scope.spawn(move || {
                    (0..LINES).for_each(|number| {
                        sink.write_all(format!("{producer} {number}\n").as_bytes()).unwrap();
                    });
                });
            }
            (0..10).for_each(|_| queue.reopen());
        });
        assert_eq!(queue.flush(), Ok(()));
        let text: String = written.try_iter().filter(|batch| batch != "(reopened)").collect();
        for producer in 0..4 {
            let prefix = format!("{producer} ");
            let numbers = text.lines().filter_map(|line| line.strip_prefix(&prefix));
            assert!(numbers.eq((0..LINES).map(|number| number.to_string())), "{producer}: {text}");
        }
    }

    #[derive(Default)]
    struct RecordedLog(Mutex<Vec<String>>);

    impl log::Log for RecordedLog {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            self.0.lock().unwrap().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    #[test]
    fn lines_that_standard_error_rejects_are_lost_reported_later_and_tear_no_other_line() {
        // Without a logger nothing is reported at all.
        log::set_max_level(log::LevelFilter::Warn);
        let room = Room::default();
        let mut output = StandardError::new(room.clone(), RecordedLog::default());
        room.make(6);
        assert_eq!(output.write(b"one\ntwo\n"), 1);
        assert_eq!(output.write(b"six\n"), 1);
        assert_eq!(*output.direct.0.lock().unwrap(), [""; 0]);
        room.make(100);
        output.report_dropped(1);
        assert_eq!(output.write(b"ten\n"), 0);
        assert_eq!(room.text(), "one\ntw\nten\n");
        let reported = output.direct.0.lock().unwrap();
        let [dropped, lost] = &reported[..] else { panic!("{reported:?}") };
        assert!(dropped.contains("did not keep up") && lost.contains("could not be written"), "{reported:?}");
    }
}
