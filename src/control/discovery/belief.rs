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
    /// When an answer came last.
    answered: Instant,
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
    /// Before the first answer. What an earlier run of the source has `listed` stays as if an answer had it `now`.
    pub(super) fn new(settings: Discover, listed: Vec<Found>, now: Instant) -> Self {
        let known = listed.into_iter().map(Known::of_earlier).collect();
        Self { settings, known, negatives: None, failures: 0, answered: now }
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
                let left = self.settings.stale.map(|stale| stale.saturating_sub(now - self.answered));
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
        (self.failures, self.negatives, self.answered) = (0, None, now);
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
        (self.failures, self.answered) = (0, now);
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
            Kind::Http(_) => spread(wait, chance),
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
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::Target;
    use crate::config::discover::{Dns, Format, Http, ListFile, Record, Url};

    const MIDDLE: f64 = 0.5;

    fn settings(edit: impl Fn(&mut Discover)) -> Discover {
        let mut settings = Discover::new(Kind::Dns(Dns::new("web".into(), Record::Address { port: 80 })));
        edit(&mut settings);
        settings
    }

    /// A source that is asked at times of a script.
    struct Script {
        belief: Belief,
        now: Instant,
    }

    fn script(edit: impl Fn(&mut Discover)) -> Script {
        Script {
            belief: Belief::new(settings(edit), Vec::new(), Instant::default()),
            now: Instant::default(),
        }
    }

    fn found(last: u8) -> Found {
        let address: SocketAddr = ([10, 0, 0, last], 80).into();
        Found { name: address.to_string(), address: address.into(), weight: 1, priority: 0 }
    }

    impl Script {
        /// `seconds` later there is this answer: the last numbers of the addresses that are known then, and the wait.
        fn later(&mut self, seconds: u64, answer: Answer) -> (Vec<u8>, Duration) {
            self.now = self.now + Duration::from_secs(seconds);
            let (report, wait) = self.belief.on_answer(answer, self.now, MIDDLE);
            let last = |found: Found| {
                let Address::Ip(SocketAddr::V4(at)) = found.address else { panic!("none of ours") };
                at.ip().octets()[3]
            };
            (report.list.unwrap().into_iter().map(last).collect(), wait)
        }

        fn lists(&mut self, addresses: &[u8]) -> Vec<u8> {
            self.later(5, records(addresses, 5)).0
        }
    }

    fn records(addresses: &[u8], ttl: u64) -> Answer {
        let listed = addresses.iter().map(|&last| (String::new(), found(last))).collect();
        Answer::Records(Records { listed, ttl: Duration::from_secs(ttl), ..Records::default() })
    }

    fn nothing() -> Answer {
        Answer::Nothing { why: "NXDOMAIN".into(), ttl: None }
    }

    fn failure() -> Answer {
        Answer::Failure("SERVFAIL".into())
    }

    fn seconds(wait: Duration) -> f64 {
        wait.as_secs_f64()
    }

    #[test]
    fn the_wait_is_the_ttl_within_five_seconds_and_five_minutes() {
        let mut script = script(|_| {});
        for (ttl, expected) in [(0, 5.0), (5, 5.0), (60, 60.0), (86_400, 300.0)] {
            let wait = script.later(5, records(&[1], ttl)).1;
            assert!((seconds(wait) - expected).abs() < 1e-6, "{ttl}: {wait:?}");
        }
        let earliest = script.belief.on_answer(records(&[1], 60), script.now, 0.0).1;
        let latest = script.belief.on_answer(records(&[1], 60), script.now, 1.0).1;
        assert!((seconds(earliest) - 54.0).abs() < 1e-6 && (seconds(latest) - 66.0).abs() < 1e-6);
    }

    #[test]
    fn an_interval_is_taken_as_it_is_and_bounds_the_repetition_of_failures() {
        let mut fast = script(|settings| settings.interval = Some(Duration::from_millis(100)));
        assert_eq!(fast.later(1, records(&[1], 60)).1, Duration::from_millis(100));
        assert_eq!(fast.later(1, failure()).1, Duration::from_millis(400));
        let mut slow = script(|settings| settings.interval = Some(Duration::from_secs(2)));
        let waits: Vec<u64> = (0..6).map(|_| slow.later(1, failure()).1.as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
        slow.later(1, records(&[1], 60));
        assert_eq!(slow.later(1, failure()).1.as_secs(), 1, "from the beginning");
    }

    #[test]
    fn servfail_for_an_hour_removes_nothing_and_is_retried_less_and_less_often() {
        let mut script = script(|_| {});
        script.lists(&[1, 2]);
        let mut waits = Vec::new();
        while script.now < Instant::default() + Duration::from_hours(1) {
            let (known, wait) = script.later(waits.last().copied().unwrap_or(5), failure());
            assert_eq!(known, [1, 2]);
            waits.push(wait.as_secs());
        }
        assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(script.lists(&[2, 3]), [1, 2, 3]);
    }

    #[test]
    fn two_negative_answers_and_a_good_one_change_nothing() {
        let mut script = script(|_| {});
        script.lists(&[1, 2]);
        assert_eq!(script.later(20, nothing()).0, [1, 2]);
        assert_eq!(script.later(20, nothing()).0, [1, 2]);
        assert_eq!(script.lists(&[1, 2]), [1, 2]);
        assert_eq!(script.later(20, nothing()).0, [1, 2], "counted from the beginning");
    }

    #[test]
    fn negative_answers_empty_the_pool_once_they_agree_for_long_enough() {
        let mut fast = script(|settings| settings.interval = Some(Duration::from_secs(1)));
        fast.lists(&[1]);
        let emptied = (0..60).position(|_| fast.later(1, nothing()).0.is_empty());
        assert_eq!(emptied, Some(30), "30 seconds behind the first");
        let mut slow = script(|_| {});
        slow.lists(&[1]);
        let emptied = (0..60).position(|_| slow.later(60, nothing()).0.is_empty());
        assert_eq!(emptied, Some(2), "the third answer");
        assert_eq!(slow.lists(&[2]), [2], "and back at once");
    }

    #[test]
    fn a_failure_between_negative_answers_restarts_their_count() {
        let mut script = script(|_| {});
        script.lists(&[1]);
        for answer in [nothing(), nothing(), failure(), nothing(), nothing()] {
            assert_eq!(script.later(60, answer).0, [1]);
        }
        assert!(script.later(60, nothing()).0.is_empty());
    }

    #[test]
    fn a_backend_goes_with_the_second_answer_in_a_row_that_lacks_it() {
        let mut script = script(|_| {});
        script.lists(&[1, 2, 3]);
        assert_eq!(script.lists(&[1, 3]), [1, 2, 3], "once");
        assert_eq!(script.lists(&[3, 2, 1]), [1, 2, 3], "it is back, and an order is no news");
        assert_eq!(script.lists(&[1, 3]), [1, 2, 3], "counted from the beginning");
        assert_eq!(script.lists(&[1, 3]), [1, 3]);
        assert_eq!(script.lists(&[1, 3, 2]), [1, 3, 2], "a new one comes last");
    }

    #[test]
    fn obsolete_zero_believes_the_first_answer() {
        let mut script = script(|settings| settings.obsolete = 0);
        script.lists(&[1, 2, 3]);
        assert_eq!(script.lists(&[4]), [4]);
    }

    #[test]
    fn nothing_leaves_fewer_than_min_backends() {
        let mut script = script(|settings| {
            (settings.min_backends, settings.obsolete, settings.negatives) = (2, 0, 1);
            settings.stale = Some(Duration::from_secs(60));
        });
        script.lists(&[1, 2, 3]);
        assert_eq!(script.lists(&[3]), [1, 3]);
        script.later(60, nothing());
        assert_eq!(script.later(60, nothing()).0, [1, 3]);
        assert_eq!(script.later(3600, failure()).0, [1, 3]);
        assert_eq!(script.lists(&[7, 8]), [7, 8]);
    }

    #[test]
    fn a_stale_source_empties_its_pool_where_that_is_configured() {
        let mut script = script(|settings| settings.stale = Some(Duration::from_hours(1)));
        script.lists(&[1]);
        assert_eq!(script.later(3599, failure()).0, [1]);
        assert!(script.later(1, failure()).0.is_empty());
        assert_eq!(script.lists(&[1]), [1]);
    }

    /// It went with the next failure, which came up to five minutes later, or four intervals.
    #[test]
    fn stale_backends_are_removed_when_their_time_is_over() {
        let mut script = script(|settings| {
            (settings.stale, settings.interval) =
                (Some(Duration::from_mins(90)), Some(Duration::from_hours(1)));
        });
        script.lists(&[1]);
        let mut wait = script.later(3600, failure()).1;
        while !script.later(wait.as_secs(), failure()).0.is_empty() {
            wait = script.belief.on_answer(failure(), script.now, MIDDLE).1;
        }
        assert_eq!(script.now - script.belief.answered, Duration::from_mins(90));
    }

    #[test]
    fn addresses_of_a_host_that_cannot_be_resolved_are_neither_there_nor_missing() {
        let mut script = script(|settings| settings.obsolete = 0);
        let at = |host: &str, last| (host.to_owned(), found(last));
        let both = Records { listed: vec![at("a", 1), at("b", 2)], ..Records::default() };
        script.later(5, Answer::Records(both));
        let unknown_hosts = HashSet::from(["b".to_owned()]);
        let partial = Records { listed: vec![at("a", 1)], unknown_hosts, ..Records::default() };
        for _ in 0..3 {
            assert_eq!(script.later(5, Answer::Records(partial.clone())).0, [1, 2]);
        }
        assert_eq!(script.lists(&[1]), [1], "the host is named no more");
    }

    /// A reload of an SRV source removed the backends of a host that could not be resolved just then.
    #[test]
    fn a_source_that_begins_anew_keeps_addresses_while_any_host_cannot_be_resolved() {
        let now = Instant::default();
        let belief = Belief::new(settings(|settings| settings.obsolete = 0), vec![found(1), found(2)], now);
        let mut script = Script { belief, now };
        let at_a = || vec![("a".to_owned(), found(1))];
        let unknown_hosts = HashSet::from(["b".to_owned()]);
        let partial = Records { listed: at_a(), unknown_hosts, ..Records::default() };
        for _ in 0..3 {
            assert_eq!(script.later(5, Answer::Records(partial.clone())).0, [1, 2]);
        }
        let whole = Records { listed: at_a(), ..Records::default() };
        assert_eq!(script.later(5, Answer::Records(whole)).0, [1], "every host is resolved");
    }

    /// Addresses of a service, each with the priority of its record; its tier in this answer is that of the caller.
    fn service(addresses: &[(u8, u16, u8)]) -> Answer {
        let listed =
            |&(last, _, priority): &(u8, u16, u8)| (String::new(), Found { priority, ..found(last) });
        let rank = |&(last, rank, _): &(u8, u16, u8)| (found(last).address, rank);
        Answer::Records(Records {
            listed: addresses.iter().map(listed).collect(),
            ranks: addresses.iter().map(rank).collect(),
            ..Records::default()
        })
    }

    fn tiers(script: &mut Script, answer: Answer) -> Vec<u8> {
        script.now = script.now + Duration::from_secs(5);
        let (report, _) = script.belief.on_answer(answer, script.now, MIDDLE);
        report.list.unwrap().iter().map(|found| found.priority).collect()
    }

    /// The second tier was the first one beside it, and got half of the sessions.
    #[test]
    fn an_answer_that_lacks_the_first_tier_makes_no_other_the_first_while_that_is_kept() {
        let mut script = script(|_| {});
        assert_eq!(tiers(&mut script, service(&[(1, 10, 0), (2, 20, 1), (3, 30, 2)])), [0, 1, 2]);
        assert_eq!(tiers(&mut script, service(&[(2, 20, 0), (3, 30, 1)])), [0, 1, 2], "once");
        assert_eq!(tiers(&mut script, service(&[(1, 10, 0), (3, 30, 1)])), [0, 1, 2], "and another one");
        for expected in [&[0, 1, 2][..], &[0, 1]] {
            assert_eq!(tiers(&mut script, service(&[(2, 20, 0), (3, 30, 1)])), expected);
        }
        assert_eq!(tiers(&mut script, service(&[(2, 20, 1), (3, 30, 2), (4, 5, 0)])), [1, 2, 0]);
    }

    #[test]
    fn what_an_earlier_run_has_listed_keeps_its_place_among_the_tiers() {
        let now = Instant::default();
        let earlier = |tiers: &[(u8, u8)]| {
            let listed = tiers.iter().map(|&(last, priority)| Found { priority, ..found(last) }).collect();
            Script { belief: Belief::new(settings(|_| {}), listed, now), now }
        };
        let all = [(1, 0), (2, 1), (3, 2)];
        for (answer, expected) in [
            (service(&[(2, 20, 0), (3, 30, 1)]), [0, 1, 2]),
            (service(&[(1, 10, 0), (3, 30, 1)]), [0, 1, 2]),
            (service(&[(1, 10, 0), (2, 20, 1)]), [0, 1, 2]),
        ] {
            assert_eq!(tiers(&mut earlier(&all), answer), expected);
        }
        assert_eq!(tiers(&mut earlier(&[(1, 0)]), service(&[(2, 20, 0)])), [0, 1], "none of it is known");
    }

    #[test]
    fn an_address_that_is_listed_twice_is_one_backend_with_the_first_weight() {
        let mut script = script(|_| {});
        let heavy = Found { weight: 9, ..found(1) };
        let listed = vec![("a".to_owned(), found(1)), ("b".to_owned(), heavy)];
        script.later(5, Answer::Records(Records { listed, ..Records::default() }));
        assert_eq!(script.belief.known.len(), 1);
        assert_eq!(script.belief.known[0].found.weight, 1);
    }

    #[test]
    fn a_source_that_begins_anew_keeps_what_it_had() {
        let now = Instant::default();
        let belief = Belief::new(settings(|_| {}), vec![found(1), found(2)], now);
        let mut script = Script { belief, now };
        assert_eq!(script.later(1, failure()).0, [1, 2]);
        assert_eq!(script.lists(&[2]), [1, 2]);
        assert_eq!(script.lists(&[2]), [2]);
    }

    #[test]
    fn an_empty_list_of_a_file_is_believed_at_once_down_to_min_backends() {
        let file = ListFile { path: "web.json".into(), format: Format::Json };
        for (min_backends, expected) in [(0, &[][..]), (1, &[1])] {
            let settings = Discover { min_backends, ..Discover::new(Kind::File(file.clone())) };
            let now = Instant::default();
            let mut script = Script { belief: Belief::new(settings, Vec::new(), now), now };
            assert_eq!(script.lists(&[1, 2]), [1, 2]);
            let (sighting, wait) = script.belief.on_answer(records(&[], 0), script.now, MIDDLE);
            assert_eq!((sighting.outcome, wait.as_secs()), (Outcome::Nothing, 10));
            assert_eq!(script.lists(&[]), expected);
            assert_eq!(script.lists(&[3]), [3], "and what it lists then");
        }
    }

    #[test]
    fn balancers_with_one_interval_ask_an_http_server_at_different_times() {
        let url =
            Url { authority: "a".into(), address: Target::parse("10.0.0.1:80").unwrap(), path: "/".into() };
        let settings = Discover::new(Kind::Http(Http { url, token_file: None }));
        let mut belief = Belief::new(settings, Vec::new(), Instant::default());
        let mut waits = |answer: Answer| {
            [0.0, 1.0]
                .map(|chance| belief.on_answer(answer.clone(), Instant::default(), chance).1.as_millis())
        };
        assert_eq!(waits(records(&[1], 0)), [9_000, 11_000]);
        assert_eq!(waits(failure()), [900, 2_200], "and the second failure waits twice as long");
    }
}
