//! The end of the server: draining, its deadline, and the second signal (`tests/CASES.md`).

use std::net::SocketAddr;
use std::time::Duration;

use l4lb::session::CloseReason::{ConnectTimeout, Done, DrainTimeout, IdleTimeout, Stopped};
use l4lb::sys::Clock;
use procfs::net::TcpState;

use crate::harness::backends::{Visit, backends, dead_backends};
use crate::harness::lab::setup;
use crate::harness::peer::{Ending, Peer, until};

/// In the configuration below as text.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits until nothing listens on `address`.
pub(crate) fn until_closed(address: SocketAddr) {
    until("the listener is closed", || {
        let sockets = procfs::net::tcp().expect("/proc/net/tcp");
        !sockets.iter().any(|entry| entry.state == TcpState::Listen && entry.local_address == address)
    });
}

#[test]
fn a_drain_lets_sessions_finish_and_takes_no_new_ones() {
    for workers in [1, 2] {
        let backends = backends(2).workers(workers);
        let service = backends.start();
        let visits: Vec<Visit> = (0..6).map(|_| service.enter()).collect();
        service.server.terminate();
        until_closed(service.address());
        assert!(service.is_refused(0));
        for visit in visits {
            visit.talks().talks().leave();
        }
        service.ends(&[(Done, 6)]);
    }
}

/// Case 95: at no sessions the drain is over at once.
#[test]
fn a_drain_without_sessions_is_over_at_once() {
    let backends = backends(1).workers(2).drain_timeout("24h");
    let service = backends.start();
    service.visit();
    service.ends(&[(Done, 1)]);
}

/// Whoever is in the queue when the drain begins has connected, and is served, even at a limit.
#[test]
fn a_drain_serves_the_queue() {
    for workers in [1, 2] {
        let backends = backends(1).workers(workers).global("max_sessions = 1");
        let service = backends.start();
        let inside = service.enter();
        let waiting: Vec<Peer> = (0..10).map(|_| service.client()).collect();
        service.server.terminate();
        inside.talks().leave();
        std::thread::scope(|scope| {
            for client in waiting {
                scope.spawn(|| Visit::greeted(client).talks().leave());
            }
        });
        service.ends(&[(Done, 11)]);
    }
}

/// Case 95.
#[test]
fn the_drain_timeout_cuts_what_is_left_by_a_reset() {
    let backends = backends(2).workers(2).drain_timeout("10s");
    let service = backends.start();
    let (early, late) = (service.enter(), (0..4).map(|_| service.enter()).collect::<Vec<_>>());
    let clock = Clock::start();
    let start = clock.now();
    service.server.terminate();
    early.talks().leave();
    for visit in late {
        visit.gets_cut();
        assert!(clock.now() - start >= DRAIN_TIMEOUT, "cut too early");
    }
    service.ends(&[(Done, 1), (DrainTimeout, 4)]);
}

/// Goal G17.
#[test]
fn a_drain_timeout_of_zero_stops_at_once() {
    let backends = backends(1).drain_timeout("0s");
    let service = backends.start();
    let visit = service.enter();
    service.server.terminate();
    visit.gets_cut();
    service.ends(&[(DrainTimeout, 1)]);
}

/// Case 96.
#[test]
fn the_second_signal_stops_at_once() {
    let backends = backends(2).workers(2).drain_timeout("24h");
    let service = backends.start();
    let visits: Vec<Visit> = (0..4).map(|_| service.enter()).collect();
    service.server.terminate();
    let visits: Vec<Visit> = visits.into_iter().map(Visit::talks).collect();
    service.server.terminate();
    visits.into_iter().for_each(Visit::gets_cut);
    service.ends(&[(Stopped, 4)]);
}

/// Case 50.
#[test]
fn timeouts_still_apply_during_a_drain() {
    let backends = dead_backends(2)
        .drain_timeout("24h")
        .pool("retries = 0\ntimeouts = { connect = \"1s\", idle = \"1s\" }");
    backends.nodes[0].serve();
    let _listener = backends.nodes[1].listen(0);
    let _filler = Peer::connect(backends.nodes[1].address, 0, None);
    let service = backends.start();
    let idle = service.enter();
    let mut dialing = service.client();
    until("a dial", || service.server.totals().dials == 2);
    service.server.terminate();
    assert_eq!(dialing.receiving().ending(), Ending::Reset);
    idle.gets_cut();
    service.ends(&[(ConnectTimeout, 1), (IdleTimeout, 1)]);
}

