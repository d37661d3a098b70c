//! Threads started with the process, for work that no other thread may wait for. Later a thread may not be available
//! (the pids limit of a container, RLIMIT_NPROC), and requests of operators and backends must not depend on that.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A job, which may take its time.
type Job = Box<dyn FnOnce() + Send>;

/// Threads that run jobs, one at a time each. When dropped, they finish the running and the waiting jobs.
#[derive(Clone)]
pub(crate) struct Standby(SyncSender<Job>);

impl Standby {
    /// Starts `threads` threads of that name, with room for `waiting_max` waiting jobs. Fails unless all threads start.
    pub(crate) fn start(name: &str, threads: usize, waiting_max: usize) -> io::Result<Self> {
        let (jobs, given) = sync_channel(waiting_max);
        let given = Arc::new(Mutex::new(given));
        for _ in 0..threads {
            let given = Arc::clone(&given);
            thread::Builder::new().name(name.into()).spawn(move || work(&given))?;
        }
        Ok(Self(jobs))
    }

    /// Runs `job` as soon as a thread is free; returns false when too many wait already. Never waits.
    #[must_use]
    pub(crate) fn try_run(&self, job: impl FnOnce() + Send + 'static) -> bool {
        self.0.try_send(Box::new(job)).is_ok()
    }
}

fn work(given: &Mutex<Receiver<Job>>) {
    loop {
        // One waits for the next job, the others for the lock, which none holds while it works.
        let next = given.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        job();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_job_that_takes_long_holds_up_no_other_as_long_as_a_thread_is_free() {
        let standby = Standby::start("test", 2, 9).unwrap();
        let (end, ended) = channel::<()>();
        let (done, seen) = channel();
        // Ends when the test lets it.
        assert!(standby.try_run(move || _ = ended.recv()));
        for number in 0..8 {
            let done = done.clone();
            assert!(standby.try_run(move || done.send(number).unwrap()));
        }
        let numbers: Vec<i32> = (0..8).map(|_| seen.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(numbers, (0..8).collect::<Vec<_>>());
        drop(end);
    }

    #[test]
    fn waiting_jobs_have_a_bound_and_are_done_before_the_threads_end() {
        let standby = Standby::start("test", 1, 2).unwrap();
        let (begun, begins) = channel();
        let (end, ended) = channel::<()>();
        assert!(standby.try_run(move || {
            begun.send(()).unwrap();
            _ = ended.recv();
        }));
        begins.recv_timeout(PATIENCE).unwrap();
        let (done, seen) = channel();
        for fits in [true, true, false] {
            let done = done.clone();
            assert_eq!(standby.try_run(move || done.send(()).unwrap()), fits);
        }
        drop((standby, end, done));
        for _ in 0..2 {
            seen.recv_timeout(PATIENCE).unwrap();
        }
        assert!(seen.recv_timeout(PATIENCE).is_err(), "the thread has ended, and no sender is left");
    }
}
