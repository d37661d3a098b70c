//! Every byte arrives, once, in its place (`tests/CASES.md`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use l4lb::base::rng::Rng;
use l4lb::session::CloseReason::Done;
use l4lb::session::Side::{self, Backend, Client};
use l4lb::sys::Clock;

use crate::harness::lab::setup;
use crate::harness::peer::{Receiving, Sending};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Case 1.
#[test]
fn a_session_without_a_byte_is_a_connect_and_two_fins() {
    setup().both_ways(|relay, near, far| {
        relay.fin(near).expects_fin(far).fin(far).expects_fin(near).ends(Done);
    });
}

/// Case 2.
#[test]
fn every_size_arrives_whole() {
    for bytes in [1, KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB] {
        setup().both_ways(|relay, near, far| {
            relay.carries(near, bytes).fin(near).expects_fin(far).fin(far).expects_fin(near).ends(Done);
        });
    }
}

/// Case 2.
#[test]
fn a_large_transfer_arrives_whole() {
    setup().start().into_relay().carries(Backend, 256 * MIB).closes_both_ways().ends(Done);
}

/// Case 3.
#[test]
fn both_directions_run_at_the_same_time() {
    setup().each_family(|lab| lab.into_relay().carries_both_ways(32 * MIB).closes_both_ways().ends(Done));
}

/// Case 3: a direction that is stuck does not hold up the other.
#[test]
fn a_stuck_direction_leaves_the_other_alone() {
    setup().both_ways(|relay, near, far| {
        relay.fills_up(near).carries(far, 4 * MIB).catches_up(far).closes_both_ways().ends(Done);
    });
}

/// Case 4.
#[test]
fn a_hundred_thousand_writes_of_one_byte_arrive_in_order() {
    let bytes = 100_000;
    let mut relay = setup().start().into_relay();
    let (client, backend) = relay.ends_from(Client);
    thread::scope(|scope| {
        scope.spawn(|| client.sending().slices(bytes, || 1));
        backend.receiving().stream(bytes);
    });
    relay.closes_both_ways().ends(Done);
}

/// Case 6. What toxiproxy calls a slicer.
#[test]
fn random_slices_with_pauses_arrive_in_order() {
    for seed in 0..4 {
        let mut relay = setup().start().into_relay();
        let ([client, backend], read) = (relay.peers(), [const { AtomicU64::new(0) }; 2]);
        let ((mut request, mut response), (mut answer, mut question)) = (client.halves(), backend.halves());
        thread::scope(|scope| {
            scope.spawn(|| slice(&mut request, Rng::new(seed), &read[0]));
            scope.spawn(|| slice(&mut answer, Rng::new(!seed), &read[1]));
            scope.spawn(|| read_sliced(&mut question, Rng::new(seed + 100), &read[0]));
            read_sliced(&mut response, Rng::new(seed + 200), &read[1]);
        });
        relay.closes_both_ways().ends(Done);
    }
}

const SLICED: u64 = 4 * MIB;
const SLICE_MAX: u64 = 70_000;

/// Writes of any size; now and then a pause until everything in between is empty.
fn slice(writer: &mut Sending<'_>, mut rng: Rng, read: &AtomicU64) {
    let mut sent = 0;
    while sent < SLICED {
        let slice = (1 + rng.below(SLICE_MAX)).min(SLICED - sent);
        writer.slices(slice, || usize::try_from(slice).unwrap_or(usize::MAX));
        sent += slice;
        while rng.below(4) == 0 && read.load(Ordering::Relaxed) < sent {
            thread::yield_now();
        }
    }
}

fn read_sliced(reader: &mut Receiving<'_>, mut rng: Rng, read: &AtomicU64) {
    let mut received = 0;
    while received < SLICED {
        let slice = (1 + rng.below(SLICE_MAX)).min(SLICED - received);
        reader.stream(slice);
        received += slice;
        read.store(received, Ordering::Relaxed);
    }
}

