//! What a service manager sees: sockets that it passes, and the notices that it receives. And the rotated access log.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use l4lb::session::Side;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, mkfifo};
use procfs::net::TcpState;
use socket2::{Domain, SockFilter, Socket, Type};
use tempfile::TempDir;

use crate::harness::backends::{Backends, Service, Visit, backends};
use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::{PATIENCE, Peer, SetOnDrop, free_address, patience, retry, until};
use crate::harness::program::{Program, output};

/// The other end of NOTIFY_SOCKET.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("bind");
        Self { socket, dir }
    }

    fn start<'a>(&self, backends: &'a Backends, env: &[(&str, &str)]) -> Service<'a, Daemon> {
        let path = self.dir.path().join("notify");
        let notify = [("NOTIFY_SOCKET", path.to_str().expect("a path in UTF-8"))];
        backends.start_daemon_with("info", &[&notify, env].concat())
    }

    /// Returns the next message; `None` when none arrives within `span`.
    fn message_within(&self, span: Duration) -> Option<Vec<String>> {
        // Zero would be for ever.
        let span = span.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(span)).expect("SO_RCVTIMEO");
        let mut buffer = [0; 4096];
        let len = match retry(|| self.socket.recv(&mut buffer)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            len => len.expect("recv"),
        };
        let text = String::from_utf8(buffer[..len].to_vec()).expect("UTF-8");
        Some(text.lines().map(str::to_owned).collect())
    }

    /// The next message that has a line which starts with `word`.
    #[track_caller]
    fn message_with(&self, word: &str) -> Vec<String> {
        let left = patience();
        loop {
            let lines = self.message_within(left()).unwrap_or_else(|| panic!("no message has {word}"));
            if lines.iter().any(|line| line.starts_with(word)) {
                return lines;
            }
        }
    }
}

#[test]
fn the_service_manager_is_notified_of_the_start_and_the_end_of_a_reload() {
    let (manager, backends) = (Manager::new(), backends(1));
    let service = manager.start(&backends, &[]);
    assert_eq!(manager.message_within(PATIENCE), Some(vec!["READY=1".into(), "STATUS=serving".into()]));
    service.enter().talks().leave();
    service.server.signal("HUP", 1);
    let reloading = manager.message_with("RELOADING=1");
    let since = reloading[1].strip_prefix("MONOTONIC_USEC=").expect("the time of it");
    assert!(since.parse::<u64>().is_ok_and(|micros| micros > 0), "{reloading:?}");
    manager.message_with("READY=1");
    service.server.signal("TERM", 1);
    manager.message_with("STOPPING=1");
    service.has_stopped();
}

/// The process hung, and SIGTERM was caught and lost.
#[test]
fn a_state_file_that_is_no_file_ends_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = dir.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).expect("mkfifo");
    let config = dir.path().join("l4lb.toml");
    let text = format!(
        "[admin]\nsocket = false\nstate_file = {fifo:?}\n[[listener]]\nbind = \"{}\"\n\
         [[pool]]\nbackend = [{{ address = \":1\" }}]\n",
        free_address()
    );
    fs::write(&config, text).expect("write the configuration");
    let output = output(Command::new(env!("CARGO_BIN_EXE_l4lb")).arg("-c").arg(&config));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot be read: it is a FIFO, not a regular file"), "{said}");
    assert!(!output.status.success());
}

/// The thread that read waited for a writer of the FIFO, and no reload came to anything any more.
#[test]
fn a_configuration_that_is_no_file_is_refused_and_the_next_one_is_read() {
    let (manager, backends) = (Manager::new(), backends(1));
    let service = manager.start(&backends, &[]);
    manager.message_with("READY=1");
    let path = service.server.config_file().to_owned();
    fs::remove_file(&path).expect("remove the configuration");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("mkfifo");
    service.server.signal("HUP", 1);
    manager.message_with("RELOADING=1");
    manager.message_with("READY=1");
    let line = service.server.wait_for_line(&["cannot read it"]);
    assert!(line.contains("it is a FIFO, not a regular file"), "{line}");
    fs::remove_file(&path).expect("remove the FIFO");
    service.server.reload(&backends.daemon_toml());
    service.server.wait_for_line(&["configuration applied"]);
    service.enter().talks().leave();
    service.stops();
}

