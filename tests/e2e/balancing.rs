//! Who gets the next session: each algorithm through real sessions, over one worker and over two.

use std::net::Ipv4Addr;
use std::thread;

use l4lb::config::model::HealthState::{Down, Up};
use l4lb::session::CloseReason::Done;

use crate::harness::backends::{Service, Visit, backends};
use crate::harness::peer::until;

/// Checks that see a change soon, and that a busy machine does not fail.
const CHECKS: &str = "interval = \"2s\", fast_interval = \"20ms\", timeout = \"2s\", initial_state = \"up\"";

/// Addresses of clients.
const CLIENTS: u8 = 40;

/// The node of each client.
fn nodes_of_clients(service: &Service<'_>) -> Vec<usize> {
    (1..=CLIENTS).map(|last| service.visit_from(Ipv4Addr::new(127, 0, 0, last))).collect()
}

#[test]
fn round_robin_is_exact_over_two_workers() {
    let backends = backends(3).workers(2);
    let service = backends.start();
    let service_ref = &service;
    let served = thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(move || service_ref.visits(75))).collect();
        clients.into_iter().fold([0; 3], |sum, client| {
            let served = client.join().expect("a client");
            [sum[0] + served[0], sum[1] + served[1], sum[2] + served[2]]
        })
    });
    assert_eq!(served, [100, 100, 100]);
    assert_eq!([0, 1, 2].map(|node| service.backend(node).sessions()), [100, 100, 100]);
    service.ends(&[(Done, 300)]);
}

#[test]
fn round_robin_takes_turns() {
    let backends = backends(3);
    let service = backends.start();
    let turns: Vec<usize> = (0..7).map(|_| service.visit()).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
    service.ends(&[(Done, 7)]);
}

#[test]
fn weights_are_exact_over_whole_cycles() {
    for workers in [1, 2] {
        let backends = backends(4).workers(workers).keys_of_each([
            "weight = 1",
            "weight = 2",
            "weight = 0",
            "weight = 3",
        ]);
        let service = backends.start();
        for cycles in 1..=5 {
            assert_eq!(service.visits(6 * cycles), [cycles, 2 * cycles, 0, 3 * cycles], "{workers} workers");
        }
        service.ends(&[(Done, 90)]);
    }
}

#[test]
fn least_connections_prefers_the_one_that_has_least_to_do() {
    let backends = backends(3).workers(2).pool("balance = \"least_connections\"");
    let service = backends.start();
    let mut visits: Vec<Visit> = (0..6).map(|_| service.enter()).collect();
    for node in [1, 0, 2, 2, 1] {
        let place = visits.iter().position(|visit| visit.node == node).expect("two sessions on each node");
        visits.remove(place).leave();
        until("the place is free", || service.backend(node).active() == 1);
        let visit = service.enter().talks();
        assert_eq!(visit.node, node);
        visits.push(visit);
    }
    for visit in visits {
        visit.leave();
    }
    service.ends(&[(Done, 11)]);
}

/// One of the three got none of them.
#[test]
fn least_connections_shares_equally_where_the_next_session_comes_before_the_last_has_gone() {
    for workers in [1, 2] {
        let backends = backends(3).workers(workers).pool("balance = \"least_connections\"");
        let service = backends.start();
        let (mut served, mut last) = ([0usize; 3], None::<Visit>);
        for _ in 0..300 {
            let visit = service.enter().talks();
            served[visit.node] += 1;
            if let Some(last) = last.replace(visit) {
                last.leave();
            }
        }
        last.expect("the last one").leave();
        assert!(served.iter().all(|&count| count.abs_diff(100) <= 1), "{workers} workers: {served:?}");
        service.ends(&[(Done, 300)]);
    }
}

#[test]
fn least_connections_respects_weights() {
    let backends = backends(3).pool("balance = \"least_connections\"").keys_of_each([
        "weight = 1",
        "weight = 2",
        "weight = 5",
    ]);
    let service = backends.start();
    let visits: Vec<Visit> = (0..16).map(|_| service.enter()).collect();
    assert_eq!([0, 1, 2].map(|node| service.backend(node).active()), [2, 4, 10]);
    for visit in visits {
        visit.leave();
    }
    service.ends(&[(Done, 16)]);
}