/// Case 7.
#[test]
fn the_backend_may_speak_first() {
    setup().each_family(|lab| {
        let greeted = lab.into_relay().sends(Backend, b"220 ready\r\n").expects(Client, b"220 ready\r\n");
        greeted.sends(Client, b"QUIT\r\n").expects(Backend, b"QUIT\r\n").closes_both_ways().ends(Done);
    });
}

/// Cases 9 and 10.
#[test]
fn a_slow_reader_gets_all_from_a_sender_that_has_left() {
    setup().buffers(128 << 10).both_ways(|relay, near, far| {
        let mut relay = relay.fills_up(near);
        let (sender, reader) = relay.ends_from(near);
        let (bytes, left) = (sender.sent() + 8 * MIB, 8 * MIB);
        thread::scope(|scope| {
            scope.spawn(|| {
                sender.sending().stream(left);
                sender.close();
            });
            reader.receiving().slices(bytes, 2_000);
        });
        relay.expects_fin(far).closes(far).ends(Done);
    });
}

/// Case 14. The server has no use for urgent data, and nobody else has: it stays in its place.
#[test]
fn an_urgent_byte_arrives_in_its_place() {
    setup().both_ways(|relay, near, far| {
        let alone = relay.sends_urgent(near, b'!').expects(far, b"!");
        let last = alone.sends(near, b"ab").sends_urgent(near, b'!').expects(far, b"ab!");
        let first = last.sends_urgent(near, b'!').sends(near, b"cd").expects(far, b"!cd");
        let between =
            first.sends(near, b"ab").sends_urgent(near, b'!').sends(near, b"cd").expects(far, b"ab!cd");
        let two = between.sends_urgent(near, b'1').sends(near, b"-").sends_urgent(near, b'2');
        let after = two.expects(far, b"1-2").sends(near, b"x").expects(far, b"x").carries(near, MIB);
        after.sends_urgent(near, b'!').fin(near).expects(far, b"!").expects_fin(far).fin(far).ends(Done);
    });
}

/// Case 14: a read stops before an urgent byte, which must not be taken for an empty socket.
#[test]
fn urgent_bytes_in_a_stream_do_not_stall_it() {
    let rounds = 2_000;
    setup().both_ways(|mut relay, near, _| {
        let (sender, reader) = relay.ends_from(near);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..rounds {
                    sender.sending().bytes(b"abc");
                    sender.sending().urgent(b'!');
                    sender.sending().bytes(b"de");
                }
            });
            for _ in 0..rounds {
                reader.receiving().bytes(b"abc!de");
            }
        });
        relay.closes_both_ways().ends(Done);
    });
}

/// Case 15. A delayed acknowledgement that somebody waits for costs 40 ms each time.
#[test]
fn a_request_in_two_writes_is_answered_without_delay() {
    let (rounds, clock) = (250, Clock::start());
    let mut relay = setup().start().into_relay();
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = clock.now();
        relay = relay.sends(Client, b"head").sends(Client, b"body").expects(Backend, b"headbody");
        relay = relay.sends(Backend, b"answer").expects(Client, b"answer");
        times.push(clock.now() - start);
    }
    // Each of the first ones is acknowledged at once (tcp(7), TCP_QUICKACK), and on a busy machine many take long.
    let late = &mut times[rounds / 2..];
    late.sort_unstable();
    let quick = late[rounds / 20];
    assert!(quick < Duration::from_millis(20), "the quick ones of {rounds} rounds took {quick:?}");
    relay.closes_both_ways().ends(Done);
}

/// Nothing of a session stays in the buffers for the next one, whichever side it was on.
#[test]
fn bytes_of_a_session_that_was_reset_do_not_reach_the_next() {
    let lab = setup().start();
    for near in Side::BOTH.into_iter().cycle().take(6) {
        lab.relay().fills_up(near).resets(near.other()).sends_until_reset(near);
        lab.relay().carries_both_ways(MIB).closes_both_ways();
    }
    let totals = lab.audit();
    assert_eq!(totals.closed_for(Done), 6, "{totals}");
}
