//! Readers that stop, and a server that waits for them without spinning (`tests/CASES.md`).
//! In a process of its own, whose CPU time is nobody else's.
//!
//! Goal G24.

use std::thread;
use std::time::Duration;

use l4lb::session::Side;

use crate::harness::daemon::Daemon;
use crate::harness::lab::{Lab, Setup, setup};
use crate::harness::peer::Ending;
use crate::harness::relay::Relay;

const MIB: u64 = 1 << 20;
/// How long the server is watched.
const WATCH: Duration = Duration::from_millis(500);
/// What it may use meanwhile, as a part of a processor. A loop that never waits would use all of one, or a good part of
/// it on a busy machine.
const SHARE_MAX: f64 = 0.1;

/// Watched at the same time: what each wakes up for adds up.
const SESSIONS: usize = 6;

type Session<'a> = Relay<&'a Lab<Daemon>>;

/// Brings a session from either side into a state with `enter`, sees to it that the server uses no CPU in it, and
/// ends it with `leave`.
fn costs_nothing<'a>(
    lab: &'a Lab<Daemon>,
    enter: impl Fn(Session<'a>, Side) -> Session<'a> + Sync,
    leave: impl Fn(Session<'a>, Side) + Sync,
) {
    let sides = || Side::BOTH.into_iter().cycle();
    let sessions = sides().take(SESSIONS).map(|near| (lab.relay(), near)).collect();
    let sessions = all_at_once(sessions, enter);
    let mut observer = lab.relay();
    let share = lab.server.cpu_share(|| observer.peer(Side::Client).receiving().silence(WATCH));
    assert!(share <= SHARE_MAX, "{share} of a processor");
    observer.closes_both_ways();
    all_at_once(sessions.into_iter().zip(sides()).collect(), leave);
}

/// Each session with a thread of its own, because `act` mostly waits.
fn all_at_once<'a, R: Send>(
    sessions: Vec<(Session<'a>, Side)>,
    act: impl Fn(Session<'a>, Side) -> R + Sync,
) -> Vec<R> {
    let act = &act;
    thread::scope(|scope| {
        let threads = sessions.into_iter().map(|(session, near)| scope.spawn(move || act(session, near)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().expect("no peer fails")).collect()
    })
}

fn slow_peers() -> Setup {
    setup().buffers(64 << 10)
}

#[test]
fn an_idle_session_costs_nothing() {
    let lab = setup().start_daemon();
    costs_nothing(
        &lab,
        |session, _| session.carries_both_ways(MIB),
        |session, _| drop(session.closes_both_ways()),
    );
    lab.stops();
}

/// Cases 33 and 34.
#[test]
fn a_reader_that_stops_costs_nothing_and_can_resume() {
    let lab = slow_peers().start_daemon();
    let resume = |session: Session<'_>, near: Side| {
        let far = near.other();
        drop(session.catches_up(far).carries(near, MIB).carries(far, MIB).closes_both_ways());
    };
    costs_nothing(&lab, |session, near| session.fills_up(near), resume);
    lab.stops();
}

/// Case 33: what the server itself keeps for a reader that has stopped is one leftover of one read.
#[test]
fn a_reader_that_stops_holds_one_buffer() {
    const LEFTOVER_MAX: u64 = 64 << 10;
    // Leftovers grow and shrink while the kernel's buffers fill: the allocator keeps some of what they had.
    const KEPT_MAX: u64 = 4 * MIB;
    let lab = slow_peers().start_daemon();
    drop(lab.relay().carries_both_ways(MIB).closes_both_ways());
    let sessions = (0..16).map(|_| (lab.relay(), Side::Client)).collect();
    let before = lab.server.memory();
    let stuck = all_at_once(sessions, Session::fills_up);
    let grown = lab.server.memory().saturating_sub(before);
    assert!(
        grown <= stuck.len() as u64 * LEFTOVER_MAX + KEPT_MAX,
        "{grown} bytes for {} readers",
        stuck.len()
    );
    drop(stuck);
    lab.stops();
}

/// Case 34, with both readers stopped.
#[test]
fn two_readers_that_stop_cost_nothing_and_can_resume() {
    let lab = slow_peers().start_daemon();
    let resume = |session: Session<'_>, near: Side| {
        let far = near.other();
        drop(session.catches_up(far).catches_up(near).carries_both_ways(MIB).closes_both_ways());
    };
    costs_nothing(&lab, |session, near| session.fills_up(near).fills_up(near.other()), resume);
    lab.stops();
}

/// Case 35.
#[test]
fn a_fin_behind_a_stuck_stream_costs_nothing() {
    let lab = slow_peers().start_daemon();
    let resume = |session: Session<'_>, near: Side| {
        let far = near.other();
        drop(session.catches_up(far).expects_fin(far).fin(far).expects_fin(near));
    };
    costs_nothing(&lab, |session, near| session.fills_up(near).fin(near), resume);
    lab.stops();
}

/// Case 36, before the timeout.
#[test]
fn a_half_closed_session_costs_nothing() {
    let lab = setup().start_daemon();
    costs_nothing(
        &lab,
        |session, near| session.fin(near).expects_fin(near.other()),
        |session, near| drop(session.fin(near.other()).expects_fin(near)),
    );
    lab.stops();
}

/// Case 36, through the timeout: it passes in the middle of the watch.
#[test]
fn a_half_close_timeout_costs_nothing() {
    let lab = setup().half_close_timeout("250ms").start_daemon();
    costs_nothing(
        &lab,
        |session, near| session.fin(near).expects_fin(near.other()),
        |session, near| drop(session.expects_reset(near)),
    );
    lab.stops();
}

/// A reset behind a stuck stream: the server waits for the reader, with nobody left at the other side.
#[test]
fn a_reset_behind_a_stuck_stream_costs_nothing() {
    let lab = slow_peers().start_daemon();
    costs_nothing(
        &lab,
        |session, near| session.fills_up(near).resets(near),
        |mut session, near| assert_eq!(session.peer(near.other()).receiving().rest(), Ending::Reset),
    );
    lab.stops();
}

/// Case 45. SIGHUP has a handler, so it interrupts calls.
#[test]
fn a_storm_of_signals_does_no_harm() {
    let lab = setup().start_daemon();
    let relay = lab.relay();
    thread::scope(|scope| {
        scope.spawn(|| lab.server.signal("HUP", 2_000));
        relay.carries_both_ways(64 * MIB).closes_both_ways();
    });
    lab.stops();
}