#[test]
fn power_of_two_and_random_use_every_backend_that_has_a_weight() {
    for balance in ["power_of_two", "random"] {
        let backends =
            backends(3).pool(&format!("balance = \"{balance}\"")).keys_of_each(["", "weight = 0", ""]);
        let service = backends.start();
        let served = service.visits(100);
        // One in 10^9 runs gives a fair coin fewer than 20 of 100.
        assert!(served[0] >= 20 && served[2] >= 20 && served[1] == 0, "{balance}: {served:?}");
        service.ends(&[(Done, 100)]);
    }
}

#[test]
fn a_client_keeps_its_backend_over_workers_and_restarts() {
    let backends = backends(3).pool("balance = \"source_hash\"");
    let first = backends.start();
    let nodes = nodes_of_clients(&first);
    assert_eq!(nodes_of_clients(&first), nodes, "again");
    first.ends(&[(Done, 80)]);
    assert!((0..3).all(|node| nodes.contains(&node)), "{nodes:?}");
    let backends = backends.workers(2);
    let second = backends.start();
    for _ in 0..2 {
        assert_eq!(nodes_of_clients(&second), nodes, "after a restart with two workers");
    }
    second.ends(&[(Done, 80)]);
}

#[test]
fn only_the_clients_of_a_backend_that_is_gone_move() {
    let backends = backends(3).pool("balance = \"source_hash\"").health(format!("{CHECKS}, fall = 2"));
    let service = backends.start();
    let before = nodes_of_clients(&service);
    backends.nodes[1].die();
    let refused = nodes_of_clients(&service);
    until("node 1 is down", || service.backend(1).health() == Down);
    let down = nodes_of_clients(&service);
    for nodes in [&refused, &down] {
        for (&was, &is) in before.iter().zip(nodes) {
            assert!(if was == 1 { is != 1 } else { is == was }, "from {was} to {is}");
        }
    }
    assert_eq!(refused, down, "a moved client keeps its new backend");
    backends.nodes[1].serve();
    until("node 1 is up", || service.backend(1).health() == Up);
    // The new table follows the verdict.
    let mut sessions = 3 * u64::from(CLIENTS);
    until("all are where they were", || {
        sessions += u64::from(CLIENTS);
        nodes_of_clients(&service) == before
    });
    let totals = service.ends(&[(Done, sessions)]);
    assert_eq!(totals.transitions, 2, "{totals}");
}

#[test]
fn a_backup_serves_only_while_every_primary_is_down() {
    let backends =
        backends(3).workers(2).keys_of_each(["", "", "backup = true"]).health(format!("{CHECKS}, fall = 1"));
    let service = backends.start();
    assert_eq!(service.visits(20), [10, 10, 0]);
    backends.nodes[0].die();
    until("node 0 is down", || service.backend(0).health() == Down);
    assert_eq!(service.visits(10), [0, 10, 0]);
    backends.nodes[1].die();
    until("node 1 is down", || service.backend(1).health() == Down);
    until_all_go_to(&service, 2);
    backends.nodes[0].serve();
    until("node 0 is up", || service.backend(0).health() == Up);
    until_all_go_to(&service, 0);
    service.audit();
}

#[test]
fn each_tier_serves_only_while_every_earlier_one_is_down() {
    let priorities = ["priority = 7", "backup = true", "", "priority = 1"];
    let backends = backends(4).workers(2).keys_of_each(priorities).health(format!("{CHECKS}, fall = 1"));
    let service = backends.start();
    assert_eq!(service.visits(10), [0, 0, 10, 0]);
    for (dies, serves) in [(2, 3), (3, 0), (0, 1)] {
        backends.nodes[dies].die();
        until("it is down", || service.backend(dies).health() == Down);
        until_all_go_to(&service, serves);
    }
    backends.nodes[3].serve();
    until("node 3 is up", || service.backend(3).health() == Up);
    until_all_go_to(&service, 3);
    service.audit();
}

/// The new table follows the verdict, at each worker for itself; until then a session may find nobody.
#[track_caller]
fn until_all_go_to(service: &Service<'_>, node: usize) {
    let goes_there = || service.knock().is_ok_and(|served_by| served_by == node);
    until("every worker has the new table", || (0..20).all(|_| goes_there()));
}
