//! Scripts through the session machine, and random ones. The other end is [`world::World`].

mod opening;
mod timeouts;
mod wire;
mod world;

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::CloseReason::*;
use super::Direction::{ToBackend, ToClient};
use super::Side::{Backend, Client};
use super::{CloseReason, Expiry, Session, Side, Timeouts};
use crate::base::ready::Ready;
use crate::base::time::Instant;
use world::{CONNECT, HALF_CLOSE, IDLE, World, dialing, probing_relay_behind, relay};

const MS: Duration = Duration::from_millis(1);
const HANGUP: Ready = Ready { readable: true, writable: true, closing: true, failing: true };

// The end of a stream.

#[test]
fn a_request_and_its_answer_end_in_done() {
    relay()
        .sends(Client, b"question")
        .fin(Client)
        .expect_bytes(Backend, b"question")
        .expect_fin(Backend)
        .expect_no_fin(Client)
        .sends(Backend, b"answer")
        .fin(Backend)
        .expect_bytes(Client, b"answer")
        .expect_fin(Client)
        .expect_end(Done, &[]);
}

#[test]
fn an_end_without_bytes_is_passed_on() {
    for side in Side::BOTH {
        relay().fin(side).expect_fin(side.other()).expect_running();
    }
}

#[test]
fn fin_waits_for_the_last_byte() {
    for side in Side::BOTH {
        let sink = side.other();
        relay()
            .takes(sink, 3)
            .sends(side, b"abcdef")
            .fin(side)
            .expect_bytes(sink, b"abc")
            .expect_no_fin(sink)
            .expect_running()
            .takes(sink, 2)
            .expect_bytes(sink, b"abcde")
            .expect_no_fin(sink)
            .expect_running()
            .takes(sink, 2)
            .expect_bytes(sink, b"abcdef")
            .expect_fin(sink);
    }
}

#[test]
fn a_fin_reported_together_with_the_bytes_before_it_is_seen_after_a_short_read() {
    relay()
        .at_once(|world| world.sends(Client, b"all").fin(Client))
        .expect_bytes(Backend, b"all")
        .expect_fin(Backend);
}

#[test]
fn bytes_sent_while_dialing_wait_for_the_backend() {
    dialing()
        .sends(Client, b"early")
        .fin(Client)
        .expect_running()
        .expect_bytes(Backend, b"")
        .redials()
        .connects()
        .expect_bytes(Backend, b"early")
        .expect_fin(Backend)
        .expect_running();
}

#[test]
fn a_header_leaves_together_with_the_bytes_that_wait_for_it() {
    dialing()
        .sends(Client, b"GET")
        .connects_behind(b"HEADER")
        .expect_bytes(Backend, b"HEADERGET")
        .expect_writes(&[9])
        .sends(Backend, b"200")
        .expect_bytes(Client, b"200")
        .fin(Client)
        .fin(Backend)
        .expect_end(Done, &[]);
}

#[test]
fn a_header_does_not_wait_for_the_client() {
    dialing()
        .connects_behind(b"HEADER")
        .expect_bytes(Backend, b"HEADER")
        .expect_running()
        .sends(Backend, b"220 ready")
        .expect_bytes(Client, b"220 ready")
        .sends(Client, b"EHLO")
        .expect_bytes(Backend, b"HEADEREHLO")
        .expect_writes(&[6, 4]);
}

#[test]
fn a_header_is_written_in_as_many_pieces_as_the_kernel_wants_and_bytes_wait_behind_it() {
    dialing()
        .takes(Backend, 2)
        .sends(Client, b"GET")
        .connects_behind(b"HEADER")
        .expect_writes(&[2])
        .expect_unwritten_header(4)
        .sends(Client, b" /")
        .takes(Backend, 5)
        .expect_bytes(Backend, b"HEADERG")
        .expect_unwritten_header(0)
        .takes(Backend, usize::MAX)
        .expect_bytes(Backend, b"HEADERGET /")
        .fin(Client)
        .expect_fin(Backend);
}

#[test]
fn an_end_without_bytes_follows_the_header() {
    dialing().fin(Client).connects_behind(b"HEADER").expect_bytes(Backend, b"HEADER").expect_fin(Backend);
}

