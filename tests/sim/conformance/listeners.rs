//! Accept queues.

use std::process::Command;

use crate::conformance::linux::LinuxBench;
use crate::conformance::script::{Script, Transcript, dial_spec, done_or_error};
use crate::conformance::sim::SimBench;
use crate::conformance::{Backend, Bench, Kernel, agree};

/// An edge for each arrival, and none for a client that is still there.
fn arrivals<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let port = script.port();
    let listener = script.bench.listen(port);
    script.watch_listener(&listener, 0);
    script.events_so_far();
    script.accept(&listener);
    script.bench.connect(port);
    script.reported();
    script.events_so_far();
    script.bench.connect(port);
    script.reported();
    script.bench.connect(port);
    script.reported();
    let _first = script.accept(&listener);
    script.events_so_far();
    let _second = script.accept(&listener);
    let _third = script.accept(&listener);
    script.accept(&listener);
    script.events_so_far();
    script.end()
}

agree!(
    an_arrival_is_told_once_and_a_queue_that_is_not_drained_is_not_told_again,
    arrivals,
    [
        "reported: nothing",
        "accept: EAGAIN",
        "reported: listener readable",
        "reported: nothing",
        "reported: listener readable",
        "reported: listener readable",
        "accept: a client",
        "reported: nothing",
        "accept: a client",
        "accept: a client",
        "accept: EAGAIN",
        "reported: nothing",
    ]
);

/// A client that is queued when the listener is watched is reported.
fn late_watch<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let port = script.port();
    let listener = script.bench.listen(port);
    script.bench.connect(port);
    script.watch_listener(&listener, 0);
    script.reported();
    script.events_so_far();
    script.end()
}

agree!(
    an_arrival_before_the_listener_is_watched_is_told,
    late_watch,
    ["reported: listener readable", "reported: nothing"]
);

/// accept(2) on Linux returns it, and what it has sent.
fn reset_in_queue<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let port = script.port();
    let listener = script.bench.listen(port);
    script.watch_listener(&listener, 0);
    let peer = script.bench.connect(port);
    script.reported();
    script.bench.reset_queued(peer, 5);
    script.events_so_far();
    let link = script.accept(&listener).expect("a client that has gone is still queued");
    script.watch(&link);
    script.reported();
    script.read(&link, 100);
    script.read(&link, 100);
    script.read(&link, 100);
    script.end()
}

agree!(
    a_client_that_resets_in_the_queue_is_accepted_and_then_reset,
    reset_in_queue,
    [
        "reported: listener readable",
        "reported: nothing",
        "accept: a client",
        "reported: readable writable closing failing",
        "read: 5",
        "read: ECONNRESET",
        "read: 0",
    ]
);

/// Clients of two listeners of one port, until each has one.
const CLIENTS_MAX: usize = 100;

/// socket(7), SO_REUSEPORT; net.ipv4.tcp_migrate_req is off by default.
fn shared_port<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let port = script.port();
    let [closed, kept] = [0, 1].map(|number| {
        let listener = script.bench.listen(port);
        script.watch_listener(&listener, number);
        listener
    });
    let mut peers = Vec::new();
    let mut reported = Vec::new();
    while reported.len() < 2 {
        assert!(peers.len() < CLIENTS_MAX, "all clients go to one of two listeners");
        peers.push(script.bench.connect(port));
        reported.extend(script.bench.await_events().iter().map(|event| event.token.pack()));
        reported.sort_unstable();
        reported.dedup();
    }
    script.bench.kernel().close_listener(closed);
    let mut served = Vec::new();
    while let Ok((socket, address)) = script.bench.kernel().accept(&kept) {
        let peer = script.bench.client_at(address);
        served.push((socket, peer));
    }
    let is_served = |peer| served.iter().any(|(_, served)| *served == peer);
    for &peer in peers.iter().filter(|&&peer| !is_served(peer)) {
        script.peer_ends(peer);
    }
    script.merge_lines();
    let are_silent = served.iter().all(|(_, peer)| script.bench.is_silent(*peer));
    script.note(if are_silent { "the others are served" } else { "the others are disturbed" });
    script.end()
}

agree!(
    who_waits_at_a_listener_that_is_closed_is_reset_and_nobody_else,
    shared_port,
    ["peer: reset behind 0", "the others are served"]
);

/// accept(2), EMFILE: the queue stays as it is, and no event reports that descriptors are free again.
fn starved<B: Bench>(mut script: Script<'_, B>) -> Transcript {
    let port = script.port();
    let listener = script.bench.listen(port);
    script.watch_listener(&listener, 0);
    let backend = script.bench.backend(Backend::Listening);
    let other = script.client();
    script.bench.connect(port);
    script.bench.connect(port);
    script.reported();
    script.bench.exhaust_descriptors();
    script.accept(&listener);
    script.events_so_far();
    let dialed = script.bench.kernel().dial(&dial_spec(&backend.into())).map(drop);
    script.note(format!("dial: {}", done_or_error(dialed)));
    script.bench.kernel().close(other.socket);
    script.events_so_far();
    let pipe = script.bench.kernel().pipe(1, 1).map(drop);
    script.note(format!("pipe of two: {}", done_or_error(pipe)));
    let first = script.accept(&listener).expect("a descriptor is free");
    script.accept(&listener);
    script.bench.kernel().close(first.socket);
    let _second = script.accept(&listener);
    // The descriptor comes first, whether a client waits or not.
    script.accept(&listener);
    script.end()
}

const STARVED: [&str; 10] = [
    "reported: listener readable",
    "accept: EMFILE",
    "reported: nothing",
    "dial: EMFILE",
    "reported: nothing",
    "pipe of two: EMFILE",
    "accept: a client",
    "accept: EMFILE",
    "accept: a client",
    "accept: EMFILE",
];

/// Marks the lines of a transcript in what a test process prints.
const MARK: &str = "transcript| ";

/// Case 59.
#[test]
fn accept_without_descriptors_leaves_the_queue_and_no_event_reports_free_ones() {
    let program = std::env::current_exe().unwrap();
    let name = "conformance::listeners::starves_this_process";
    let output = Command::new(program).args([name, "--exact", "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let linux: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(MARK)?.1)).collect();
    assert_eq!(linux, STARVED, "Linux, {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    assert_eq!(starved(Script::new(&mut SimBench::new())), STARVED, "simulated");
}

#[test]
#[ignore = "lowers the limit of descriptors of its process: the test above runs it in one of its own"]
fn starves_this_process() {
    for line in starved(Script::new(&mut LinuxBench::new())) {
        println!("{MARK}{line}");
    }
}
