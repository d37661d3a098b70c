//! The sources as the control thread runs them: those of the configuration, and no others.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::belief::Belief;
use super::kinds;
use super::state::{Followed, SourceState, Sources};
use crate::api::EventKind;
use crate::base::address::Address;
use crate::base::rng::Rng;
use crate::config::discover::{Discover, Initial};
use crate::config::model::Pool;
use crate::control::control_loop::{ControlLoop, ControlStage, RETRY_INTERVAL};
use crate::control::events::Draft;
use crate::messages::discovery::{Found, Listed, Outcome, SourceId, SourceReport};
use crate::sys::timestamp;

/// Backends that get a line of their own of those that one answer newly leaves out; of more there is one with their
/// number.
const LEFT_OUT_EACH: usize = 16;

impl ControlLoop {
    /// Runs the sources of the configuration, and no others. One whose settings have changed begins anew with what it
    /// has.
    ///
    /// Must be called when the pools are those of the configuration: they get at once what is known of their sources.
    /// The file may list no more what it has listed, and the next answer may be an hour away.
    pub(in crate::control) fn follow_sources(&mut self) {
        let config = Arc::clone(&self.control.config);
        let wanted: Vec<(&str, &Discover)> = config
            .pools
            .iter()
            .flat_map(|pool| pool.discover.iter().map(|source| (pool.name.as_str(), source)))
            .collect();
        let is_wanted = |followed: &Followed| wanted.contains(&(followed.pool.as_str(), &followed.settings));
        let before: Vec<Followed> =
            self.sources.all.extract_if(.., |followed| !is_wanted(followed)).collect();
        let labels: Vec<(&str, String)> =
            wanted.iter().map(|(pool, source)| (*pool, source.label())).collect();
        let now = self.clock.now();
        let mut state = self.control.view.state();
        state.sources.retain(|row| labels.iter().any(|(pool, label)| row.is_of(pool, label)));
        for (pool, label) in &labels {
            if !state.sources.iter().any(|row| row.is_of(pool, label)) {
                state.sources.push(SourceState::new(pool, label.clone(), now));
            }
        }
        drop(state);
        self.sources.is_stuck &= !wanted.is_empty();
        for (pool, source) in wanted {
            let runs = |followed: &Followed| followed.pool == pool && followed.settings == *source;
            if !self.sources.all.iter().any(runs) {
                let label = source.label();
                let earlier = |known: &&Followed| known.pool == pool && known.settings.label() == label;
                let first = self.sources.listed.iter().find(|first| first.is_of(pool, &label));
                // The answer that this configuration has waited for is newer than those before.
                let listed = first.map(|first| first.list.clone());
                let listed = listed.or_else(|| before.iter().find(earlier).map(|known| known.last.clone()));
                self.begin(pool, source, listed.unwrap_or_default());
            }
        }
        // What runs has its own from now on.
        let is_of = |known: &Followed, first: &Listed| first.is_of(&known.pool, &known.settings.label());
        let Sources { all, listed, .. } = &mut self.sources;
        listed.retain(|first| {
            let is_wanted = labels.iter().any(|(pool, label)| first.is_of(pool, label));
            is_wanted && !all.iter().any(|known| is_of(known, first))
        });
        self.reapply_lists(|_| true);
    }

    /// An earlier run of it has `listed` these backends.
    fn begin(&mut self, pool: &str, settings: &Discover, listed: Vec<Found>) {
        let label = settings.label();
        if self.sources.runner.is_none() {
            match (self.sources.start)() {
                Ok(runner) => {
                    self.sources.runner = Some(runner);
                    self.sources.is_stuck = false;
                }
                Err(error) => {
                    if !self.sources.is_stuck {
                        log::error!(pool, source:% = label, error:%; "cannot start the thread that asks sources");
                    }
                    self.sources.is_stuck = true;
                    self.with_source(pool, &label, |row| {
                        row.note = Some(format!("cannot start the thread that asks sources: {error}"));
                    });
                    return;
                }
            }
        }
        let id = SourceId(self.sources.next);
        self.sources.next += 1;
        let Some(runner) = &self.sources.runner else { return };
        let belief = Belief::new(settings.clone(), listed.clone(), self.clock.now());
        let rng = Rng::new(seed_of(id));
        let running = kinds::run(runner, settings, belief, rng, id, self.control.reports.clone());
        let dial_failures = 0;
        log::info!(pool, source:% = label; "discovery begins");
        self.sources.all.push(Followed {
            id,
            pool: pool.to_owned(),
            settings: settings.clone(),
            running,
            last: listed,
            dial_failures,
        });
    }