#[test]
fn a_header_that_is_not_accepted_is_lost_and_no_bytes_of_the_client_are() {
    dialing()
        .takes(Backend, 2)
        .connects_behind(b"HEADER")
        .resets(Backend)
        .expect_unwritten_header(4)
        .expect_discarded(0)
        .expect_end(BackendReset, &[Client]);
}

#[test]
fn each_direction_continues_after_the_other_has_ended() {
    for side in Side::BOTH {
        relay()
            .fin(side)
            .sends(side.other(), b"more")
            .sends(side.other(), b" and more")
            .expect_bytes(side, b"more and more")
            .expect_no_fin(side)
            .expect_running();
    }
}

// Resets.

#[test]
fn a_reset_is_passed_on_behind_the_bytes_that_came_before_it() {
    for (side, reason) in [(Client, ClientReset), (Backend, BackendReset)] {
        let sink = side.other();
        relay()
            .takes(sink, 3)
            .at_once(|world| world.sends(side, b"abcdef").resets(side))
            .expect_bytes(sink, b"abc")
            .expect_running()
            .takes(sink, 10)
            .expect_bytes(sink, b"abcdef")
            .expect_no_fin(sink)
            .expect_end(reason, &[sink])
            .expect_discarded(0);
    }
}

#[test]
fn an_error_met_by_a_write_does_not_become_a_fin() {
    for (side, reason) in [(Client, ClientReset), (Backend, BackendReset)] {
        let other = side.other();
        relay()
            .blocks(side)
            .sends(other, b"unwanted")
            .expect_running()
            .at_once(|world| world.sends(side, b"last words").resets(side))
            .expect_bytes(other, b"last words")
            .expect_no_fin(other)
            .expect_end(reason, &[other])
            .expect_discarded(8);
    }
}

#[test]
fn an_error_taken_by_a_question_does_not_become_a_fin() {
    // The other side accepts nothing, so no read can meet the reset of a side that has ended its stream.
    relay()
        .blocks(Backend)
        .sends(Client, b"up")
        .fin(Client)
        .sends(Backend, b"down")
        .expect_bytes(Client, b"down")
        .expect_no_fin(Backend)
        .expect_running()
        .resets(Client)
        .expect_running()
        .takes(Backend, 10)
        .expect_bytes(Backend, b"up")
        .expect_fin(Backend)
        .expect_end(ClientReset, &[Backend]);
}

#[test]
fn a_reset_behind_a_fin_lets_the_fin_through() {
    relay()
        .at_once(|world| world.sends(Client, b"bye").fin(Client).resets(Client))
        .expect_bytes(Backend, b"bye")
        .expect_fin(Backend)
        .expect_end(ClientReset, &[Backend]);
}

#[test]
fn an_early_closing_backend_still_delivers_its_answer() {
    // It answers without reading, and its kernel resets because of what it has not read.
    relay()
        .takes(Backend, 4)
        .sends(Client, b"a long upload")
        .expect_running()
        .at_once(|world| world.sends(Backend, b"too long").fin(Backend).resets(Backend))
        .expect_bytes(Client, b"too long")
        .expect_fin(Client)
        .expect_end(BackendReset, &[Client]);
}

#[test]
fn a_fin_that_cannot_be_passed_on_becomes_a_reset() {
    // The backend had ended its stream. The shutdown meets its reset before the event is delivered.
    relay()
        .fin(Backend)
        .expect_fin(Client)
        .holds_events(true)
        .sends(Client, b"up")
        .delivers(Client)
        .expect_bytes(Backend, b"up")
        .resets(Backend)
        .fin(Client)
        .delivers(Client)
        .expect_no_fin(Backend)
        .expect_end(BackendReset, &[Client]);
}

#[test]
fn the_first_of_two_resets_is_the_reason() {
    relay().at_once(|world| world.resets(Client).resets(Backend)).expect_end(ClientReset, &[Backend]);
}

#[test]
fn a_reset_of_a_quiet_session_is_passed_on_at_once() {
    for (side, reason) in [(Client, ClientReset), (Backend, BackendReset)] {
        relay().resets(side).expect_end(reason, &[side.other()]).expect_settles(1..=1);
    }
}

