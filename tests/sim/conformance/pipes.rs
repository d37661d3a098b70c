//! splice(2) between connections: slots, not bytes, make a pipe full.

use std::io::ErrorKind;

use crate::conformance::script::{Script, Transcript, count_or_error};
use crate::conformance::{Bench, Kernel, Link, Socket, agree};

type Pipe<B> = <<B as Bench>::K as Kernel>::Pipe;

/// The nominal size of every pipe.
const PIPE: usize = 64 * 1024;
/// As many bytes as one call may move.
const ALL: usize = 1 << 20;
/// Segments of one byte that no pipe of that size has slots for.
const SMALL_SEGMENTS: usize = 100;
const LARGE_SEGMENT: usize = 32 * 1024;
/// More of them than a pipe of that size has slots.
const LARGE_SEGMENTS_MAX: usize = 64;

impl<B: Bench> Script<'_, B> {
    fn pipe(&mut self) -> Pipe<B> {
        self.bench.kernel().pipe(PIPE, PIPE).expect("a pipe")
    }

    fn splice_in(&mut self, link: &Link<Socket<B>>, pipe: &Pipe<B>, len: usize) {
        let called = self.bench.kernel().splice_in(&link.socket, pipe, len);
        self.note(format!("in: {}", count_or_error(called)));
    }

    fn splice_out(&mut self, pipe: &Pipe<B>, link: &Link<Socket<B>>, len: usize) {
        let called = self.bench.kernel().splice_out(pipe, &link.socket, len);
        self.note(format!("out: {}", count_or_error(called)));
    }

    /// Fills the pipe until it blocks or the stream ends; the bytes moved.
    fn fill_pipe(&mut self, link: &Link<Socket<B>>, pipe: &Pipe<B>) -> usize {
        let mut moved = 0;
        loop {
            match self.bench.kernel().splice_in(&link.socket, pipe, ALL) {
                Ok(0) => return moved,
                Ok(bytes) => moved += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return moved,
                Err(error) => panic!("a pipe that has room, or has not: {error}"),
            }
        }
    }

    /// Empties a pipe that holds `bytes` into a connection whose peer reads them.
    fn empty_pipe(&mut self, pipe: &Pipe<B>, link: &Link<Socket<B>>, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let moved = self.bench.kernel().splice_out(pipe, &link.socket, left).expect("its peer reads");
            self.bench.receive(link.peer, moved);
            left -= moved;
        }
    }
}

/// An empty pipe's EAGAIN is the socket's.
fn plain<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let [source, sink] = [(); 2].map(|()| script.watched_client());
    let pipe = script.pipe();
    script.splice_in(&source, &pipe, ALL);
    script.bench.send(&source, 5);
    script.reported();
    script.splice_in(&source, &pipe, 3);
    script.splice_out(&pipe, &sink, 3);
    script.splice_in(&source, &pipe, ALL);
    script.splice_in(&source, &pipe, ALL);
    script.splice_out(&pipe, &sink, 2);
    script.splice_in(&source, &pipe, ALL);
    script.bench.receive(sink.peer, 5);
    script.bench.fin(&source);
    script.splice_in(&source, &pipe, ALL);
    script.splice_in(&source, &pipe, ALL);
    script.reported();
    script.end()
}

agree!(
    a_pipe_moves_what_comes_and_the_end_behind_it,
    plain,
    [
        "in: EAGAIN",
        "reported: readable writable",
        "in: 3",
        "out: 3",
        "in: 2",
        "in: EAGAIN",
        "out: 2",
        "in: EAGAIN",
        "in: 0",
        "in: 0",
        "reported: readable writable closing",
    ]
);

/// A slot for each segment: a full pipe hides the rest, and the end behind it.
fn small_segments<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let [source, sink] = [(); 2].map(|()| script.watched_client());
    let pipe = script.pipe();
    for _ in 0..SMALL_SEGMENTS {
        script.bench.send(&source, 1);
    }
    script.bench.fin(&source);
    script.reported();
    let first = script.fill_pipe(&source, &pipe);
    script.note(if first < SMALL_SEGMENTS { "blocked before all" } else { "all at once" });
    script.splice_in(&source, &pipe, ALL);
    script.events_so_far();
    let mut moved = 0;
    let mut held = first;
    while moved < SMALL_SEGMENTS {
        assert!(held > 0, "an empty pipe takes nothing, and bytes are left");
        script.empty_pipe(&pipe, &sink, held);
        moved += held;
        held = script.fill_pipe(&source, &pipe);
    }
    script.note(format!("moved {moved}"));
    script.splice_in(&source, &pipe, ALL);
    script.events_so_far();
    script.end()
}

agree!(
    a_pipe_without_slots_hides_bytes_and_the_end_until_it_is_empty,
    small_segments,
    [
        "reported: readable writable closing",
        "blocked before all",
        "in: EAGAIN",
        "reported: nothing",
        "moved 100",
        "in: 0",
        "reported: nothing",
    ]
);