/// The second reload was announced before the end of the first one, which then seemed to be that of the second.
/// Case 89.
#[test]
fn a_reload_ends_before_the_next_one_is_announced() {
    const SIGNALS: usize = 25;
    let (manager, backends) = (Manager::new(), backends(1));
    let service = manager.start(&backends, &[]);
    manager.message_with("READY=1");
    let words = thread::scope(|scope| {
        let storm = || (0..SIGNALS).for_each(|_| service.server.signal("HUP", 1));
        let storms = [scope.spawn(storm), scope.spawn(storm)];
        let (left, mut words) = (patience(), Vec::new());
        while storms.iter().any(|storm| !storm.is_finished()) || words.len() % 2 == 1 {
            assert!(!left().is_zero(), "no end of it: {words:?}");
            let said = manager.message_within(Duration::from_millis(100)).unwrap_or_default();
            words.extend(said.into_iter().filter(|word| word == "READY=1" || word == "RELOADING=1"));
        }
        words
    });
    for (place, pair) in words.chunks(2).enumerate() {
        assert_eq!(pair, ["RELOADING=1", "READY=1"], "{place} of {}", words.len() / 2);
    }
    assert!(words.len() >= 4, "{words:?}");
    service.stops();
}

/// A worker that is stopped alone, as if it were stuck in a loop or in a call.
struct StuckThread(Pid);

impl StuckThread {
    fn new(thread: i32) -> Self {
        let thread = Pid::from_raw(thread);
        ptrace::seize(thread, ptrace::Options::empty()).expect("ptrace");
        ptrace::interrupt(thread).expect("interrupt");
        let look = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        until("the thread stops", || waitpid(thread, Some(look)).expect("waitpid") != WaitStatus::StillAlive);
        Self(thread)
    }

    fn resume(self) {}
}

impl Drop for StuckThread {
    fn drop(&mut self) {
        // Also when the test has failed: nobody could wait for the process while one of its threads is held.
        ptrace::detach(self.0, None).expect("detach");
    }
}

/// Goal G22.
#[test]
fn a_stuck_worker_is_named_and_stops_the_notices_until_it_turns_again() {
    const PERIOD: Duration = Duration::from_secs(3);
    let (manager, backends) = (Manager::new(), backends(1).workers(2));
    let service = manager.start(&backends, &[("WATCHDOG_USEC", "3000000")]);
    (0..2).for_each(|_| _ = manager.message_with("WATCHDOG=1"));
    let stuck = StuckThread::new(service.server.thread("l4lb-worker-1"));
    // Where the machine is busy, another one may be named for a moment.
    service.server.wait_for_line(&["no more watchdog notices to the service manager worker=1"]);
    // What was said before is still to be read.
    while manager.message_within(Duration::from_millis(1)).is_some() {}
    assert_eq!(manager.message_within(PERIOD), None, "the service manager would restart it now");
    stuck.resume();
    manager.message_with("WATCHDOG=1");
    service.server.wait_for_line(&["stuck worker has resumed or stopped worker=1"]);
    service.stops();
}

/// One worker may have nothing left to do while the other one still serves.
#[test]
fn the_watchdog_is_notified_while_a_drain_lasts() {
    let (manager, backends) = (Manager::new(), backends(1).workers(2));
    let service = manager.start(&backends, &[("WATCHDOG_USEC", "300000")]);
    let visit = service.enter().talks();
    service.server.signal("TERM", 1);
    manager.message_with("STOPPING=1");
    (0..5).for_each(|_| _ = manager.message_with("WATCHDOG=1"));
    visit.talks().leave();
    service.has_stopped();
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let (manager, backends) = (Manager::new(), backends(1));
    let service = manager.start(&backends, &[("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")]);
    manager.message_with("READY=1");
    assert_eq!(manager.message_within(Duration::from_millis(300)), None);
    service.stops();
}

