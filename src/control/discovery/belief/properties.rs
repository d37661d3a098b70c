//! Properties of a belief that hold for any answers at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::config::discover::{Dns, Kind, Record};

/// Addresses that answers have.
const ADDRESSES: u8 = 7;
/// Hosts that these are at, in turn.
const HOSTS: u8 = 3;

/// The result of a question, so many milliseconds after the last one.
#[derive(Clone, Debug)]
struct Step {
    pause: u64,
    answer: Answer,
    chance: f64,
}

fn host_of(last: u8) -> String {
    format!("host-{}", last % HOSTS)
}

fn found(last: u8, weight: u16) -> Found {
    let address: SocketAddr = ([10, 0, 0, last], 80).into();
    Found { name: address.to_string(), address: address.into(), weight, priority: 0 }
}

fn a_listed() -> impl Strategy<Value = (String, Found)> {
    (0..ADDRESSES, 1_u16..4).prop_map(|(last, weight)| (host_of(last), found(last, weight)))
}

/// Addresses in any order, some of them twice, and hosts that could not be resolved.
fn records() -> impl Strategy<Value = Answer> {
    let listed = vec(a_listed(), 1..2 * ADDRESSES as usize);
    let unknown = prop_oneof![3 => Just(BTreeSet::new()), 1 => btree_set(0..HOSTS, 1..3)];
    (listed, unknown, select(vec![0, 1, 30, 86_400])).prop_map(|(mut listed, unknown, ttl)| {
        let unknown_hosts: HashSet<String> = unknown.into_iter().map(host_of).collect();
        listed.retain(|(host, _)| !unknown_hosts.contains(host));
        Answer::Records(Records {
            listed,
            unknown_hosts,
            ttl: Duration::from_secs(ttl),
            ..Records::default()
        })
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let nothing = prop::option::of(0_u64..1000)
        .prop_map(|ttl| Answer::Nothing { why: "NXDOMAIN".into(), ttl: ttl.map(Duration::from_secs) });
    let failure = Just(Answer::Failure("SERVFAIL".into()));
    let answer = prop_oneof![3 => records(), 2 => nothing, 2 => failure];
    let pause = prop_oneof![0_u64..40_000, 0_u64..4_000_000, Just(u64::MAX / 2_000_000)];
    let step = (pause, answer, 0.0..=1.0);
    vec(step.prop_map(|(pause, answer, chance)| Step { pause, answer, chance }), 0..24)
}

fn any_settings() -> impl Strategy<Value = Discover> {
    let stale = prop::option::of((0_u64..8_000).prop_map(Duration::from_secs));
    let interval = prop::option::of((100_u64..3_600_000).prop_map(Duration::from_millis));
    (0_u32..3, 1_u32..4, 0_usize..5, stale, interval).prop_map(
        |(obsolete, negatives, min_backends, stale, interval)| {
            let settings = Discover::new(Kind::Dns(Dns::new("web".into(), Record::Address { port: 80 })));
            Discover { obsolete, negatives, min_backends, stale, interval, ..settings }
        },
    )
}

/// The facts about the answers so far, without the belief.
#[derive(Default)]
struct Seen {
    /// Answers in a row that lack an address.
    missed: BTreeMap<Address, u32>,
    /// The hosts of addresses, as far as answers had them.
    hosts: BTreeMap<Address, String>,
    /// Answers in a row by which there is none, and when the first one came.
    negatives: u32,
    since: Instant,
    answered: Instant,
}

fn addresses(list: &[Found]) -> Vec<Address> {
    list.iter().map(|found| found.address.clone()).collect()
}

proptest! {
    #[test]
    fn no_answer_takes_more_away_than_it_may(
        settings in any_settings(),
        listed in btree_set(0..ADDRESSES, 0..5),
        steps in steps(),
    ) {
        let listed: Vec<Found> = listed.into_iter().map(|last| found(last, 1)).collect();
        let mut belief = Belief::new(settings.clone(), listed.clone(), Instant::default(), Duration::ZERO);
        let (mut seen, mut now, mut before) = (Seen::default(), Instant::default(), listed);
        for Step { pause, answer, chance } in steps {
            now = now + Duration::from_millis(pause);
            let (report, wait) = belief.on_answer(answer.clone(), now, chance);
            let list = report.list.expect("a whole list each time");
            let (was, is) = (addresses(&before), addresses(&list));
            prop_assert_eq!(is.iter().collect::<HashSet<_>>().len(), is.len(), "none is there twice");
            prop_assert!(is.len() >= settings.min_backends.min(was.len()), "{:?}", is);
            let kept: Vec<&Address> = is.iter().filter(|address| was.contains(address)).collect();
            let order: Vec<&Address> = was.iter().filter(|address| is.contains(address)).collect();
            prop_assert_eq!(kept, order, "what stays keeps its place");
            let fewest = settings.min_backends.min(was.len());
            match answer {
                Answer::Records(records) => {
                    check_records(&settings, &mut seen, &records, &before, &list)?;
                    (seen.negatives, seen.answered) = (0, now);
                    check_pause(&settings, wait)?;
                }
                Answer::Nothing { .. } => {
                    seen.since = if seen.negatives == 0 { now } else { seen.since };
                    (seen.negatives, seen.answered) = (seen.negatives + 1, now);
                    let is_believed = seen.negatives >= settings.negatives && now - seen.since >= NEGATIVE_SPAN;
                    prop_assert_eq!(is.len(), if is_believed { fewest } else { was.len() });
                    check_pause(&settings, wait)?;
                }
                Answer::Failure(_) => {
                    seen.negatives = 0;
                    let left = settings.stale.map(|stale| stale.saturating_sub(now - seen.answered));
                    prop_assert_eq!(is.len(), if left == Some(Duration::ZERO) { fewest } else { was.len() });
                    let max = settings.interval.map_or(TTL_MAX, |interval| interval * RETRY_INTERVALS);
                    let left = left.filter(|left| !left.is_zero()).unwrap_or(Duration::MAX);
                    prop_assert!(wait <= max.min(left) && wait >= RETRY_MIN.min(max).min(left), "{:?}", wait);
                }
            }
            before = list;
        }
    }

    #[test]
    fn a_repeated_answer_is_believed(
        settings in any_settings(),
        steps in steps(),
        last in vec(a_listed(), 1..ADDRESSES as usize),
    ) {
        let mut belief = Belief::new(settings.clone(), Vec::new(), Instant::default(), Duration::ZERO);
        let mut now = Instant::default();
        for Step { pause, answer, chance } in steps {
            now = now + Duration::from_millis(pause);
            belief.on_answer(answer, now, chance);
        }
        let records = Records { listed: last.clone(), ..Records::default() };
        let mut list = Vec::new();
        for _ in 0..=settings.obsolete {
            list = belief.on_answer(Answer::Records(records.clone()), now, 0.5).0.list.expect("a whole list");
        }
        let (known, expected): (HashSet<Address>, HashSet<Address>) =
            (addresses(&list).into_iter().collect(), last.into_iter().map(|(_, found)| found.address).collect());
        if expected.len() >= settings.min_backends {
            prop_assert_eq!(known, expected);
        } else {
            prop_assert!(known.is_superset(&expected) && known.len() <= settings.min_backends);
        }
    }
}

/// An answer brings what it has at once, with its first weight, and takes away what enough of them in a row have
/// lacked.
fn check_records(
    settings: &Discover,
    seen: &mut Seen,
    records: &Records,
    before: &[Found],
    list: &[Found],
) -> Result<(), TestCaseError> {
    let mut answered: BTreeMap<Address, u16> = BTreeMap::new();
    for (host, found) in &records.listed {
        answered.entry(found.address.clone()).or_insert(found.weight);
        seen.hosts.insert(found.address.clone(), host.clone());
    }
    for (address, weight) in &answered {
        let known = list.iter().find(|found| found.address == *address);
        prop_assert_eq!(known.map(|found| found.weight), Some(*weight), "{:?}", address);
        seen.missed.insert(address.clone(), 0);
    }
    let mut due = 0;
    for found in before.iter().filter(|found| !answered.contains_key(&found.address)) {
        let missed = seen.missed.entry(found.address.clone()).or_default();
        let is_resolved = match seen.hosts.get(&found.address) {
            Some(host) => !records.unknown_hosts.contains(host),
            None => records.unknown_hosts.is_empty(),
        };
        *missed += u32::from(is_resolved);
        let is_there = list.iter().any(|known| known.address == found.address);
        prop_assert!(is_there || *missed > settings.obsolete, "{:?} is gone too early", found);
        due += usize::from(*missed > settings.obsolete);
    }
    let new = answered.keys().filter(|address| before.iter().all(|known| known.address != **address)).count();
    let all = before.len() + new;
    prop_assert_eq!(list.len(), (all - due).max(settings.min_backends.min(all)), "what is due goes");
    Ok(())
}

fn check_pause(settings: &Discover, wait: Duration) -> Result<(), TestCaseError> {
    match settings.interval {
        Some(interval) => prop_assert_eq!(wait, interval),
        None => prop_assert!(wait >= TTL_MIN.mul_f64(0.899) && wait <= TTL_MAX.mul_f64(1.101), "{:?}", wait),
    }
    Ok(())
}
