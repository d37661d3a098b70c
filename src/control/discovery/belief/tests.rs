//! What is believed of answers at times of a script.

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
        belief: Belief::new(settings(edit), Vec::new(), Instant::default(), Duration::ZERO),
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

/// It had the whole time again after each restart.
#[test]
fn a_list_of_an_earlier_process_is_as_old_as_it_is() {
    let now = Instant::default();
    let hour = |settings: &mut Discover| settings.stale = Some(Duration::from_hours(1));
    let belief = Belief::new(settings(hour), vec![found(1)], now, Duration::from_mins(50));
    let mut script = Script { belief, now };
    let (known, wait) = script.later(599, failure());
    assert_eq!((known, wait), (vec![1], Duration::from_secs(1)));
    assert!(script.later(1, failure()).0.is_empty());
    script.lists(&[1]);
    assert_eq!(script.later(3599, failure()).0, [1], "an answer counts from then on");
}

/// It went with the next failure, which came up to five minutes later, or four intervals.
#[test]
fn stale_backends_are_removed_when_their_time_is_over() {
    let mut script = script(|settings| {
        (settings.stale, settings.interval) = (Some(Duration::from_mins(90)), Some(Duration::from_hours(1)));
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
    let belief = Belief::new(
        settings(|settings| settings.obsolete = 0),
        vec![found(1), found(2)],
        now,
        Duration::ZERO,
    );
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
    let listed = |&(last, _, priority): &(u8, u16, u8)| (String::new(), Found { priority, ..found(last) });
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
        Script { belief: Belief::new(settings(|_| {}), listed, now, Duration::ZERO), now }
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
    let belief = Belief::new(settings(|_| {}), vec![found(1), found(2)], now, Duration::ZERO);
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
        let mut script = Script { belief: Belief::new(settings, Vec::new(), now, Duration::ZERO), now };
        assert_eq!(script.lists(&[1, 2]), [1, 2]);
        let (sighting, wait) = script.belief.on_answer(records(&[], 0), script.now, MIDDLE);
        assert_eq!((sighting.outcome, wait.as_secs()), (Outcome::Nothing, 10));
        assert_eq!(script.lists(&[]), expected);
        assert_eq!(script.lists(&[3]), [3], "and what it lists then");
    }
}

#[test]
fn balancers_with_one_interval_ask_an_http_server_at_different_times() {
    let address = Target::parse("10.0.0.1:80").unwrap();
    let url = Url { authority: "a".into(), is_https: false, address, path: "/".into() };
    let settings = Discover::new(Kind::Http(Http { url, tls: None, token_file: None }));
    let mut belief = Belief::new(settings, Vec::new(), Instant::default(), Duration::ZERO);
    let mut waits = |answer: Answer| {
        [0.0, 1.0].map(|chance| belief.on_answer(answer.clone(), Instant::default(), chance).1.as_millis())
    };
    assert_eq!(waits(records(&[1], 0)), [9_000, 11_000]);
    assert_eq!(waits(failure()), [900, 2_200], "and the second failure waits twice as long");
}