fn new_listener(reuse_port: bool) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_reuse_port(reuse_port).expect("SO_REUSEPORT");
    socket.bind(&IPV4.into()).expect("bind");
    socket.listen(64).expect("listen");
    socket
}

fn address_of(socket: &Socket) -> SocketAddr {
    socket.local_addr().expect("getsockname").as_socket().expect("an IP address")
}

/// How many sockets listen there.
fn listening_at(address: SocketAddr) -> usize {
    let entries = procfs::net::tcp().expect("/proc/net/tcp");
    entries.iter().filter(|entry| entry.local_address == address && entry.state == TcpState::Listen).count()
}

/// Starts l4lb as systemd would that has opened `sockets`, the first of which is for its listener.
fn activate<'a>(backends: &'a Backends, sockets: [&Socket; 2]) -> Service<'a, Daemon> {
    // The shell has them as its input and its output, l4lb where sd_listen_fds(3) says.
    let script = "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
    let [first, second] = sockets.map(|socket| Stdio::from(OwnedFd::from(socket.try_clone().expect("dup"))));
    let mut command = Command::new("sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_l4lb")])
        .envs([("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "l4lb.socket:other.socket"), ("RUST_LOG", "info")])
        .stdin(first)
        .stdout(second);
    let address = address_of(sockets[0]);
    backends
        .serve_by(Daemon::try_start(command, &backends.daemon_toml(), address).expect("the address is ours"))
}

/// Case 94.
#[test]
fn a_passed_socket_serves_connections_from_before_and_between_processes() {
    for (reuse_port, listening) in [(true, 2), (false, 1)] {
        let backends = backends(1).workers(2);
        let (socket, other) = (new_listener(reuse_port), new_listener(false));
        let mut early = Peer::connect(address_of(&socket), 1_000, None);
        for round in 1..=2 {
            let service = activate(&backends, [&socket, &other]);
            service.count_client();
            Visit::greeted(early).talks().leave();
            (0..20).for_each(|_| _ = service.enter().talks().leave());
            service.stops();
            // Nobody serves now, and nobody is refused.
            early = Peer::connect(address_of(&socket), 1_000 + round, None);
        }
        let service = activate(&backends, [&socket, &other]);
        assert_eq!(listening_at(address_of(&socket)), listening, "SO_REUSEPORT: {reuse_port}");
        service.count_client();
        Visit::greeted(early).leave();
        service.stops();
    }
}

/// A client whose handshake is under way: the answer to its SYN has not arrived, which is repeated after a second.
pub(crate) fn half_connected(to: SocketAddr) -> Socket {
    // linux/filter.h: returns 0, which drops the packet.
    let drop_all = SockFilter::new(0x06, 0, 0, 0);
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    client.set_nonblocking(true).expect("O_NONBLOCK");
    client.attach_filter(&[drop_all]).expect("SO_ATTACH_FILTER");
    let pending = client.connect(&to.into()).expect_err("its peer does not answer");
    assert_eq!(pending.raw_os_error(), Some(Errno::EINPROGRESS as i32), "{pending}");
    client.detach_filter().expect("SO_DETACH_FILTER");
    client
}

/// The sockets beside the passed one were closed at once. These clients repeat their SYN then, and so are not lost; one
/// that has the answer already, and whose last segment is on its way, would be reset.
#[test]
fn a_handshake_at_a_socket_beside_a_passed_one_completes_while_the_process_ends() {
    const CLIENTS: u64 = 40;
    let backends = backends(1).workers(4);
    let (socket, other) = (new_listener(true), new_listener(false));
    let service = activate(&backends, [&socket, &other]);
    let pending: Vec<Socket> = (0..CLIENTS).map(|_| half_connected(address_of(&socket))).collect();
    service.server.signal("TERM", 1);
    service.server.wait_for_line(&["draining"]);
    let accepted_by = |server: Daemon| {
        let totals = server.has_stopped();
        let accepted = totals.split(' ').find_map(|total| total.strip_prefix("accepted="));
        accepted.and_then(|count| count.parse::<u64>().ok()).unwrap_or_else(|| panic!("{totals}"))
    };
    thread::scope(|scope| {
        let finish = |(number, client): (u64, Socket)| {
            until("the handshake is over", || {
                client.peer_addr().is_ok() || client.take_error().expect("SO_ERROR").is_some()
            });
            client.set_nonblocking(false).expect("O_NONBLOCK");
            Visit::greeted(Peer::new(Side::Client, client, number)).talks().leave();
        };
        let clients: Vec<_> = (0..).zip(pending).map(|client| scope.spawn(move || finish(client))).collect();
        // Those at the passed one wait in it for the next process.
        let ended = accepted_by(service.server);
        let next = activate(&backends, [&socket, &other]);
        clients.into_iter().for_each(|client| client.join().expect("a client"));
        next.server.signal("TERM", 1);
        let served = accepted_by(next.server);
        assert!(ended > 0 && served > 0, "{ended} and {served}");
        assert_eq!(ended + served, CLIENTS);
    });
}

/// The urgent byte was taken out of the stream: `abcdef` arrived.
#[test]
fn an_urgent_byte_of_a_client_of_a_passed_socket_stays_in_its_place() {
    let backends = backends(1);
    let (socket, other) = (new_listener(true), new_listener(false));
    let connect = || {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        client.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
        client.connect(&address_of(&socket).into()).expect("connect");
        client
    };
    // The first one comes before there is a process.
    let early = connect();
    let service = activate(&backends, [&socket, &other]);
    for mut client in [early, connect()] {
        service.count_client();
        client.send(b"abc").expect("send");
        client.send_out_of_band(b"U").expect("send");
        client.send(b"def").expect("send");
        let mut received = [0; 8];
        client.read_exact(&mut received).expect("the greeting and the echo");
        assert_eq!(&received[1..], b"abcUdef");
    }
    service.stops();
}

/// No process could listen there again, and the service manager waited for clients that were not let in.
#[test]
fn a_passed_socket_whose_listener_was_removed_is_there_for_the_next_one() {
    let backends = backends(1).workers(2);
    let (socket, other) = (new_listener(true), new_listener(true));
    let service = activate(&backends, [&socket, &other]);
    let without = backends.daemon_toml();
    let with = format!("{without}\n[[listener]]\nname = \"other\"\nbind = \"{}\"\n", address_of(&other));
    for round in 0..2 {
        service.server.reload(&with);
        service.server.wait_for_line(&["configuration applied"]);
        service.count_client();
        Visit::greeted(Peer::connect(address_of(&other), 100 + round, None)).talks().leave();
        service.server.reload(&without);
        service.server.wait_for_line(&["configuration applied"]);
        let in_vain = TcpStream::connect_timeout(&address_of(&other), Duration::from_millis(100));
        assert_eq!(in_vain.expect_err("nothing listens").kind(), ErrorKind::TimedOut);
    }
    service.stops();
    TcpStream::connect_timeout(&address_of(&other), PATIENCE).expect("it waits for the next process");
}

#[test]
fn a_passed_socket_stays_with_the_first_worker_while_others_come_and_go() {
    for (reuse_port, listening) in [(true, [1, 3, 1]), (false, [1, 1, 1])] {
        let backends = backends(1).workers(1);
        let (socket, other) = (new_listener(reuse_port), new_listener(false));
        let service = activate(&backends, [&socket, &other]);
        for (workers, listening) in [1, 3, 1].into_iter().zip(listening) {
            let config = backends.daemon_toml().replace("workers = 1\n", &format!("workers = {workers}\n"));
            service.server.reload(&config);
            service.server.wait_for_line(&["configuration applied"]);
            let visits: Vec<Visit> = (0..3).map(|_| service.enter().talks()).collect();
            if !reuse_port && workers == 3 {
                service.server.signal("USR1", 1);
                let line = service.server.wait_for_line(&[" worker_stats worker=2 "]);
                assert!(line.contains(" accepted=0 ") && line.contains(" adopted=1 "), "{line}");
            }
            visits.into_iter().for_each(|visit| _ = visit.leave());
            // One that a worker leaves behind is closed when its queue is served.
            until("as many listen as there are workers", || listening_at(address_of(&socket)) == listening);
        }
        service.stops();
    }
}

#[test]
fn more_passed_sockets_than_workers_are_refused_also_when_the_workers_become_fewer() {
    let backends = backends(1).workers(2);
    let socket = new_listener(true);
    let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    other.set_reuse_port(true).expect("SO_REUSEPORT");
    other.bind(&socket.local_addr().expect("getsockname")).expect("bind");
    other.listen(64).expect("listen");
    let service = activate(&backends, [&socket, &other]);
    service.server.reload(&backends.daemon_toml().replace("workers = 2\n", "workers = 1\n"));
    let line = service.server.wait_for_line(&["each needs a worker", "configuration applied"]);
    assert!(line.contains("2 sockets were passed for it, each needs a worker, and workers is 1"), "{line}");
    (0..20).for_each(|_| _ = service.enter().talks().leave());
    service.stops();
}

/// How a line of the access log begins, and what names its session.
fn client_of(line: &str) -> String {
    let (_, fields) = line.split_once(" INFO  session ").unwrap_or_else(|| panic!("{line}"));
    let client = fields.split(' ').find_map(|field| field.strip_prefix("client="));
    assert!(fields.contains(" reset_by="), "half a line: {line}");
    client.unwrap_or_else(|| panic!("{line}")).to_owned()
}

#[test]
fn no_line_of_the_access_log_is_lost_while_it_is_rotated_under_load() {
    const CLIENTS: usize = 4;
    const ROTATIONS: usize = 25;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("access.log");
    // The level is for the other lines.
    let keys = format!("log = {{ level = \"warn\" }}\naccess_log = {{ path = {path:?} }}");
    let backends = backends(1).workers(2).global(&keys);
    let service = backends.start_daemon("info");
    let is_over = AtomicBool::new(false);
    let visits = || {
        let mut clients = Vec::new();
        while !is_over.load(Ordering::Acquire) {
            let visit = service.enter().talks();
            clients.push(visit.client.local_address().to_string());
            visit.leave();
        }
        clients
    };
    let mut clients: Vec<String> = thread::scope(|scope| {
        let over = SetOnDrop(&is_over);
        let load: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(visits)).collect();
        for rotation in 0..ROTATIONS {
            fs::rename(&path, dir.path().join(format!("access.log.{rotation}"))).expect("rename");
            service.server.signal("USR1", 1);
            until("the file is there again", || path.exists());
        }
        drop(over);
        load.into_iter().flat_map(|load| load.join().expect("a client")).collect()
    });
    service.stops();
    let files = fs::read_dir(dir.path()).expect("list the logs").map(|file| file.expect("a log").path());
    let texts: Vec<String> = files.map(|file| fs::read_to_string(file).expect("read a log")).collect();
    assert_eq!(texts.len(), ROTATIONS + 1);
    let mut logged: Vec<String> = texts.iter().flat_map(|text| text.lines()).map(client_of).collect();
    clients.sort();
    logged.sort();
    assert!(clients.len() >= ROTATIONS, "{} sessions are no load", clients.len());
    assert_eq!(clients, logged);
}

#[test]
fn an_access_log_has_a_format_of_its_own_and_the_other_lines_stay_where_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("access.log");
    let backends = backends(1).global(&format!("access_log = {{ path = {path:?}, format = \"json\" }}"));
    let service = backends.start_daemon("info");
    service.enter().talks().leave();
    service.server.signal("USR1", 1);
    let line = service.server.wait_for_line(&[" session ", " worker_stats "]);
    assert!(line.contains(" worker_stats "), "{line}");
    service.stops();
    let text = fs::read_to_string(&path).expect("read the log");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert_eq!((&lines[0]["message"], &lines[0]["reason"]), (&"session".into(), &"done".into()));
}

