//! A session with a client that must send a header first.

use std::io::ErrorKind;
use std::time::Duration;

use super::{CONNECT, HALF_CLOSE, IDLE};
use crate::base::ready::Ready;
use crate::base::time::Instant;
use crate::session::Side::Client;
use crate::session::{CloseMode, CloseReason, End, Expiry, Op, Outcome, Session, Stage, Timeouts};

const START: Instant = Instant::from_nanos(1_000_000_000);
const PATIENCE: Duration = Duration::from_secs(3);
const READABLE: Ready = Ready { readable: true, writable: true, closing: false, failing: false };
const ENDED: Ready = Ready { closing: true, ..READABLE };
const RESET: Ready = Ready { failing: true, ..ENDED };

fn opening() -> Session {
    let session = Session::opening(Timeouts::new(CONNECT, IDLE, HALF_CLOSE, None), START, PATIENCE);
    assert!(session.is_opening() && session.is_connecting());
    assert_eq!((session.next_op(), session.deadline()), (None, START + PATIENCE));
    session
}

/// An event, and what the preread finds then.
fn finds(session: &mut Session, ready: Ready, outcome: Outcome) {
    session.on_ready(Client, ready);
    assert_eq!(session.next_op(), Some(Op::Preread));
    session.on_outcome(Op::Preread, outcome, START);
}

fn expect_end(session: &Session, reason: CloseReason) {
    let end = End { reason, client: CloseMode::Reset, backend: CloseMode::Reset };
    assert_eq!((session.next_op(), session.end(), session.stage()), (None, Some(end), Stage::Preread));
}

#[test]
fn a_backend_is_dialed_once_the_header_was_taken() {
    let mut session = opening();
    finds(&mut session, READABLE, Outcome::WouldBlock);
    assert_eq!((session.next_op(), session.is_opening()), (None, true));
    // Only the kernel knows whether it is true.
    finds(&mut session, ENDED, Outcome::WouldBlock);
    assert_eq!((session.next_op(), session.is_opening()), (None, true));
    finds(&mut session, READABLE, Outcome::Done);
    assert_eq!((session.next_op(), session.is_opening(), session.end()), (None, false, None));
    assert_eq!(session.deadline(), START + CONNECT);
    session.on_dial(START);
    session.on_connected(START);
    assert_eq!(session.next_op(), Some(Op::Fill(Client.outward())), "what is behind the header");
}

#[test]
fn a_client_that_does_not_begin_with_a_header_in_time_is_turned_away() {
    let mut session = opening();
    finds(&mut session, READABLE, Outcome::Refused(CloseReason::ProxyBad));
    expect_end(&session, CloseReason::ProxyBad);
    let mut session = opening();
    assert_eq!(session.on_deadline(START), Expiry::Early);
    finds(&mut session, READABLE, Outcome::WouldBlock);
    assert_eq!(session.on_deadline(START + PATIENCE), Expiry::Drive);
    finds(&mut session, READABLE, Outcome::WouldBlock);
    expect_end(&session, CloseReason::PrereadTimeout);
}

/// The event that reports a header may be lost like any other.
#[test]
fn a_header_is_looked_for_once_more_when_its_time_is_over() {
    let mut session = opening();
    assert_eq!(session.on_deadline(START + PATIENCE), Expiry::Drive);
    assert_eq!(session.next_op(), Some(Op::Preread));
    session.on_outcome(Op::Preread, Outcome::Done, START + PATIENCE);
    assert_eq!((session.is_opening(), session.end()), (false, None));
    assert_eq!(session.deadline(), START + PATIENCE + CONNECT);
}

#[test]
fn a_client_that_leaves_within_its_header_is_gone() {
    let ends = [(ENDED, Outcome::Eof), (RESET, Outcome::Failed(ErrorKind::ConnectionReset))];
    for (ready, outcome) in ends {
        let mut session = opening();
        finds(&mut session, ready, outcome);
        expect_end(&session, CloseReason::ClientGone);
    }
    for left in [Outcome::Eof, Outcome::WouldBlock] {
        let mut session = opening();
        session.on_ready(Client, Ready { failing: true, ..Ready::default() });
        assert_eq!(session.next_op(), Some(Op::TakeError(Client)));
        session.on_outcome(Op::TakeError(Client), Outcome::Failed(ErrorKind::ConnectionReset), START);
        assert_eq!(session.next_op(), Some(Op::Preread), "it may have sent a header before");
        session.on_outcome(Op::Preread, left, START);
        expect_end(&session, CloseReason::ClientGone);
    }
}

#[test]
fn a_client_without_room_for_an_answer_is_answered_once_it_has_some() {
    const WRITABLE: Ready = Ready { readable: false, ..READABLE };
    let mut session = opening();
    finds(&mut session, READABLE, Outcome::NoRoom);
    assert_eq!((session.next_op(), session.is_opening()), (None, true));
    session.on_ready(Client, Ready { writable: false, ..READABLE });
    assert_eq!(session.next_op(), None, "it would only be asked again");
    finds(&mut session, WRITABLE, Outcome::Done);
    assert_eq!((session.next_op(), session.is_opening(), session.end()), (None, false, None));
    let mut session = opening();
    finds(&mut session, READABLE, Outcome::NoRoom);
    assert_eq!(session.on_deadline(START + PATIENCE), Expiry::Drive);
    finds(&mut session, Ready::default(), Outcome::NoRoom);
    expect_end(&session, CloseReason::PrereadTimeout);
}

/// As for a client without a header: its bytes count.
#[test]
fn a_client_that_resets_behind_its_header_is_dialed_for_while_bytes_wait() {
    let mut session = opening();
    finds(&mut session, RESET, Outcome::Done);
    assert_eq!(session.next_op(), Some(Op::TakeError(Client)));
    session.on_outcome(Op::TakeError(Client), Outcome::Failed(ErrorKind::ConnectionReset), START);
    assert_eq!(session.next_op(), Some(Op::AskUnread(Client)));
    session.on_outcome(Op::AskUnread(Client), Outcome::Unread, START);
    assert_eq!((session.next_op(), session.end()), (None, None));
}

/// A balancer in front may connect long before it has a client: no backend is slow for that.
#[test]
fn the_wait_for_a_header_is_part_of_the_duration_but_not_of_the_time_to_connect() {
    let mut session = opening();
    let [header, dialed, over] = [2_000, 2_030, 2_100].map(|ms| START + Duration::from_millis(ms));
    session.on_ready(Client, READABLE);
    session.on_outcome(Op::Preread, Outcome::Done, header);
    assert_eq!(session.connect_time(), None);
    session.on_dial(header);
    session.on_connected(dialed);
    assert_eq!(session.connect_time(), Some(dialed - header));
    let summary = session.summary(CloseReason::Done, over);
    assert_eq!((summary.connect_time, summary.duration), (Some(dialed - header), over - START));
    assert_eq!(session.age(over), over - START);
}

#[test]
fn the_time_to_connect_of_a_client_without_a_header_counts_from_accept_over_all_dials() {
    let mut session = Session::new(Timeouts::new(CONNECT, IDLE, HALF_CLOSE, None), START);
    let [failed, connected] = [10, 25].map(|ms| START + Duration::from_millis(ms));
    session.on_dial(START);
    session.on_undialed(failed);
    session.on_redial(failed);
    session.on_connected(connected);
    assert_eq!(session.connect_time(), Some(connected - START));
}