    /// A source has come to know something, and is asked again after `wait`.
    pub(in crate::control) fn on_discovered(&mut self, id: SourceId, report: SourceReport, wait: Duration) {
        if self.is_ending() {
            return;
        }
        let mut all = self.sources.all.iter_mut();
        let Some(followed) = all.find(|followed| followed.id == id) else { return };
        let SourceReport { list, outcome, note } = report;
        let is_kept = followed.settings.initial == Initial::StateFile;
        if let Some(list) = list.as_ref().filter(|list| followed.last != **list) {
            followed.last.clone_from(list);
            if is_kept {
                self.control.kept.changed();
            }
        }
        let (pool, label) = (followed.pool.clone(), followed.settings.label());
        self.report_outcome(&pool, &label, outcome, note.as_deref());
        if let Some(list) = list {
            self.apply_list(&pool, &label, list);
        }
        let now = self.clock.now();
        self.with_source(&pool, &label, |row| {
            if row.outcome != Some(outcome) {
                (row.outcome, row.since) = (Some(outcome), timestamp());
            }
            if outcome != Outcome::Failed {
                row.answered = Some(now);
            }
            row.next = Some(now + wait);
            row.counts[Outcome::ALL.iter().position(|&one| one == outcome).unwrap_or_default()] += 1;
            row.note = note;
        });
    }

    /// Returns whether the process ends, so that lists of sources are of no use any more.
    fn is_ending(&self) -> bool {
        matches!(self.stage, ControlStage::Draining { .. } | ControlStage::Stopping)
    }

    /// Puts `list` into the pool, and what other sources list there in place of what has gone with it.
    fn apply_list(&mut self, pool: &str, label: &str, list: Vec<Found>) {
        if self.put(pool, label, list) {
            self.fill_up(pool);
        }
    }

    /// Puts `list` into the pool and notes what is left out. Returns true when a backend was removed.
    fn put(&mut self, pool: &str, label: &str, list: Vec<Found>) -> bool {
        let backends = list.len() as u64;
        let put = self.put_discovered(pool, label, list);
        self.note_left_out(pool, label, backends, &put.left_out);
        put.has_removed
    }

    /// Puts into `pool` what sources list there and had to be left out. Must be called when backends have left by
    /// themselves: they may have been in the way.
    pub(in crate::control) fn fill_up(&mut self, pool: &str) {
        let state = self.control.view.state();
        let rows = state.sources.iter().filter(|row| row.pool == pool && !row.left_out.is_empty());
        let labels: HashSet<String> = rows.map(|row| row.source.clone()).collect();
        drop(state);
        if !labels.is_empty() {
            self.reapply_lists(|known| known.pool == pool && labels.contains(&known.settings.label()));
        }
    }

    /// Puts what is believed of such sources into their pools once more.
    fn reapply_lists(&mut self, is_meant: impl Fn(&Followed) -> bool) {
        if self.is_ending() {
            return;
        }
        let meant = self.sources.all.iter().filter(|known| !known.last.is_empty() && is_meant(known));
        let lists: Vec<(String, String, Vec<Found>)> =
            meant.map(|known| (known.pool.clone(), known.settings.label(), known.last.clone())).collect();
        for (pool, label, list) in lists {
            // A backend removed here is not replaced again: `fill_up` calls this.
            self.put(&pool, &label, list);
        }
    }

    /// Returns what the sources of `pool` that run already are believed to have: by address, with the source. Of two
    /// that list an address the first one counts.
    pub(in crate::control) fn believed_in(&self, pool: &Pool) -> HashMap<Address, (Arc<str>, Found)> {
        let mut believed = HashMap::new();
        for source in &pool.discover {
            let label: Arc<str> = source.label().into();
            let of_pool = self.sources.all.iter().filter(|known| known.pool == pool.name);
            for found in
                of_pool.filter(|known| known.settings.label() == *label).flat_map(|known| &known.last)
            {
                let listed = || (Arc::clone(&label), found.clone());
                believed.entry(found.address.clone()).or_insert_with(listed);
            }
        }
        believed
    }