#[test]
fn an_access_log_that_cannot_be_opened_ends_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("l4lb.toml");
    let free = free_address();
    let text = format!(
        "global = {{ access_log = {{ path = {:?} }} }}\nlistener = [{{ bind = \"{free}\" }}]\n\
         pool = [{{ backend = [{{ address = \":1\" }}] }}]\n",
        dir.path()
    );
    fs::write(&file, text).expect("write the configuration");
    let output = output(Command::new(env!("CARGO_BIN_EXE_l4lb")).arg("-c").arg(&file));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("access_log: cannot open "), "{errors}");
}

/// Errors and warnings were information to journalctl, which was asked for the others by priority.
#[test]
fn lines_for_the_journal_begin_with_their_priority() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = fs::File::create(dir.path().join("journal")).expect("create");
    let status = journal.metadata().expect("fstat");
    // Of RFC 5737, which no machine has: it logs, and ends.
    let args = ["-l", "192.0.2.1:9090", "-b", "127.0.0.1:1"];
    for (stream, is_journal) in [(format!("{}:{}", status.dev(), status.ino()), true), ("1:1".into(), false)]
    {
        journal.set_len(0).expect("ftruncate");
        let mut command = Command::new(env!("CARGO_BIN_EXE_l4lb"));
        command.args(args).env("JOURNAL_STREAM", stream).stderr(journal.try_clone().expect("dup"));
        assert!(!Program::start(&mut command).ends().success());
        let text = fs::read_to_string(dir.path().join("journal")).expect("read");
        let lines: Vec<&str> = text.trim_start_matches('\0').lines().collect();
        assert!(lines.iter().any(|line| line.contains(" INFO ")), "{text}");
        let infos = lines.iter().filter(|line| line.contains(" INFO "));
        assert!(infos.map(|line| line.starts_with("<6>")).all(|is_marked| is_marked == is_journal), "{text}");
    }
}

