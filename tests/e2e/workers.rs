//! Which worker gets the next session, and what each of them says that it has done.

use std::thread;

use l4lb::session::CloseReason::{Done, Stopped};
use l4lb::stats::Share;

use crate::harness::backends::{Backends, Service, Visit, backends};
use crate::harness::daemon::Daemon;
use crate::harness::peer::{Peer, until};

fn balanced(workers: usize) -> Backends {
    backends(2).workers(workers).listeners(&["accept = \"balance\""])
}

/// Waits until so many sessions are spread as evenly as they can be. A worker may count what it has handed over only
/// when its client is served already.
#[track_caller]
fn until_even(service: &Service<'_>, sessions: u64) {
    until("each worker has its part of the sessions", || {
        let shares: Vec<u64> = service.server.shares().map(|share| share.sessions).collect();
        let (least, most) = (shares.iter().min(), shares.iter().max());
        let is_even = most.zip(least).is_some_and(|(most, least)| most - least <= 1);
        is_even && shares.iter().sum::<u64>() == sessions
    });
}

#[test]
fn long_sessions_are_spread_evenly_and_every_byte_flows() {
    for workers in [2, 3] {
        let backends = balanced(workers);
        let service = backends.start();
        let mut visits = Vec::new();
        for sessions in 1..=40 {
            visits.push(service.enter().talks());
            until_even(&service, sessions);
        }
        let shares: Vec<Share> = service.server.shares().collect();
        let handed_over: u64 = shares.iter().map(|share| share.handed_over).sum();
        let adopted: u64 = shares.iter().map(|share| share.adopted).sum();
        // The kernel would have to choose well 40 times in a row.
        assert!(handed_over > 0 && handed_over == adopted, "{shares:?}");
        // Whoever has lost the most gets the next ones.
        visits.drain(..10).for_each(|visit| _ = visit.leave());
        until("they are over", || service.server.totals().closed_total() == 10);
        visits.extend((0..10).map(|_| service.enter().talks()));
        until_even(&service, 40);
        visits.into_iter().for_each(|visit| _ = visit.talks().leave());
        service.ends(&[(Done, 50)]);
    }
}

#[test]
fn clients_that_come_at_the_same_time_are_spread_evenly() {
    let backends = balanced(2);
    let service = backends.start();
    let visits: Vec<Visit> = thread::scope(|scope| {
        let clients: Vec<_> = (0..60).map(|_| scope.spawn(|| service.enter().talks())).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    until_even(&service, 60);
    visits.into_iter().for_each(|visit| _ = visit.talks().leave());
    service.ends(&[(Done, 60)]);
}

/// Each takes what the other gives, also while it drains, and at the limit.
#[test]
fn a_drain_serves_the_queues_of_workers_that_balance() {
    let backends = balanced(2).global("max_sessions = 4");
    let service = backends.start_daemon("info");
    let running = service.enter().talks();
    service.server.freeze();
    let waiting: Vec<Peer> = (0..30).map(|_| service.client()).collect();
    service.server.signal("TERM", 1);
    service.server.signal("CONT", 1);
    thread::scope(|scope| {
        for client in waiting {
            scope.spawn(|| Visit::greeted(client).talks().leave());
        }
    });
    running.talks().leave();
    service.has_stopped();
}

#[test]
fn a_stop_cuts_what_was_handed_over_too() {
    let backends = balanced(2).drain_timeout("24h");
    let service = backends.start();
    let visits: Vec<Visit> = (0..10).map(|_| service.enter().talks()).collect();
    service.server.terminate();
    service.server.terminate();
    visits.into_iter().for_each(Visit::gets_cut);
    service.ends(&[(Stopped, 10)]);
}

/// The number behind `key` in the next line of the log about the share of `worker`.
fn reported(service: &Service<'_, Daemon>, worker: usize, key: &str) -> u64 {
    let line = service.server.wait_for_line(&[&format!(" worker_stats worker={worker} ")]);
    let value = line.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {key} in {line}"))
}

#[test]
fn sigusr1_logs_the_counters_of_each_worker_and_so_does_the_end() {
    let backends = balanced(2);
    let service = backends.start_daemon("info,l4lb::session=off");
    let visits: Vec<Visit> = (0..6).map(|_| service.enter().talks()).collect();
    until("each has logged three sessions", || {
        service.server.signal("USR1", 1);
        [0, 1].map(|worker| reported(&service, worker, "sessions")) == [3, 3]
    });
    visits.into_iter().for_each(|visit| _ = visit.leave());
    service.server.signal("TERM", 1);
    let bytes: u64 = [0, 1].map(|worker| reported(&service, worker, "to_backend")).iter().sum();
    assert_eq!(bytes, 6 * 5, "in the last lines all sessions are over");
    service.has_stopped();
}
