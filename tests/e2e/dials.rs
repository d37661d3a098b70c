//! What happens until a backend is connected (`tests/CASES.md`).

use std::time::Duration;

use l4lb::session::CloseReason::{ClientGone, ClientReset, ConnectRefused, ConnectTimeout, Done};
use l4lb::session::Side::{Backend, Client};
use l4lb::sys::Clock;

use crate::harness::lab::{Lab, Setup, setup};
use crate::harness::peer::{Ending, Peer, until};
use crate::harness::relay::Relay;

/// Connections that fill the accept queue of a backend with a backlog of 0, so that the next dial gets no answer.
/// listen(2): the queue holds one more than the backlog.
fn stuck_backend(setup: Setup) -> (Lab, Peer) {
    let lab = setup.backlog(0).start();
    let filler = Peer::connect(lab.backend_address(), 999, None);
    (lab, filler)
}

/// Waits until a dial for the only client is under way.
fn wait_for_dial(lab: &Lab) {
    until("a dial", || lab.server.totals().dials == 1);
}

/// Case 8.
#[test]
fn bytes_of_a_client_during_the_dial_arrive_in_order() {
    let (lab, filler) = stuck_backend(setup());
    let mut client = lab.client();
    client.sending().bytes(b"early");
    client.sending().stream(10_000);
    wait_for_dial(&lab);
    client.sending().stream(10_000);
    client.fin();
    drop((lab.accept(999), filler));
    let backend = lab.accept(0);
    let relay = Relay::new(lab, client, backend).expects(Backend, b"early").expects_stream(Backend, 20_000);
    relay.expects_fin(Backend).sends(Backend, b"ok").expects(Client, b"ok").fin(Backend).ends(Done);
}

/// Case 25. The dial was taken for a failed one, and the bytes were lost.
#[test]
fn bytes_of_a_backend_before_it_is_seen_connected_arrive_ahead_of_its_reset() {
    let lab = setup().backlog(0).start_daemon();
    let idle = lab.server.sockets();
    let filler = Peer::connect(lab.backend_address(), 999, None);
    let client = lab.client();
    until("the dial is under way", || lab.server.sockets() == idle + 2);
    lab.server.freeze();
    drop((lab.accept(999), filler));
    let relay = Relay::new((), client, lab.accept(0)).streams(Backend, 1_000).acknowledged(Backend);
    let relay = relay.resets(Backend);
    lab.server.signal("CONT", 1);
    relay.expects_stream(Client, 1_000).expects_reset(Client);
    lab.stops();
}

/// Cases 25 and 53.
#[test]
fn a_client_that_resets_during_the_dial_is_noticed_at_once() {
    let (lab, _filler) = stuck_backend(setup());
    let mut client = lab.client();
    wait_for_dial(&lab);
    client.reset();
    lab.ends(&[(ClientGone, 1)]);
}

/// Case 25. They were lost with the dial.
#[test]
fn bytes_of_a_client_before_its_reset_during_the_dial_arrive_ahead_of_the_reset() {
    let (lab, filler) = stuck_backend(setup());
    let mut client = lab.client();
    client.sending().stream(10_000);
    wait_for_dial(&lab);
    client.reset();
    drop((lab.accept(999), filler));
    let mut backend = lab.accept(0);
    backend.receiving().stream(10_000);
    assert_eq!(backend.receiving().ending(), Ending::Reset);
    lab.ends(&[(ClientReset, 1)]);
}

#[test]
fn a_dial_without_an_answer_ends_at_its_timeout() {
    let (lab, _filler) = stuck_backend(setup().connect_timeout("300ms"));
    let clock = Clock::start();
    let start = clock.now();
    assert_eq!(lab.client().receiving().ending(), Ending::Reset);
    assert!(clock.now() - start >= Duration::from_millis(300));
    lab.ends(&[(ConnectTimeout, 1)]);
}

/// Case 47.
#[test]
fn a_refused_dial_moves_to_the_next_backend() {
    setup().refusing_backends(2).each_family(|lab| {
        for _ in 0..30 {
            lab.relay().sends(Client, b"hi").expects(Backend, b"hi").closes_both_ways();
        }
        let totals = lab.ends(&[(Done, 30)]);
        assert_eq!(totals.dials, 30 + totals.dial_failures, "{totals}");
        assert!(totals.dial_failures >= 30, "nobody dialed the backends that refuse: {totals}");
    });
}

/// Case 55.
#[test]
fn a_client_without_a_backend_is_reset() {
    let lab = setup().refusing_backends(3).start();
    // The default of two retries ends at the third refusal when the turn begins at the first backend.
    assert_eq!(lab.client().receiving().ending(), Ending::Reset);
    let totals = lab.ends(&[(ConnectRefused, 1)]);
    assert_eq!((totals.dials, totals.dial_failures), (3, 3), "{totals}");
}

/// It waited for ever: each try began its patience anew.
/// Case 60.
#[test]
fn a_session_that_gets_no_descriptor_to_dial_with_is_reset_after_the_connect_timeout() {
    let lab = setup().connect_timeout("1s").start_daemon();
    lab.server.can_open(1);
    let clock = Clock::start();
    let start = clock.now();
    assert_eq!(lab.client().receiving().ending(), Ending::Reset);
    assert!(clock.now() - start >= Duration::from_secs(1), "reset too early");
    lab.server.can_open(2);
    let (client, backend) = (lab.client(), lab.accept(1));
    drop(Relay::new(&lab, client, backend).closes_both_ways());
    lab.stops();
}

#[test]
fn a_session_that_waits_for_descriptors_is_dialed_once_there_are_some() {
    let lab = setup().start_daemon();
    lab.server.can_open(1);
    let client = lab.client();
    lab.server.wait_for_line(&["a dial is put off"]);
    lab.server.can_open(1);
    drop(Relay::new(&lab, client, lab.accept(0)).closes_both_ways());
    lab.stops();
}
