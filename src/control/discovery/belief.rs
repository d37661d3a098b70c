//! Decides which answers of a source to believe: no socket, and no clock or chance but the caller's.
//!
//! Name servers lie for a while: one that restarts knows no name, one that is overloaded gives some of the addresses,
//! and one that is away says nothing. So what is known stays until answers agree that it is wrong. A backend goes with
//! the answer behind `obsolete` ones that lack it; all of them go with the last of `negatives` answers in a row by
//! which there is none, [`NEGATIVE_SPAN`] behind the first of these; and a failure takes nothing away, until `stale` is
//! over where that is set. Nothing leaves fewer than `min_backends`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::iter;
use std::time::Duration;

use crate::base::address::Address;
use crate::base::time::Instant;
use crate::config::PRIORITY_MAX;
use crate::config::discover::{Discover, Kind};
use crate::messages::discovery::{Found, Outcome, SourceReport};

/// How long answers without any backend must last before they are believed.
const NEGATIVE_SPAN: Duration = Duration::from_secs(30);
/// The bounds of the time that an answer may set until the next question.
const TTL_MIN: Duration = Duration::from_secs(5);
const TTL_MAX: Duration = Duration::from_mins(5);
/// Of a wait, by how much it is longer or shorter: a thousand balancers ask not all at once.
const JITTER: f64 = 0.1;
/// Until a failure is repeated, the first time; each time it is twice as long.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Of the interval, how long a failure waits at most to be repeated.
const RETRY_INTERVALS: u32 = 4;

/// The answer of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// These backends, which may be none: that is believed as any other list.
    Records(Records),
    /// There is no such name, or nothing of what was asked for; for so long, if that was said.
    Nothing { why: String, ttl: Option<Duration> },
    /// No answer, or none that can be used.
    Failure(String),
}

/// Backends as one answer has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    /// Each with the host that it is at.
    pub(super) listed: Vec<(String, Found)>,
    /// The priorities of the records of a service, by address: its tiers follow their order. None where the priority that
    /// is listed is the tier.
    pub(super) ranks: HashMap<Address, u16>,
    /// Hosts that were named and could not be resolved.
    pub(super) unknown_hosts: HashSet<String>,
    /// How long it is good.
    pub(super) ttl: Duration,
    /// A note for the operator about it.
    pub(super) notes: Vec<String>,
}

pub(super) struct Belief {
    settings: Discover,
    known: Vec<Known>,
    /// Answers in a row by which there is none, and when the first one came.
    negatives: Option<(u32, Instant)>,
    /// Failures in a row.
    failures: u32,
    /// When an answer came last, or when this began.
    answered: Instant,
    /// How old the last answer was then.
    age: Duration,
}

struct Known {
    host: String,
    found: Found,
    /// Its place among the tiers of a service; `None` where the listed priority is the tier, and as long as nothing but
    /// that is known.
    order: Option<i64>,
    /// Answers in a row that lack it.
    missed: u32,
}

/// Between two ranks, twice as many as there are tiers: a backend of an earlier run, of which the tier is known and not the
/// rank, is between them.
const RANK_STEP: i64 = 32;

impl Known {
    /// One that an earlier run of the source has listed.
    fn of_earlier(found: Found) -> Self {
        Self { host: String::new(), found, order: None, missed: 0 }
    }
}

impl Belief {
    /// Before the first answer. What an earlier run of the source has `listed` stays as if an answer had it so long before
    /// `now`.
    pub(super) fn new(settings: Discover, listed: Vec<Found>, now: Instant, age: Duration) -> Self {
        let known = listed.into_iter().map(Known::of_earlier).collect();
        Self { settings, known, negatives: None, failures: 0, answered: now, age }
    }

    /// What follows from an answer that has come at `now`, and how long to wait before the next question. `chance` is
    /// any number of 0..1.
    pub(super) fn on_answer(
        &mut self,
        answer: Answer,
        now: Instant,
        chance: f64,
    ) -> (SourceReport, Duration) {
        match answer {
            Answer::Records(records) => {
                let wait = self.pause(records.ttl, chance);
                let note = (!records.notes.is_empty()).then(|| records.notes.join("; "));
                let outcome = if records.listed.is_empty() { Outcome::Nothing } else { Outcome::Found };
                self.on_records(records, now);
                (self.report(outcome, note), wait)
            }
            Answer::Nothing { why, ttl } => {
                let wait = self.pause(ttl.unwrap_or(TTL_MIN), chance);
                let stays = self.on_nothing(now);
                let note = if stays { format!("{why}: not believed yet, what is known stays") } else { why };
                (self.report(Outcome::Nothing, Some(note)), wait)
            }
            Answer::Failure(why) => {
                let wait = self.jittered(self.retry_pause(), chance);
                self.failures = self.failures.saturating_add(1);
                self.negatives = None;
                let left = self
                    .settings
                    .stale
                    .map(|stale| stale.saturating_sub((now - self.answered).saturating_add(self.age)));
                let wait = match left {
                    Some(Duration::ZERO) => {
                        self.keep_only(|_| false);
                        wait
                    }
                    // No pause outlasts what is known.
                    Some(left) => wait.min(left),
                    None => wait,
                };
                (self.report(Outcome::Failed, Some(why)), wait)
            }
        }
    }

    fn report(&self, outcome: Outcome, note: Option<String>) -> SourceReport {
        SourceReport {
            list: Some(self.known.iter().map(|known| known.found.clone()).collect()),
            outcome,
            note,
        }
    }

