//! Threads that stand by: started with the process, for work that nobody else may wait for. Later there may be none to be
//! had (the pids limit of a container, RLIMIT_NPROC), and what an operator or a backend asks for must not depend on that.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Something to do, which may take its time.
type Job = Box<dyn FnOnce() + Send>;

/// Threads that do what they are given, one job at a time each. Dropped, they finish what they have begun and what waits.
#[derive(Clone)]
pub struct Standby(SyncSender<Job>);

impl Standby {
    /// So many threads of that name; so many jobs may wait for one. All threads or none.
    pub fn start(name: &str, threads: usize, waiting_max: usize) -> io::Result<Self> {
        let (jobs, given) = sync_channel(waiting_max);
        let given = Arc::new(Mutex::new(given));
        for _ in 0..threads {
            let given = Arc::clone(&given);
            thread::Builder::new().name(name.into()).spawn(move || work(&given))?;
        }
        Ok(Self(jobs))
    }

    /// Has `job` done as soon as a thread is free; false when too many wait already. Never waits.
    #[must_use]
    pub fn try_run(&self, job: impl FnOnce() + Send + 'static) -> bool {
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
    fn what_waits_has_a_bound_and_is_done_before_the_threads_end() {
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
        assert!(seen.recv_timeout(PATIENCE).is_err(), "the thread has ended, and nobody can send any more");
    }
}
