//! Listeners and pools change under the sessions: nothing is reset, and no client is refused without need.

use std::net::{Ipv4Addr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use l4lb::config::model::{Accept, Config, HealthState, Keepalive};
use l4lb::session::CloseReason::Done;

use crate::harness::backends::{Service, Visit, backends};
use crate::harness::lab::IPV4;
use crate::harness::peer::{Peer, SetOnDrop, free_address, until};

/// Clients that are connected and not accepted while their listener goes.
const QUEUED: usize = 200;

/// Clients in the queue of a listener that lets one in at a time, behind one who is inside.
fn queue(service: &Service<'_>, listener: usize) -> (Visit, Vec<Peer>) {
    let inside = Visit::greeted(service.client_of(listener, Ipv4Addr::LOCALHOST));
    (inside, (0..QUEUED).map(|_| service.client_of(listener, Ipv4Addr::LOCALHOST)).collect())
}

/// Each of them is served to its end.
fn all_are_served(clients: Vec<Peer>) {
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| Visit::greeted(client).talks().leave());
        }
    });
}

/// Case 86.
#[test]
fn the_queue_of_a_removed_listener_is_served() {
    for workers in [1, 2] {
        let backends = backends(1).workers(workers).listeners(&["max_sessions = 1", ""]);
        let mut service = backends.start();
        let (inside, queued) = queue(&service, 0);
        service.change(|config| _ = config.listeners.remove(0));
        inside.talks().leave();
        all_are_served(queued);
        until("nothing listens there", || service.is_refused(0));
        Visit::greeted(service.client_of(1, Ipv4Addr::LOCALHOST)).leave();
        service.ends(&[(Done, 202)]);
    }
}

/// Its pool has gone with it, and is there for as long as it is needed.
#[test]
fn the_queue_is_served_by_the_pool_that_went_with_the_listener() {
    let backends = backends(1).listeners(&["max_sessions = 1", ""]);
    let mut service = backends.start();
    let (inside, queued) = queue(&service, 0);
    service.change(|config| {
        config.listeners.remove(0);
        config.pools[0].name = "another".into();
    });
    inside.talks().leave();
    all_are_served(queued);
    Visit::greeted(service.client_of(1, Ipv4Addr::LOCALHOST)).leave();
    service.ends(&[(Done, 202)]);
}

#[test]
fn the_queue_of_a_worker_that_leaves_is_served() {
    let backends = backends(1).workers(4).listeners(&["max_sessions = 1"]);
    let mut service = backends.start();
    let (inside, queued) = queue(&service, 0);
    service.set_workers(1);
    inside.talks().leave();
    all_are_served(queued);
    service.until_workers(1);
    service.visit();
    service.ends(&[(Done, 202)]);
}

#[test]
fn listeners_come_and_go_and_come_back() {
    let backends = backends(2).workers(2);
    let mut service = backends.start();
    for round in 0..3 {
        let index = service.add_listener("more");
        let long = Visit::greeted(service.client_of(index, Ipv4Addr::LOCALHOST)).talks();
        (0..20).for_each(|_| _ = Visit::greeted(service.client_of(index, Ipv4Addr::LOCALHOST)).leave());
        service.change(|config| _ = config.listeners.pop());
        until("nothing listens there", || service.is_refused(index));
        long.talks().leave();
        assert!(service.server.address_of("more").is_none(), "round {round}");
        service.visit();
    }
    service.audit();
}

/// The sockets stay, and with them whoever waits in their queues.
#[test]
fn a_listener_that_is_called_something_else_keeps_its_queue() {
    let backends = backends(1).workers(2).listeners(&["max_sessions = 1"]);
    let mut service = backends.start();
    let (inside, queued) = queue(&service, 0);
    let address = service.address();
    service.change(|config| {
        config.listeners[0].name = "renamed".into();
        config.listeners[0].bind = address;
    });
    assert_eq!(service.server.address_of("renamed"), Some(address));
    inside.talks().leave();
    all_are_served(queued);
    service.visit();
    service.ends(&[(Done, 202)]);
}

#[test]
fn a_listener_changes_while_it_listens() {
    let backends = backends(2).workers(2).listeners(&["max_sessions = 1"]);
    let mut service = backends.start();
    let (inside, queued) = queue(&service, 0);
    service.change(|config| {
        let keepalive =
            Keepalive { idle: Duration::from_secs(9), interval: Duration::from_secs(9), count: 3 };
        config.pools[0].tcp.keepalive = Some(keepalive);
        let listener = &mut config.listeners[0];
        (listener.backlog, listener.max_sessions, listener.accept) = (16, None, Accept::Balance);
    });
    all_are_served(queued);
    inside.talks().leave();
    service.visit();
    service.ends(&[(Done, 202)]);
}

