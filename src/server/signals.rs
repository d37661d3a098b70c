//! Signals, handled from the first moment of the process: a start may wait long for a disk or a name server, and must
//! still end at once when asked to.

use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::Signals as Caught;
use signal_hook::low_level::signal_name;

use crate::messages::report::{Report, Reports};

/// The signals with a meaning.
const MEANT: [i32; 5] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1];
/// Signals that would end the process by default (signal(7)) and have no meaning here: they are logged and ignored. So
/// are the real-time signals, which have numbers only.
const STRAY: [i32; 7] = [SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXCPU, SIGXFSZ];
/// The C library reserves the kernel's first two for itself.
const REAL_TIME: RangeInclusive<i32> = 34..=64;

/// The effects of signals outside this module.
#[derive(Clone, Copy)]
pub struct Actions {
    /// SIGUSR1: reopens the access log.
    pub reopen_logs: fn(),
    /// Ends the process while it does not serve yet.
    pub leave: fn(),
}

/// Catches the signals of the process.
#[derive(Clone)]
pub struct Signals(Arc<Mutex<Phase>>);

/// The phase of the process, which decides what signals do.
enum Phase {
    /// Nothing runs yet. A reload requested meanwhile is done at the start.
    Starting { reload: bool },
    /// Signals go to the control thread.
    Serving(Reports),
}

impl Signals {
    /// Catches signals from now on. Must be called before anything that may wait.
    pub fn catch(actions: Actions) -> io::Result<Self> {
        let mut caught = Caught::new(MEANT.into_iter().chain(STRAY).chain(REAL_TIME))?;
        let signals = Self(Arc::new(Mutex::new(Phase::Starting { reload: false })));
        let handler = signals.clone();
        thread::Builder::new()
            .name("l4lb-signals".into())
            .spawn(move || caught.forever().for_each(|signal| handler.on_signal(signal, actions)))?;
        Ok(signals)
    }

    /// Must be called once the process serves: signals are reported there from now on.
    pub fn report_to(&self, reports: Reports) {
        let mut phase = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*phase, Phase::Starting { reload: true }) {
            reports.send_waiting(Report::Reload);
        }
        *phase = Phase::Serving(reports);
    }

    fn on_signal(&self, signal: i32, actions: Actions) {
        if !MEANT.contains(&signal) {
            let name = signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned);
            log::warn!(signal = name; "unexpected signal ignored");
            return;
        }
        if signal == SIGUSR1 {
            (actions.reopen_logs)();
        }
        let mut phase = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *phase, signal) {
            (Phase::Serving(reports), SIGHUP) => reports.send_waiting(Report::Reload),
            (Phase::Serving(reports), SIGUSR1) => reports.send_waiting(Report::LogWorkerStats),
            (Phase::Serving(reports), _) => reports.send_waiting(Report::Terminate),
            // The file may have changed since it was read.
            (Phase::Starting { reload }, SIGHUP) => *reload = true,
            (Phase::Starting { .. }, SIGUSR1) => {}
            (Phase::Starting { .. }, _) => (actions.leave)(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// The signal was caught and reported to no thread: a start that hung could not be ended.
    #[test]
    fn signals_from_before_the_process_serves_are_not_lost() {
        static LEFT: AtomicU32 = AtomicU32::new(0);
        let leave = || _ = LEFT.fetch_add(1, Ordering::Relaxed);
        let actions = Actions { reopen_logs: || {}, leave };
        let signals = Signals(Arc::new(Mutex::new(Phase::Starting { reload: false })));
        let (reports, inbox) = Reports::new();
        for signal in [SIGUSR1, SIGHUP, SIGHUP, SIGTERM, SIGUSR2, SIGQUIT, *REAL_TIME.end()] {
            signals.on_signal(signal, actions);
        }
        assert_eq!(LEFT.load(Ordering::Relaxed), 2);
        signals.report_to(reports);
        [SIGTERM, SIGALRM, SIGHUP].into_iter().for_each(|signal| signals.on_signal(signal, actions));
        let reported: Vec<Report> = inbox.try_iter().collect();
        assert!(matches!(*reported, [Report::Reload, Report::Terminate, Report::Reload]), "{reported:?}");
        assert_eq!(LEFT.load(Ordering::Relaxed), 2);
    }
}
