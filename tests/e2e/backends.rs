//! Backends that cannot be dialed, and what comes of it for the client (`tests/CASES.md`).

use std::time::Duration;

use l4lb::session::CloseReason::{ClientGone, ConnectRefused, ConnectTimeout, Done, NoBackend};
use l4lb::sys::Clock;

use crate::harness::backends::{Backends, Node, Visit, backends, dead_backends};
use crate::harness::peer::{Ending, Peer, retry, until};

/// In the configuration below as text.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// Case 55: how soon a client without a backend is reset.
const AT_ONCE: Duration = Duration::from_millis(50);

/// A node whose accept queue is full, so that a dial gets no answer, for as long as these two live.
/// listen(2): the queue holds one more than the backlog.
fn stuck(node: &Node) -> (socket2::Socket, Peer) {
    let listener = node.listen(0);
    (listener, Peer::connect(node.address, 0, None))
}

/// The first `dead` nodes refuse, the others serve.
fn fleet_with_dead(dead: usize, serving: usize) -> Backends {
    let backends = dead_backends(dead + serving);
    backends.nodes[dead..].iter().for_each(Node::serve);
    backends
}

/// Case 47, with a server that speaks first and a client that is silent.
#[test]
fn a_refused_dial_is_invisible_to_the_client() {
    for workers in [1, 2] {
        let backends = fleet_with_dead(2, 1).workers(workers);
        let service = backends.start();
        for _ in 0..30 {
            assert_eq!(service.enter().talks().leave(), 2);
        }
        // A failed dial has used a turn up, so each session begins at the first.
        assert_eq!((service.backend(0).dial_failures(), service.backend(1).dial_failures()), (30, 30));
        let totals = service.ends(&[(Done, 30)]);
        assert_eq!((totals.dials, totals.dial_failures), (90, 60), "{totals}");
    }
}

/// The next backend does not serve for the one that is gone as well as for itself.
#[test]
fn refused_dials_leave_the_spread_over_the_others_even() {
    let backends = fleet_with_dead(1, 2);
    let service = backends.start();
    assert_eq!(service.visits(30), [0, 15, 15]);
    let totals = service.ends(&[(Done, 30)]);
    assert_eq!((totals.dials, totals.dial_failures), (45, 15), "{totals}");
}

/// Case 49.
#[test]
fn a_dial_without_an_answer_moves_to_the_next_backend_at_its_timeout() {
    let backends = fleet_with_dead(1, 1).pool("timeouts = { connect = \"300ms\" }");
    let _stuck = stuck(&backends.nodes[0]);
    let service = backends.start();
    let clock = Clock::start();
    let start = clock.now();
    let visit = service.enter();
    assert!(clock.now() - start >= CONNECT_TIMEOUT, "given up too early");
    assert_eq!(visit.talks().leave(), 1);
    assert_eq!(service.backend(0).dial_failures(), 1);
    let totals = service.ends(&[(Done, 1)]);
    assert_eq!((totals.dials, totals.dial_failures), (2, 1), "{totals}");
}

/// Case 25. Nothing of the client has got to it, so another backend may have the client.
#[test]
fn a_backend_that_accepts_and_resets_at_once_is_a_failed_dial() {
    let backends = fleet_with_dead(1, 1);
    let (listener, filler) = stuck(&backends.nodes[0]);
    let service = backends.start_daemon("info,l4lb::session=off");
    let idle = service.server.sockets();
    let client = service.client();
    until("the dial is under way", || service.server.sockets() == idle + 2);
    service.server.freeze();
    drop((retry(|| listener.accept()).expect("accept the filler"), filler));
    let (socket, _) = retry(|| listener.accept()).expect("accept the session");
    socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(socket);
    service.server.signal("CONT", 1);
    assert_eq!(Visit::greeted(client).talks().leave(), 1);
    let totals = service.stops();
    assert!(totals.contains(" dials=2 dial_failures=1"), "{totals}");
}

/// Each dial has the whole timeout, and the last one decides what the client's end is called.
#[test]
fn a_client_is_reset_when_no_dial_gets_an_answer() {
    let backends = dead_backends(3).pool("timeouts = { connect = \"100ms\" }\nretries = 1");
    let _stuck: Vec<_> = backends.nodes.iter().map(stuck).collect();
    let service = backends.start();
    let clock = Clock::start();
    let start = clock.now();
    assert_eq!(service.client().receiving().ending(), Ending::Reset);
    assert!(clock.now() - start >= Duration::from_millis(200), "two dials of 100ms");
    let totals = service.ends(&[(ConnectTimeout, 1)]);
    assert_eq!((totals.dials, totals.dial_failures), (2, 2), "{totals}");
}

