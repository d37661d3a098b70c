//! Streams and their proper ends: which events report them, what fits, what is acknowledged.

use crate::conformance::script::{Script, Transcript};
use crate::conformance::{Bench, Kernel, agree};

/// epoll_ctl(2), EPOLLET: an event for each change, and none for one reported already.
fn events<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.client();
    script.watch(&link);
    script.reported();
    script.events_so_far();
    script.bench.send(&link, 5);
    script.reported();
    script.events_so_far();
    script.read(&link, 3);
    script.events_so_far();
    script.bench.send(&link, 4);
    script.reported();
    script.bench.fin(&link);
    script.reported();
    script.read(&link, 2);
    script.shutdown_write(&link);
    script.reported();
    script.read(&link, 100);
    script.read(&link, 100);
    script.read(&link, 100);
    script.events_so_far();
    script.end()
}

agree!(
    each_change_of_a_connection_is_told_once,
    events,
    [
        "reported: writable",
        "reported: nothing",
        "reported: readable writable",
        "reported: nothing",
        "read: 3",
        "reported: nothing",
        "reported: readable writable",
        "reported: readable writable closing",
        "read: 2",
        "shutdown write: done",
        "reported: readable writable closing failing",
        "read: 4",
        "read: 0",
        "read: 0",
        "reported: nothing",
    ]
);

/// Readiness present when a connection is watched is reported at once, and in one event.
fn late_watch<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.client();
    script.bench.send(&link, 5);
    script.bench.fin(&link);
    script.watch(&link);
    script.reported();
    script.events_so_far();
    script.end()
}

agree!(
    what_happened_before_a_connection_is_watched_is_told,
    late_watch,
    ["reported: readable writable closing", "reported: nothing"]
);

/// A socket that was given back has no events, even when one was due.
fn given_back<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let [closed, reset] = [(); 2].map(|()| script.watched_client());
    script.bench.send(&closed, 5);
    script.bench.send(&reset, 5);
    script.bench.kernel().close(closed.socket);
    script.bench.kernel().reset(reset.socket);
    script.events_so_far();
    script.peer_ends(closed.peer);
    script.peer_ends(reset.peer);
    script.events_so_far();
    script.end()
}

agree!(
    nothing_is_told_of_what_was_given_back,
    given_back,
    ["reported: nothing", "peer: reset behind 0", "peer: reset behind 0", "reported: nothing"]
);

/// Our stream ends first.
fn our_fin_first<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.write(&link, 7);
    script.shutdown_write(&link);
    script.peer_ends(link.peer);
    script.events_so_far();
    script.write(&link, 1);
    script.bench.send(&link, 5);
    script.reported();
    script.read(&link, 100);
    script.read(&link, 100);
    script.bench.fin(&link);
    script.reported();
    script.read(&link, 100);
    script.events_so_far();
    script.end()
}

agree!(
    after_our_fin_the_peer_is_still_read,
    our_fin_first,
    [
        "write: 7",
        "shutdown write: done",
        "peer: FIN behind 7",
        "reported: writable",
        "write: EPIPE",
        "reported: readable writable",
        "read: 5",
        "read: EAGAIN",
        "reported: readable writable closing failing",
        "read: 0",
        "reported: nothing",
    ]
);

/// send(2), MSG_MORE: bytes that wait for the FIN are sent with it.
fn last_bytes<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.write(&link, 7);
    script.write_last(&link, 8);
    script.shutdown_write(&link);
    script.peer_ends(link.peer);
    script.events_so_far();
    script.end()
}

agree!(
    the_last_bytes_of_a_stream_arrive_with_its_end,
    last_bytes,
    ["write: 7", "write last: 8", "shutdown write: done", "peer: FIN behind 15", "reported: writable"]
);

/// The peer's stream ends first.
fn their_fin_first<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.bench.fin(&link);
    script.reported();
    script.read(&link, 100);
    script.write(&link, 7);
    script.bench.receive(link.peer, 7);
    script.events_so_far();
    script.write(&link, 8);
    script.shutdown_write(&link);
    script.peer_ends(link.peer);
    script.reported();
    script.read(&link, 100);
    script.events_so_far();
    script.end()
}

agree!(
    after_the_fin_of_a_peer_it_is_still_written_to,
    their_fin_first,
    [
        "reported: readable writable closing",
        "read: 0",
        "write: 7",
        "reported: nothing",
        "write: 8",
        "shutdown write: done",
        "peer: FIN behind 8",
        "reported: readable writable closing failing",
        "read: 0",
        "reported: nothing",
    ]
);

