//! The threads of the workers.

use std::io;
use std::sync::mpsc::Receiver;
use std::thread;

use crate::base::hash::hash;
use crate::messages::report::{Report, Reports, WorkerId};
use crate::sys;

/// Starts the thread of a worker. It waits for its start message, and ends if that never comes. Its end is reported.
pub(super) fn spawn_worker<S: Send + 'static>(
    index: usize,
    pin: bool,
    reports: Reports,
    start: Receiver<(WorkerId, S)>,
    run: impl FnOnce(S) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name(format!("l4lb-worker-{index}")).spawn(move || {
        let Ok((worker, start)) = start.recv() else { return };
        if pin {
            match sys::pin_thread(index) {
                Ok(processor) => log::info!(worker = index, processor; "pinned"),
                Err(error) => log::warn!(worker = index, error:%; "cannot pin the worker to a processor"),
            }
        }
        let mut end = End { worker, reports, result: Err(io::Error::other("it has panicked")) };
        end.result = run(start);
    })?;
    Ok(())
}

/// Reports the end of a worker when dropped. A panic ends the program at once (`main.rs`); when this crate is part of
/// another program that unwinds, as in its tests, the server must still learn of the end.
struct End {
    worker: WorkerId,
    reports: Reports,
    result: io::Result<()>,
}

impl Drop for End {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        self.reports.send_waiting(Report::Stopped { worker: self.worker, result });
    }
}

/// Returns a seed. Random picks of two processes, and of two workers, must differ.
pub(super) fn seed(worker: WorkerId) -> u64 {
    hash(&std::process::id().to_ne_bytes(), worker.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{RecvTimeoutError, channel, sync_channel};
    use std::time::Duration;

    use super::*;
    use crate::control::{CommandChecks, Control, Standby, View, Workers};
    use crate::messages::command::{Command, StopReason};
    use crate::messages::mailbox::Mailbox;
    use crate::server::topology::ServerSite;
    use crate::sys::Linux;

    /// The panic was never reported: a wait for the server never returned.
    #[test]
    fn a_worker_that_panics_stops_the_server_with_an_error() {
        let kernels = [Linux::new().unwrap(), Linux::new().unwrap()];
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
            kernels.iter().map(|kernel| Mailbox::new(kernel.waker())).unzip();
        let (reports, inbox) = Reports::new();
        let workers = Arc::new(Workers::default());
        let members = workers.change(2, 0, mailboxes);
        let view = View::of_nothing();
        let config = Arc::clone(&view.state().config);
        let site = Arc::new(ServerSite::new(&config, 0, None, reports.clone()));
        let control = Control {
            view: Arc::new(view),
            snapshot: Arc::default(),
            config,
            source: None,
            look: None,
            loader: Standby::start("test", 1, 1).unwrap(),
            programs: CommandChecks::without_thread().expect("descriptors"),
            kept: Default::default(),
            listed: Vec::new(),
            site: Arc::new(site),
            admin_sockets: Vec::new(),
            workers,
            reports: reports.clone(),
            inbox,
            drain_timeout: Duration::from_secs(60),
        };
        for (member, commands) in members.iter().zip(inboxes) {
            // The other one runs until it is stopped.
            let run = |(index, commands): (usize, Receiver<Command>)| match index {
                0 => panic!("on purpose, with {commands:?}"),
                _ => match commands.recv() {
                    Ok(Command::Stop(StopReason::AtOnce)) => Ok(()),
                    command => panic!("{command:?}"),
                },
            };
            let (start, opened) = sync_channel(1);
            spawn_worker(member.index, false, reports.clone(), opened, run).unwrap();
            start.send((member.id, (member.index, commands))).unwrap();
        }
        let (sender, ended) = channel();
        thread::spawn(move || sender.send(control.run()));
        let result = ended.recv_timeout(Duration::from_secs(30)).expect("the control thread ends");
        assert_eq!(result.unwrap_err().to_string(), "it has panicked");
    }

    #[test]
    fn a_thread_that_is_not_needed_ends_silently() {
        let (reports, inbox) = Reports::new();
        let (start, opened) = sync_channel::<(WorkerId, ())>(1);
        spawn_worker(0, false, reports, opened, |()| panic!("it was never started")).unwrap();
        drop(start);
        // The queue ends with its last sender, which that thread holds.
        assert!(
            inbox
                .recv_timeout(Duration::from_secs(30))
                .is_err_and(|end| end == RecvTimeoutError::Disconnected)
        );
    }
}
