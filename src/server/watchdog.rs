//! Watches whether the workers turn, and reports to the service manager.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::control::{Member, Workers};
use crate::messages::mailbox::Ping;
use crate::messages::report::WorkerId;
use crate::stats::Totals;
use crate::sys::{self, Notice};

/// Notices per watchdog period: the manager may miss three.
const NOTICES_PER_PERIOD: u32 = 5;
/// Interval of status notices when the manager asks for no watchdog.
const STATUS_PERIOD: Duration = Duration::from_secs(10);

/// All workers, as the watchdog sees them.
#[derive(Clone)]
pub struct Watched(Arc<Workers>);

/// A worker by its index, which a retiring one may share, and by its id.
type Name = (usize, WorkerId);

impl Watched {
    /// Returns a view of `workers`, as they start and stop.
    pub fn new(workers: Arc<Workers>) -> Self {
        Self(workers)
    }

    /// Returns the turns of each worker that has not stopped, and wakes it for another.
    fn turns(&self) -> BTreeMap<Name, u64> {
        let members = self.0.members();
        let turns = members.iter().filter_map(|Member { id, index, mailbox, stats, .. }| {
            let turns = stats.turns.get();
            (mailbox.ping() == Ping::Alive).then_some(((*index, *id), turns))
        });
        turns.collect()
    }

    fn status(&self) -> String {
        let counters = self.0.counters();
        let totals = Totals::of(counters.iter().map(|(_, stats)| stats.as_ref()));
        format!("{} sessions, {} so far", totals.active(), totals.accepted)
    }
}

/// The thread that notifies the service manager while the workers turn. It stops when this is dropped.
#[must_use = "the service manager is notified until it is dropped"]
pub struct Watchdog {
    _stop: SyncSender<()>,
}