/// Whatever its environment says of passed sockets, it begins or says in a line why not.
#[test]
fn no_value_of_listen_fds_makes_it_panic() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("l4lb.toml");
    // The start comes to it behind the sockets, and no further.
    fs::write(&config, "no configuration").expect("write the configuration");
    let numbers = [
        "",
        "0",
        "1",
        "2",
        "-1",
        "+1",
        "1.0",
        " 1",
        "0x1",
        "2147483644",
        "2147483645",
        "4294967295",
        "4294967296",
        "99999999999999999999",
    ];
    let names = ["", ":", "web", "web:admin", ":::::::", "\u{e4}", "a=b"];
    let script = "export LISTEN_PID=$$; exec \"$0\" -c \"$1\"";
    let start = |fds: &str, names: Option<&str>, script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_l4lb")]).arg(&config).env("LISTEN_FDS", fds);
        names.map(|names| command.env("LISTEN_FDNAMES", names));
        let output = output(&mut command);
        let said = String::from_utf8_lossy(&output.stderr);
        let is_told = said.contains("LISTEN_FDS") || said.contains("l4lb.toml");
        let status = output.status.code();
        assert!(
            is_told && matches!(status, Some(1 | 2)) && !said.contains("panicked"),
            "{fds:?} {names:?}: {status:?} {said}"
        );
    };
    for fds in numbers {
        start(fds, None, script);
        names.iter().for_each(|names| start(fds, Some(names), script));
    }
    for pid in ["", "0", "-1", "x", "99999999999999999999"] {
        start("1", None, &format!("export LISTEN_PID='{pid}'; exec \"$0\" -c \"$1\""));
    }
}
