//! When backends of the demo start and stop. No clock and no socket: it is asked for one change after the other.

/// Backends that may run, in a ring.
pub(super) const PLACES: usize = 6;
pub(super) const FEWEST: usize = 3;

/// A change, with the place of the backend in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It does not run, and starts.
    Start(usize),
    /// It runs, and stops.
    Stop(usize),
}

/// More and more backends run until all do, then fewer and fewer until [`FEWEST`] do, again and again. The oldest stops
/// first and the first to stop is the first to start: each is replaced in its time.
pub(super) struct Schedule {
    oldest: usize,
    running: usize,
    is_rising: bool,
}

impl Schedule {
    /// The backends at the first [`FEWEST`] places run.
    pub(super) fn new() -> Self {
        Self { oldest: 0, running: FEWEST, is_rising: true }
    }

    pub(super) fn next_change(&mut self) -> Change {
        match self.running {
            ..=FEWEST => self.is_rising = true,
            PLACES.. => self.is_rising = false,
            _ => {}
        }
        if self.is_rising {
            let place = (self.oldest + self.running) % PLACES;
            self.running += 1;
            Change::Start(place)
        } else {
            let place = self.oldest;
            self.oldest = (self.oldest + 1) % PLACES;
            self.running -= 1;
            Change::Stop(place)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn some_always_run_and_each_is_replaced() {
        let mut schedule = Schedule::new();
        let mut running: BTreeSet<usize> = (0..FEWEST).collect();
        let (mut counts, mut stopped) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..100 {
            match schedule.next_change() {
                Change::Start(place) => assert!(running.insert(place), "{place} runs already"),
                Change::Stop(place) => {
                    assert!(running.remove(&place), "{place} does not run");
                    stopped.insert(place);
                }
            }
            counts.insert(running.len());
        }
        assert_eq!(counts, (FEWEST..=PLACES).collect());
        assert_eq!(stopped, (0..PLACES).collect());
    }
}
