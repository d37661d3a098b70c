//! What must add up at the end, from the balancer's own counters and from the books of both kinds of peers.

use l4lb::session::Side::{Backend, Client};

use crate::balancer::{Held, Totals};
use crate::books::Books;
use crate::script::Kind;

/// The most that memory may have grown between the end of the warm-up and the end of the load. Each worker keeps up to
/// 64 buffers of 64 KiB for what a sink did not take (`worker/relay/conduit.rs`); the rest is the allocator's.
pub(crate) fn memory_growth_max_kib(workers: usize) -> u64 {
    workers as u64 * 64 * 64 + 1024
}

/// Something that must hold, and the figures that say whether it does.
#[derive(Debug)]
pub(crate) struct Law {
    pub(crate) what: &'static str,
    pub(crate) holds: bool,
    pub(crate) figures: String,
}

/// Empty pipes that a worker keeps (src/worker/relay/pipes.rs).
const PIPES_KEPT_MAX: u64 = 16;

fn equal(what: &'static str, a: u64, b: u64) -> Law {
    Law { what, holds: a == b, figures: format!("{a} = {b}") }
}

fn between(what: &'static str, low: u64, value: u64, high: u64) -> Law {
    Law { what, holds: (low..=high).contains(&value), figures: format!("{low} <= {value} <= {high}") }
}

/// What the process holds before and behind the load.
pub(crate) fn of_process(before: Held, behind: Held, workers: usize, growth_max_kib: u64) -> Vec<Law> {
    let pipe_ends_max = before.pipe_ends + 2 * PIPES_KEPT_MAX * workers as u64;
    vec![
        between("pipes kept for the next stream, and stderr", 0, behind.pipe_ends, pipe_ends_max),
        equal("open files before = open files behind the load", before.open_files, behind.open_files),
        between(
            "memory grew by no more than its spare buffers (KiB)",
            0,
            behind.memory_kib.saturating_sub(before.memory_kib),
            growth_max_kib,
        ),
    ]
}

/// What became of the connections.
pub(crate) fn of_connections(books: &Books, totals: &Totals) -> Vec<Law> {
    let (accepted, done) = (totals.get("accepted"), totals.get("done"));
    let by_client = totals.get("client_reset") + totals.get("client_gone");
    let closed: u64 = totals.reasons().map(|(_, count)| count).sum();
    let clients = |kinds: fn(Kind) -> bool| books.sum(Client, kinds, |row| row.connections);
    let identified = books.sum(Backend, |_| true, |row| row.connections);
    let sure = |kind: Kind| kind.has_header() && !kind.may_stay_anonymous();
    let early = clients(|kind| kind == Kind::EarlyClose);
    // A client that leaves without a reset ends its stream like any other.
    let (whole, left) = (clients(Kind::is_whole), books.left);
    vec![
        equal("sessions active at the end = 0", totals.get("active"), 0),
        equal("accepted = active + closed by reason", accepted, totals.get("active") + closed),
        between(
            "accepted = connections that clients completed",
            books.connected,
            accepted,
            books.connected + books.perhaps_connected,
        ),
        equal(
            "dials - failures = sessions that backends accepted",
            totals.get("dials") - totals.get("dial_failures"),
            books.accepted,
        ),
        equal("accepted = sessions that backends accepted", accepted, books.accepted),
        equal(
            "backends' sessions = known + ended unknown + reset unknown",
            books.accepted,
            identified + books.ended_unknown + books.reset_unknown,
        ),
        equal(
            "backends knew all that had to make themselves known",
            books.sum(Backend, sure, |row| row.connections),
            books.sum(Client, sure, |row| row.connections),
        ),
        equal(
            "unknown ends = silent clients + clients that left without a reset",
            books.ended_unknown,
            clients(|kind| kind == Kind::Silent) + left,
        ),
        equal("client_reset + client_gone = resets by clients", by_client, books.resets[Client as usize]),
        between(
            "backend_reset = resets by backends, and early closes",
            books.resets[Backend as usize],
            totals.get("backend_reset"),
            books.resets[Backend as usize] + early,
        ),
        between("done = whole ones, and early closes", whole + left, done, whole + left + early),
        equal(
            "no session ended for another reason",
            closed - done - by_client - totals.get("backend_reset"),
            0,
        ),
    ]
}

/// What became of the bytes. Without resets both ends and the balancer agree to the byte. With them, a byte on its way
/// may be lost with the connection, but only there: what was given to a side and not read by it is at most what was
/// sent and not read on connections that somebody reset.
pub(crate) fn of_bytes(books: &Books, totals: &Totals) -> Vec<Law> {
    let (to_backend, to_client, discarded) =
        (totals.get("to_backend"), totals.get("to_client"), totals.get("discarded"));
    let broken = |kind: Kind| !kind.is_whole();
    let unread = |from, to| {
        books.sum(from, broken, |row| row.sent).saturating_sub(books.sum(to, broken, |row| row.received))
    };
    let by_backends = books.sum(Backend, |_| true, |row| row.received) + books.bytes_unknown;
    let by_clients = books.sum(Client, |_| true, |row| row.received);
    let sent = books.sum(Client, |_| true, |row| row.sent) + books.sum(Backend, |_| true, |row| row.sent);
    let lost_to_backends = unread(Client, Backend).saturating_sub(books.bytes_unknown);
    let lost_to_clients = unread(Backend, Client);
    vec![
        equal(
            "whole connections: bytes sent = bytes received",
            books.sum(Client, Kind::is_whole, |row| row.sent)
                + books.sum(Backend, Kind::is_whole, |row| row.sent),
            books.sum(Client, Kind::is_whole, |row| row.received)
                + books.sum(Backend, Kind::is_whole, |row| row.received),
        ),
        between("bytes given to backends", by_backends, to_backend, by_backends + lost_to_backends),
        between("bytes given to clients", by_clients, to_client, by_clients + lost_to_clients),
        between("bytes discarded", 0, discarded, lost_to_backends + lost_to_clients),
        between(
            "given + discarded <= sent",
            by_backends + by_clients,
            to_backend + to_client + discarded,
            sent,
        ),
    ]
}
