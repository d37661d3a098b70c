//! The pipes of one worker: lent while bytes are in them, kept while they are empty, never kept with bytes in them.

use std::io;

use crate::sys::Kernel;

/// What a pipe is asked to hold, and the most that one fill moves.
pub(super) const PIPE_LEN: usize = 1 << 20;

/// Empty pipes kept for the next fill: each costs two descriptors. More are lent at a time where many sinks are slow.
const FREE_MAX: usize = 16;

/// The pipes of one worker.
#[derive(Debug)]
pub(super) struct Pipes<P> {
    /// All empty.
    free: Vec<P>,
    /// Those that are lent and those that are free.
    open: usize,
    /// The most that may be open; none once the kernel has said that it cannot splice.
    max: usize,
}

impl<P> Pipes<P> {
    pub(super) fn new(max: usize) -> Self {
        Self { free: Vec::new(), open: 0, max }
    }

    /// Pipes that are lent.
    pub(super) fn lent(&self) -> usize {
        self.open - self.free.len()
    }

    /// Pipes that are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// An empty pipe; `None` when there are as many as may be.
    pub(super) fn borrow<K: Kernel<Pipe = P>>(&mut self, kernel: &mut K) -> io::Result<Option<P>> {
        if let Some(pipe) = self.free.pop() {
            return Ok(Some(pipe));
        }
        if self.open >= self.max {
            return Ok(None);
        }
        let pipe = kernel.pipe(PIPE_LEN)?;
        self.open += 1;
        Ok(Some(pipe))
    }

    /// Takes back an empty pipe.
    pub(super) fn give_back(&mut self, pipe: P) {
        if self.open > self.max || self.free.len() >= FREE_MAX {
            return self.destroy(pipe);
        }
        self.free.push(pipe);
    }

    /// Closes a pipe. One with bytes in it must be: whoever borrowed it next would send them to somebody else.
    pub(super) fn destroy(&mut self, pipe: P) {
        drop(pipe);
        self.open -= 1;
    }

    /// The kernel cannot splice: from now on there are no pipes.
    pub(super) fn close_all(&mut self) {
        self.max = 0;
        self.open -= self.free.len();
        self.free.clear();
    }
}