#[test]
fn a_hangup_that_is_no_error_changes_nothing() {
    relay()
        .hints(Client, HANGUP)
        .hints(Backend, HANGUP)
        .expect_running()
        .sends(Client, b"still here")
        .expect_bytes(Backend, b"still here")
        .expect_running();
}

#[test]
fn a_hint_from_before_the_connection_stood_is_no_error() {
    dialing().hints(Backend, HANGUP).connects().expect_running().expect_deadline_in(IDLE);
}

// Before a backend is connected.

#[test]
fn a_client_reset_while_dialing_ends_the_session() {
    dialing().resets(Client).expect_end(ClientGone, &[Backend]);
    dialing().fin(Client).expect_running().resets(Client).expect_end(ClientGone, &[Backend]);
}

/// They were lost with the dial.
#[test]
fn bytes_in_front_of_a_reset_while_dialing_are_passed_on_once_a_backend_is_connected() {
    let bequeaths = || dialing().sends(Client, b"last words").resets(Client).expect_running();
    bequeaths().connects().expect_bytes(Backend, b"last words").expect_end(ClientReset, &[Backend]);
    let told_twice = bequeaths().hints(Client, HANGUP).redials().hints(Client, HANGUP);
    told_twice.connects().expect_bytes(Backend, b"last words").expect_end(ClientReset, &[Backend]);
    let ends = dialing().at_once(|world| world.sends(Client, b"bye").fin(Client).resets(Client));
    let ends = ends.expect_running().connects().expect_bytes(Backend, b"bye").expect_fin(Backend);
    ends.expect_end(ClientReset, &[Backend]);
}

#[test]
fn each_dial_has_its_own_deadline() {
    let start = Instant::from_nanos(0);
    let mut session = Session::new(Timeouts::new(CONNECT, IDLE, HALF_CLOSE, None), start);
    session.on_dial(start);
    assert_eq!(session.on_deadline(start + (CONNECT - MS)), Expiry::Early);
    assert_eq!(session.on_deadline(start + CONNECT), Expiry::Dial);
    session.on_redial(start + CONNECT);
    assert_eq!(session.deadline(), start + CONNECT * 2);
    assert_eq!(session.retries(), 1);
}

#[test]
fn a_dial_that_cannot_begin_has_the_connect_timeout_to_do_so() {
    let start = Instant::from_nanos(0);
    let mut session = Session::new(Timeouts::new(CONNECT, IDLE, HALF_CLOSE, None), start);
    assert_eq!(session.on_deadline(start + (CONNECT - MS)), Expiry::Early);
    assert_eq!(session.on_deadline(start + CONNECT), Expiry::Wait);
    session.on_dial(start + MS);
    session.on_undialed(start + CONNECT);
    assert_eq!(session.on_deadline(start + CONNECT * 2 - MS), Expiry::Early);
    assert_eq!(session.on_deadline(start + CONNECT * 2), Expiry::Wait);
    assert_eq!(session.retries(), 0);
}

// Back-pressure and fairness.

#[test]
fn a_blocked_sink_holds_one_conduit_and_no_op_is_runnable() {
    for (side, direction) in [(Client, ToBackend), (Backend, ToClient)] {
        relay()
            .reads_at_most(4)
            .blocks(side.other())
            .sends(side, b"0123456789")
            .sends(side, b"abcdef")
            .expect_buffered(direction, 4)
            .expect_running()
            .hints(side, Ready { readable: true, ..Ready::default() })
            .expect_buffered(direction, 4)
            .expect_running()
            .takes(side.other(), 100)
            .expect_bytes(side.other(), b"0123456789abcdef");
    }
}

#[test]
fn a_blocked_direction_does_not_hold_up_the_other() {
    for side in Side::BOTH {
        relay()
            .blocks(side)
            .sends(side.other(), b"stuck")
            .sends(side, b"free")
            .expect_bytes(side.other(), b"free")
            .expect_bytes(side, b"")
            .expect_running();
    }
}

#[test]
fn neither_direction_starves_the_other() {
    let endless = [b'x'; 4096];
    relay()
        .reads_at_most(16)
        .turn_of(0)
        .sends(Client, &endless)
        .sends(Backend, &endless)
        .turn_of(10)
        .expect_fills(5, 5)
        .turn_of(7)
        .expect_fills(4, 3);
}