    fn on_records(&mut self, records: Records, now: Instant) {
        (self.failures, self.negatives, self.answered, self.age) = (0, None, now, Duration::ZERO);
        let Records { listed, unknown_hosts, ranks, .. } = records;
        let order_of = |address: &Address| ranks.get(address).map(|&rank| i64::from(rank) * RANK_STEP);
        self.order_earlier(order_of, ranks.values().min().map(|&rank| i64::from(rank) * RANK_STEP));
        let mut new: HashMap<&Address, usize> = HashMap::new();
        for (place, (_, found)) in listed.iter().enumerate() {
            new.entry(&found.address).or_insert(place);
        }
        for known in &mut self.known {
            match new.remove(&known.found.address) {
                Some(place) => {
                    let (host, found) = listed[place].clone();
                    *known = Known { host, order: order_of(&found.address), found, missed: 0 };
                }
                // Nothing is known of its host, which may be any where an earlier run has listed it: it is neither
                // there nor missing.
                None if unknown_hosts.contains(&known.host) => {}
                None if known.host.is_empty() && !unknown_hosts.is_empty() => {}
                None => known.missed = known.missed.saturating_add(1),
            }
        }
        // In the order of the answer: the tables of a pool follow the order of its backends, so what is new comes last.
        let mut places: Vec<usize> = new.into_values().collect();
        places.sort_unstable();
        let add = places.into_iter().map(|place| {
            let (host, found) = listed[place].clone();
            Known { host, order: order_of(&found.address), found, missed: 0 }
        });
        self.known.extend(add);
        let obsolete = self.settings.obsolete;
        self.keep_only(|known| known.missed <= obsolete);
        self.rank_tiers();
    }

    /// Gives those of an earlier run a place among the ranks of an answer, of which the lowest is `first`: by those that
    /// it lists of the same tier, or of the next one, or else in front, where it has served.
    fn order_earlier(&mut self, order_of: impl Fn(&Address) -> Option<i64>, first: Option<i64>) {
        let Some(first) = first else { return };
        let both = |known: &Known| Some((i64::from(known.found.priority), order_of(&known.found.address)?));
        let ranked: Vec<(i64, i64)> = self.known.iter().filter_map(both).collect();
        for known in self.known.iter_mut().filter(|known| known.order.is_none()) {
            let tier = i64::from(known.found.priority);
            let next = ranked.iter().filter(|(other, _)| *other >= tier).min();
            let last = ranked.iter().max();
            known.order = Some(match (next, last) {
                (Some((other, order)), _) | (None, Some((other, order))) => order + tier - other,
                (None, None) => first - RANK_STEP + tier,
            });
        }
    }

    /// Sets the tiers of a service by all that is known: an answer that lacks the first one makes no other the first
    /// while that is kept. Beyond the last tier, ranks share it.
    fn rank_tiers(&mut self) {
        let orders: BTreeSet<i64> = self.known.iter().filter_map(|known| known.order).collect();
        let tiers: BTreeMap<i64, u8> =
            orders.into_iter().zip((0..PRIORITY_MAX).chain(iter::repeat(PRIORITY_MAX))).collect();
        for known in &mut self.known {
            if let Some(tier) = known.order.and_then(|order| tiers.get(&order)) {
                known.found.priority = *tier;
            }
        }
    }

    /// Whether something is known in spite of it.
    fn on_nothing(&mut self, now: Instant) -> bool {
        (self.failures, self.answered, self.age) = (0, now, Duration::ZERO);
        let (count, since) =
            self.negatives.map_or((1, now), |(count, since)| (count.saturating_add(1), since));
        self.negatives = Some((count, since));
        if count >= self.settings.negatives && now - since >= NEGATIVE_SPAN {
            self.keep_only(|_| false);
        }
        !self.known.is_empty()
    }

    /// Drops the others, but not so many that fewer than `min_backends` are left: of those the first ones stay.
    fn keep_only(&mut self, is_wanted: impl Fn(&Known) -> bool) {
        let wanted = self.known.iter().filter(|known| is_wanted(known)).count();
        let mut spared = self.settings.min_backends.saturating_sub(wanted);
        self.known.retain(|known| {
            let is_spared = !is_wanted(known) && spared > 0;
            spared -= usize::from(is_spared);
            is_spared || is_wanted(known)
        });
    }

    /// Until the next question behind an answer.
    fn pause(&self, ttl: Duration, chance: f64) -> Duration {
        match self.settings.interval {
            Some(interval) => self.jittered(interval, chance),
            None => spread(ttl.clamp(TTL_MIN, TTL_MAX), chance),
        }
    }

    /// Of what all balancers ask in the same interval.
    fn jittered(&self, wait: Duration, chance: f64) -> Duration {
        match self.settings.kind {
            Kind::Http(_) | Kind::Etcd(_) => spread(wait, chance),
            Kind::Dns(_) | Kind::Host(_) | Kind::File(_) => wait,
        }
    }

    /// Until the next question behind a failure.
    fn retry_pause(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let max = self.settings.interval.map_or(TTL_MAX, |interval| interval.saturating_mul(RETRY_INTERVALS));
        RETRY_MIN.saturating_mul(doubled).min(max)
    }
}

/// Returns a wait that is longer or shorter by chance.
fn spread(wait: Duration, chance: f64) -> Duration {
    wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance)
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests;