/// A slot holds a segment of any size.
fn large_segments<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let [source, sink] = [(); 2].map(|()| script.watched_client());
    let pipe = script.pipe();
    let mut sent = 0;
    let mut held = 0;
    for _ in 0..LARGE_SEGMENTS_MAX {
        script.bench.send(&source, LARGE_SEGMENT);
        sent += LARGE_SEGMENT;
        held += script.fill_pipe(&source, &pipe);
        if held < sent {
            break;
        }
    }
    script.note(if held > PIPE { "more than its size" } else { "at most its size" });
    script.note(if held < sent { "and full" } else { "and never full" });
    script.splice_in(&source, &pipe, ALL);
    script.empty_pipe(&pipe, &sink, held);
    let rest = script.fill_pipe(&source, &pipe);
    script.empty_pipe(&pipe, &sink, rest);
    script.note(if held + rest == sent { "all came out" } else { "bytes are left" });
    script.end()
}

agree!(
    a_pipe_holds_more_bytes_than_its_size_when_segments_are_large,
    large_segments,
    ["more than its size", "and full", "in: EAGAIN", "all came out"]
);

/// A pipe of two slots.
const SMALL_PIPE: usize = 2 * 4096;

/// do_splice_read asks the socket for a page for each free slot, so a short count does not prove that it is empty.
fn small_pipe<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let [source, sink] = [(); 2].map(|()| script.watched_client());
    let pipe = script.bench.kernel().pipe(SMALL_PIPE, SMALL_PIPE).expect("a pipe");
    script.bench.send(&source, LARGE_SEGMENT);
    let mut left = LARGE_SEGMENT;
    while left > 0 {
        let moved = script.bench.kernel().splice_in(&source.socket, &pipe, ALL).expect("bytes are left");
        assert!(moved <= SMALL_PIPE, "a call moves {moved} bytes into two free slots");
        script.empty_pipe(&pipe, &sink, moved);
        left -= moved;
    }
    script.splice_in(&source, &pipe, ALL);
    script.end()
}

agree!(one_call_moves_no_more_than_a_page_for_each_free_slot, small_pipe, ["in: EAGAIN"]);

/// The same as for reads.
fn reset_source<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let source = script.watched_client();
    let pipe = script.pipe();
    script.bench.send(&source, 5);
    script.bench.reset(&source);
    for _ in 0..3 {
        script.splice_in(&source, &pipe, ALL);
    }
    script.end()
}

agree!(a_reset_is_spliced_once_behind_the_bytes, reset_source, ["in: 5", "in: ECONNRESET", "in: 0"]);

/// A pipe with no slot left hides a reset too.
fn reset_behind_full_pipe<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let [source, sink] = [(); 2].map(|()| script.watched_client());
    let pipe = script.pipe();
    for _ in 0..SMALL_SEGMENTS {
        script.bench.send(&source, 1);
    }
    let held = script.fill_pipe(&source, &pipe);
    script.bench.reset(&source);
    script.splice_in(&source, &pipe, ALL);
    script.empty_pipe(&pipe, &sink, held);
    let mut left = SMALL_SEGMENTS - held;
    while left > 0 {
        let moved = script.bench.kernel().splice_in(&source.socket, &pipe, ALL).expect("bytes are left");
        script.empty_pipe(&pipe, &sink, moved);
        left -= moved;
    }
    script.splice_in(&source, &pipe, ALL);
    script.splice_in(&source, &pipe, ALL);
    script.end()
}

agree!(
    a_reset_leaves_what_came_before_it_to_be_spliced,
    reset_behind_full_pipe,
    ["in: EAGAIN", "in: ECONNRESET", "in: 0"]
);

/// splice(2) takes the error, and the bytes stay where they are.
fn dead_sink<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let [source, dead, other] = [(); 3].map(|()| script.watched_client());
    let pipe = script.pipe();
    script.bench.send(&source, 5);
    script.splice_in(&source, &pipe, ALL);
    script.bench.reset(&dead);
    script.splice_out(&pipe, &dead, 5);
    script.splice_out(&pipe, &dead, 5);
    script.read(&dead, 100);
    script.splice_out(&pipe, &other, 5);
    script.bench.receive(other.peer, 5);
    script.end()
}

agree!(
    a_dead_sink_leaves_the_bytes_in_the_pipe,
    dead_sink,
    ["in: 5", "out: ECONNRESET", "out: EPIPE", "read: 0", "out: 5"]
);

/// A full send buffer leaves them there too, and its room is reported as to a write.
fn full_sink<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let [source, sink] = [(); 2].map(|()| script.watched_client());
    let pipe = script.pipe();
    let written = script.fill(&sink);
    script.bench.send(&source, 5);
    script.reported();
    script.splice_in(&source, &pipe, ALL);
    script.splice_out(&pipe, &sink, 5);
    script.events_so_far();
    script.bench.receive(sink.peer, written);
    script.reported();
    script.splice_out(&pipe, &sink, 5);
    script.bench.receive(sink.peer, 5);
    script.end()
}

agree!(
    a_full_sink_leaves_the_bytes_in_the_pipe_and_tells_its_room,
    full_sink,
    [
        "reported: readable writable",
        "in: 5",
        "out: EAGAIN",
        "reported: nothing",
        "reported: writable",
        "out: 5"
    ]
);