/// Clients whose connection was complete before the signal, while the process had no chance to accept them.
#[test]
fn a_process_that_gets_sigterm_serves_its_queue() {
    for signal in ["TERM", "INT"] {
        let backends = backends(2).workers(2);
        let service = backends.start_daemon("info");
        let running = service.enter().talks();
        service.server.freeze();
        let waiting: Vec<Peer> = (0..10).map(|_| service.client()).collect();
        service.server.signal(signal, 1);
        service.server.signal("CONT", 1);
        for client in waiting {
            Visit::greeted(client).talks().leave();
        }
        until_closed(service.address());
        running.talks().leave();
        service.has_stopped();
    }
}

/// Case 96. Two signals that come together may count as one, so the second comes once the first was received.
#[test]
fn a_process_that_gets_two_signals_stops_at_once() {
    let backends = backends(1).drain_timeout("24h");
    let service = backends.start_daemon("info");
    let visit = service.enter().talks();
    service.server.signal("TERM", 1);
    service.server.wait_for_line(&["draining"]);
    let visit = visit.talks();
    service.server.signal("TERM", 1);
    visit.gets_cut();
    let totals = service.has_stopped();
    assert!(totals.contains(" stopped=1 "), "{totals}");
}

/// Case 96.
#[test]
fn no_session_notices_that_the_file_is_read_again() {
    let backends = backends(1);
    let service = backends.start_daemon("info");
    let visit = service.enter();
    for _ in 0..3 {
        service.server.signal("HUP", 1);
        service.server.wait_for_line(&["configuration applied"]);
    }
    visit.talks().leave();
    service.visit();
    service.stops();
}

/// Case 73, in small: nobody could keep the deadlines that passed while the process was stopped, so what came
/// meanwhile is read first.
#[test]
fn a_process_that_was_suspended_reads_its_clients_before_it_cuts_them() {
    let backends = backends(1).pool("timeouts = { idle = \"10s\" }");
    let service = backends.start_daemon("info,l4lb::session=off");
    let mut visits: Vec<Visit> = (0..10).map(|_| service.enter().talks()).collect();
    service.server.freeze();
    visits.iter_mut().for_each(|visit| visit.client.sending().bytes(b"still here"));
    visits[0].client.receiving().silence(Duration::from_secs(11));
    service.server.signal("CONT", 1);
    for mut visit in visits {
        visit.client.receiving().bytes(b"still here");
        visit.talks().leave();
    }
    service.stops();
}

// --- one session ---------------------------------------------------------------------------------------------------

#[test]
fn a_drain_lets_a_session_finish_and_takes_no_new_one() {
    setup().both_ways(|relay, near, far| {
        let relay = relay.established();
        relay.lab().server.terminate();
        until("nothing listens any more", || !relay.lab().is_listening());
        let relay = relay.carries(near, 100_000).fin(near).expects_fin(far).carries(far, 100_000);
        relay.fin(far).expects_fin(near).ends(Done);
    });
}

#[test]
fn a_session_that_outlasts_the_drain_is_reset_on_both_sides() {
    setup().drain_timeout("300ms").both_ways(|relay, near, far| {
        let relay = relay.sends(near, b"hi").expects(far, b"hi");
        relay.lab().server.terminate();
        relay.expects_reset(near).expects_reset(far).ends(DrainTimeout);
    });
}

#[test]
fn a_worker_that_polls_before_it_sleeps_drains() {
    setup().busy_poll("1ms").both_ways(|relay, near, far| {
        let relay = relay.carries(near, 1_000_000);
        relay.lab().server.terminate();
        until("nothing listens any more", || !relay.lab().is_listening());
        relay.carries(far, 1_000_000).closes_both_ways().ends(Done);
    });
}

#[test]
fn the_second_request_to_stop_resets_what_runs() {
    setup().both_ways(|relay, near, far| {
        let relay = relay.sends(near, b"hi").expects(far, b"hi");
        relay.lab().server.terminate();
        relay.lab().server.terminate();
        relay.expects_reset(near).expects_reset(far).ends(Stopped);
    });
}

/// They are connected as far as they know, so they must not be reset.
#[test]
fn clients_that_wait_in_the_queue_at_sigterm_are_served() {
    let sessions = 40;
    let lab = setup().workers(2).start_daemon();
    lab.server.freeze();
    let mut clients: Vec<_> = (0..sessions).map(|_| lab.client()).collect();
    for client in &mut clients {
        client.sending().bytes(b"hi");
        client.fin();
    }
    lab.server.signal("TERM", 1);
    lab.server.signal("CONT", 1);
    for _ in 0..sessions {
        let mut backend = lab.accept(0);
        backend.receiving().bytes(b"hi");
        backend.sending().bytes(b"ok");
    }
    for mut client in clients {
        client.receiving().bytes(b"ok");
    }
    lab.stops();
}
