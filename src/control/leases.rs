//! Backends that were registered at run time, and the end of those that are not renewed.
//! Only tells which leases have ended; `requests` has the one way out of a pool.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::Instant;
use crate::config::model::Config;
use crate::control::Work;
use crate::pool::{BackendId, PoolId, Snapshot};
use crate::request::Named;

/// What was registered.
#[derive(Debug, Default)]
pub struct Registrations {
    known: HashMap<BackendId, Registration>,
    /// When leases end, the first in front, and whose they are.
    ends: BTreeSet<(Instant, u32)>,
}

/// What the latest request for a backend has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Who has sent it.
    pub who: String,
    /// The weight that it asked for. An operator may have set another since.
    pub weight: u16,
    /// When its lease ends; without one it stays until it is removed.
    pub lease: Option<Instant>,
}

impl Registrations {
    /// The latest request decides.
    pub fn put(&mut self, id: BackendId, registration: Registration) {
        self.forget(id);
        self.ends.extend(registration.lease.map(|end| (end, id.0)));
        self.known.insert(id, registration);
    }

    /// It has gone.
    pub fn forget(&mut self, id: BackendId) -> Option<Registration> {
        let gone = self.known.remove(&id)?;
        if let Some(end) = gone.lease {
            self.ends.remove(&(end, id.0));
        }
        Some(gone)
    }

    /// What is known of a backend, if it was registered.
    pub fn get(&self, id: BackendId) -> Option<&Registration> {
        self.known.get(&id)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (BackendId, &Registration)> {
        self.known.iter().map(|(id, registration)| (*id, registration))
    }

    /// When the next lease ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Those whose lease is over at `now`, which are known no more.
    fn take_ended(&mut self, now: Instant) -> Vec<(BackendId, Registration)> {
        let mut ended = Vec::new();
        while let Some(&(end, id)) = self.ends.first()
            && end <= now
        {
            let gone = self.forget(BackendId(id)).expect("what ends is known");
            ended.push((BackendId(id), gone));
        }
        ended
    }
}

impl Work {
    /// Time until the next lease ends.
    pub(super) fn next_lease(&self, now: Instant) -> Option<Duration> {
        self.control.kept.registrations.next_end().map(|end| end - now)
    }

    /// Removes the backends whose lease has ended, those of one pool together: ten thousand that lose their network at once
    /// are one new table.
    pub(super) fn end_leases(&mut self) {
        let mut of_pools: HashMap<PoolId, Vec<_>> = HashMap::new();
        for (id, registration) in self.control.kept.registrations.take_ended(self.clock.now()) {
            // A reload may have taken it out of its pool.
            if let Some(backend) = self.control.snapshot.backend(id) {
                of_pools.entry(backend.pool).or_default().push((Arc::clone(backend), registration.who));
            }
        }
        for (id, ended) in of_pools {
            let pool = Arc::clone(self.control.snapshot.pool(id));
            let gone: Vec<_> = ended.iter().map(|(backend, _)| Arc::clone(backend)).collect();
            self.remove(&pool, &gone);
            for (backend, who) in ended {
                let named = Named { pool: pool.settings.name.clone(), backend: backend.name.clone() };
                let sessions = backend.active();
                let what = format!("its lease has ended: removed with {sessions} sessions left");
                self.tell(&named, &who, what);
            }
        }
    }
}

impl Registrations {
    /// Forgets those that are in no pool any more, and those that the configuration `now` lists and `before` did not.
    fn align(&mut self, snapshot: &Snapshot, before: &Config, now: &Config) {
        let (before, now) = (listed_in(before), listed_in(now));
        let is_over = |id: &BackendId| match snapshot.backend(*id) {
            None => true,
            Some(backend) => {
                let pool = &snapshot.pool(backend.pool).settings.name;
                let named = (pool.as_str(), backend.name.as_str(), backend.address);
                now.contains(&named) && !before.contains(&named)
            }
        };
        let over: Vec<BackendId> = self.known.keys().copied().filter(is_over).collect();
        over.into_iter().for_each(|id| _ = self.forget(id));
    }
}

/// The backends of a configuration: pool, name and address of each.
fn listed_in(config: &Config) -> HashSet<(&str, &str, SocketAddr)> {
    let pools = config.pools.iter();
    pools
        .flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
        .map(|(pool, backend)| (pool.name.as_str(), backend.name.as_str(), backend.address))
        .collect()
}

impl Work {
    /// Another configuration runs than `before`: what it has taken away, or lists now, is registered no more.
    pub(super) fn align_registrations(&mut self, before: &Config) {
        let Self { control, .. } = self;
        control.kept.registrations.align(&control.snapshot, before, &control.config);
        let mut state = control.view.state();
        for (id, note) in &mut state.notes {
            if control.kept.registrations.get(*id).is_none() {
                (note.registered, note.lease) = (false, None);
            }
        }
        drop(state);
        control.kept.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::config;

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    fn until(seconds: Option<u64>) -> Registration {
        Registration { who: "somebody".into(), weight: 1, lease: seconds.map(at) }
    }

    fn ended(registrations: &mut Registrations, now: u64) -> Vec<u32> {
        registrations.take_ended(at(now)).iter().map(|(id, _)| id.0).collect()
    }

    #[test]
    fn leases_end_in_their_order_and_once() {
        let mut all = Registrations::default();
        for (id, end) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            all.put(BackendId(id), until(Some(end)));
        }
        assert_eq!(all.next_end(), Some(at(10)));
        assert!(ended(&mut all, 9).is_empty());
        assert_eq!(ended(&mut all, 20), [2, 4, 3]);
        assert!(ended(&mut all, 20).is_empty());
        assert_eq!((all.next_end(), all.iter().count()), (Some(at(30)), 1));
    }

    #[test]
    fn the_latest_request_decides() {
        let mut all = Registrations::default();
        let id = BackendId(7);
        all.put(id, until(Some(10)));
        all.put(id, until(Some(30)));
        assert!(ended(&mut all, 29).is_empty(), "renewed");
        all.put(id, until(None));
        assert!(ended(&mut all, 1000).is_empty() && all.next_end().is_none(), "for ever");
        all.put(id, until(Some(2000)));
        assert_eq!(ended(&mut all, 2000), [7], "the other way round");
    }

    #[test]
    fn only_what_a_file_newly_lists_is_registered_no_more() {
        let file = config("");
        let mut backends = file.pools[0].backends.clone();
        backends[0].address.set_port(3);
        let running = Snapshot::new(&file).with_backends(PoolId(0), &backends);
        let id = running.pools[0].backends[0].id;
        let mut all = Registrations::default();
        all.put(id, until(Some(10)));
        all.align(&running, &file, &file);
        assert!(all.get(id).is_some(), "the file lists its name, at another address");
        let mut next = file.clone();
        next.pools[0].backends = backends;
        all.align(&running, &next, &next);
        assert!(all.get(id).is_some(), "removed and registered again");
        all.align(&running, &file, &next);
        assert!(all.get(id).is_none());
    }

    #[test]
    fn what_was_removed_has_no_lease_to_end() {
        let mut all = Registrations::default();
        all.put(BackendId(7), until(Some(10)));
        assert!(all.forget(BackendId(7)).is_some() && all.forget(BackendId(7)).is_none());
        assert!(all.next_end().is_none() && ended(&mut all, 10).is_empty());
    }
}
