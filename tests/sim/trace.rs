//! The trace of a run: one number for comparing two runs, and text for replaying a seed.

use l4lb::base::hash::avalanche;
use l4lb::sys::Event;

use crate::conn::Nanos;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    /// Whether to print.
    is_loud: bool,
}

impl Trace {
    pub(crate) fn new(is_loud: bool) -> Self {
        Self { hash: 0, is_loud }
    }

    /// Returns the hash of the trace so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    fn mix(&mut self, name: &str, a: u64, b: u64) {
        // Names differ in their length or in their first letter, or the numbers differ.
        let name = (name.len() as u64) << 8 | u64::from(name.as_bytes()[0]);
        self.hash = avalanche(self.hash ^ a.rotate_left(24) ^ b ^ name << 48);
    }

    pub(crate) fn note(&mut self, now: Nanos, what: &'static str, id: usize, value: u64) {
        self.mix(what, id as u64, value);
        if self.is_loud {
            eprintln!("{} {what} #{id} {value}", Stamp(now));
        }
    }

    pub(crate) fn fail(&mut self, now: Nanos, what: &'static str, id: usize, error: i32) {
        self.mix(what, id as u64, u64::from(error.unsigned_abs()) | 1 << 40);
        if self.is_loud {
            eprintln!("{} {what} #{id} failed: {}", Stamp(now), nix::errno::Errno::from_raw(error));
        }
    }

    pub(crate) fn event(&mut self, now: Nanos, worker: usize, event: &Event) {
        let Event { token, ready } = event;
        let flags =
            [(ready.readable, 'r'), (ready.writable, 'w'), (ready.closing, 'c'), (ready.failing, 'f')];
        let bits = flags.iter().fold(0, |bits, (flag, _)| bits << 1 | u64::from(*flag));
        self.mix("event", token.pack(), bits);
        if self.is_loud {
            let flags: String = flags.iter().filter(|(flag, _)| *flag).map(|(_, letter)| letter).collect();
            eprintln!("{} worker {worker} gets {flags} of {token:?}", Stamp(now));
        }
    }
}

struct Stamp(Nanos);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>12}.{:06} ms", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
