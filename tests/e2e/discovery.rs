//! Backends that come and go by themselves, as a name server says.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};

use l4lb::api;

use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::{free_address, patient_client, try_patient_client, until};
use crate::harness::program::output;

/// A name server on a thread that ends with the test program.
struct NameServer {
    at: SocketAddr,
    records: Arc<Mutex<HashMap<String, Vec<RData>>>>,
}

impl NameServer {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let server = Self { at: socket.local_addr().expect("it is bound"), records: Arc::default() };
        let records = Arc::clone(&server.records);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut bytes) {
                let question = Message::from_vec(&bytes[..len]).expect("a question");
                let answer = answer(&question, &records.lock().expect("lock not poisoned"));
                // Whoever has asked may have gone.
                let _gone = socket.send_to(&answer.to_vec().expect("an answer"), from);
            }
        });
        server
    }

    fn say(&self, name: &str, records: impl IntoIterator<Item = RData>) {
        self.records
            .lock()
            .expect("lock not poisoned")
            .insert(format!("{name}."), records.into_iter().collect());
    }

    fn addresses(&self, name: &str, ips: &[Ipv4Addr]) {
        self.say(name, ips.iter().map(|ip| RData::A(A(*ip))));
    }
}

/// No name is NXDOMAIN, and no record a failure.
fn answer(question: &Message, known: &HashMap<String, Vec<RData>>) -> Message {
    let mut answer = question.clone().into_response();
    answer.edns = None;
    let query = &question.queries[0];
    match known.get(&query.name().to_ascii().to_lowercase()) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(records) if records.is_empty() => answer.metadata.response_code = ResponseCode::ServFail,
        Some(records) => {
            let wanted = records.iter().filter(|record| record.record_type() == query.query_type());
            answer.answers =
                wanted.map(|record| Record::from_rdata(query.name().clone(), 1, record.clone())).collect();
        }
    }
    answer
}

pub(crate) const A1: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 1);
pub(crate) const A2: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 2);
pub(crate) const A3: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 3);

/// Backends on one port of these addresses; each greets with the last number of its own and says so again for every
/// byte.
pub(crate) fn backends(ips: &[Ipv4Addr]) -> u16 {
    let (port, listeners) = loop {
        let first = TcpListener::bind((ips[0], 0)).expect("a free port");
        let port = first.local_addr().expect("it is bound").port();
        let others: Result<Vec<TcpListener>, _> =
            ips[1..].iter().map(|ip| TcpListener::bind((*ip, port))).collect();
        // Somebody else may have that port of another address.
        if let Ok(others) = others {
            break (port, std::iter::once(first).chain(others).collect::<Vec<_>>());
        }
    };
    for listener in listeners {
        let IpAddr::V4(ip) = listener.local_addr().expect("it is bound").ip() else { panic!("it is IPv4") };
        let last = ip.octets()[3];
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                thread::spawn(move || {
                    let mut byte = [0];
                    // Until the other side has gone.
                    while stream.write_all(&[last]).is_ok() && stream.read_exact(&mut byte).is_ok() {}
                });
            }
        });
    }
    port
}

fn config(server: &NameServer, port: u16, keys: &str) -> String {
    format!(
        "[[pool]]\nname = \"web\"\nhealth = {{ type = \"off\" }}\non_remove = \"keep\"\n[[pool.discover]]\ntype = \"dns\"\n\
         name = \"web.test\"\nport = {port}\nresolver = [\"{}\"]\ninterval = \"100ms\"\n{keys}\n",
        server.at
    )
}

pub(crate) fn names(daemon: &Daemon) -> Vec<String> {
    let backends: Vec<api::Backend> = daemon.admin().get("/v1/backends").expect("an answer");
    assert!(backends.iter().all(|backend| backend.source == api::Source::Discovered));
    let mut names: Vec<String> = backends.into_iter().map(|backend| backend.name).collect();
    names.sort();
    names
}

pub(crate) fn named(ips: &[Ipv4Addr], port: u16) -> Vec<String> {
    ips.iter().map(|ip| format!("{ip}:{port}")).collect()
}

pub(crate) fn sources(daemon: &Daemon) -> Vec<api::Discovery> {
    daemon.admin().get("/v1/discovery").expect("an answer")
}

pub(crate) fn ctl(daemon: &Daemon, args: &[&str]) -> String {
    String::from_utf8(output(&mut daemon.command(args)).stdout).expect("it is text")
}

