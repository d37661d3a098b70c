//! What makes a process a service: the sockets that it is passed, and the beats that say that it is well.
//! Decides which socket belongs to which listener, and whether a worker is stuck; `sys` talks to the service manager.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::config::model::Listener;
use crate::control::{Member, Staff};
use crate::mailbox::{Ping, WorkerId};
use crate::stats::Totals;
use crate::sys::{self, Notice, Passed};

/// A beat comes that often while the service manager waits for one: it may miss three.
const BEATS_PER_PERIOD: u32 = 5;
/// How often the service manager is told what the process does, where it wants no beats.
const STATUS_PERIOD: Duration = Duration::from_secs(10);

/// A socket that was passed under the name of a listener and is not its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It listens elsewhere.
    #[error(
        "listener {name:?}: the socket that was passed under its name listens on {address}, not on {bind}"
    )]
    Address {
        /// The listener.
        name: String,
        /// Its address.
        bind: SocketAddr,
        /// That of the socket.
        address: SocketAddr,
    },
    /// It takes no IPv4 clients.
    #[error(
        "listener {name:?}: the socket that was passed for {bind} takes IPv6 clients alone: write BindIPv6Only=both"
    )]
    Ipv6Only {
        /// The listener.
        name: String,
        /// Its address.
        bind: SocketAddr,
    },
}

/// By listener the sockets that were passed for it, and those that are nobody's.
pub type Claims<S> = (Vec<Vec<Passed<S>>>, Vec<Passed<S>>);

/// Gives each listener the sockets that were passed for it, by name or else by address, in the order of `listeners`; and
/// returns those that are nobody's.
pub fn claim<S>(listeners: &[Listener], passed: Vec<Passed<S>>) -> Result<Claims<S>, Mismatch> {
    let (mut claimed, mut left) = (Vec::from_iter(listeners.iter().map(|_| Vec::new())), Vec::new());
    for socket in passed {
        let by_name = listeners.iter().position(|listener| listener.name == socket.name);
        let by_address = || listeners.iter().position(|listener| is_same(listener.bind, socket.address));
        let Some(index) = by_name.or_else(by_address) else {
            left.push(socket);
            continue;
        };
        let Listener { name, bind, .. } = &listeners[index];
        if !is_same(*bind, socket.address) {
            let (name, bind, address) = (name.clone(), *bind, socket.address);
            return Err(Mismatch::Address { name, bind, address });
        }
        if bind.is_ipv6() && bind.ip().is_unspecified() && !socket.is_dual_stack {
            return Err(Mismatch::Ipv6Only { name: name.clone(), bind: *bind });
        }
        claimed[index].push(socket);
    }
    Ok((claimed, left))
}

fn is_same(a: SocketAddr, b: SocketAddr) -> bool {
    (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port())
}

/// All workers, as whoever watches over them sees them.
#[derive(Clone)]
pub struct Watched(Arc<Staff>);

/// A worker by its index, which one that leaves may have too, and by what tells it from that.
type Name = (usize, WorkerId);

impl Watched {
    /// The workers of `staff`, as they come and go.
    pub fn new(staff: Arc<Staff>) -> Self {
        Self(staff)
    }