/// Case 54.
#[test]
fn the_number_of_retries_is_exact() {
    for (retries, dials) in [(0, 1), (1, 2), (2, 3), (4, 5), (5, 5), (16, 5)] {
        let backends = dead_backends(5).pool(&format!("retries = {retries}"));
        let service = backends.start();
        assert_eq!(service.client().receiving().ending(), Ending::Reset);
        let totals = service.ends(&[(ConnectRefused, 1)]);
        assert_eq!((totals.dials, totals.dial_failures), (dials, dials), "retries = {retries}: {totals}");
    }
}

/// Case 53, in the second dial.
#[test]
fn a_client_that_resets_during_a_retry_is_noticed() {
    let backends = dead_backends(2).pool("timeouts = { connect = \"20s\" }");
    let _stuck = stuck(&backends.nodes[1]);
    let service = backends.start();
    let mut client = service.client();
    until("a second dial", || service.server.totals().dials == 2);
    assert_eq!((service.backend(0).active(), service.backend(1).active()), (0, 1));
    client.reset();
    let totals = service.ends(&[(ClientGone, 1)]);
    assert_eq!((totals.dials, totals.dial_failures), (2, 1), "{totals}");
}

/// Case 55, the other half: see `health` for the recovery.
/// Goal G5.
#[test]
fn a_client_is_reset_at_once_when_all_backends_are_down() {
    let backends = backends(3).health("initial_state = \"down\", rise = 100");
    let service = backends.start();
    let clock = Clock::start();
    let reset = || {
        let start = clock.now();
        assert_eq!(service.client().receiving().ending(), Ending::Reset);
        clock.now() - start
    };
    let quickest = (0..20).map(|_| reset()).min().expect("20 of them");
    assert!(quickest <= AT_ONCE, "{quickest:?}");
    let totals = service.ends(&[(NoBackend, 20)]);
    assert_eq!(totals.dials, 0, "{totals}");
}

/// A pool of backends of weight 0 is as good as none.
#[test]
fn a_client_is_reset_when_no_backend_has_a_weight() {
    let backends = backends(2).keys_of_each(["weight = 0", "weight = 0"]);
    let service = backends.start();
    assert_eq!(service.client().receiving().ending(), Ending::Reset);
    service.ends(&[(NoBackend, 1)]);
}

/// Case 82.
#[test]
fn a_pool_that_tries_anyway_serves_from_backends_that_are_down() {
    let backends =
        backends(3).pool("when_all_down = \"try_anyway\"").health("initial_state = \"down\", rise = 100");
    let service = backends.start();
    assert_eq!(service.visits(30), [10, 10, 10]);
    service.ends(&[(Done, 30)]);
}

/// What is tried anyway may fail anyway.
#[test]
fn a_pool_that_tries_anyway_still_tries_each_backend_once() {
    let backends = fleet_with_dead(2, 1)
        .pool("when_all_down = \"try_anyway\"\nretries = 5")
        .health("initial_state = \"down\", rise = 100");
    let service = backends.start();
    assert_eq!(service.visit(), 2);
    backends.nodes[2].die();
    assert_eq!(service.client().receiving().ending(), Ending::Reset);
    let totals = service.ends(&[(Done, 1), (ConnectRefused, 1)]);
    assert_eq!((totals.dials, totals.dial_failures), (6, 5), "{totals}");
}

/// What a silent client waits for comes as soon as the dial succeeds, however long that takes.
#[test]
fn a_backend_that_wakes_up_in_time_is_not_left() {
    let backends = dead_backends(1).pool("timeouts = { connect = \"20s\" }");
    let (listener, filler) = stuck(&backends.nodes[0]);
    let service = backends.start();
    let client = service.client();
    until("a dial", || service.server.totals().dials == 1);
    drop((retry(|| listener.accept()).expect("accept the filler"), filler));
    let (socket, _) = retry(|| listener.accept()).expect("accept the session");
    socket.send(b"a").expect("greet");
    drop(socket);
    let mut visit = Visit::greeted(client);
    assert_eq!(visit.client.receiving().ending(), Ending::Fin);
    visit.client.fin();
    let totals = service.ends(&[(Done, 1)]);
    assert_eq!((totals.dials, totals.dial_failures), (1, 0), "{totals}");
}