/// How asking the only source goes; a word of its own before the process has begun with it.
pub(crate) fn state(daemon: &Daemon) -> String {
    sources(daemon).first().map_or_else(|| "none".to_owned(), |source| source.state.clone())
}

/// What an operator should know of the only source.
pub(crate) fn note(daemon: &Daemon) -> String {
    sources(daemon).first().and_then(|source| source.note.clone()).unwrap_or_default()
}

/// The backend that a new session meets.
pub(crate) fn visit(daemon: &Daemon) -> Option<u8> {
    let mut byte = [0];
    let mut client = try_patient_client(daemon.address).ok()?;
    client.read_exact(&mut byte).ok()?;
    Some(byte[0])
}

#[test]
fn backends_come_and_go_with_the_answers_and_sessions_stay() {
    let (server, port) = (NameServer::start(), backends(&[A1, A2, A3]));
    server.addresses("web.test", &[A1]);
    let daemon = Daemon::start(&config(&server, port, "obsolete = 0"), IPV4);
    until("the first one is there", || names(&daemon) == named(&[A1], port));
    until("its workers know it", || (0..8).all(|_| visit(&daemon) == Some(1)));
    let mut client = patient_client(daemon.address);
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [1]);
    server.addresses("web.test", &[A2, A3]);
    until("the others are there", || names(&daemon) == named(&[A2, A3], port));
    client.write_all(b"x").unwrap();
    client.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [1], "its session continues");
    until("new ones meet the others", || {
        (0..8).all(|_| visit(&daemon).is_some_and(|id| [2, 3].contains(&id)))
    });
    drop(client);
    // Failures and negative answers take nothing away.
    server.addresses("web.test", &[]);
    until("asking fails", || state(&daemon) == "failed");
    server.records.lock().unwrap().clear();
    until("there is no such name", || state(&daemon) == "nothing");
    assert_eq!(names(&daemon), named(&[A2, A3], port));
    server.addresses("web.test", &[A1, A2, A3]);
    until("all are there", || names(&daemon) == named(&[A1, A2, A3], port));
    daemon.stop();
}

#[test]
fn a_name_server_that_is_down_at_the_start_does_not_stop_the_process() {
    let (server, port) = (NameServer::start(), backends(&[A1]));
    server.addresses("web.test", &[]);
    let daemon = Daemon::start(&config(&server, port, ""), IPV4);
    until("asking fails", || state(&daemon) == "failed");
    assert_eq!((names(&daemon).len(), visit(&daemon)), (0, None), "no backend can serve");
    server.addresses("web.test", &[A1]);
    until("it serves", || visit(&daemon) == Some(1));
    daemon.stop();
}

/// A program without an answer that it needs, at its end.
fn starts_in_vain(config: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("l4lb.toml");
    let free = free_address();
    std::fs::write(&file, format!("[[listener]]\nbind = \"{free}\"\n{config}")).expect("write");
    let program = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_l4lb"));
        command.args(args).arg(&file).env("RUNTIME_DIRECTORY", folder.path());
        output(&mut command)
    };
    assert!(program(&["check"]).status.success(), "the configuration is good");
    let ended = program(&["-c"]);
    let errors = String::from_utf8(ended.stderr).expect("it is text");
    assert_eq!(ended.status.code(), Some(1), "{errors}");
    errors
}

#[test]
fn a_start_fails_without_the_first_answer_that_it_needs() {
    let (server, port) = (NameServer::start(), backends(&[A1]));
    server.addresses("web.test", &[]);
    let text = config(&server, port, "initial = \"fail\"");
    let errors = starts_in_vain(&text);
    let expected = format!(
        "pool \"web\": discover dns:web.test:{port}: no first answer, which initial = \"fail\" needs: "
    );
    assert!(errors.contains(&expected) && errors.contains("(asked 2 times)"), "{errors}");
    server.addresses("web.test", &[A1]);
    let daemon = Daemon::start(&text, IPV4);
    assert_eq!(visit(&daemon), Some(1), "from the first session on");
    daemon.stop();
    server.records.lock().unwrap().clear();
    let daemon = Daemon::start(&text, IPV4);
    assert_eq!(names(&daemon).len(), 0, "that there is none is an answer");
    daemon.stop();
}

