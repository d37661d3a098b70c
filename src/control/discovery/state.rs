//! Which sources run, and how each of them does.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem;
use std::ops::Deref;
use std::time::Duration;

use jiff::Timestamp;

use super::runner::{Runner, Running};
use crate::base::address::Address;
use crate::base::time::Instant;
use crate::config::KnownNames;
use crate::config::discover::{Discover, HOST_LABEL, Initial};
use crate::config::model::Resolved;
use crate::control::membership::listing::Listing;
use crate::messages::discovery::{Found, Listed, Outcome, SourceId};
use crate::sys::timestamp;

pub(in crate::control) struct Sources {
    pub(super) start: fn() -> io::Result<Runner>,
    /// From the first source on.
    pub(super) runner: Option<Runner>,
    pub(super) all: Vec<Followed>,
    /// What sources have listed that do not run yet.
    pub(in crate::control) listed: Vec<Listed>,
    /// Those with a list that is not in its pool yet.
    pub(super) news: HashSet<SourceId>,
    /// The number of the next run of a source.
    pub(super) next: u64,
    /// Whether the thread could not be started.
    pub(super) is_stuck: bool,
    /// When dials are looked at again.
    pub(super) next_look: Instant,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            start: Runner::start,
            runner: None,
            all: Vec::new(),
            listed: Vec::new(),
            news: HashSet::new(),
            next: 0,
            is_stuck: false,
            next_look: Instant::default(),
        }
    }
}

impl Sources {
    /// None yet, and those that begin are never asked: the caller reports what they list. There is no thread.
    pub(in crate::control) fn unasked() -> Self {
        Self { start: Runner::without_thread, ..Self::default() }
    }

    /// Returns the run of the source of that label in that pool, if there is one.
    pub(in crate::control) fn run_of(&self, pool: &str, label: &str) -> Option<SourceId> {
        let is_it = |known: &&Followed| known.pool == pool && known.label == label;
        self.all.iter().find(is_it).map(|known| known.id)
    }

    /// Returns the addresses of the host names that are followed: a reload does not look them up again.
    pub(in crate::control) fn known_names(&self) -> KnownNames {
        let mut known = KnownNames::default();
        for Followed { label, last, .. } in self.all.iter().filter(|known| known.settings.as_host().is_some())
        {
            let address = |Found { address: Address::Ip(address), .. }: &Found| *address;
            known.insert(label, last.iter().map(address).collect());
        }
        known
    }

    /// Whether the age of a saved list counts.
    pub(in crate::control) fn has_stale(&self) -> bool {
        let is_stale =
            |known: &Followed| known.settings.stale.is_some() && known.settings.initial == Initial::StateFile;
        self.all.iter().any(is_stale)
    }

    /// None runs, and some have `listed` backends before.
    pub(in crate::control) fn new(listed: Vec<Listed>) -> Self {
        Self { listed, ..Self::default() }
    }

    /// Notes what sources have listed that are to run; of one that has waited for that already, the newer list counts.
    /// Of `hosts` those count of which no address is known: of the others there are later answers.
    pub(in crate::control) fn begin_with(&mut self, mut listed: Vec<Listed>, hosts: &[Resolved]) {
        let known = self.all.iter().filter(|known| !known.last.is_empty());
        let known: HashSet<(&str, &str)> =
            known.map(|known| (known.pool.as_str(), known.label.as_str())).collect();
        let is_new = |host: &&Resolved| !known.contains(&(host.pool.as_str(), host.source.as_str()));
        listed.extend(hosts.iter().filter(is_new).map(Listed::of_host));
        let newer: HashSet<(&str, &str)> =
            listed.iter().map(|new| (new.pool.as_str(), new.source.as_str())).collect();
        self.listed.retain(|old| !newer.contains(&(old.pool.as_str(), old.source.as_str())));
        self.listed.extend(listed);
    }
}

pub(super) struct Followed {
    pub(super) id: SourceId,
    pub(super) pool: String,
    pub(super) settings: Discover,
    /// Its name, see [`Discover::label`].
    pub(super) label: String,
    pub(super) running: Running,
    /// The backends that it is believed to have, including those that are not in the pool on its behalf.
    pub(super) last: Vec<Found>,
    /// When it answered last, in this process or before.
    pub(super) answered: Answered,
    /// When that was saved last.
    pub(super) noted: Instant,
    /// Those of them that it lists no more, and that stay while they are eligible.
    pub(super) absent: Vec<Found>,
    /// Dials to its backends that have failed.
    pub(super) dial_failures: u64,
}