/// Clients that come and go for as long as `changes` lasts. None of them may fail.
fn under_load(service: &mut Service<'_>, changes: impl FnOnce(&mut Service<'_>, &dyn Fn())) {
    const CLIENTS: usize = 4;
    /// Sessions behind each change.
    const SESSIONS: u64 = 150;
    let (is_over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = service.address();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    Visit::greeted(Peer::connect(address, 0, None)).talks().leave();
                    served.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        let more_are_served = || {
            let before = served.load(Ordering::Acquire);
            until("clients are served", || served.load(Ordering::Acquire) >= before + SESSIONS);
        };
        let _over = SetOnDrop(&is_over);
        changes(service, &more_are_served);
    });
    (0..served.into_inner()).for_each(|_| service.count_client());
}

/// Case 87.
#[test]
fn workers_come_and_go_under_load() {
    for accept in Accept::ALL {
        let backends = backends(2).workers(1);
        let mut service = backends.start();
        service.change(|config| config.listeners[0].accept = accept);
        let mut long: Vec<Visit> = Vec::new();
        let mut accepted = 0;
        under_load(&mut service, |service, more_are_served| {
            for workers in [4, 2, 1, 3, 1] {
                service.set_workers(workers);
                more_are_served();
                long.extend((0..4).map(|_| service.enter()));
                long = std::mem::take(&mut long).into_iter().map(Visit::talks).collect();
                let now = service.server.totals().accepted;
                assert!(now > accepted, "counts never go back");
                accepted = now;
            }
        });
        long.into_iter().for_each(|visit| _ = visit.talks().leave());
        service.until_workers(1);
        service.audit();
    }
}

#[test]
fn many_workers_are_there_as_soon_as_few() {
    let backends = backends(1).workers(1);
    let mut service = backends.start();
    for workers in [64, 1, 2] {
        service.set_workers(workers);
        service.visits(50);
        service.until_workers(workers);
    }
    service.audit();
}

/// Sessions go on where they are, for as long as they like; the worker stops behind the last of them.
#[test]
fn a_worker_that_leaves_finishes_its_sessions() {
    let backends = backends(1).workers(4).listeners(&["accept = \"balance\""]);
    let mut service = backends.start();
    let visits: Vec<Visit> = (0..8).map(|_| service.enter().talks()).collect();
    service.set_workers(2);
    let mut visits: Vec<Visit> = visits.into_iter().map(Visit::talks).collect();
    service.add_listener("meanwhile");
    assert_eq!(service.server.workers().members().len(), 4, "two have sessions");
    visits = visits.into_iter().map(Visit::talks).collect();
    visits.into_iter().for_each(|visit| _ = visit.leave());
    service.until_workers(2);
    service.ends(&[(Done, 8)]);
}

#[test]
fn a_drain_and_a_stop_reach_workers_that_leave() {
    for stops in [1, 2] {
        let backends = backends(1).workers(3).listeners(&["accept = \"balance\""]);
        let mut service = backends.start();
        let visits: Vec<Visit> = (0..6).map(|_| service.enter().talks()).collect();
        service.set_workers(1);
        (0..stops).for_each(|_| service.server.terminate());
        for visit in visits {
            if stops == 1 { _ = visit.talks().leave() } else { visit.gets_cut() }
        }
        service.audit();
    }
}

/// Whoever checks a backend now, its state goes on from what it was.
#[test]
fn checks_move_to_the_workers_that_are_there() {
    let health = "type = \"tcp\", interval = \"1s\", timeout = \"1s\", fast_interval = \"20ms\"";
    let backends = backends(3).health(health);
    let mut service = backends.start();
    let all_are = |service: &Service<'_>, state| {
        until("the checks say so", || (0..3).all(|node| service.backend(node).health() == state));
    };
    for workers in [1, 4, 2, 1] {
        service.set_workers(workers);
        all_are(&service, HealthState::Up);
        backends.nodes.iter().for_each(crate::harness::backends::Node::die);
        all_are(&service, HealthState::Down);
        backends.nodes.iter().for_each(crate::harness::backends::Node::serve);
    }
    all_are(&service, HealthState::Up);
    service.audit();
}

/// Where one thing cannot be had, nothing is changed.
#[test]
fn a_change_that_cannot_be_made_changes_nothing() {
    let backends = backends(1);
    let mut service = backends.start();
    let taken = TcpListener::bind(IPV4).expect("a port");
    let taken = (taken.local_addr().expect("getsockname"), taken);
    let free = free_address();
    let more = |config: &mut Config| {
        config.global.workers = NonZeroUsize::new(3).expect("not 0");
        for (name, bind) in [("first", free), ("second", taken.0)] {
            let first = config.listeners[0].clone();
            config.listeners.push(l4lb::config::model::Listener { name: name.into(), bind, ..first });
        }
    };
    let refused = service.try_change(more).expect_err("an address in use");
    assert!(refused[0].contains(&format!("(pid {})", std::process::id())), "{refused:?}");
    let too_many = |config: &mut Config| config.global.max_sessions = NonZeroUsize::new(9_999_999);
    let refused = service.try_change(too_many).expect_err("more than there can be");
    assert!(refused[0].contains("max_sessions"), "{refused:?}");
    assert_eq!(service.server.workers().members().len(), 1);
    assert!(service.server.address_of("first").is_none());
    TcpListener::bind(free).expect("nothing listens there");
    service.visits(10);
    service.ends(&[(Done, 10)]);
}
