//! Backends that their source lists no more, and that stay while they are eligible (`keep_while_healthy`): a registry
//! that forgets must not take out of service what serves.

use std::collections::{HashMap, HashSet};

use crate::base::address::Address;
use crate::config::discover::WhenAbsent;
use crate::control::control_loop::ControlLoop;
use crate::messages::discovery::{Found, SourceReport};
use crate::pool::Pool;

impl ControlLoop {
    /// Returns the report of the source at that place with the backends that stay behind those that it lists.
    pub(super) fn with_absent(&mut self, place: usize, report: SourceReport) -> SourceReport {
        let SourceReport { list, outcome, note } = report;
        let followed = &self.sources.all[place];
        let absent = match (&list, followed.settings.when_absent()) {
            (Some(list), WhenAbsent::KeepWhileHealthy) => {
                let pool = self.control.snapshot.pool_named(&followed.pool);
                staying(list, &followed.last, &Eligible::of(pool.map(|pool| &**pool)))
            }
            (_, WhenAbsent::Remove) | (None, WhenAbsent::KeepWhileHealthy) => Vec::new(),
        };
        let words =
            (!absent.is_empty()).then(|| format!("{} listed no more, and kept while healthy", absent.len()));
        let note = match (note, words) {
            (Some(note), Some(words)) => Some(format!("{note}; {words}")),
            (note, words) => note.or(words),
        };
        let list = list.map(|mut list| {
            list.extend_from_slice(&absent);
            list
        });
        self.sources.all[place].absent = absent;
        SourceReport { list, outcome, note }
    }

    /// Removes those that have stayed and are not eligible any more: their pools get that with
    /// [`ControlLoop::apply_lists`].
    pub(super) fn end_absences(&mut self) {
        for place in 0..self.sources.all.len() {
            let followed = &self.sources.all[place];
            if followed.absent.is_empty() {
                continue;
            }
            let pool = self.control.snapshot.pool_named(&followed.pool);
            let eligible = Eligible::of(pool.map(|pool| &**pool));
            let (stay, ended): (Vec<Found>, Vec<Found>) =
                followed.absent.iter().cloned().partition(|found| eligible.has(found));
            if ended.is_empty() {
                continue;
            }
            let ended: HashSet<String> = ended.into_iter().map(|found| found.name).collect();
            let followed = &mut self.sources.all[place];
            followed.absent = stay;
            followed.last.retain(|found| !ended.contains(&found.name));
            let id = followed.id;
            self.sources.news.insert(id);
            self.control.kept.changed();
        }
    }
}

/// Returns those of `last` that `list` lacks and that are eligible. What is listed has its name and its address.
fn staying(list: &[Found], last: &[Found], eligible: &Eligible) -> Vec<Found> {
    let names: HashSet<&str> = list.iter().map(|new| new.name.as_str()).collect();
    let addresses: HashSet<&Address> = list.iter().map(|new| &new.address).collect();
    let is_taken = |found: &Found| names.contains(found.name.as_str()) || addresses.contains(&found.address);
    last.iter().filter(|found| !is_taken(found) && eligible.has(found)).cloned().collect()
}

/// The eligible backends of a pool, by their names.
struct Eligible<'a>(HashMap<&'a str, &'a Address>);

impl<'a> Eligible<'a> {
    fn of(pool: Option<&'a Pool>) -> Self {
        let backends = pool.into_iter().flat_map(|pool| &pool.backends);
        let eligible = backends.filter(|backend| backend.is_eligible());
        Self(eligible.map(|backend| (backend.name.as_str(), &backend.address)).collect())
    }

    fn has(&self, found: &Found) -> bool {
        self.0.get(found.name.as_str()).is_some_and(|&address| *address == found.address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::model::HealthState;
    use crate::config::{self, Overrides};
    use crate::control::control_loop::RETRY_INTERVAL;
    use crate::control::discovery::state::Sources;
    use crate::control::tests::control;
    use crate::messages::discovery::Outcome;
    use crate::pool::{Backend, Snapshot};

    fn work(when_absent: &str) -> ControlLoop {
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\n[[pool.discover]]\ntype = \"etcd\"\n\
             prefix = \"/l4lb/web/\"\nendpoints = [\"127.0.0.1:1\"]\nwhen_absent = \"{when_absent}\"\n"
        );
        let config =
            config::parse(&text, "test", &Overrides::default(), &mut |_: &str| Ok(Vec::new())).unwrap();
        let mut work = ControlLoop::new(control(Snapshot::new(&config), &[]));
        work.control.config = Arc::new(config);
        work.sources = Sources::unasked();
        work.follow_sources();
        work
    }

    fn found(name: &str, last: u8) -> Found {
        let address: SocketAddr = ([10, 0, 0, last], 80).into();
        Found { name: name.into(), address: address.into(), weight: 1, priority: 0 }
    }

    fn lists(work: &mut ControlLoop, list: &[Found]) {
        let id = work.sources.all[0].id;
        let report = SourceReport { list: Some(list.to_vec()), outcome: Outcome::Found, note: None };
        work.on_discovered(id, report, Duration::from_hours(1));
        work.apply_lists();
    }

    fn backend(work: &ControlLoop, name: &str) -> Option<Arc<Backend>> {
        work.control.snapshot.pools[0].backend_named(name).cloned()
    }

    fn names(work: &ControlLoop) -> Vec<String> {
        work.control.snapshot.pools[0].backends.iter().map(|backend| backend.name.clone()).collect()
    }

    fn look(work: &mut ControlLoop) {
        work.sources.next_look = work.clock.now();
        work.refresh_sources();
        work.apply_lists();
        assert!(work.sources.next_look <= work.clock.now() + RETRY_INTERVAL);
    }

    #[test]
    fn a_backend_without_its_key_leaves_at_once_or_when_it_is_down() {
        let mut plain = work("remove");
        lists(&mut plain, &[found("a", 1), found("b", 2)]);
        lists(&mut plain, &[found("a", 1)]);
        assert_eq!(names(&plain), ["a"]);
        let mut work = work("keep_while_healthy");
        lists(&mut work, &[found("a", 1), found("b", 2), found("c", 3)]);
        backend(&work, "c").unwrap().set_health(HealthState::Down);
        lists(&mut work, &[]);
        assert_eq!(names(&work), ["a", "b"], "the one that is down has gone");
        let note = work.control.view.state().sources[0].note.clone();
        assert_eq!(note.as_deref(), Some("2 listed no more, and kept while healthy"));
        backend(&work, "b").unwrap().set_health(HealthState::Down);
        look(&mut work);
        assert_eq!(names(&work), ["a"]);
        lists(&mut work, &[found("a", 1)]);
        backend(&work, "a").unwrap().set_health(HealthState::Down);
        look(&mut work);
        assert_eq!(names(&work), ["a"], "it is listed");
        assert_eq!(work.control.view.state().sources[0].note, None);
    }

    #[test]
    fn what_is_listed_has_the_name_and_the_address_of_what_would_stay() {
        let mut work = work("keep_while_healthy");
        lists(&mut work, &[found("a", 1), found("b", 2)]);
        lists(&mut work, &[found("a", 7), found("z", 2)]);
        assert_eq!(names(&work), ["a", "z"]);
        let address: SocketAddr = ([10, 0, 0, 7], 80).into();
        assert_eq!(backend(&work, "a").unwrap().address, address.into());
    }
}
