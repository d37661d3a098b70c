//! Dials and their results.

use crate::conformance::script::{Script, Transcript, count_or_error};
use crate::conformance::{Backend, Bench, Kernel, Link, agree};

/// Tokens of sockets that have no peer.
const NUMBER: usize = 7;

fn outcomes<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    for backend in [Backend::Closed, Backend::Listening] {
        let address = script.bench.backend(backend);
        let socket = script.dial(address);
        script.watch_socket(&socket, NUMBER);
        script.reported();
        script.events_so_far();
        script.dial_result(&socket);
        script.dial_result(&socket);
    }
    script.end()
}

// Case 37.
agree!(
    a_dial_is_told_when_it_is_refused_and_when_it_is_accepted,
    outcomes,
    [
        "reported: readable writable closing failing",
        "reported: nothing",
        "dial: failed ECONNREFUSED",
        "dial: pending",
        "reported: writable",
        "reported: nothing",
        "dial: connected",
        "dial: connected",
    ]
);

/// An accept queue that is full drops the SYN.
fn unanswered<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let address = script.bench.backend(Backend::Full);
    let socket = script.dial(address);
    script.watch_socket(&socket, NUMBER);
    script.events_so_far();
    script.dial_result(&socket);
    script.dial_result(&socket);
    let read = script.bench.kernel().read(&socket, &mut [0; 8]);
    let written = script.bench.kernel().write(&socket, &[0; 8]);
    script.note(format!("read: {}, write: {}", count_or_error(read), count_or_error(written)));
    script.events_so_far();
    script.end()
}

agree!(
    a_dial_without_an_answer_is_pending_however_often_it_is_asked_for,
    unanswered,
    [
        "reported: nothing",
        "dial: pending",
        "dial: pending",
        "read: EAGAIN, write: EAGAIN",
        "reported: nothing"
    ]
);

/// The backend comes and goes before its state is read.
fn lost<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    for bytes in [5, 0] {
        let address = script.bench.backend(Backend::Listening);
        let socket = script.dial(address);
        let link = Link { socket, peer: script.bench.dialed() };
        if bytes > 0 {
            script.bench.send(&link, bytes);
        }
        script.bench.reset(&link);
        script.watch(&link);
        script.reported();
        script.dial_result(&link.socket);
        script.read(&link, 100);
        script.read(&link, 100);
        script.dial_result(&link.socket);
    }
    script.end()
}

agree!(
    a_dial_that_was_reset_is_lost_with_bytes_to_read_and_failed_without,
    lost,
    [
        "reported: readable writable closing failing",
        "dial: lost ECONNRESET",
        "read: 5",
        "read: 0",
        "dial: pending",
        "reported: readable writable closing failing",
        "dial: failed ECONNRESET",
        "read: 0",
        "read: 0",
        "dial: pending",
    ]
);

/// The backend sends and closes properly.
fn short_visit<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let address = script.bench.backend(Backend::Listening);
    let socket = script.dial(address);
    let link = Link { socket, peer: script.bench.dialed() };
    script.bench.send(&link, 5);
    script.bench.close(&link);
    script.watch(&link);
    script.reported();
    script.dial_result(&link.socket);
    script.read(&link, 100);
    script.read(&link, 100);
    script.end()
}

agree!(
    a_dial_whose_backend_has_already_closed_is_connected,
    short_visit,
    ["reported: readable writable closing", "dial: connected", "read: 5", "read: 0"]
);

/// Case 52.
fn itself<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let socket = script.bench.dial_itself();
    script.watch_socket(&socket, NUMBER);
    script.reported();
    script.dial_result(&socket);
    script.end()
}

agree!(a_dial_that_meets_itself_is_found_out, itself, ["reported: writable", "dial: to itself"]);
