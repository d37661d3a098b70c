//! What a listener has of its own, and idle timeouts of many sessions at a time (`tests/CASES.md`).

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use l4lb::session::CloseReason::{Done, IdleTimeout};
use l4lb::sys::Clock;

use crate::harness::backends::{Visit, backends};

/// In the second configuration below as text.
const IDLE: Duration = Duration::from_secs(10);

#[test]
fn a_listener_may_have_timeouts_of_its_own() {
    let backends = backends(1).listeners(&["timeouts = { idle = \"2s\" }", ""]);
    let service = backends.start();
    let (short, long) = (service.enter(), Visit::greeted(service.client_of(1, Ipv4Addr::LOCALHOST)));
    short.gets_cut();
    long.talks().leave();
    service.ends(&[(Done, 1), (IdleTimeout, 1)]);
}

/// Each has its own last byte, and none is cut before the timeout has passed since.
/// Case 69.
#[test]
fn no_session_is_cut_before_its_time() {
    let backends = backends(2).workers(2).pool("timeouts = { idle = \"10s\" }");
    let service = backends.start();
    let clock = Clock::start();
    thread::scope(|scope| {
        for index in 0..30 {
            let mut visit = service.enter();
            scope.spawn(move || {
                visit.client.receiving().silence(Duration::from_millis(1 + index * 7));
                let last_byte = clock.now();
                visit.talks().gets_cut();
                assert!(clock.now() - last_byte >= IDLE, "session {index} was cut too early");
            });
        }
    });
    service.ends(&[(IdleTimeout, 30)]);
}