    /// A line for each that was not left out before.
    fn note_left_out(&self, pool: &str, label: &str, backends: u64, left_out: &[String]) {
        let (mut before, shown) = (Vec::new(), left_out.to_vec());
        self.with_source(pool, label, |row| {
            row.backends = backends;
            before = mem::replace(&mut row.left_out, shown);
        });
        let new = news(&before, left_out);
        for why in new.iter().take(LEFT_OUT_EACH) {
            log::warn!(pool, source = label, why; "discovered, and left out");
        }
        if let Some(count) = new.len().checked_sub(LEFT_OUT_EACH).filter(|&count| count > 0) {
            log::warn!(pool, source = label, count; "more were discovered, and left out");
        }
    }

    /// One line and one event for each change, not for each answer.
    fn report_outcome(&self, pool: &str, label: &str, outcome: Outcome, note: Option<&str>) {
        let state = self.control.view.state();
        let row = state.sources.iter().find(|row| row.is_of(pool, label));
        let is_news = row.is_none_or(|row| row.outcome != Some(outcome));
        let is_other_note = row.is_none_or(|row| row.note.as_deref() != note);
        drop(state);
        let words = note.map_or_else(String::new, |note| format!(": {note}"));
        let level = match outcome {
            Outcome::Found if note.is_none() => log::Level::Info,
            Outcome::Found | Outcome::Nothing | Outcome::Failed => log::Level::Warn,
        };
        if is_news || is_other_note {
            let note = note.unwrap_or_default();
            log::log!(level, pool, source = label, outcome = outcome.as_str(), note; "discovery");
        }
        if is_news {
            let what = match outcome {
                Outcome::Found => "answers",
                Outcome::Nothing => "knows no backend",
                Outcome::Failed => "fails, what is known stays",
            };
            let message = format!("{label} {what}{words}");
            self.control.view.events.push(Draft::new(EventKind::Backend, message).pool(pool));
        }
    }

    fn with_source(&self, pool: &str, label: &str, edit: impl FnOnce(&mut SourceState)) {
        let mut state = self.control.view.state();
        if let Some(row) = state.sources.iter_mut().find(|row| row.is_of(pool, label)) {
            edit(row);
        }
    }

    /// A dial to a backend of a source has failed: it may have moved, and the source is asked early. Now and then.
    pub(in crate::control) fn refresh_sources(&mut self) {
        let now = self.clock.now();
        if self.sources.is_stuck && now >= self.sources.next_look {
            self.sources.next_look = now + RETRY_INTERVAL;
            self.follow_sources();
        }
        if self.sources.all.is_empty() || now < self.sources.next_look {
            return;
        }
        self.sources.next_look = now + RETRY_INTERVAL;
        for followed in &mut self.sources.all {
            let Some(pool) = self.control.snapshot.pool_named(&followed.pool) else { continue };
            let failures = pool.backends.iter().map(|backend| backend.dial_failures()).sum();
            // Backends that have left took theirs with them.
            if failures > mem::replace(&mut followed.dial_failures, failures) {
                followed.running.resolve_now();
            }
        }
    }
}

/// Returns what makes the waits of one run of a source differ from those of any other, also in another container, where
/// the process has the same number.
fn seed_of(id: SourceId) -> u64 {
    RandomState::new().hash_one(id)
}

