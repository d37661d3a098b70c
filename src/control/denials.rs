//! Denied requests to the admin API: counted by reason, logged at a bounded rate, and answered later the more often an
//! address fails, so that a token cannot be guessed by trying.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::base::time::Instant;
use crate::base::token_bucket::TokenBucket;

/// The delay after the first wrong token of an address. Each further one doubles it.
const DELAY_MIN: Duration = Duration::from_millis(10);
/// All clients of this machine share few addresses: a program with a wrong token must not lock the others out.
const DELAY_MAX: Duration = Duration::from_secs(1);
/// An address without failures for this long starts over.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Addresses remembered. A machine has more loopback addresses, so the one that failed longest ago is dropped.
const ADDRESSES_MAX: usize = 256;
/// Time between two lines of the log.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The reason why a request was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    NoToken,
    Token,
    /// A change, presenting the read token.
    ReadOnly,
    /// Its Host is not this machine: DNS rebinding.
    Host,
    /// Sent by a page of another site.
    Origin,
}

impl Denial {
    pub(crate) const ALL: [Self; 5] = [Self::NoToken, Self::Token, Self::ReadOnly, Self::Host, Self::Origin];

    /// Returns its name in metrics and in the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Token => "token",
            Self::ReadOnly => "read_only",
            Self::Host => "host",
            Self::Origin => "origin",
        }
    }
}

/// The requests denied since the process started.
pub(crate) struct Denials {
    counts: [AtomicU64; Denial::ALL.len()],
    recent: Mutex<Recent>,
}

struct Recent {
    log: TokenBucket,
    failures: HashMap<IpAddr, Failures>,
}

/// The wrong tokens of one address.
struct Failures {
    count: u32,
    last: Instant,
}

impl Denials {
    pub(crate) fn new(now: Instant) -> Self {
        let recent = Recent { log: TokenBucket::new(1, LOG_PERIOD, now), failures: HashMap::new() };
        Self { counts: Default::default(), recent: Mutex::new(recent) }
    }

    /// Returns how many were denied for that reason.
    pub(crate) fn count(&self, denial: Denial) -> u64 {
        self.counts[denial as usize].load(Ordering::Relaxed)
    }

    /// Counts and logs a denied request of `peer`; returns how long its answer must wait.
    pub(super) fn add(&self, denial: Denial, peer: IpAddr, request: &str, now: Instant) -> Duration {
        self.counts[denial as usize].fetch_add(1, Ordering::Relaxed);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = recent.log.take(now) {
            log::warn!(reason = denial.as_str(), peer:%, request, more; "admin: request denied");
        }
        match denial {
            Denial::Token => recent.delay(peer, now),
            Denial::NoToken | Denial::ReadOnly | Denial::Host | Denial::Origin => Duration::ZERO,
        }
    }
}

impl Recent {
    fn delay(&mut self, peer: IpAddr, now: Instant) -> Duration {
        self.failures.retain(|_, failures| now - failures.last < FORGET_AFTER);
        if self.failures.len() >= ADDRESSES_MAX
            && !self.failures.contains_key(&peer)
            && let Some(&oldest) =
                self.failures.iter().min_by_key(|(_, failures)| failures.last).map(|(peer, _)| peer)
        {
            self.failures.remove(&oldest);
        }
        let failures = self.failures.entry(peer).or_insert(Failures { count: 0, last: now });
        let delay = DELAY_MIN.saturating_mul(1_u32.checked_shl(failures.count).unwrap_or(u32::MAX));
        *failures = Failures { count: failures.count.saturating_add(1), last: now };
        delay.min(DELAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_answers_to_wrong_tokens_come_later_and_later_until_the_address_is_forgotten() {
        let mut now = Instant::from_nanos(1);
        let denials = Denials::new(now);
        let mut add = |denial, after| {
            now = now + after;
            denials.add(denial, PEER, "GET /", now)
        };
        let delays: Vec<u128> =
            (0..9).map(|_| add(Denial::Token, Duration::from_secs(1)).as_millis()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(add(Denial::Host, Duration::ZERO), Duration::ZERO);
        assert_eq!((0..100).map(|_| add(Denial::Token, Duration::ZERO)).max(), Some(DELAY_MAX));
        assert_eq!(add(Denial::Token, FORGET_AFTER), DELAY_MIN);
        assert_eq!((denials.count(Denial::Token), denials.count(Denial::Host)), (110, 1));
    }

    #[test]
    fn no_crowd_of_addresses_takes_memory_without_bound() {
        let now = Instant::from_nanos(1);
        let denials = Denials::new(now);
        for index in 0..10_000_u32 {
            denials.add(Denial::Token, std::net::Ipv4Addr::from(0x7f00_0000 + index).into(), "GET /", now);
        }
        assert_eq!(denials.recent.lock().unwrap().failures.len(), ADDRESSES_MAX);
    }
}