    /// How many turns each has done that has not stopped, and wakes it for another.
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

/// The thread that tells the service manager that the process is well. Dropped, it stops.
#[must_use = "dropped, the service manager hears no more"]
pub struct Beats {
    _stop: SyncSender<()>,
}

impl Beats {
    /// Tells it from now on what the workers do; and, if it waits for that, that they are well.
    pub fn start(watched: Watched) -> io::Result<Self> {
        let watchdog = sys::watchdog_period();
        if let Some(period) = watchdog {
            log::info!(period:?; "the service manager restarts the process when a worker is stuck for that long");
        }
        let (stop, stopped) = sync_channel(0);
        let mut heart = Heart::new(watchdog.is_some());
        let period = watchdog.map_or(STATUS_PERIOD, |period| period / BEATS_PER_PERIOD);
        thread::Builder::new().name("l4lb-beats".into()).spawn(move || {
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                heart.beat(&watched);
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

/// What the service manager was told last.
struct Heart {
    is_awaited: bool,
    watch: Watch,
    status: String,
}

impl Heart {
    fn new(is_awaited: bool) -> Self {
        Self { is_awaited, watch: Watch::default(), status: String::new() }
    }

    fn beat(&mut self, watched: &Watched) {
        let mut notices = Vec::new();
        let Verdict { stuck, free } = self.watch.look(watched.turns());
        for (worker, _) in stuck {
            log::error!(worker; "a worker is stuck, the service manager is no longer told that all is well");
        }
        for (worker, _) in free {
            log::warn!(worker; "a worker that was stuck goes on, or has stopped");
        }
        if self.is_awaited && self.watch.is_well() {
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

/// Which workers go on turning. Each was woken at every look, so it has turned until the next one, or it is stuck.
#[derive(Default)]
struct Watch {
    /// At the last look.
    turns: BTreeMap<Name, u64>,
    stuck: BTreeSet<Name>,
}

/// What has changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Workers that have not turned since.
    stuck: Vec<Name>,
    /// Workers that were stuck until then, and go on or have stopped.
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

    fn is_well(&self) -> bool {
        self.stuck.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides, system_resolver};

    fn named(index: usize) -> Name {
        (index, WorkerId(u32::try_from(index).unwrap()))
    }

    fn look(watch: &mut Watch, turns: &[Option<u64>]) -> (Vec<usize>, Vec<usize>, bool) {
        let running = (0..).map(named).zip(turns).filter_map(|(worker, turns)| Some((worker, (*turns)?)));
        let Verdict { stuck, free } = watch.look(running.collect());
        let indices = |workers: Vec<Name>| workers.into_iter().map(|(index, _)| index).collect();
        (indices(stuck), indices(free), watch.is_well())
    }

    /// The one that leaves is finished by its sessions and wakes for them.
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
    fn a_worker_that_does_not_turn_stops_the_beats_until_it_goes_on() {
        let mut watch = Watch::default();
        assert_eq!(look(&mut watch, &[Some(0), Some(0)]), (vec![], vec![], true), "nothing is known yet");
        assert_eq!(look(&mut watch, &[Some(5), Some(1)]), (vec![], vec![], true));
        assert_eq!(look(&mut watch, &[Some(9), Some(1)]), (vec![1], vec![], false));
        assert_eq!(look(&mut watch, &[Some(10), Some(1)]), (vec![], vec![], false), "told once");
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

    fn socket(name: &str, address: &str, is_dual_stack: bool) -> Passed<()> {
        Passed { name: name.into(), address: address.parse().unwrap(), is_dual_stack, socket: () }
    }

    /// A listener "web" on 127.0.0.1:80 and one "all" on [::]:81.
    fn claimed(passed: Vec<Passed<()>>) -> Result<Claims<()>, String> {
        let text = "
            listener = [{ name = \"web\", bind = \"127.0.0.1:80\" }, { name = \"all\", bind = \"[::]:81\" }]
            pool = [{ backend = [{ address = \"10.0.0.1:80\" }] }]
        ";
        let config = config::parse(text, "x.toml", &Overrides::default(), &mut system_resolver).unwrap();
        claim(&config.listeners, passed).map_err(|error| error.to_string())
    }

    #[test]
    fn a_socket_belongs_to_the_listener_of_its_name_or_of_its_address() {
        let (web, mapped) =
            (socket("web", "127.0.0.1:80", false), socket("unknown", "[::ffff:127.0.0.1]:80", false));
        let (all, other) =
            (socket("l4lb.socket", "[::]:81", true), socket("l4lb.socket", "0.0.0.0:81", false));
        assert_eq!(
            claimed(vec![web, all, other, mapped]),
            Ok((
                vec![
                    vec![
                        socket("web", "127.0.0.1:80", false),
                        socket("unknown", "[::ffff:127.0.0.1]:80", false)
                    ],
                    vec![socket("l4lb.socket", "[::]:81", true)]
                ],
                vec![socket("l4lb.socket", "0.0.0.0:81", false)]
            ))
        );
    }

    #[test]
    fn a_socket_with_a_listeners_name_must_be_that_listeners() {
        let error = |socket: Passed<()>| claimed(vec![socket]).unwrap_err();
        assert_eq!(
            error(socket("web", "0.0.0.0:80", false)),
            "listener \"web\": the socket that was passed under its name listens on 0.0.0.0:80, not on 127.0.0.1:80"
        );
        assert_eq!(
            error(socket("x", "[::]:81", false)),
            "listener \"all\": the socket that was passed for [::]:81 takes IPv6 clients alone: \
             write BindIPv6Only=both"
        );
    }
}
