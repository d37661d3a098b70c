//! The descriptors that the workers say they hold are those that the process has open. Alone in its process, because it
//! counts all of them.

#![expect(clippy::unwrap_used, reason = "a test may")]
#![expect(clippy::disallowed_methods, reason = "a deadline")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use l4lb::config::model::AdminSocket;
use l4lb::config::{self, Overrides};
use l4lb::server::{self, Running};
use l4lb::stats::{self, FdKind, Totals};

/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(30);
const SESSIONS: usize = 20;
const WORKERS: usize = 2;
const LISTENERS: usize = 2;
/// epoll, its waker, and what wakes it for signals; and what wakes the thread that runs programs.
const RUNTIME_FILES_MAX: usize = 6;

fn open_files() -> usize {
    // The iterator has one itself.
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// Descriptors that the workers report.
fn reported(totals: &Totals) -> usize {
    usize::try_from(totals.fds.iter().sum::<u64>()).unwrap()
}

fn of_kind(server: &Running, kind: FdKind) -> usize {
    usize::try_from(server.totals().fds[kind.index()]).unwrap()
}

#[test]
fn descriptors_by_kind_add_up_to_what_the_process_has_open() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "[global]\nworkers = {WORKERS}\n[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:9090\"\n[[listener]]\n\
         name = \"b\"\nbind = \"127.0.0.1:9091\"\n[[pool]]\nrelay = \"splice\"\nhealth = {{ type = \"off\" }}\n\
         backend = [{{ address = \"{}\" }}]\n",
        backend.local_addr().unwrap()
    );
    let nobody = &mut |_: &str| Ok(Vec::new());
    let mut config = config::parse(&text, "test", &Overrides::default(), nobody).unwrap();
    // Not where the configuration says: those ports may be somebody's.
    config.listeners.iter_mut().for_each(|listener| listener.bind.set_port(0));
    // It has descriptors of its own.
    config.admin.socket = AdminSocket::Off;
    let without = open_files();
    let server = server::start(&config).unwrap();
    until("the workers report what they hold", || {
        of_kind(&server, FdKind::Listener) == WORKERS * LISTENERS
            && of_kind(&server, FdKind::Event) == 2 * WORKERS
    });
    // Those of the runtime of the admin API: a reload may give it an address to listen on.
    let before = open_files() - reported(&server.totals());
    assert!(
        before - without <= RUNTIME_FILES_MAX,
        "{without} files, and {before} besides those of the workers"
    );

    let mut peers: Vec<(TcpStream, TcpStream)> = Vec::new();
    for session in 0..SESSIONS {
        let mut client = TcpStream::connect(server.addresses[session % LISTENERS]).unwrap();
        let (mut accepted, _) = backend.accept().unwrap();
        // A byte each way needs a pipe.
        client.write_all(b"x").unwrap();
        accepted.read_exact(&mut [0]).unwrap();
        peers.push((client, accepted));
    }
    until("all that is open is reported", || {
        before + 2 * peers.len() + reported(&server.totals()) == open_files()
            && of_kind(&server, FdKind::Backend) == SESSIONS
    });
    assert_eq!(of_kind(&server, FdKind::Client), SESSIONS);
    assert!(of_kind(&server, FdKind::Pipe) >= 2, "no pipe was used");

    drop(peers);
    until("every session is over", || server.totals().closed_total() == SESSIONS as u64);
    until("what they held is closed", || before + reported(&server.totals()) == open_files());
    until("the books are at rest", || stats::violations_at_rest(&server.totals()).is_empty());
    server.terminate();
    let totals = server.wait().unwrap();
    assert_eq!(reported(&totals), 0);
    until("the runtime of the admin API has ended", || open_files() == without);
}