// Readiness that only an event can report.

/// One condition at a time: a session watched for conditions that it cannot use would be woken again and again.
#[test]
fn a_session_awaits_what_would_set_something_off_and_nothing_else() {
    let nothing = Ready::default();
    let dies = Ready { failing: true, ..nothing };
    let reads = Ready { readable: true, ..dies };
    let writes = Ready { writable: true, ..dies };
    for (side, sink) in [(Client, Backend), (Backend, Client)] {
        relay().expect_awaits(side, reads).expect_awaits(sink, reads);
        // The sink is full: what comes next from the source has no room, and what is held waits for the sink.
        relay()
            .takes(sink, 3)
            .sends(side, b"abcdef")
            .expect_awaits(side, dies)
            .expect_awaits(sink, Ready { readable: true, ..writes });
        // The source has ended its stream: nothing more is read from it.
        relay().fin(side).expect_awaits(side, dies).expect_awaits(sink, reads);
        // It has died: no event adds anything.
        relay()
            .takes(sink, 3)
            .at_once(|world| world.sends(side, b"abcdef").resets(side))
            .expect_awaits(side, nothing);
    }
    dialing().expect_awaits(Client, nothing).expect_awaits(Backend, nothing);
    relay()
        .stops_acking(Client)
        .at_once(|world| world.sends(Backend, b"precious").resets(Backend))
        .expect_awaits(Client, dies)
        .expect_awaits(Backend, nothing);
    relay().cut(Stopped).expect_awaits(Client, nothing).expect_awaits(Backend, nothing);
}

// Settling.

#[test]
fn a_reset_waits_until_what_came_before_it_is_acknowledged() {
    relay()
        .stops_acking(Client)
        .at_once(|world| world.sends(Backend, b"precious").resets(Backend))
        .expect_running()
        .expect_deadline_in(MS * 2)
        .waits(Duration::from_secs(1))
        .acks(Client, 7)
        .expect_running()
        .acks(Client, 1)
        .waits(MS * 250)
        .expect_bytes(Client, b"precious")
        .expect_end(BackendReset, &[Client]);
}

#[test]
fn settling_gives_up_after_half_close() {
    relay()
        .stops_acking(Client)
        .at_once(|world| world.sends(Backend, b"lost").resets(Backend))
        .waits(HALF_CLOSE - MS)
        .expect_running()
        .waits(MS)
        .expect_end(BackendReset, &[Client])
        // It asks ever more rarely: the wait doubles up to a quarter of a second.
        .expect_settles(100..=150);
}

#[test]
fn a_settling_side_that_dies_is_not_waited_for() {
    relay()
        .stops_acking(Client)
        .at_once(|world| world.sends(Backend, b"lost").resets(Backend))
        .expect_running()
        .resets(Client)
        .expect_end(BackendReset, &[]);
}

#[test]
fn a_cut_resets_both_sides_whatever_they_had_sent() {
    relay()
        .blocks(Backend)
        .sends(Client, b"half")
        .cut(DrainTimeout)
        .expect_end(DrainTimeout, &[Client, Backend])
        .cut(Stopped)
        .expect_end(DrainTimeout, &[Client, Backend])
        .expect_discarded(4);
}

// Random scripts.

/// One thing that happens to a session.
#[derive(Clone, Debug)]
enum Step {
    Sends(Side, Vec<u8>),
    Fin(Side),
    Resets(Side),
    Takes(Side, usize),
    StopsAcking(Side),
    Vanishes(Side),
    Acks(Side, usize),
    /// The event of a side is delivered.
    Deliver(Side),
    /// An event arrives that may mean nothing.
    Hints(Side, Ready),
    ReadsAtMost(usize),
    Waits(Duration),
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Client), Just(Backend)]
}

