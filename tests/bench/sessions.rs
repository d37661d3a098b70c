//! The machine of a session: what it costs to decide, without what is done then.

use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use l4lb::base::ready::Ready;
use l4lb::base::time::Instant;
use l4lb::session::{CloseReason, Direction, Op, Outcome, Session, Side, Timeouts};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Ops that one event may lead to here.
const OPS_MAX: usize = 16;
const READABLE: Ready = Ready { readable: true, writable: true, closing: false, failing: false };
const ENDED: Ready = Ready { readable: true, writable: true, closing: true, failing: false };

fn connected(now: Instant) -> Session {
    let mut session = Session::new(Timeouts::new(TIMEOUT, TIMEOUT, TIMEOUT, None), now);
    session.on_connected(now);
    drive(&mut session, Side::Client, READABLE, now, Outcome::WouldBlock);
    session
}

/// One event and all ops that follow from it; every fill comes to `filled`.
fn drive(session: &mut Session, side: Side, ready: Ready, now: Instant, filled: Outcome) {
    session.on_ready(side, ready);
    for _ in 0..OPS_MAX {
        let Some(op) = session.next_op() else { return };
        let outcome = match op {
            Op::Fill(_) => filled,
            Op::Flush(direction) => Outcome::Moved(session.held(direction)),
            Op::Preread
            | Op::ShutdownWrite(_)
            | Op::TakeError(_)
            | Op::AskUnread(_)
            | Op::AskUnacked(_)
            | Op::AskDelivery(_)
            | Op::AskSilence(_) => Outcome::Done,
        };
        session.on_outcome(op, outcome, now);
    }
    panic!("the session never ends: {session:?}");
}

/// An event, a fill, a flush, and the deadline that follows.
#[divan::bench(sample_size = 1_000)]
fn message(bencher: Bencher<'_, '_>) {
    let now = Instant::from_nanos(1);
    let mut session = connected(now);
    let mut sides = Side::BOTH.into_iter().cycle();
    bencher.bench_local(|| {
        let side = sides.next().expect("it goes round");
        drive(&mut session, black_box(side), READABLE, now, Outcome::Drained(100));
        session.deadline()
    });
    assert!(session.has_uncounted() && session.held(Direction::ToClient) == 0, "messages went through");
}

/// From accept to the end of both streams.
#[divan::bench(sample_size = 1_000)]
fn life(bencher: Bencher<'_, '_>) {
    let now = Instant::from_nanos(1);
    bencher.bench_local(|| {
        let mut session = connected(now);
        for side in Side::BOTH {
            drive(&mut session, black_box(side), READABLE, now, Outcome::Drained(100));
        }
        for side in Side::BOTH {
            drive(&mut session, side, ENDED, now, Outcome::Eof);
        }
        let end = session.end().expect("both have ended");
        assert_eq!(end.reason, CloseReason::Done);
        session.summary(end.reason, now)
    });
}
