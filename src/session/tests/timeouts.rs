//! A session times out exactly at its deadline, never before.

use std::time::Duration;

use super::MS;
use super::world::{HALF_CLOSE, IDLE, USER, probing_relay, relay};
use crate::session::CloseReason::*;
use crate::session::Side::{self, Backend, Client};

#[test]
fn an_idle_session_ends_at_its_timeout_and_not_before() {
    relay().waits(IDLE - MS).expect_running().waits(MS).expect_end(IdleTimeout, &[Client, Backend]);
}

/// The first look at the unacknowledged bytes had nothing to compare with and counted as progress: such a reader had
/// twice the timeout.
#[test]
fn a_reader_that_has_stopped_is_idle_at_the_timeout_and_not_before() {
    for (side, source) in [(Client, Backend), (Backend, Client)] {
        relay()
            .stops_acking(side)
            .takes(side, 3)
            .sends(source, b"abcdef")
            .waits(IDLE - MS)
            .expect_running()
            .waits(MS)
            .expect_end(IdleTimeout, &[Client, Backend]);
    }
}

/// Linux sends old data, at least every two minutes, to a peer that has taken its window back.
#[test]
fn retransmissions_do_not_keep_a_session_alive() {
    let mut world = relay().stops_acking(Client).sends(Backend, b"abcdef");
    for _ in 0..7 {
        world = world.waits(IDLE / 4 - MS).sends_again(Client);
    }
    world.waits(IDLE / 4 + MS * 7).expect_end(IdleTimeout, &[Client, Backend]);
}

#[test]
fn the_idle_timeout_counts_from_the_last_byte_that_a_reader_took() {
    relay()
        .stops_acking(Client)
        .sends(Backend, b"abcdef")
        .waits(IDLE - MS)
        .acks(Client, 2)
        .waits(IDLE / 3)
        .acks(Client, 1)
        .waits(IDLE - MS)
        .expect_running()
        .waits(MS)
        .expect_end(IdleTimeout, &[Client, Backend]);
}

/// The session was cut at the next look, even when the last byte had been taken just before.
#[test]
fn the_half_close_timeout_counts_from_the_last_byte_that_a_reader_took() {
    relay()
        .stops_acking(Client)
        .sends(Backend, b"the last of it")
        .fin(Backend)
        .waits(HALF_CLOSE * 3 - MS)
        .acks(Client, usize::MAX)
        .waits(HALF_CLOSE - MS)
        .expect_running()
        .waits(MS)
        .expect_end(HalfCloseTimeout, &[Client, Backend]);
}

#[test]
fn activity_puts_the_idle_timeout_off() {
    relay()
        .waits(IDLE - MS)
        .sends(Backend, b"tick")
        .waits(IDLE - MS)
        .expect_running()
        .waits(MS)
        .expect_end(IdleTimeout, &[Client, Backend]);
}

#[test]
fn a_half_closed_session_has_the_shorter_timeout() {
    relay()
        .waits(IDLE - MS)
        .fin(Client)
        .expect_deadline_in(HALF_CLOSE)
        .waits(HALF_CLOSE)
        .expect_end(HalfCloseTimeout, &[Client, Backend]);
}

/// The log line of a half-close timeout did not say which side had ended.
#[test]
fn the_side_that_has_half_closed_is_reported() {
    for side in Side::BOTH {
        let timed_out = relay().fin(side).waits(HALF_CLOSE).expect_end(HalfCloseTimeout, &[Client, Backend]);
        timed_out.expect_half_closed_by(Some(side));
        relay().fin(side).fin(side.other()).expect_half_closed_by(None);
        relay().expect_half_closed_by(None);
    }
}

#[test]
fn a_slow_reader_that_makes_progress_outlives_the_half_close_timeout() {
    let mut world = relay()
        .fin(Client)
        .stops_acking(Client)
        .takes(Client, 50)
        .sends(Backend, &[b'x'; 100])
        .expect_running();
    for _ in 0..10 {
        world = world.waits(HALF_CLOSE - MS).acks(Client, 4).expect_running();
    }
    world
        .takes(Client, 50)
        .acks(Client, 100)
        .waits(HALF_CLOSE)
        .expect_end(HalfCloseTimeout, &[Client, Backend]);
}

#[test]
fn the_end_of_a_stream_waits_for_a_reader_that_pauses() {
    // A reset destroys unacknowledged bytes that a slow reader would still have read.
    relay()
        .stops_acking(Client)
        .sends(Backend, b"the last of it")
        .fin(Backend)
        .waits(HALF_CLOSE * 10)
        .expect_running()
        .acks(Client, usize::MAX)
        .fin(Client)
        .expect_bytes(Client, b"the last of it")
        .expect_fin(Client)
        .expect_end(Done, &[]);
}

#[test]
fn a_reader_that_pauses_for_good_is_idle() {
    relay()
        .stops_acking(Client)
        .sends(Backend, b"the last of it")
        .fin(Backend)
        .waits(IDLE - MS)
        .expect_running()
        .waits(MS)
        .expect_end(IdleTimeout, &[Client, Backend]);
}

#[test]
fn a_reset_behind_a_blocked_sink_is_bounded_by_the_half_close_timeout() {
    relay()
        .stops_acking(Client)
        .takes(Client, 2)
        .at_once(|world| world.sends(Backend, b"abcd").resets(Backend))
        .waits(HALF_CLOSE - MS)
        .expect_running()
        .waits(MS)
        .expect_end(HalfCloseTimeout, &[Client, Backend]);
}

// Peers that vanish.

#[test]
fn a_peer_that_vanishes_with_bytes_in_flight_is_given_up_after_the_user_timeout() {
    for (side, reason) in [(Client, ClientLost), (Backend, BackendLost)] {
        probing_relay()
            .vanishes(side)
            .sends(side.other(), b"hello?")
            .waits(USER - MS)
            .expect_running()
            .waits(MS)
            .expect_end(reason, &[Client, Backend]);
    }
}

#[test]
fn a_trickle_into_the_void_does_not_hide_that_the_peer_is_gone() {
    let mut world = probing_relay().vanishes(Client);
    for _ in 0..USER.as_secs() * 2 {
        world = world.sends(Backend, b"tick").waits(Duration::from_secs(1));
    }
    world.expect_end(ClientLost, &[Client, Backend]);
}

#[test]
fn silence_from_before_the_bytes_were_sent_does_not_count() {
    // A short fault behind a long quiet would otherwise end the session.
    probing_relay()
        .sends(Backend, b"asked about")
        .vanishes(Client)
        .waits(USER - MS)
        .sends(Backend, b"hello?")
        .waits(USER - MS)
        .expect_running()
        .waits(MS)
        .expect_end(ClientLost, &[Client, Backend]);
}

#[test]
fn a_quiet_session_outlives_the_user_timeout() {
    probing_relay().waits(IDLE - MS).expect_running().waits(MS).expect_end(IdleTimeout, &[Client, Backend]);
}

#[test]
fn a_reader_that_pauses_outlives_the_user_timeout() {
    probing_relay()
        .stops_acking(Client)
        .takes(Client, 3)
        .sends(Backend, b"abcdef")
        .waits(USER * 3)
        .expect_running()
        .takes(Client, 3)
        .acks(Client, 6)
        .expect_bytes(Client, b"abcdef");
}
