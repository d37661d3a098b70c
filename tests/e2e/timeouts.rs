//! Sessions that neither peer ends (`tests/CASES.md`). They are reset on both sides, because a FIN that no peer
//! sent would pass a part of a stream off as the whole.

use std::time::Duration;

use l4lb::session::CloseReason::{Done, HalfCloseTimeout, IdleTimeout};
use l4lb::sys::Clock;

use crate::harness::lab::setup;

/// In the configuration below as text.
const TIMEOUT: Duration = Duration::from_secs(5);
/// So many pieces of traffic, each with a pause behind it, last longer than the timeouts of 10 s below. One pause does
/// not, however busy the machine is.
const PIECES: u32 = 11;
const PAUSE: Duration = Duration::from_secs(1);

/// Case 28.
#[test]
fn a_peer_that_never_ends_is_cut_off_behind_the_fin_of_the_other() {
    setup().half_close_timeout("5s").both_ways(|relay, near, far| {
        let clock = Clock::start();
        let start = clock.now();
        let half_closed = relay.sends(near, b"hi").fin(near).expects(far, b"hi").expects_fin(far);
        let cut = half_closed.expects_reset(near).expects_broken_pipe(far);
        assert!(clock.now() - start >= TIMEOUT, "cut too early");
        cut.ends(HalfCloseTimeout);
    });
}

/// The timeout is one of silence, not of the whole second half.
#[test]
fn a_half_closed_session_with_traffic_is_not_cut_off() {
    setup().half_close_timeout("10s").both_ways(|relay, near, far| {
        let mut relay = relay.fin(near).expects_fin(far);
        for _ in 0..PIECES {
            relay = relay.sends(far, b"more").expects(near, b"more").expects_silence(near, PAUSE);
        }
        relay.fin(far).expects_fin(near).ends(Done);
    });
}

#[test]
fn an_idle_session_is_reset_on_both_sides() {
    setup().idle_timeout("5s").both_ways(|relay, near, far| {
        let clock = Clock::start();
        let start = clock.now();
        let idle = relay.sends(near, b"hi").expects(far, b"hi");
        let cut = idle.expects_reset(near).expects_reset(far);
        assert!(clock.now() - start >= TIMEOUT, "cut too early");
        cut.ends(IdleTimeout);
    });
}

#[test]
fn a_session_with_traffic_is_not_idle() {
    setup().idle_timeout("10s").both_ways(|mut relay, near, far| {
        for _ in 0..PIECES {
            relay = relay.sends(near, b"more").expects(far, b"more").expects_silence(near, PAUSE);
        }
        relay.closes_both_ways().ends(Done);
    });
}

/// Words back and forth, so that it does poll; then silence.
#[test]
fn a_worker_that_polls_before_it_sleeps_keeps_its_deadlines() {
    setup().busy_poll("1ms").idle_timeout("5s").both_ways(|mut relay, near, far| {
        for _ in 0..100 {
            relay =
                relay.sends(near, b"ping").expects(far, b"ping").sends(far, b"pong").expects(near, b"pong");
        }
        let clock = Clock::start();
        let start = clock.now();
        let cut = relay.expects_reset(near).expects_reset(far);
        // The last byte has gone a moment before the clock was started.
        assert!(clock.now() - start >= TIMEOUT / 2, "cut too early");
        cut.ends(IdleTimeout);
    });
}

/// A reader that has stopped for good does not hold its session for ever.
#[test]
fn a_session_whose_reader_has_stopped_is_idle() {
    setup().idle_timeout("5s").both_ways(|relay, near, _| {
        relay.fills_up(near).sends_until_reset(near).ends(IdleTimeout);
    });
}
