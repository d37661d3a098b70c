//! Whether clients should be sent here, as balancers in front and orchestrators ask, and how a process leaves.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::harness::backends::{backends, dead_backends};
use crate::harness::peer::{free_address, until};
use crate::harness::program::output;

/// Keys that have the metrics answered at an address of their own.
fn metrics() -> (SocketAddr, String) {
    let free = free_address();
    (free, format!("\n[admin]\nmetrics = \"{free}\"\n"))
}

/// Status and body of a GET.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connect");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), body.trim_end().to_owned())
}

/// Clients met a closed port for as long as whoever sends them took to see it.
#[test]
fn a_process_that_leaves_is_not_ready_and_serves_for_a_while() {
    let (address, keys) = metrics();
    let backends = backends(1).global(&format!("shutdown_delay = \"1h\"{keys}"));
    let service = backends.start_daemon("info");
    assert_eq!(get(address, "/ready"), (200, "ready".into()));
    service.server.signal("TERM", 1);
    service.server.wait_for_line(&["not ready any more"]);
    assert_eq!(get(address, "/ready").0, 503);
    assert_eq!(get(address, "/health").0, 200);
    service.enter().talks().leave();
    service.server.signal("TERM", 1);
    service.server.wait_for_line(&["draining: accepting has ended"]);
    service.has_stopped();
}

#[test]
fn an_operator_sets_ready_to_fail_and_clients_are_still_served() {
    let (address, keys) = metrics();
    let backends = backends(1).global(&keys);
    let service = backends.start_daemon("info");
    let ctl = |args: &[&str]| {
        let output = output(&mut service.server.command(&[&["ctl", "ready-fail"], args].concat()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(ctl(&[]), "off\n");
    assert_eq!(ctl(&["on"]), "on\n");
    let (status, why) = get(address, "/ready");
    assert!(status == 503 && why.starts_with("ready-fail is on, by uid "), "{status} {why}");
    service.enter().talks().leave();
    assert_eq!(ctl(&["off"]), "off\n");
    assert_eq!(get(address, "/ready"), (200, "ready".into()));
    service.stops();
}

#[test]
fn it_is_ready_while_a_client_would_be_served() {
    for (policy, status) in [("close", 503), ("try_anyway", 200)] {
        let (address, keys) = metrics();
        let backends = dead_backends(1)
            .pool(&format!("name = \"web\"\nwhen_all_down = \"{policy}\""))
            .health("type = \"tcp\", interval = \"100ms\", timeout = \"100ms\", fall = 1")
            .global(&keys);
        let service = backends.start_daemon("info");
        let line = service.server.wait_for_line(&["to=down"]);
        assert!(line.contains(" WARN ") && !line.starts_with('<'), "{line}");
        until("the table is published", || get(address, "/ready?pool=web").0 == status);
        assert_eq!(get(address, "/ready").0, status);
        assert_eq!(get(address, "/ready?pool=none").0, 404);
        assert_eq!(get(address, "/ready?pol=web").0, 400);
        assert_eq!(get(address, "/health").0, 200);
        service.stops();
    }
}