fn step() -> impl Strategy<Value = Step> {
    let ready = any::<[bool; 4]>().prop_map(|[readable, writable, closing, failing]| Ready {
        readable,
        writable,
        closing,
        failing,
    });
    prop_oneof![
        6 => (side(), vec(any::<u8>(), 1..40)).prop_map(|(side, bytes)| Step::Sends(side, bytes)),
        2 => side().prop_map(Step::Fin),
        1 => side().prop_map(Step::Resets),
        4 => (side(), 0..60usize).prop_map(|(side, room)| Step::Takes(side, room)),
        1 => side().prop_map(Step::StopsAcking),
        1 => side().prop_map(Step::Vanishes),
        2 => (side(), 1..40usize).prop_map(|(side, bytes)| Step::Acks(side, bytes)),
        8 => side().prop_map(Step::Deliver),
        2 => (side(), ready).prop_map(|(side, ready)| Step::Hints(side, ready)),
        1 => (1..50usize).prop_map(Step::ReadsAtMost),
        2 => (0..40_000u64).prop_map(|millis| Step::Waits(Duration::from_millis(millis))),
    ]
}

impl Step {
    fn apply(self, world: World) -> World {
        if world.end().is_some() {
            return world;
        }
        match self {
            Self::Sends(side, bytes) => world.sends(side, &bytes),
            Self::Fin(side) => world.fin(side),
            Self::Resets(side) => world.resets(side),
            Self::Takes(side, room) => world.takes(side, room),
            Self::StopsAcking(side) => world.stops_acking(side),
            Self::Vanishes(side) => world.vanishes(side),
            Self::Acks(side, bytes) => world.acks(side, bytes),
            Self::Hints(side, ready) => world.hints(side, ready),
            Self::ReadsAtMost(bytes) => world.reads_at_most(bytes),
            Self::Waits(span) => world.waits(span),
            Self::Deliver(side) => world.delivers(side),
        }
    }
}

/// Both peers accept everything and end their streams; all events are delivered. Then every session must end.
fn end_session(world: World) -> World {
    let world = world.takes(Client, usize::MAX).takes(Backend, usize::MAX);
    let world = world.fin(Client).fin(Backend).holds_events(false);
    let world = world.acks(Client, usize::MAX).acks(Backend, usize::MAX);
    world.waits(MS * 300).acks(Client, usize::MAX).acks(Backend, usize::MAX).waits(HALF_CLOSE * 2)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_session_ends_with_the_right_end_for_both_peers(
        header in prop_oneof![Just(Vec::new()), vec(any::<u8>(), 1..30)],
        room in prop_oneof![Just(usize::MAX), 0..40usize],
        steps in vec(step(), 0..60),
    ) {
        // The world itself asserts order of bytes, FIN behind the last byte and no plain end of half a stream.
        let world = probing_relay_behind(&header).takes(Backend, room).holds_events(true);
        let world = steps.into_iter().fold(world, |world, step| step.apply(world));
        let world = end_session(world);
        let end = world.end().expect("both peers have ended");
        let reset = Side::BOTH.map(|side| world.was_reset(side));
        let vanished = Side::BOTH.map(|side| world.has_vanished(side));
        match end.reason {
            // Bytes destroyed by a reset that is not reported yet cannot be missed.
            Done => {
                let lost = |&side: &Side| world.was_reset(side) || world.has_vanished(side);
                prop_assert!(Side::BOTH.iter().all(|side| world.received_all(*side) || lost(side)));
            }
            ClientReset => prop_assert!(reset[0]),
            BackendReset => prop_assert!(reset[1]),
            ClientLost => prop_assert!(vanished[0]),
            BackendLost => prop_assert!(vanished[1]),
            IdleTimeout | HalfCloseTimeout => {}
            ClientGone | NoBackend | ConnectRefused | ConnectTimeout | ConnectUnreachable | ConnectFailed
            | TlsRefused | LocalLimit | BackendRemoved | DrainTimeout | Stopped | Killed | ProxyBad | PrereadTimeout
            | HelloBad | NoSni => {
                prop_assert!(false, "not a reason of a relay: {end:?}");
            }
        }
        if reset == [false; 2] && vanished == [false; 2] && !is_timeout(end.reason) {
            prop_assert_eq!(end.reason, Done);
        }
    }
}

fn is_timeout(reason: CloseReason) -> bool {
    matches!(reason, IdleTimeout | HalfCloseTimeout)
}