/// Returns those of `now` that are not in `before`.
fn news<'now>(before: &[String], now: &'now [String]) -> Vec<&'now str> {
    let before: HashSet<&str> = before.iter().map(String::as_str).collect();
    now.iter().map(String::as_str).filter(|why| !before.contains(why)).collect()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::config::{self, Config, Overrides};
    use crate::control::membership::merge::merge;
    use crate::control::tests::control;
    use crate::messages::request::{Ask, Named, NewBackend, Refusal, Request};
    use crate::pool::{Admin, Snapshot};

    const LISTENER: &str = "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\n";
    const BACKEND: &str = "[[pool.backend]]\naddress = \"10.0.0.9:80\"\n";

    /// A source whose name server does not answer.
    fn source(name: &str) -> String {
        format!(
            "[[pool.discover]]\ntype = \"dns\"\nname = \"{name}\"\nport = 80\nresolver = [\"127.0.0.1:1\"]\n\
             interval = \"1h\"\n"
        )
    }

    fn parse(text: &str) -> Config {
        config::parse(text, "test", &Overrides::default(), &mut |_: &str| Ok(Vec::new())).unwrap()
    }

    fn work(text: &str) -> ControlLoop {
        let config = parse(text);
        let mut work = ControlLoop::new(control(Snapshot::new(&config), &[]));
        work.control.config = Arc::new(config);
        work.follow_sources();
        work
    }

    /// What a reload does with the pools and their sources.
    fn reload(work: &mut ControlLoop, text: &str) {
        let next = parse(text);
        let control = &work.control;
        let (merged, _) = merge(&control.config, &next, &control.snapshot, &control.kept.registrations);
        let runs = work.change_hands(&merged);
        let snapshot = work.control.snapshot.reconfigured(&runs);
        work.replace_snapshot(Arc::new(snapshot));
        let before = mem::replace(&mut work.control.config, Arc::new(next));
        work.align_registrations(&before);
        work.follow_sources();
    }

    fn found(last: u8) -> Found {
        let address: SocketAddr = ([10, 0, 0, last], 80).into();
        Found { name: address.to_string(), address: address.into(), weight: 1, priority: 0 }
    }

    /// The source of that name lists these.
    fn lists(work: &mut ControlLoop, name: &str, addresses: &[u8]) {
        let label = format!("dns:{name}:80");
        let id = work.sources.all.iter().find(|known| known.settings.label() == label).unwrap().id;
        let list = Some(addresses.iter().copied().map(found).collect());
        let report = SourceReport { list, outcome: Outcome::Found, note: None };
        work.on_discovered(id, report, Duration::from_hours(1));
    }

    fn backends(work: &ControlLoop) -> Vec<String> {
        work.control.snapshot.pools[0].backends.iter().map(|backend| backend.name.clone()).collect()
    }

    fn drain(work: &mut ControlLoop, name: &str) {
        let (reply, _) = tokio::sync::oneshot::channel();
        let backend = Named { pool: "web".into(), backend: name.into() };
        let request = Request::Change { backend, weight: None, admin: Some(Admin::Drain), reply };
        work.on_ask(Ask { who: "a test".into(), request });
    }

    fn admin_of(work: &ControlLoop, name: &str) -> Admin {
        work.control.snapshot.pools[0].backend_named(name).unwrap().admin()
    }

    /// The pool was empty until the next answer.
    #[test]
    fn a_backend_removed_from_the_file_stays_if_a_source_lists_it() {
        let mut work = work(&format!("{LISTENER}{BACKEND}{}", source("web.test")));
        lists(&mut work, "web.test", &[9]);
        assert_eq!(work.control.view.state().sources[0].left_out.len(), 1);
        drain(&mut work, "10.0.0.9:80");
        let lease = work.control.snapshot.pools[0].backends[0].lease(0);
        reload(&mut work, &format!("{LISTENER}{}", source("web.test")));
        assert_eq!(backends(&work), ["10.0.0.9:80"]);
        let nine = &work.control.snapshot.pools[0].backends[0];
        assert_eq!((nine.active(), work.removed.len()), (1, 0), "it is the same one and never left");
        lease.release();
        let known = work.control.kept.registrations.discovery_of(nine.id).unwrap();
        assert_eq!(&*known.source, "dns:web.test:80");
        assert_eq!(work.control.view.state().sources[0].left_out.len(), 0);
        assert_eq!(admin_of(&work, "10.0.0.9:80"), Admin::Drain, "an operator is over both");
    }

    #[test]
    fn a_backend_stays_while_any_source_lists_it() {
        let both = format!("{LISTENER}{}{}", source("web.test"), source("more.test"));
        for is_reload in [false, true] {
            let mut work = work(&both);
            lists(&mut work, "web.test", &[1]);
            lists(&mut work, "more.test", &[1, 2]);
            assert_eq!(backends(&work), ["10.0.0.1:80", "10.0.0.2:80"]);
            if is_reload {
                reload(&mut work, &format!("{LISTENER}{}", source("more.test")));
            } else {
                lists(&mut work, "web.test", &[]);
            }
            assert_eq!(backends(&work), ["10.0.0.2:80", "10.0.0.1:80"], "{is_reload}");
        }
    }

    #[test]
    fn other_settings_of_a_source_forget_nothing_that_it_listed() {
        let text = format!("{LISTENER}{BACKEND}{}", source("web.test"));
        let mut work = work(&text);
        lists(&mut work, "web.test", &[9, 1]);
        reload(&mut work, &format!("{text}obsolete = 3\n"));
        assert_eq!(work.sources.all[0].last.len(), 2);
        reload(&mut work, &format!("{LISTENER}{}", source("web.test")));
        assert_eq!(backends(&work), ["10.0.0.1:80", "10.0.0.9:80"]);
    }

    fn register(work: &mut ControlLoop, name: &str, address: &str, ttl: Option<Duration>) {
        let (reply, _) = tokio::sync::oneshot::channel();
        let backend = NewBackend {
            name: name.into(),
            address: address.parse::<SocketAddr>().unwrap().into(),
            weight: 1,
            priority: 0,
            ttl,
            holder: None,
            replace: false,
        };
        work.on_ask(Ask {
            who: "a test".into(),
            request: Request::Register { pool: "web".into(), backend, reply },
        });
    }

    fn left_out(work: &ControlLoop) -> usize {
        work.control.view.state().sources[0].left_out.len()
    }

    /// The next answer may be an hour away.
    #[test]
    fn a_backend_whose_lease_has_ended_belongs_to_its_source_at_once() {
        for name in ["10.0.0.1:80", "one"] {
            let mut work = work(&format!("{LISTENER}{}", source("web.test")));
            register(&mut work, name, "10.0.0.1:80", Some(Duration::ZERO));
            lists(&mut work, "web.test", &[1, 2]);
            assert_eq!((backends(&work), left_out(&work)), (vec![name.to_owned(), "10.0.0.2:80".into()], 1));
            let lease = work.control.snapshot.pools[0].backends[0].lease(0);
            work.end_leases();
            assert_eq!(backends(&work), ["10.0.0.2:80", "10.0.0.1:80"], "{name}");
            assert_eq!(left_out(&work), 0, "{name}");
            let one = work.control.snapshot.pools[0].backend_named("10.0.0.1:80").unwrap();
            let known = work.control.kept.registrations.discovery_of(one.id).unwrap();
            assert_eq!(&*known.source, "dns:web.test:80");
            // By the same name it is the same backend, which never left its sessions.
            assert_eq!(one.active() == 1, name == "10.0.0.1:80", "{name}");
            assert_eq!(work.removed.is_empty(), name == "10.0.0.1:80", "{name}");
            lease.release();
            work.end_leases();
            assert_eq!(backends(&work).len(), 2, "a source has no lease that could end");
        }
    }

    /// A backend that an operator removes must not be back in the same moment.
    #[test]
    fn a_removed_registration_belongs_to_its_source_with_the_next_answer() {
        let mut work = work(&format!("{LISTENER}{}", source("web.test")));
        register(&mut work, "one", "10.0.0.1:80", None);
        lists(&mut work, "web.test", &[1, 2]);
        let (reply, _) = tokio::sync::oneshot::channel();
        let backend = Named { pool: "web".into(), backend: "one".into() };
        work.on_ask(Ask {
            who: "a test".into(),
            request: Request::Deregister { backend, holder: None, reply },
        });
        assert_eq!((backends(&work), left_out(&work)), (vec!["10.0.0.2:80".to_owned()], 1));
        lists(&mut work, "web.test", &[1, 2]);
        assert_eq!((backends(&work), left_out(&work)), (vec!["10.0.0.2:80".into(), "10.0.0.1:80".into()], 0));
    }

    /// A drained backend had new sessions once its source had another name.
    #[test]
    fn a_drain_outlasts_another_name_of_the_source() {
        let mut work = work(&format!("{LISTENER}{}", source("web.test")));
        lists(&mut work, "web.test", &[1, 2]);
        drain(&mut work, "10.0.0.1:80");
        reload(&mut work, &format!("{LISTENER}{}", source("other.test")));
        assert!(backends(&work).is_empty(), "nothing is known of it");
        lists(&mut work, "other.test", &[1, 2]);
        assert_eq!(admin_of(&work, "10.0.0.1:80"), Admin::Drain);
        assert_eq!(admin_of(&work, "10.0.0.2:80"), Admin::Ready);
        let events = work.control.view.events.recent(None, usize::MAX);
        let message = events.iter().filter(|event| event.message.ends_with(", in drain as set before"));
        assert_eq!(message.count(), 1);
    }

    /// It was back with the next answer.
    #[test]
    fn a_backend_of_the_file_that_a_source_lists_too_cannot_be_removed() {
        let mut work = work(&format!("{LISTENER}{BACKEND}{}", source("web.test")));
        lists(&mut work, "web.test", &[9]);
        let (reply, mut answered) = tokio::sync::oneshot::channel();
        let backend = Named { pool: "web".into(), backend: "10.0.0.9:80".into() };
        let request = Request::Deregister { backend, holder: None, reply };
        work.on_ask(Ask { who: "a test".into(), request });
        work.give_answers();
        let Err(Refusal::Conflict(why)) = answered.try_recv().unwrap() else { panic!("it is refused") };
        assert!(why.ends_with("is listed by dns:web.test:80: drain it, or remove it there"), "{why}");
        assert_eq!(backends(&work), ["10.0.0.9:80"]);
    }

    /// It was remembered for ever, and put on a backend that meanwhile had served under the file.
    #[test]
    fn settings_of_a_removed_backend_are_forgotten_once_the_file_lists_it() {
        let mut work = work(&format!("{LISTENER}{}", source("web.test")));
        lists(&mut work, "web.test", &[9]);
        drain(&mut work, "10.0.0.9:80");
        lists(&mut work, "web.test", &[]);
        reload(&mut work, &format!("{LISTENER}{BACKEND}{}", source("web.test")));
        assert_eq!(admin_of(&work, "10.0.0.9:80"), Admin::Ready);
        reload(&mut work, &format!("{LISTENER}{}", source("web.test")));
        lists(&mut work, "web.test", &[9]);
        assert_eq!(admin_of(&work, "10.0.0.9:80"), Admin::Ready);
    }

    /// It was tried, and logged, with each report.
    #[test]
    fn a_thread_that_cannot_start_is_tried_again_after_a_pause() {
        static TRIES: AtomicU32 = AtomicU32::new(0);
        let mut work = ControlLoop::new(control(Snapshot::default(), &[]));
        work.control.config = Arc::new(parse(&format!("{LISTENER}{}{}", source("a.test"), source("b.test"))));
        work.sources.start = || {
            TRIES.fetch_add(1, Ordering::Relaxed);
            Err(io::ErrorKind::OutOfMemory.into())
        };
        work.follow_sources();
        assert!(work.sources.is_stuck && work.sources.all.is_empty());
        let (before, tried) = (work.clock.now(), TRIES.load(Ordering::Relaxed));
        work.refresh_sources();
        assert!(work.sources.next_look > before && work.sources.is_stuck, "and it is no news");
        assert_eq!(TRIES.load(Ordering::Relaxed), 2 * tried, "once for each source");
        work.sources.next_look = work.clock.now() + RETRY_INTERVAL * 1000;
        work.refresh_sources();
        assert_eq!(TRIES.load(Ordering::Relaxed), 2 * tried, "not before");
    }

    #[test]
    fn only_a_backend_newly_left_out_is_reported() {
        let all = |words: &[&str]| -> Vec<String> { words.iter().map(ToString::to_string).collect() };
        assert_eq!(news(&all(&["a", "b"]), &all(&["b", "c", "a", "d"])), ["c", "d"]);
        assert!(news(&all(&["a"]), &[]).is_empty());
    }

    /// In each of a thousand containers the process had the same number, and all asked at once.
    #[test]
    fn no_two_runs_share_their_jitter() {
        assert_ne!(seed_of(SourceId(0)), seed_of(SourceId(0)));
    }
}
