//! FIN, half-close and reset go through as they came (`tests/CASES.md`).
//!
//! Goal G9.

use std::thread;
use std::time::Duration;

use l4lb::session::CloseReason::{self, BackendReset, ClientReset, Done};
use l4lb::session::Side::{self, Backend, Client};

use crate::harness::backends::backends;
use crate::harness::lab::{has_other_end, setup};
use crate::harness::peer::{Ending, until};
use crate::harness::relay::reset_by;

const MIB: u64 = 1 << 20;

/// Case 16. The answer comes when the half-closed session has been at rest for a while.
#[test]
fn a_fin_leaves_the_other_direction_open() {
    setup().both_ways(|relay, near, far| {
        let asked = relay.sends(near, b"hi").fin(near).expects(far, b"hi").expects_fin(far);
        let answered = asked.expects_silence(near, Duration::from_millis(300)).sends(far, b"answer");
        answered.expects(near, b"answer").fin(far).expects_fin(near).ends(Done);
    });
}

/// Case 17.
#[test]
fn an_upload_continues_behind_the_fin_of_the_other_side() {
    setup().both_ways(|relay, near, far| {
        let half_closed = relay.fin(far).expects_fin(near).carries(near, 4 * MIB);
        half_closed.fin(near).expects_fin(far).ends(Done);
    });
}

/// Case 18.
#[test]
fn fins_from_both_sides_at_once_end_the_session() {
    let lab = setup().start();
    for _ in 0..100 {
        let ended = lab.relay().sends(Client, b"a").sends(Backend, b"b").fin(Client).fin(Backend);
        let read = ended.expects(Backend, b"a").expects(Client, b"b");
        read.expects_fin(Backend).expects_fin(Client);
    }
    lab.ends(&[(Done, 100)]);
}

/// Cases 19 and 20.
#[test]
fn a_fin_waits_for_the_last_byte_of_a_stuck_stream() {
    setup().both_ways(|relay, near, far| {
        relay.fills_up(near).fin(near).catches_up(far).expects_fin(far).fin(far).expects_fin(near).ends(Done);
    });
}

/// Case 19, with FINs that chase the last byte.
#[test]
fn a_fin_right_behind_the_last_byte_loses_none() {
    let lab = setup().workers(2).start();
    for round in 0..200 {
        let near = Side::BOTH[round % 2];
        let mut relay = lab.relay();
        let (sender, reader) = relay.ends_from(near);
        thread::scope(|scope| {
            scope.spawn(|| {
                sender.sending().stream(300_000 + round as u64);
                sender.close();
            });
            assert_eq!(reader.receiving().rest(), Ending::Fin);
        });
        assert_eq!(reader.received(), sender.sent());
    }
    lab.ends(&[(Done, 200)]);
}

/// Cases 21 and 22.
#[test]
fn a_reset_is_a_reset_behind_the_bytes_before_it() {
    setup().both_ways(|relay, near, far| {
        let sent = relay.established().streams(near, 1_000).acknowledged(near).resets(near);
        sent.expects_stream(far, 1_000).expects_reset(far).ends(reset_by(near));
    });
}

/// Case 21, without a byte.
#[test]
fn a_reset_of_an_idle_session_is_a_reset() {
    setup().both_ways(|relay, near, far| {
        relay.sends(near, b"hi").expects(far, b"hi").resets(near).expects_reset(far).ends(reset_by(near));
    });
}

/// Cases 21 and 22, in the second half of a half-closed session.
#[test]
fn a_reset_behind_a_fin_of_the_other_side_is_a_reset() {
    setup().both_ways(|relay, near, far| {
        let half_closed = relay.fin(far).expects_fin(near).streams(near, 1_000).acknowledged(near);
        half_closed.resets(near).expects_stream(far, 1_000).expects_reset(far).ends(reset_by(near));
    });
}

/// The side that has ended its stream resets: the other learns of it, although it has had its FIN.
#[test]
fn a_reset_behind_its_own_fin_is_passed_on() {
    setup().both_ways(|relay, near, far| {
        let half_closed = relay.sends(near, b"hi").fin(near).expects(far, b"hi").expects_fin(far);
        half_closed.resets(near).expects_broken_pipe(far).ends(reset_by(near));
    });
}

/// Case 23.
#[test]
fn a_reset_waits_for_a_slow_reader() {
    setup().buffers(64 << 10).both_ways(|mut relay, near, far| {
        relay = relay.fills_up(near);
        let arrived = relay.peer(near).acknowledged();
        assert!(arrived > MIB, "only {arrived} bytes are under way");
        let mut relay = relay.resets(near);
        assert_eq!(relay.peer(far).receiving().rest(), Ending::Reset);
        assert!(relay.peer(far).received() >= arrived, "{} of {arrived}", relay.peer(far).received());
        relay.ends(reset_by(near));
    });
}

/// Case 38. Data, FIN and reset are there before the server looks: one event with all flags, and the data goes first.
#[test]
fn bytes_go_ahead_of_a_fin_and_a_reset_that_come_with_them() {
    let lab = setup().start_daemon();
    for round in 0..6 {
        let near = Side::BOTH[round % 2];
        let far = near.other();
        let mut relay = lab.relay().established();
        let addresses = relay.peer(near).addresses();
        lab.server.freeze();
        relay = relay.streams(near, 100_000).acknowledged(near).fin(near).resets(near);
        until("the reset has come", || !has_other_end(addresses));
        lab.server.signal("CONT", 1);
        relay.expects_stream(far, 100_000).expects_fin(far).expects_broken_pipe(far);
    }
    lab.stops();
}

