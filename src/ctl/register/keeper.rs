//! The progress of a registration, without I/O: what is logged, and when there is another try.

use std::time::Duration;

use crate::base::retries::{RENEWALS, RETRY_MAX, retry_pause};
use crate::config::units::show_duration;
use crate::ctl::Failure;

/// The prospects of another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryVerdict {
    Open,
    /// Another holder has the name or the address, perhaps with a lease that will end.
    Taken,
    /// It would fail in the same way.
    Hopeless,
}

/// The result of one try.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Created,
    /// It existed, and its lease was renewed.
    Renewed,
    /// It was refused, or l4lb could not be reached.
    Failed {
        error: String,
        retry_verdict: RetryVerdict,
    },
    /// No request was sent, because the backend's own port does not answer.
    PortClosed(String),
}

/// The state of the registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Registered,
    Failing {
        tries: u32,
    },
    /// Its port does not answer.
    PortClosed,
}

/// The progress of the registration.
pub(super) struct Keeper {
    /// As POOL/BACKEND, or its key.
    pub(super) name: String,
    ttl: Duration,
    /// Why it has to be registered again.
    lost: &'static str,
    state: State,
    /// It was registered once, so its parameters are valid.
    pub(super) was_registered: bool,
    /// The backend in the pool is this one, so it must be removed at the end.
    pub(super) is_ours: bool,
}

impl Keeper {
    pub(super) fn new(name: String, ttl: Duration, lost: &'static str) -> Self {
        Self { name, ttl, lost, state: State::New, was_registered: false, is_ours: false }
    }

    /// Logs changes; returns the time until the next try. Fails when there must be none.
    pub(super) fn on(&mut self, outcome: Outcome) -> Result<Duration, Failure> {
        let renewal = self.ttl / RENEWALS;
        let (backend, ttl) = (&self.name, show_duration(self.ttl));
        match outcome {
            Outcome::Created | Outcome::Renewed => self.is_ours = true,
            Outcome::Failed { retry_verdict: RetryVerdict::Taken, .. } => self.is_ours = false,
            Outcome::Failed { .. } | Outcome::PortClosed(_) => {}
        }
        let (state, pause) = match (self.state, outcome) {
            // At the start that is the user's mistake. Later, a change at the other end may be reverted.
            (_, Outcome::Failed { error, retry_verdict: RetryVerdict::Hopeless }) if !self.was_registered => {
                return Err(Failure::Failed(error));
            }
            (State::Registered, Outcome::Renewed) => (State::Registered, renewal),
            (State::Registered, Outcome::Created) => {
                log::warn!(backend, ttl; "registered again: {}", self.lost);
                (State::Registered, renewal)
            }
            (State::New | State::Failing { .. } | State::PortClosed, Outcome::Created | Outcome::Renewed) => {
                log::info!(backend, ttl; "registered");
                (State::Registered, renewal)
            }
            (State::Failing { tries }, Outcome::Failed { .. }) => {
                let tries = tries.saturating_add(1);
                (State::Failing { tries }, retry_pause(tries, renewal))
            }
            (State::New | State::Registered | State::PortClosed, Outcome::Failed { error, .. }) => {
                log::warn!(backend, error; "cannot register: retrying");
                (State::Failing { tries: 0 }, retry_pause(0, renewal))
            }
            (State::PortClosed, Outcome::PortClosed(_)) => (State::PortClosed, renewal.min(RETRY_MAX)),
            (State::New | State::Registered | State::Failing { .. }, Outcome::PortClosed(error)) => {
                log::warn!(backend, error; "its port does not answer: not renewed until it does");
                (State::PortClosed, renewal.min(RETRY_MAX))
            }
        };
        self.was_registered |= state == State::Registered;
        self.state = state;
        Ok(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::retries::RETRY_MIN;

    fn keeper() -> Keeper {
        Keeper::new("web/a".into(), Duration::from_secs(9), "l4lb had lost it")
    }

    fn failed(retry_verdict: RetryVerdict) -> Outcome {
        Outcome::Failed { error: "no".into(), retry_verdict }
    }

    #[test]
    fn a_lease_is_renewed_three_times_in_its_length() {
        let mut keeper = keeper();
        for outcome in [Outcome::Created, Outcome::Renewed, Outcome::Created] {
            assert_eq!(keeper.on(outcome).unwrap(), Duration::from_secs(3));
            assert_eq!(keeper.state, State::Registered);
        }
    }

    #[test]
    fn failures_are_retried_less_and_less_often_but_at_least_as_often_as_renewals() {
        let mut keeper = keeper();
        keeper.on(Outcome::Created).unwrap();
        let pauses: Vec<u128> =
            (0..6).map(|_| keeper.on(failed(RetryVerdict::Open)).unwrap().as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 3_000, 3_000]);
        assert_eq!(keeper.on(Outcome::Renewed).unwrap(), Duration::from_secs(3));
        assert_eq!(keeper.on(failed(RetryVerdict::Open)).unwrap(), RETRY_MIN);
    }

    #[test]
    fn a_mistake_ends_it_at_the_start_only() {
        assert!(keeper().on(failed(RetryVerdict::Hopeless)).is_err());
        let mut waiting = keeper();
        waiting.on(failed(RetryVerdict::Open)).unwrap();
        assert!(waiting.on(failed(RetryVerdict::Hopeless)).is_err());
        let mut registered = keeper();
        registered.on(Outcome::Created).unwrap();
        assert!(registered.on(failed(RetryVerdict::Hopeless)).is_ok());
    }

    #[test]
    fn a_port_that_does_not_answer_is_not_renewed_until_it_does() {
        let mut keeper = keeper();
        keeper.on(Outcome::PortClosed("refused".into())).unwrap();
        assert!(!keeper.is_ours);
        keeper.on(Outcome::Created).unwrap();
        keeper.on(Outcome::PortClosed("refused".into())).unwrap();
        assert_eq!((keeper.state, keeper.is_ours), (State::PortClosed, true));
    }

    #[test]
    fn a_backend_of_another_holder_is_not_removed() {
        let mut keeper = keeper();
        keeper.on(Outcome::Created).unwrap();
        keeper.on(failed(RetryVerdict::Open)).unwrap();
        assert!(keeper.is_ours, "the backend counts as ours");
        keeper.on(failed(RetryVerdict::Taken)).unwrap();
        assert!(!keeper.is_ours);
        keeper.on(Outcome::PortClosed("refused".into())).unwrap();
        assert!(!keeper.is_ours);
        keeper.on(Outcome::Created).unwrap();
        assert!(keeper.is_ours, "their lease has ended");
    }
}
