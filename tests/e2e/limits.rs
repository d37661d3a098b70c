//! `max_sessions`: never exceeded, never a client lost, never a spin (`tests/CASES.md`).

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use l4lb::session::CloseReason::{ClientGone, ClientReset, Done};

use crate::harness::backends::{Service, Visit, backends};
use crate::harness::peer::until;

/// Sends `clients` clients at once through the listener with that index: `limit` of them get in, and as they
/// leave the others do. More than `limit` are never inside.
fn crowds(service: &Service<'_>, listener: usize, clients: u64, limit: u64) {
    let (inside, left) = (AtomicU64::new(0), AtomicU64::new(0));
    let visit = || {
        let visit = Visit::greeted(service.client_of(listener, Ipv4Addr::LOCALHOST));
        let now_inside = inside.fetch_add(1, Ordering::AcqRel) + 1;
        assert!(now_inside <= limit, "{now_inside} sessions");
        // The first stay until the place is full; so does everyone later, while there are enough to fill it.
        until("the place is full", || {
            inside.load(Ordering::Acquire) == limit || left.load(Ordering::Acquire) > clients - 2 * limit
        });
        left.fetch_add(1, Ordering::AcqRel);
        inside.fetch_sub(1, Ordering::AcqRel);
        visit.talks().leave();
    };
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(visit);
        }
    });
}

#[test]
fn sessions_never_exceed_the_limit_and_everyone_is_served() {
    for workers in [1, 2] {
        let backends = backends(2).workers(workers).global("max_sessions = 4");
        let service = backends.start();
        crowds(&service, 0, 24, 4);
        let totals = service.ends(&[(Done, 24)]);
        assert!(totals.accept_pauses > 0, "{totals}");
    }
}

#[test]
fn waiting_clients_are_not_accepted() {
    for workers in [1, 2] {
        let backends = backends(1).workers(workers).global("max_sessions = 3");
        let service = backends.start();
        let inside: Vec<Visit> = (0..3).map(|_| service.enter()).collect();
        let mut waiting: Vec<_> = (0..4).map(|_| service.client()).collect();
        waiting[0].receiving().silence(Duration::from_millis(200));
        let totals = service.server.totals();
        assert_eq!((totals.accepted, totals.active()), (3, 3), "{totals}");
        for visit in inside {
            visit.talks().leave();
        }
        // Whichever is served first: all are in the end, three at a time.
        thread::scope(|scope| {
            for client in waiting {
                scope.spawn(|| Visit::greeted(client).talks().leave());
            }
        });
        service.ends(&[(Done, 7)]);
    }
}

/// A full listener neither takes from the others nor waits for them.
#[test]
fn the_limit_of_a_listener_is_its_own() {
    for workers in [1, 2] {
        let backends = backends(2).workers(workers).listeners(&["max_sessions = 2", ""]);
        let service = backends.start();
        let inside: Vec<Visit> = (0..2).map(|_| service.enter()).collect();
        let waiting = service.client();
        let beside = || Visit::greeted(service.client_of(1, Ipv4Addr::LOCALHOST));
        let others: Vec<Visit> = (0..8).map(|_| beside().talks()).collect();
        let totals = service.server.totals();
        assert_eq!((totals.accepted, totals.active()), (10, 10), "{totals}");
        for visit in inside {
            visit.talks().leave();
        }
        Visit::greeted(waiting).talks().leave();
        for visit in others {
            visit.talks().leave();
        }
        service.ends(&[(Done, 11)]);
    }
}

#[test]
fn a_limit_over_all_listeners_is_shared() {
    let backends = backends(2).workers(2).global("max_sessions = 3").listeners(&["", "max_sessions = 2"]);
    let service = backends.start();
    thread::scope(|scope| {
        scope.spawn(|| crowds(&service, 1, 12, 2));
        // One place is always left for the first listener.
        for _ in 0..12 {
            service.visit();
        }
    });
    service.ends(&[(Done, 24)]);
}

/// A client that gives up in the queue costs a session at most, not the place of another.
#[test]
fn a_waiting_client_that_resets_does_not_hold_up_the_others() {
    let backends = backends(1).global("max_sessions = 1");
    let service = backends.start();
    let inside = service.enter();
    let (mut hasty, patient) = (service.client(), service.client());
    hasty.reset();
    inside.leave();
    Visit::greeted(patient).talks().leave();
    let totals = service.audit();
    let gone = totals.closed_for(ClientReset) + totals.closed_for(ClientGone);
    assert_eq!((totals.closed_for(Done), gone), (2, 1), "{totals}");
}

/// Case 66: with clients in the queue of a listener that accepts nobody.
#[test]
fn a_server_that_is_full_costs_nothing() {
    let backends = backends(1).workers(2).global("max_sessions = 2");
    let service = backends.start_daemon("warn,l4lb=info,l4lb::session=off");
    let (mut first, second) = (service.enter().talks(), service.enter().talks());
    let waiting: Vec<_> = (0..20).map(|_| service.client()).collect();
    service.server.wait_for_line(&["accepting is paused"]);
    let share = service.cpu_share_while_silent(&mut first.client, Duration::from_millis(600));
    assert!(share <= 0.1, "{share} of a processor");
    first.leave();
    second.leave();
    thread::scope(|scope| {
        for client in waiting {
            scope.spawn(|| Visit::greeted(client).talks().leave());
        }
    });
    service.stops();
}
