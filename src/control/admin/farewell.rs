//! The answers that the end of the process must not destroy: those to the requests that end it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts the answers that are not written yet.
#[derive(Clone, Default)]
pub(super) struct Farewells(Arc<Waited>);

#[derive(Default)]
struct Waited {
    unwritten: Mutex<usize>,
    written: Condvar,
}

/// One answer, from before its request takes effect until it is written or its client has gone.
pub(super) struct Farewell(Arc<Waited>);

impl Waited {
    fn lock(&self) -> MutexGuard<'_, usize> {
        // A count is never half changed.
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Farewells {
    pub(super) fn begin(&self) -> Farewell {
        *self.0.lock() += 1;
        Farewell(Arc::clone(&self.0))
    }

    /// Waits until every answer is written; no longer than `timeout`, because a client may never read its own.
    pub(super) fn wait(&self, timeout: Duration) {
        let waited = self.0.written.wait_timeout_while(self.0.lock(), timeout, |unwritten| *unwritten > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.written.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_end_waits_for_every_answer_and_not_for_ever() {
        let farewells = Farewells::default();
        farewells.wait(Duration::MAX);
        let answers = [farewells.begin(), farewells.begin()];
        farewells.wait(Duration::from_millis(1));
        let writer = thread::spawn(move || drop(answers));
        farewells.wait(Duration::MAX);
        assert_eq!(*farewells.0.lock(), 0);
        writer.join().unwrap();
    }
}
