//! The end of the process: what runs may finish, what waits is served, what is left is reset.

use l4lb::session::CloseReason::{Done, DrainTimeout, Stopped};

use crate::lab::setup;
use crate::peer::until;

#[test]
fn a_drain_lets_a_session_finish_and_takes_no_new_one() {
    setup().both_ways(|relay, near, far| {
        let relay = relay.established();
        relay.lab().server.terminate();
        until("nobody listens any more", || !relay.lab().is_listening());
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
        until("nobody listens any more", || !relay.lab().is_listening());
        relay.carries(far, 1_000_000).says_goodbye().ends(Done);
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