impl Watchdog {
    /// Starts the thread. It reports the status and, if the service manager asks for it, that no worker is stuck.
    pub fn start(watched: Watched) -> io::Result<Self> {
        let watchdog = sys::watchdog_period();
        if let Some(period) = watchdog {
            log::info!(period:?; "the service manager restarts the process when a worker is stuck for that long");
        }
        let (stop, stopped) = sync_channel(0);
        let mut notifier = Notifier::new(watchdog.is_some());
        let period = watchdog.map_or(STATUS_PERIOD, |period| period / NOTICES_PER_PERIOD);
        thread::Builder::new().name("l4lb-watchdog".into()).spawn(move || {
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                notifier.notify(&watched);
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

/// The last notice to the service manager.
struct Notifier {
    is_awaited: bool,
    watch: Watch,
    status: String,
}

impl Notifier {
    fn new(is_awaited: bool) -> Self {
        Self { is_awaited, watch: Watch::default(), status: String::new() }
    }

    fn notify(&mut self, watched: &Watched) {
        let mut notices = Vec::new();
        let Verdict { stuck, free } = self.watch.look(watched.turns());
        for (worker, _) in stuck {
            log::error!(worker; "worker is stuck, no more watchdog notices to the service manager");
        }
        for (worker, _) in free {
            log::warn!(worker; "stuck worker has resumed or stopped");
        }
        if self.is_awaited && self.watch.is_healthy() {
            notices.push(Notice::Alive);
        }
        let status = watched.status();
        if status != self.status {
            self.status = status;
            notices.push(Notice::Status(&self.status));
        }
        if !notices.is_empty() {
            sys::notify(&notices);
        }
    }
}

/// Finds stuck workers. Each is woken at every look, so it must have turned by the next one.
#[derive(Default)]
struct Watch {
    turns: BTreeMap<Name, u64>,
    stuck: BTreeSet<Name>,
}

/// The changes since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Workers that have not turned since.
    stuck: Vec<Name>,
    /// Workers that were stuck until then, and turn again or have stopped.
    free: Vec<Name>,
}

impl Watch {
    fn look(&mut self, turns: BTreeMap<Name, u64>) -> Verdict {
        let before = std::mem::replace(&mut self.turns, turns);
        let is_stuck = |(worker, turns): &(&Name, &u64)| before.get(worker) == Some(turns);
        let now: BTreeSet<Name> = self.turns.iter().filter(is_stuck).map(|(&worker, _)| worker).collect();
        let stuck = now.difference(&self.stuck).copied().collect();
        let free = self.stuck.difference(&now).copied().collect();
        self.stuck = now;
        Verdict { stuck, free }
    }

    fn is_healthy(&self) -> bool {
        self.stuck.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(index: usize) -> Name {
        (index, WorkerId(u32::try_from(index).unwrap()))
    }

    fn look(watch: &mut Watch, turns: &[Option<u64>]) -> (Vec<usize>, Vec<usize>, bool) {
        let running = (0..).map(named).zip(turns).filter_map(|(worker, turns)| Some((worker, (*turns)?)));
        let Verdict { stuck, free } = watch.look(running.collect());
        let indices = |workers: Vec<Name>| workers.into_iter().map(|(index, _)| index).collect();
        (indices(stuck), indices(free), watch.is_healthy())
    }

    /// The retiring worker still wakes for its sessions until they end.
    #[test]
    fn a_worker_that_leaves_is_not_taken_for_the_next_one_of_its_index() {
        let mut watch = Watch::default();
        let (leaves, serves) = ((0, WorkerId(0)), (0, WorkerId(1)));
        watch.look([(leaves, 7)].into());
        assert_eq!(watch.look([(leaves, 8), (serves, 7)].into()), Verdict::default());
        let verdict = watch.look([(leaves, 8), (serves, 9)].into());
        assert_eq!(verdict, Verdict { stuck: vec![leaves], free: vec![] });
    }

    #[test]
    fn a_worker_that_does_not_turn_stops_the_notices_until_it_turns_again() {
        let mut watch = Watch::default();
        assert_eq!(look(&mut watch, &[Some(0), Some(0)]), (vec![], vec![], true), "nothing is known yet");
        assert_eq!(look(&mut watch, &[Some(5), Some(1)]), (vec![], vec![], true));
        assert_eq!(look(&mut watch, &[Some(9), Some(1)]), (vec![1], vec![], false));
        assert_eq!(look(&mut watch, &[Some(10), Some(1)]), (vec![], vec![], false), "reported once");
        assert_eq!(look(&mut watch, &[Some(10), Some(2)]), (vec![0], vec![1], false));
        assert_eq!(look(&mut watch, &[Some(11), Some(3)]), (vec![], vec![0], true));
    }

    #[test]
    fn a_worker_that_has_stopped_is_not_stuck() {
        let mut watch = Watch::default();
        look(&mut watch, &[Some(7), Some(7)]);
        assert_eq!(look(&mut watch, &[None, Some(8)]), (vec![], vec![], true));
        assert_eq!(look(&mut watch, &[None, Some(9)]), (vec![], vec![], true));
        assert_eq!(look(&mut watch, &[None, None]), (vec![], vec![], true));
    }

    #[test]
    fn a_stuck_worker_that_has_stopped_is_stuck_no_more() {
        let mut watch = Watch::default();
        look(&mut watch, &[Some(7)]);
        assert_eq!(look(&mut watch, &[Some(7)]), (vec![0], vec![], false));
        assert_eq!(look(&mut watch, &[None]), (vec![], vec![0], true));
    }

    #[test]
    fn workers_that_come_later_have_a_look_of_their_own_before_they_are_stuck() {
        let mut watch = Watch::default();
        look(&mut watch, &[Some(1)]);
        assert_eq!(look(&mut watch, &[Some(2), Some(0)]), (vec![], vec![], true));
        assert_eq!(look(&mut watch, &[Some(3), Some(0)]), (vec![1], vec![], false));
    }
}
