//! `allow` and `deny` of a listener: clients that may not connect, and lists that change.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use l4lb::admission::{Access, Item};
use l4lb::config::Config;
use l4lb::session::CloseReason::Done;
use l4lb::stats::RefuseReason;

use crate::harness::backends::{Visit, backends};
use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::{PATIENCE, new_socket, until};
use crate::harness::program::output;

const HOME: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const LOG: &str = "info,l4lb::session=off";

/// Returns whether a client from there is greeted; it must be reset otherwise.
#[track_caller]
fn is_served(address: SocketAddr, from: Ipv4Addr) -> bool {
    let socket = new_socket(address, None);
    socket.bind(&SocketAddr::new(from.into(), 0).into()).expect("bind a client");
    // The reset may come before connect(2) returns.
    let greeted = socket.connect(&address.into()).and_then(|()| {
        let mut client = TcpStream::from(socket);
        client.set_read_timeout(Some(PATIENCE))?;
        client.read_exact(&mut [0])
    });
    greeted.map_err(|error| assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}")).is_ok()
}

fn lists(allow: &[&str], deny: &[&str]) -> impl Fn(&mut Config) + use<> {
    let items =
        |list: &[&str]| list.iter().map(|text| Item::Network(text.parse().expect("a network"))).collect();
    let access = Arc::new(Access::new(items(allow), items(deny)));
    move |config| config.listeners[0].access = Some(Arc::clone(&access))
}

#[test]
fn a_denied_client_is_reset_unread_and_is_no_session() {
    let backends = backends(1).listeners(&["deny = [\"127.0.0.0/8\"]\nallow = [\"127.0.0.2/31\", \"::/0\"]"]);
    let service = backends.start();
    for _ in 0..3 {
        assert!(!is_served(service.address(), Ipv4Addr::LOCALHOST));
    }
    service.until_refused(RefuseReason::Denied, 3);
    Visit::greeted(service.client_of(0, HOME)).leave();
    let totals = service.ends(&[(Done, 1)]);
    assert_eq!((totals.accepted, totals.dials), (1, 1), "{totals}");
}

#[test]
fn a_refused_client_gets_an_end_of_stream_where_that_is_configured() {
    let backends = backends(1).listeners(&["deny = [\"127.0.0.1\"]\non_refuse = \"close\""]);
    let service = backends.start();
    let mut client = TcpStream::connect(service.address()).expect("connect");
    client.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    service.until_refused(RefuseReason::Denied, 1);
    let totals = service.ends(&[]);
    assert_eq!(totals.accepted, 0, "{totals}");
}

#[test]
fn an_ipv4_client_of_an_ipv6_listener_is_the_ipv4_client() {
    let backends = backends(1).listeners(&["deny = [\"127.0.0.0/8\"]"]);
    let mut service = backends.start();
    service.change(|config| {
        let first = config.listeners[0].clone();
        let both =
            l4lb::config::model::Listener { name: "both".into(), bind: "[::]:0".parse().unwrap(), ..first };
        config.listeners.push(both);
    });
    let port = service.server.address_of("both").expect("it listens").port();
    assert!(!is_served(([127, 0, 0, 1], port).into(), Ipv4Addr::LOCALHOST));
    service.until_refused(RefuseReason::Denied, 1);
    let mut client = TcpStream::connect(("::1", port)).expect("connect");
    service.count_client();
    client.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    client.read_exact(&mut [0]).expect("a greeting");
}

/// Under both lists one client is admitted and the other is not, by other networks.
#[test]
fn while_lists_are_replaced_no_client_meets_half_of_one() {
    const ROUNDS: u32 = 60;
    let backends = backends(1);
    let service = backends.start();
    let address = service.address();
    let both =
        [lists(&["127.0.0.2"], &["127.0.0.0/8"]), lists(&["127.0.0.0/8"], &["127.0.0.3", "127.0.0.1"])];
    service.reload(&both[0]);
    until("the workers have a list", || !is_served(address, STRANGER));
    std::thread::scope(|scope| {
        let clients = scope.spawn(move || {
            (0..ROUNDS).for_each(|_| assert!(!is_served(address, STRANGER)));
        });
        let service = &service;
        for round in 0.. {
            service.reload(&both[round % 2]);
            Visit::greeted(service.client_of(0, HOME)).leave();
            if clients.is_finished() {
                break;
            }
        }
    });
}

#[test]
fn a_reload_reads_the_files_of_lists_again_and_open_sessions_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("deny.txt");
    let write = |text: &str| fs::write(&list, text).expect("write the list");
    write("# nobody\n");
    let backends = backends(1);
    let config = format!("deny = [\"file:{}\"]\n{}", list.display(), backends.daemon_toml());
    let service = backends.serve_by(Daemon::start_with(&config, IPV4, LOG, &[]));
    let address = service.address();
    let stays = Visit::greeted(service.client_of(0, STRANGER));
    write("127.0.0.3 # a stranger\n127.0.0.1\n");
    service.server.signal("HUP", 1);
    let line = service.server.wait_for_line(&["deny file:"]);
    assert!(line.contains("(0@") && line.contains("(2@"), "{line}");
    until("the workers have the list", || !is_served(address, STRANGER));
    let line = service.server.wait_for_line(&["a client is refused"]);
    assert!(line.contains("client=127.0.0.3:") && line.contains("reason=denied"), "{line}");
    // A file with a mistake changes nothing, nor does one that has gone.
    write("127.0.0.3\nnobody\n");
    service.server.signal("HUP", 1);
    service.server.wait_for_line(&["deny.txt:2: "]);
    service.server.wait_for_line(&["configuration refused"]);
    fs::remove_file(&list).expect("remove the list");
    service.server.signal("HUP", 1);
    service.server.wait_for_line(&["deny.txt: cannot read it"]);
    service.server.wait_for_line(&["configuration refused"]);
    assert!(!is_served(address, STRANGER));
    write("127.0.0.1\n");
    service.server.signal("HUP", 1);
    until("the workers have the list", || is_served(address, STRANGER));
    // The files alone: what else is in the configuration is not read.
    service.server.rewrite("nonsense");
    write("127.0.0.0/24\n");
    let ctl = |args: &[&str]| {
        let printed = output(&mut service.server.command(&[&["ctl", "acl"], args].concat()));
        (String::from_utf8(printed.stdout).expect("UTF-8"), String::from_utf8(printed.stderr).expect("UTF-8"))
    };
    let admitted = "admitted, no list has the address";
    until("the API has the list", || ctl(&["test", "127.0.0.3"]).0.contains(admitted));
    let (done, errors) = ctl(&["reload"]);
    assert!(done.starts_with("1 change applied"), "{done} {errors}");
    until("the workers have the list", || !is_served(address, STRANGER));
    let place = format!("refused, deny 127.0.0.0/24 ({}:1)\n", list.display());
    let (refused, _) = ctl(&["test", "::ffff:127.0.0.3"]);
    assert!(refused.ends_with(&place), "{refused}");
    fs::remove_file(&list).expect("remove the list");
    let (done, errors) = ctl(&["reload"]);
    assert!(done.is_empty() && errors.contains("deny.txt: cannot read it"), "{done} {errors}");
    assert!(ctl(&["test", "127.0.0.3", "nobody"]).1.contains("there is no listener \"nobody\""));
    stays.leave();
}
