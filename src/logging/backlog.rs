//! Lines that wait to be written, in reused buffers. Decides when the writer thread must be woken; `queue` wakes it.
//! Never locks, waits or writes.

use std::collections::VecDeque;

/// At most this many lines wait to be written, with their bytes.
pub(super) const LINES_MAX: usize = 8192;
pub(super) const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lines are written together up to this many bytes. When this many wait, the writer must not wait for more.
pub(super) const BATCH_BYTES: usize = 64 * 1024;
/// Empty buffers kept for the next lines.
const SPARE_MAX: usize = 4;

/// Lines written with one call, as far as the output accepts them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

/// The state of the writer thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Writer {
    /// It writes, or checks for lines before it waits.
    #[default]
    Awake,
    /// It lets lines gather for a while.
    Gathering,
    Asleep,
}

/// The fate of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It will be written; no further action is needed.
    Kept,
    /// It will be written once the thread is woken: the caller must wake it.
    Wake,
    Dropped,
}

/// The lines. See the module.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Oldest first; the last one is being filled.
    batches: VecDeque<Batch>,
    spare: Vec<Vec<u8>>,
    lines: usize,
    bytes: usize,
    pub(super) writer: Writer,
    /// The lines must be written without waiting for more.
    is_urgent: bool,
}

impl Backlog {
    /// Adds a line, if there is room.
    pub(super) fn put(&mut self, line: &[u8]) -> Put {
        if self.lines == LINES_MAX || self.bytes + line.len() > BYTES_MAX {
            return Put::Dropped;
        }
        let fits = |batch: &Batch| batch.bytes.len() + line.len() <= BATCH_BYTES;
        if !self.batches.back().is_some_and(fits) {
            let bytes = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BATCH_BYTES));
            self.batches.push_back(Batch { bytes, lines: 0 });
        }
        if let Some(last) = self.batches.back_mut() {
            last.bytes.extend_from_slice(line);
            last.lines += 1;
        }
        self.lines += 1;
        self.bytes += line.len();
        let must_wake = match self.writer {
            Writer::Awake => false,
            Writer::Gathering => self.is_due(),
            Writer::Asleep => true,
        };
        if must_wake {
            self.writer = Writer::Awake;
            Put::Wake
        } else {
            Put::Kept
        }
    }

    /// Requests that the lines are written now. Returns whether the thread must be woken for that.
    pub(super) fn write_now(&mut self) -> bool {
        self.is_urgent = true;
        std::mem::take(&mut self.writer) != Writer::Awake
    }

    /// Returns true when the writer must not wait for more lines.
    pub(super) fn is_due(&self) -> bool {
        self.is_urgent || self.batches.len() > 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty() && !self.is_urgent
    }

    /// Returns the oldest lines; `None` once all are taken, which also ends an urgent request.
    pub(super) fn take(&mut self) -> Option<Batch> {
        let Some(batch) = self.batches.pop_front() else {
            self.is_urgent = false;
            return None;
        };
        self.lines -= usize::try_from(batch.lines).unwrap_or(self.lines);
        self.bytes -= batch.bytes.len();
        Some(batch)
    }

    /// Takes back the buffer of a batch, for the next lines.
    pub(super) fn recycle(&mut self, Batch { mut bytes, .. }: Batch) {
        if self.spare.len() < SPARE_MAX && bytes.capacity() <= BATCH_BYTES {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"a line of some length, as a finished session has one\n";

    /// Puts `count` lines, one after the other.
    fn put(backlog: &mut Backlog, count: usize) -> Vec<Put> {
        (0..count).map(|_| backlog.put(LINE)).collect()
    }

    fn wakes(puts: &[Put]) -> usize {
        puts.iter().filter(|&&put| put == Put::Wake).count()
    }

    /// Each line woke the thread: a context switch a session.
    #[test]
    fn one_line_wakes_a_thread_that_sleeps_and_the_others_do_not() {
        let mut backlog = Backlog { writer: Writer::Asleep, ..Backlog::default() };
        assert_eq!(put(&mut backlog, 1), [Put::Wake]);
        // The writer checks, and lets them gather.
        backlog.writer = Writer::Gathering;
        assert_eq!(wakes(&put(&mut backlog, BATCH_BYTES / LINE.len() - 1)), 0);
        assert!(!backlog.is_due());
        assert_eq!(put(&mut backlog, 2), [Put::Wake, Put::Kept], "a batch is full");
        assert!(backlog.is_due());
    }

    #[test]
    fn a_request_to_write_wakes_a_waiting_thread_and_only_once() {
        for (writer, wakes) in [(Writer::Asleep, true), (Writer::Gathering, true), (Writer::Awake, false)] {
            let mut backlog = Backlog { writer, ..Backlog::default() };
            assert_eq!((backlog.write_now(), backlog.write_now()), (wakes, false), "{writer:?}");
            assert!(backlog.is_due() && !backlog.is_empty());
            assert!(backlog.take().is_none());
            assert!(!backlog.is_due() && backlog.is_empty(), "done");
        }
    }

    #[test]
    fn lines_come_out_as_they_went_in_and_their_buffers_are_used_again() {
        let mut backlog = Backlog::default();
        let text = |count: usize| LINE.repeat(count);
        let a_batch = BATCH_BYTES / LINE.len();
        put(&mut backlog, a_batch + 2);
        let first = backlog.take().unwrap();
        assert_eq!((first.lines, &*first.bytes), (a_batch as u64, &*text(a_batch)));
        let buffer = first.bytes.as_ptr();
        backlog.recycle(first);
        let second = backlog.take().unwrap();
        assert_eq!((second.lines, &*second.bytes), (2, &*text(2)));
        assert!(backlog.take().is_none());
        put(&mut backlog, 1);
        assert_eq!(backlog.take().unwrap().bytes.as_ptr(), buffer);
    }

    #[test]
    fn waiting_lines_have_a_bound_in_number_and_in_bytes() {
        let mut backlog = Backlog::default();
        assert!(put(&mut backlog, LINES_MAX).iter().all(|&put| put == Put::Kept));
        assert_eq!(backlog.put(LINE), Put::Dropped);
        while let Some(batch) = backlog.take() {
            backlog.recycle(batch);
        }
        assert!(backlog.spare.len() <= SPARE_MAX);
        let long = vec![b'x'; BYTES_MAX / 4];
        let puts: Vec<Put> = (0..5).map(|_| backlog.put(&long)).collect();
        assert_eq!(puts, [Put::Kept, Put::Kept, Put::Kept, Put::Kept, Put::Dropped]);
    }
}