#[test]
fn what_a_source_listed_last_serves_after_a_restart_while_no_name_server_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let state_file = folder.path().join("state.json");
    let (server, port) = (NameServer::start(), backends(&[A1, A2, A3]));
    server.addresses("web.test", &[A1, A2]);
    let text = config(&server, port, "initial = \"state_file\"\nobsolete = 0")
        + &format!("[admin]\nstate_file = {state_file:?}\n");
    let daemon = Daemon::start(&text, IPV4);
    until("both are there", || names(&daemon) == named(&[A1, A2], port));
    ctl(&daemon, &["ctl", "drain", &format!("web/{A2}:{port}")]);
    daemon.stop();
    server.addresses("web.test", &[]);
    let daemon = Daemon::start(&text, IPV4);
    assert!(
        (0..4).all(|_| visit(&daemon) == Some(1)),
        "from the first session on, and the other is in drain"
    );
    until("asking fails", || state(&daemon) == "failed");
    assert_eq!(names(&daemon), named(&[A1, A2], port));
    server.addresses("web.test", &[A3]);
    until("the first answer counts", || names(&daemon) == named(&[A3], port));
    daemon.stop();
    server.addresses("web.test", &[]);
    let daemon = Daemon::start(&text.replace("initial = \"state_file\"", "initial = \"empty\""), IPV4);
    until("asking fails", || state(&daemon) == "failed");
    assert_eq!(names(&daemon).len(), 0, "nothing is kept where that was not asked for");
    daemon.stop();
}

#[test]
fn a_reload_waits_for_the_first_answer_that_it_needs_and_is_refused_without() {
    let (server, port) = (NameServer::start(), backends(&[A1, A2]));
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    server.addresses("web.test", &[A1]);
    server.addresses("more.test", &[A2]);
    let one = config(&server, port, "");
    let with = |resolver: SocketAddr| {
        format!(
            "{one}[[pool.discover]]\ntype = \"dns\"\nname = \"more.test\"\nport = {port}\n\
             resolver = [\"{resolver}\"]\ninitial = \"fail\"\n"
        )
    };
    let daemon = Daemon::start(&one, IPV4);
    until("the first one is there", || names(&daemon) == named(&[A1], port));
    until("its workers know it", || visit(&daemon) == Some(1));
    daemon.rewrite(&with(silent.local_addr().expect("it is bound")));
    let is_reading = || {
        let status: api::Status = daemon.admin().get("/v1/status").expect("status");
        status.reload.reading_since.is_some()
    };
    for args in [&["ctl", "reload"][..], &["ctl", "reload", "--dry-run"]] {
        let refused = thread::scope(|scope| {
            let reload = scope.spawn(|| output(&mut daemon.command(args)));
            until("the reload waits for an answer", is_reading);
            assert_eq!(visit(&daemon), Some(1), "sessions do not");
            reload.join().expect("nobody panics")
        });
        let errors = String::from_utf8(refused.stderr).expect("it is text");
        assert!(!refused.status.success() && errors.contains("no first answer"), "{errors}");
    }
    assert_eq!((names(&daemon), sources(&daemon).len()), (named(&[A1], port), 1), "what runs stays");
    daemon.rewrite(&with(server.at));
    let applied = output(&mut daemon.command(&["ctl", "reload"]));
    assert!(applied.status.success(), "{applied:?}");
    assert_eq!(names(&daemon), named(&[A1, A2], port), "with the answer");
    // A source that has answered needs no first answer again.
    server.addresses("more.test", &[]);
    daemon.rewrite(&format!("{}obsolete = 3\n", with(server.at)));
    assert!(output(&mut daemon.command(&["ctl", "reload"])).status.success());
    assert_eq!(names(&daemon), named(&[A1, A2], port));
    daemon.stop();
}

#[test]
fn a_reload_takes_sources_in_and_out_and_loses_nothing_of_those_that_stay() {
    let (server, port) = (NameServer::start(), backends(&[A1, A2]));
    server.addresses("web.test", &[A1]);
    server.addresses("more.test", &[A2]);
    let one = config(&server, port, "");
    let both = format!(
        "{one}[[pool.discover]]\ntype = \"dns\"\nname = \"more.test\"\nport = {port}\nresolver = [\"{}\"]\n",
        server.at
    );
    let daemon = Daemon::start(&one, IPV4);
    until("the first one is there", || names(&daemon) == named(&[A1], port));
    server.addresses("web.test", &[]);
    daemon.reload(&both);
    until("both are there", || names(&daemon) == named(&[A1, A2], port));
    assert_eq!(sources(&daemon).len(), 2);
    daemon.reload(&one);
    until("the other one has gone", || names(&daemon) == named(&[A1], port));
    daemon.reload(&one.replace("100ms", "200ms"));
    assert_eq!(names(&daemon), named(&[A1], port), "though nothing answers");
    assert_eq!(sources(&daemon).len(), 1);
    daemon.stop();
}