/// With both streams ended and acknowledged, there is nothing left to reset.
fn reset_after_both<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.bench.fin(&link);
    script.shutdown_write(&link);
    script.peer_ends(link.peer);
    script.reported();
    script.bench.reset(&link);
    script.events_so_far();
    script.take_error(&link);
    script.read(&link, 100);
    script.write(&link, 1);
    script.end()
}

agree!(
    a_connection_that_has_ended_both_ways_cannot_be_reset,
    reset_after_both,
    [
        "shutdown write: done",
        "peer: FIN behind 0",
        "reported: readable writable closing failing",
        "reported: nothing",
        "take error: none",
        "read: 0",
        "write: EPIPE",
    ]
);

/// SOCK_NOSPACE: room is reported when a third of the send buffer is free.
fn full_buffer<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    let written = script.fill(&link);
    script.write(&link, 1);
    script.events_so_far();
    script.bench.receive(link.peer, 1);
    script.events_so_far();
    script.bench.receive(link.peer, written - 1);
    script.reported();
    script.write(&link, 1);
    script.end()
}

agree!(
    room_is_told_once_a_good_part_of_a_full_buffer_was_read,
    full_buffer,
    ["write: EAGAIN", "reported: nothing", "reported: nothing", "reported: writable", "write: 1",]
);

/// More than any send buffer holds.
const TOO_MUCH: usize = 32 << 20;

/// SOCK_NOSPACE is set by a write that accepts a part of its bytes, not only by one that accepts none.
fn short_write<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    let called = script.bench.kernel().write(&link.socket, &vec![0; TOO_MUCH]);
    let written = called.expect("its buffer is empty");
    script.note(if written < TOO_MUCH { "write: a part" } else { "write: all" });
    script.bench.receive(link.peer, written);
    script.reported();
    script.end()
}

agree!(room_is_told_behind_a_write_that_fell_short, short_write, ["write: a part", "reported: writable"]);

/// While the send buffer is full, an event does not report room.
fn full_and_readable<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.fill(&link);
    script.bench.send(&link, 5);
    script.reported();
    script.bench.kernel().shutdown_write(&link.socket).expect("it is connected");
    script.bench.fin(&link);
    script.reported();
    script.end()
}

agree!(
    a_full_buffer_is_not_told_to_be_writable_until_our_stream_ends,
    full_and_readable,
    ["reported: readable", "reported: readable writable closing failing"]
);

/// More than a peer that does not read takes, and less than our send buffer holds.
const WINDOWS: usize = 512 * 1024;

/// SIOCOUTQ and tcp_info while a peer does not read.
fn acks<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.write(&link, 7);
    script.bench.receive(link.peer, 7);
    script.bench.await_acks(&link.socket);
    script.silence(&link);
    script.write(&link, WINDOWS);
    // A segment of the peer acknowledges what is in flight: the rest waits for its window, and for nothing yet that
    // could time out.
    script.bench.send(&link, 1);
    script.reported();
    script.silence(&link);
    let waiting = script.unacked(&link);
    script.note(if waiting > 0 { "some are unacknowledged" } else { "all are acknowledged" });
    script.bench.kernel().shutdown_write(&link.socket).expect("it is connected");
    let with_fin = script.unacked(&link);
    script.note(if with_fin > waiting { "and the FIN" } else { "and no FIN" });
    script.reported();
    script.events_so_far();
    script.bench.receive(link.peer, WINDOWS);
    script.peer_ends(link.peer);
    script.bench.await_acks(&link.socket);
    script.reported();
    script.silence(&link);
    script.end()
}

agree!(
    bytes_and_a_fin_are_unacked_until_the_kernel_of_the_peer_has_them,
    acks,
    [
        "write: 7",
        "silence: None",
        "write: 524288",
        "reported: readable writable",
        "silence: Some(0ns)",
        "some are unacknowledged",
        "and the FIN",
        "reported: readable writable",
        "reported: nothing",
        "peer: FIN behind 0",
        "reported: readable writable",
        "silence: None",
    ]
);

/// A dead connection waits for nothing, but keeps its count.
fn acks_of_the_dead<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let link = script.watched_client();
    script.fill(&link);
    let waiting = script.unacked(&link);
    script.bench.reset(&link);
    let left = script.unacked(&link);
    script.note(if left == waiting { "as many are unacknowledged" } else { "fewer are unacknowledged" });
    script.silence(&link);
    script.end()
}

agree!(
    what_a_dead_connection_had_not_delivered_stays_unacked_and_is_not_silence,
    acks_of_the_dead,
    ["as many are unacknowledged", "silence: None"]
);
