//! The service manager (systemd): what it is told, and what it wants to hear. Without one nothing is told.

use std::time::Duration;

use sd_notify::NotifyState;

/// What a service manager is told, sd_notify(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// It serves: after the start, and when it has reloaded.
    Ready,
    /// It has begun to reload. [`Notice::Ready`] follows, also when nothing has come of it.
    Reloading,
    /// It ends.
    Stopping,
    /// It is well; owed once in [`watchdog_period`].
    Alive,
    /// What it does, in words.
    Status(&'a str),
}

/// Tells the service manager, if there is one. An error is logged: nothing else can be done about it. Waits while the
/// queue of the manager is full, so it is not for workers.
pub fn notify(notices: &[Notice<'_>]) {
    let mut states = Vec::with_capacity(notices.len() + 1);
    for notice in notices {
        states.push(match notice {
            Notice::Ready => NotifyState::Ready,
            Notice::Reloading => NotifyState::Reloading,
            Notice::Stopping => NotifyState::Stopping,
            Notice::Alive => NotifyState::Watchdog,
            Notice::Status(text) => NotifyState::Status(text),
        });
        if *notice == Notice::Reloading {
            // systemd.service(5), notify-reload: tells this reload from the one before.
            match NotifyState::monotonic_usec_now() {
                Ok(now) => states.push(now),
                Err(error) => log::warn!(error:%; "cannot read the clock for the service manager"),
            }
        }
    }
    if let Err(error) = sd_notify::notify(&states) {
        log::warn!(notices:?, error:%; "cannot tell the service manager");
    }
}

/// How long the service manager waits for [`Notice::Alive`] until it restarts the process, if it does.
/// sd_watchdog_enabled(3): WATCHDOG_USEC, unless WATCHDOG_PID is another process.
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|period| !period.is_zero())
}