/// Case 24. The server has bytes for the side that resets, so a write may meet the error before a read does.
#[test]
fn a_reset_that_a_write_meets_first_is_no_fin() {
    setup().both_ways(|mut relay, near, far| {
        relay = relay.sends(near, b"hi").expects(far, b"hi").fills_up(far);
        relay.resets(near).sends_until_reset(far).ends(reset_by(near));
    });
}

/// Case 24, with the reset in the middle of a stream.
#[test]
fn a_reset_in_the_middle_of_an_upload_resets_the_sender() {
    setup().both_ways(|mut relay, near, far| {
        let (sender, reader) = relay.ends_from(near);
        thread::scope(|scope| {
            scope.spawn(|| {
                reader.receiving().stream(3 * MIB);
                reader.reset();
            });
            sender.sending().until_error();
        });
        relay.ends(reset_by(far));
    });
}

/// Case 25.
#[test]
fn clients_that_reset_at_once_leave_nothing_behind() {
    let clients = 300;
    setup().each_family(|lab| {
        for _ in 0..clients {
            lab.client().reset();
        }
        until("all are gone", || lab.server.totals().closed_total() == clients);
        while let Some(mut backend) = lab.try_accept(0) {
            assert_eq!(backend.receiving().ending(), Ending::Reset);
        }
        lab.relay().sends(Client, b"hi").expects(Backend, b"hi").closes_both_ways();
        let totals = lab.audit();
        let gone = totals.closed_for(ClientReset) + totals.closed_for(CloseReason::ClientGone);
        assert_eq!((gone, totals.closed_for(Done)), (clients, 1), "{totals}");
    });
}

/// Case 25. They are dead when they are accepted.
#[test]
fn clients_that_reset_in_the_accept_queue_leave_nothing_behind() {
    let backends = backends(1).workers(2);
    let service = backends.start_daemon("info,l4lb::session=off");
    let idle = service.server.sockets();
    for _ in 0..3 {
        service.server.freeze();
        for round in 0..200 {
            let mut client = service.client();
            if round % 2 == 0 {
                client.sending().bytes(b"hi");
            }
            client.reset();
        }
        service.server.signal("CONT", 1);
        service.visit();
    }
    until("no socket is left", || service.server.sockets() == idle);
    service.stops();
}

/// Case 26. Its close is a reset, because the request waits unread; all of the answer came before it.
#[test]
fn an_answer_arrives_from_a_backend_that_never_read_the_request() {
    setup().each_family(|lab| {
        let asked = lab.into_relay().sends(Client, b"request").acknowledged(Client);
        let answered = asked.carries(Backend, 300_000).acknowledged(Backend).closes(Backend);
        answered.expects_reset(Client).ends(BackendReset);
    });
}

/// Case 26, with the answer under way and the client not yet reading.
#[test]
fn an_answer_that_is_under_way_survives_the_close_behind_it() {
    setup().each_family(|lab| {
        let asked = lab.into_relay().sends(Client, b"request").acknowledged(Client);
        let answered = asked.streams(Backend, 300_000).acknowledged(Backend).closes(Backend);
        answered.expects_stream(Client, 300_000).expects_reset(Client).ends(BackendReset);
    });
}

/// Case 26, with a close that the backend has announced by a FIN.
#[test]
fn an_answer_and_its_fin_arrive_while_the_request_still_comes() {
    setup().each_family(|lab| {
        let asked = lab.into_relay().fills_up(Client).streams(Backend, 100_000).fin(Backend);
        let answered = asked.expects_stream(Client, 100_000).expects_fin(Client);
        answered.catches_up(Backend).fin(Client).expects_fin(Backend).ends(Done);
    });
}

/// Case 27. After a session that ended well, neither peer ever sees a reset.
#[test]
fn no_reset_follows_a_good_end() {
    let lab = setup().start();
    for round in 0..50 {
        let mut relay = lab.relay().sends(Client, b"hi").expects(Backend, b"hi").closes_both_ways();
        until("the session is over", || lab.server.totals().closed_for(Done) == round + 1);
        for side in Side::BOTH {
            assert_eq!(relay.peer(side).receiving().ending(), Ending::Fin);
        }
    }
    lab.ends(&[(Done, 50)]);
}

/// Case 29. In a process of its own, which has no other sockets.
#[test]
fn all_sockets_are_closed_after_all_kinds_of_ends() {
    let lab = setup().workers(2).start_daemon();
    let before = lab.server.sockets();
    for round in 0..240 {
        let relay = lab.relay().established().streams(Client, 100).streams(Backend, 5_000);
        let near = Side::BOTH[round % 2];
        let far = near.other();
        match round % 8 / 2 {
            0 => drop(relay.catches_up(Client).catches_up(Backend).closes_both_ways()),
            1 => drop(relay.acknowledged(near).resets(near).catches_up(far).expects_reset(far)),
            2 => drop(relay.fin(near).catches_up(far).expects_fin(far).closes(far)),
            _ => drop(relay),
        }
    }
    until("no socket is left", || lab.server.sockets() == before);
    lab.stops();
}

/// Case 31. SIGPIPE would end the process.
#[test]
fn writes_to_connections_that_are_gone_do_no_harm() {
    let rounds = 300;
    let lab = setup().start_daemon();
    for round in 0..rounds {
        let near = Side::BOTH[round % 2];
        let far = near.other();
        lab.relay().established().resets(far).sends_until_reset(near);
    }
    lab.relay().carries_both_ways(100_000).closes_both_ways();
    lab.stops();
}

/// Case 32. The backend has reset before the server passes the client's FIN on to it.
#[test]
fn a_fin_for_a_connection_that_is_gone_does_no_harm() {
    let lab = setup().start();
    for round in 0..200 {
        let near = Side::BOTH[round % 2];
        lab.relay().sends(near, b"hi").expects(near.other(), b"hi").fin(near).resets(near.other());
    }
    lab.audit();
}
