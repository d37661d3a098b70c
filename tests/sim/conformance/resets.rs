//! Connections that end by a reset, from either side: the error is reported once, to the first call that asks.

use crate::conformance::script::{Script, Transcript};
use crate::conformance::{Bench, Kernel, agree};

/// tcp_recvmsg: bytes, then the error once, then an end.
fn read_first<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.bench.send(&link, 5);
    script.bench.reset(&link);
    script.reported();
    script.events_so_far();
    script.read(&link, 3);
    script.read(&link, 100);
    script.read(&link, 100);
    script.read(&link, 100);
    script.take_error(&link);
    script.shutdown_write(&link);
    script.events_so_far();
    script.end()
}

agree!(
    a_reset_is_read_once_behind_the_bytes,
    read_first,
    [
        "reported: readable writable closing failing",
        "reported: nothing",
        "read: 3",
        "read: 2",
        "read: ECONNRESET",
        "read: 0",
        "take error: none",
        "shutdown write: ENOTCONN",
        "reported: readable writable closing failing",
    ]
);

/// getsockopt(2) SO_ERROR clears it.
fn ask_first<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.bench.send(&link, 5);
    script.bench.reset(&link);
    script.take_error(&link);
    script.take_error(&link);
    script.reported();
    script.read(&link, 100);
    script.read(&link, 100);
    script.write(&link, 1);
    script.end()
}

agree!(
    a_reset_that_was_asked_for_looks_like_an_end,
    ask_first,
    [
        "take error: ECONNRESET",
        "take error: none",
        "reported: readable writable closing failing",
        "read: 5",
        "read: 0",
        "write: EPIPE",
    ]
);

/// A write takes the error too.
fn write_first<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.bench.send(&link, 5);
    script.bench.reset(&link);
    script.write(&link, 1);
    script.write(&link, 1);
    script.read(&link, 100);
    script.read(&link, 100);
    script.take_error(&link);
    script.end()
}

agree!(
    a_reset_that_a_write_met_looks_like_an_end,
    write_first,
    ["write: ECONNRESET", "write: EPIPE", "read: 5", "read: 0", "take error: none"]
);

/// tcp_reset: EPIPE in CLOSE_WAIT. And tcp_recvmsg looks at the FIN before the error.
fn after_fin<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.bench.send(&link, 5);
    script.bench.fin(&link);
    script.reported();
    script.bench.reset(&link);
    script.reported();
    script.read(&link, 100);
    script.read(&link, 100);
    script.take_error(&link);
    script.write(&link, 1);
    script.shutdown_write(&link);
    script.end()
}

agree!(
    a_reset_behind_a_fin_is_no_end_but_a_broken_pipe,
    after_fin,
    [
        "reported: readable writable closing",
        "reported: readable writable closing failing",
        "read: 5",
        "read: 0",
        "take error: EPIPE",
        "write: EPIPE",
        "shutdown write: ENOTCONN",
    ]
);

/// Our stream has ended, the peer's has not: FIN_WAIT2.
fn after_our_fin<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.shutdown_write(&link);
    script.bench.reset(&link);
    script.reported();
    script.write(&link, 1);
    script.read(&link, 100);
    script.read(&link, 100);
    script.end()
}

agree!(
    a_reset_behind_our_fin_is_an_error_of_the_next_write_too,
    after_our_fin,
    [
        "shutdown write: done",
        "reported: readable writable closing failing",
        "write: ECONNRESET",
        "read: 0",
        "read: 0",
    ]
);

/// RFC 2525, 2.17, and SO_LINGER of socket(7).
fn our_ends<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let [unread, read, reset] = [(); 3].map(|()| script.client());
    for link in [&unread, &read, &reset] {
        script.bench.send(link, 5);
        script.write(link, 7);
        script.bench.await_acks(&link.socket);
    }
    script.read(&unread, 4);
    script.read(&read, 100);
    script.read(&reset, 100);
    script.bench.kernel().close(unread.socket);
    script.bench.kernel().close(read.socket);
    script.bench.kernel().reset(reset.socket);
    for peer in [unread.peer, read.peer, reset.peer] {
        script.peer_ends(peer);
    }
    script.end()
}

agree!(
    a_close_with_unread_bytes_is_a_reset_and_any_other_a_fin,
    our_ends,
    [
        "write: 7",
        "write: 7",
        "write: 7",
        "read: 4",
        "read: 5",
        "read: 5",
        "peer: reset behind 7",
        "peer: FIN behind 7",
        "peer: reset behind 7",
    ]
);

/// Bytes sent to a connection that was closed with close(2) are answered with a reset.
fn close_then_bytes<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.client();
    script.write(&link, 7);
    script.bench.kernel().close(link.socket);
    script.peer_ends(link.peer);
    script.bench.send_to_closed(link.peer, 5);
    script.note("and reset");
    script.end()
}

agree!(
    a_peer_that_sends_to_what_was_closed_is_reset,
    close_then_bytes,
    ["write: 7", "peer: FIN behind 7", "and reset"]
);

/// The peer reads no more: the first bytes are accepted and answered with a reset.
fn peer_closes<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.bench.send(&link, 5);
    script.bench.close(&link);
    script.reported();
    script.write(&link, 7);
    script.reported();
    script.write(&link, 7);
    script.write(&link, 7);
    script.read(&link, 100);
    script.read(&link, 100);
    script.end()
}

agree!(
    a_peer_that_has_closed_answers_bytes_with_a_reset,
    peer_closes,
    [
        "reported: readable writable closing",
        "write: 7",
        "reported: readable writable closing failing",
        "write: EPIPE",
        "write: EPIPE",
        "read: 5",
        "read: 0",
    ]
);

/// An end carries no bytes: it is accepted.
fn fin_to_closed<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.bench.close(&link);
    script.reported();
    script.shutdown_write(&link);
    script.reported();
    script.events_so_far();
    script.take_error(&link);
    script.read(&link, 100);
    script.end()
}

agree!(
    a_peer_that_has_closed_takes_our_fin,
    fin_to_closed,
    [
        "reported: readable writable closing",
        "shutdown write: done",
        "reported: readable writable closing failing",
        "reported: nothing",
        "take error: none",
        "read: 0",
    ]
);

/// The same rule as for us.
fn peer_closes_unread<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.write(&link, 7);
    script.bench.await_acks(&link.socket);
    script.bench.send(&link, 5);
    script.bench.close(&link);
    script.reported();
    script.read(&link, 100);
    script.read(&link, 100);
    script.read(&link, 100);
    script.end()
}

agree!(
    a_peer_that_closes_with_unread_bytes_resets,
    peer_closes_unread,
    ["write: 7", "reported: readable writable closing failing", "read: 5", "read: ECONNRESET", "read: 0",]
);