/// How each source does, in the order of the configuration. A file may have ten thousand host names: the one of a report
/// is found without a look at the others.
#[derive(Debug, Default)]
pub(crate) struct SourceStates {
    all: Vec<SourceState>,
    /// By pool, then by label.
    places: HashMap<String, HashMap<String, usize>>,
}

impl SourceStates {
    /// Returns the state of the source of that label in that pool.
    pub(crate) fn of(&self, pool: &str, label: &str) -> Option<&SourceState> {
        self.all.get(*self.places.get(pool)?.get(label)?)
    }

    pub(super) fn of_mut(&mut self, pool: &str, label: &str) -> Option<&mut SourceState> {
        self.all.get_mut(*self.places.get(pool)?.get(label)?)
    }

    /// Keeps the states of such sources, by pool and label, and begins with that of `new` where there is none.
    pub(in crate::control) fn align<'w>(
        &mut self,
        wanted: impl Iterator<Item = (&'w str, &'w str)>,
        mut new: impl FnMut(&str, &str) -> SourceState,
    ) {
        let mut before: HashMap<(String, String), SourceState> = mem::take(&mut self.all)
            .into_iter()
            .map(|state| ((state.pool.clone(), state.source.clone()), state))
            .collect();
        self.places.clear();
        for (pool, label) in wanted {
            let known = before.remove(&(pool.to_owned(), label.to_owned()));
            self.places.entry(pool.to_owned()).or_default().insert(label.to_owned(), self.all.len());
            self.all.push(known.unwrap_or_else(|| new(pool, label)));
        }
    }
}

impl Deref for SourceStates {
    type Target = [SourceState];

    fn deref(&self) -> &[SourceState] {
        &self.all
    }
}

/// The last answer of a source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    at: Instant,
    /// How old it was then: more than 0, where an earlier process had it.
    age: Duration,
}

impl Answered {
    pub(super) fn new(at: Instant, age: Duration) -> Self {
        Self { at, age }
    }

    pub(super) fn age_at(self, now: Instant) -> Duration {
        (now - self.at).saturating_add(self.age)
    }
}

impl Followed {
    /// Returns its pool and label.
    pub(super) fn key(&self) -> (String, String) {
        (self.pool.clone(), self.label.clone())
    }

    /// Returns the backends that it is believed to have, as its pool gets them.
    pub(super) fn listing(&self) -> Listing {
        Listing {
            source: self.label.as_str().into(),
            list: Found::of(&self.settings, self.last.clone()),
            check: self.settings.as_host().map(|host| host.check).unwrap_or_default(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SourceState {
    /// The pool that it lists backends for.
    pub(crate) pool: String,
    /// Its name, see [`Discover::label`].
    pub(crate) source: String,
    /// How asking went last; `None` before that.
    pub(crate) outcome: Option<Outcome>,
    /// Since when it goes so.
    pub(crate) since: Timestamp,
    pub(crate) began: Instant,
    /// When there was an answer last.
    pub(crate) answered: Option<Instant>,
    /// When it is asked next, if not earlier.
    pub(crate) next: Option<Instant>,
    /// How often it went so, in the order of [`Outcome::ALL`].
    pub(crate) counts: [u64; Outcome::ALL.len()],
    pub(crate) backends: u64,
    /// A note for the operator about the last answer.
    pub(crate) note: Option<String>,
    /// Backends that it lists and that are not in the pool on its behalf, and why.
    pub(crate) left_out: Vec<String>,
}

impl SourceState {
    /// Returns the state before the first answer of one that begins `now`.
    pub(in crate::control) fn new(pool: &str, source: String, now: Instant) -> Self {
        Self {
            pool: pool.to_owned(),
            source,
            outcome: None,
            since: timestamp(),
            began: now,
            answered: None,
            next: None,
            counts: [0; Outcome::ALL.len()],
            backends: 0,
            note: None,
            left_out: Vec::new(),
        }
    }

    /// Returns the state of a host name as it was resolved when the configuration was read.
    pub(super) fn with_resolved(self, found: &Result<Vec<Address>, String>) -> Self {
        match found {
            Ok(_) => Self { outcome: Some(Outcome::Found), answered: Some(self.began), ..self },
            Err(why) => Self { outcome: Some(Outcome::Failed), note: Some(why.clone()), ..self },
        }
    }

    /// Whether it is a host name of a backend, and has no address.
    pub(in crate::control) fn is_unresolved_host(&self) -> bool {
        self.source.starts_with(HOST_LABEL) && self.backends == 0
    }

    /// Returns why a host name has no address, in words.
    pub(in crate::control) fn why_no_address(&self) -> &str {
        self.note.as_deref().unwrap_or("there was no answer yet")
    }
}