#[test]
fn a_service_has_ports_weights_and_tiers_of_its_own() {
    let (server, port) = (NameServer::start(), backends(&[A1, A2]));
    let host = |priority, weight, name: &str| {
        RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(name).unwrap()))
    };
    server.say("_http._tcp.web.test", [host(1, 7, "a.test."), host(2, 1, "b.test.")]);
    server.addresses("a.test", &[A1]);
    server.addresses("b.test", &[A2]);
    let text = config(&server, port, "record = \"srv\"")
        .replace("web.test", "_http._tcp.web.test")
        .replace(&format!("port = {port}\n"), "");
    let daemon = Daemon::start(&text, IPV4);
    until("both are there", || names(&daemon) == named(&[A1, A2], port));
    let backends: Vec<api::Backend> = daemon.admin().get("/v1/backends").unwrap();
    let found = |ip: Ipv4Addr| {
        let backend = backends.iter().find(|backend| backend.address.starts_with(&ip.to_string())).unwrap();
        (backend.weight, backend.priority)
    };
    assert_eq!((found(A1), found(A2)), ((7, 0), (1, 1)));
    // The next tier serves when no backend of the first does.
    until("its workers know both", || (0..4).all(|_| visit(&daemon) == Some(1)));
    daemon.stop();
}

#[test]
fn sources_are_shown_with_their_answers() {
    let (server, port) = (NameServer::start(), backends(&[A1, A2]));
    server.addresses("web.test", &[A1]);
    let daemon = Daemon::start(
        &config(&server, port, "interval = \"1h\"").replacen("interval = \"100ms\"\n", "", 1),
        IPV4,
    );
    until("the first one is there", || names(&daemon) == named(&[A1], port));
    server.addresses("web.test", &[A2]);
    let said = ctl(&daemon, &["ctl", "discover", "web"]);
    assert!(said.contains(&format!("dns:web.test:{port}: 1 backend")), "{said}");
    let line = |ip: Ipv4Addr| said.lines().find(|line| line.starts_with(&ip.to_string())).unwrap_or_default();
    assert!(line(A2).contains("new") && line(A1).contains("gone"), "{said}");
    assert_eq!(names(&daemon), named(&[A1], port), "it was only asked");
    let shown = ctl(&daemon, &["ctl", "discover"]);
    assert!(shown.contains("found") && shown.contains("1 source, 1 backend"), "{shown}");
    daemon.stop();
}

/// The pool was empty until the next answer, which may be an hour away.
#[test]
fn backends_that_move_from_the_file_to_a_source_serve_on() {
    let (server, port) = (NameServer::start(), backends(&[A1]));
    server.addresses("web.test", &[A1]);
    let later = config(&server, port, "interval = \"1h\"").replacen("interval = \"100ms\"\n", "", 1);
    let listed = format!("[[pool.backend]]\naddress = \"{A1}:{port}\"\n[[pool.discover]]");
    let daemon = Daemon::start(&later.replace("[[pool.discover]]", &listed), IPV4);
    until("it is the file's", || sources(&daemon).iter().any(|source| source.left_out.len() == 1));
    daemon.reload(&later);
    until("it is the source's", || {
        assert_eq!(visit(&daemon), Some(1), "it always serves");
        sources(&daemon).iter().all(|source| source.left_out.is_empty())
    });
    assert_eq!((names(&daemon), visit(&daemon)), (named(&[A1], port), Some(1)));
    daemon.stop();
}

/// A backend that has moved is known as soon as a dial shows that, not with the next answer.
#[test]
fn a_failed_dial_asks_early() {
    let (server, port) = (NameServer::start(), backends(&[A1]));
    // Nothing listens there.
    server.addresses("web.test", &[A2]);
    let keys = "obsolete = 0\ninterval = \"1h\"";
    let daemon = Daemon::start(&config(&server, port, keys).replacen("interval = \"100ms\"\n", "", 1), IPV4);
    until("it is there", || names(&daemon) == named(&[A2], port));
    server.addresses("web.test", &[A1]);
    until("it was asked early", || {
        assert_ne!(visit(&daemon), Some(2));
        names(&daemon) == named(&[A1], port)
    });
    daemon.stop();
}
