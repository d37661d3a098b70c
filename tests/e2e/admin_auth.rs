//! The admin API over TCP, where everybody on the machine can knock: who is let in, what is refused and how, and who
//! else can still be served meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use l4lb::config::model::AdminSocket;
use l4lb::config::{self, Config, Overrides, system_resolver};
use l4lb::control::admin::openapi;
use l4lb::server::{self, Running};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::harness::lab::{IPV4, audit};
use crate::harness::peer::{patient_backend, patient_client, retry};

const TOKEN: &str = "not-for-everybody-0123456789";
const READ_TOKEN: &str = "for-those-who-only-look-0123456789";
/// Clients that never finish what they begin.
const STUCK: usize = 1_000;
/// Sessions that are opened while they stand there.
const SESSIONS: u64 = 50;

/// A server in this process whose admin API listens on TCP.
struct Guarded {
    server: Running,
    admin: SocketAddr,
    document: Value,
    _tokens: [NamedTempFile; 2],
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Guarded {
    fn start(backend: SocketAddr) -> Self {
        let tokens = [TOKEN, READ_TOKEN].map(|token| {
            let file = NamedTempFile::new().expect("a file for the token");
            std::fs::write(file.path(), token).expect("write the token");
            file
        });
        let config = Self::config(backend, &tokens);
        let server = server::start(&config).expect("start the server");
        let admin = server.admin.listen.expect("it listens");
        let document = serde_json::to_value(openapi()).expect("JSON");
        Self { server, admin, document, _tokens: tokens }
    }

    fn config(backend: SocketAddr, [token, read]: &[NamedTempFile; 2]) -> Config {
        let text = format!(
            "[global]\nworkers = 1\n[[pool]]\nname = \"web\"\nhealth = {{ type = \"off\" }}\n\
             backend = [{{ name = \"a\", address = \"{backend}\" }}]\n"
        );
        let overrides = Overrides { listen: vec![IPV4], ..Overrides::default() };
        let config = config::parse(&text, "admin.toml", &overrides, &mut system_resolver);
        let mut config = config.expect("a good config");
        config.admin.socket = AdminSocket::Off;
        (config.admin.listen, config.admin.token_file) = (Some(IPV4), Some(token.path().to_owned()));
        config.admin.read_token_file = Some(read.path().to_owned());
        config
    }

    fn connect(&self) -> TcpStream {
        patient_client(self.admin)
    }

    /// What comes back for these bytes, to the end of the connection; `None` when that is nothing.
    fn send(&self, request: &[u8]) -> Option<Answer> {
        let mut stream = self.connect();
        match stream.write_all(request) {
            // Refused before it had come to its end.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            result => result.expect("send"),
        }
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            result => _ = result.expect("an answer"),
        }
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().expect("a status");
        Some(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    }

    /// What becomes of a request with these lines behind its first one. Where there is such a route, it has to be
    /// documented.
    #[track_caller]
    fn ask(&self, first: &str, headers: &[&str], body: &str) -> Answer {
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request = format!("{first} HTTP/1.1\r\nConnection: close\r\n{headers}{length}\r\n{body}");
        let answer =
            self.send(request.as_bytes()).unwrap_or_else(|| panic!("{first} {headers:?}: no answer"));
        let (method, path) = first.split_once(' ').expect("a method and a path");
        if let Some(answers) = self.documented(method, path) {
            let status = answer.status.to_string();
            assert!(answers.get(&status).is_some(), "{first}: {status} is not documented");
        }
        answer
    }

    /// The same of a client that is let in.
    #[track_caller]
    fn ask_given(&self, first: &str, headers: &[&str], body: &str) -> Answer {
        let token = format!("Authorization: Bearer {TOKEN}");
        let all: Vec<&str> = ["Host: localhost", &token].into_iter().chain(headers.iter().copied()).collect();
        self.ask(first, &all, body)
    }

    fn documented(&self, method: &str, path: &str) -> Option<&Value> {
        let paths = self.document["paths"].as_object().expect("paths");
        let path: Vec<&str> = path.split('?').next()?.split('/').collect();
        let is_meant = |template: &str| {
            let template: Vec<&str> = template.split('/').collect();
            let fits = |(part, is): (&&str, &&str)| part.starts_with('{') || part == is;
            template.len() == path.len() && template.iter().zip(&path).all(fits)
        };
        let (_, methods) = paths.iter().find(|(template, _)| is_meant(template))?;
        Some(methods.get(method.to_lowercase())?.get("responses").expect("answers"))
    }

    /// Ends it, once everything is as it was.
    fn expect_untouched(self, clients: u64) {
        let status = self.ask_given("GET /v1/status", &[], "");
        assert_eq!(status.status, 200, "{status:?}");
        assert!(status.body.contains("\"epoch\":0"), "nothing has changed: {}", status.body);
        audit(self.server, clients);
    }
}

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], 1).into()
}

/// It was accepted, and whoever reached the listener had the admin API.
#[test]
fn the_admin_api_is_refused_as_a_backend() {
    let guarded = Guarded::start(nowhere());
    let json = "Content-Type: application/json";
    for host in ["127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]"] {
        let body = format!(r#"{{"address":"{host}:{}","name":"c"}}"#, guarded.admin.port());
        let answer = guarded.ask_given("POST /v1/pools/web/backends", &[json], &body);
        assert_eq!(answer.status, 400, "{host}: {answer:?}");
        assert!(answer.body.contains("is our own admin API"), "{host}: {answer:?}");
    }
    guarded.expect_untouched(0);
}

/// Case 102.
#[test]
fn only_a_local_request_with_the_token_is_accepted() {
    let guarded = Guarded::start(nowhere());
    let right = format!("Authorization: Bearer {TOKEN}");
    let right = right.as_str();
    let port = format!("Host: 127.0.0.1:{}", guarded.admin.port());
    let own = format!("Origin: http://127.0.0.1:{}", guarded.admin.port());
    for (headers, expected) in [
        (&["Host: localhost", right][..], 200),
        (&["Host: [::1]", right], 200),
        (&[&port, &own, right], 200),
        (&["Host: localhost"], 401),
        (&["Host: localhost", "Authorization: Bearer not-for-everybody-012345678"], 401),
        (&["Host: localhost", "Authorization: Basic bm90OmZvcg=="], 401),
        (&["Host: localhost", "Authorization: Bearer"], 401),
        (&[right], 403),
        (&["Host: evil.example", right], 403),
        (&["Host: 127.0.0.1.evil.example", right], 403),
        (&["Host: 10.0.0.1", right], 403),
        (&["Host: localhost@evil.example", right], 403),
        (&["Host: localhost", "Host: evil.example", right], 403),
        (&["Host: localhost", "Origin: http://evil.example", right], 403),
        (&["Host: localhost", "Origin: null", right], 403),
        (&["Host: localhost", "Origin: http://localhost:1", right], 403),
        (&[&port, &own, &own, right], 403),
        (&["Host: evil.example"], 403),
    ] {
        for first in
            ["GET /v1/status", "GET /openapi.json", "DELETE /v1/pools/web/backends/a", "GET /nothing"]
        {
            let expected = match (first, expected) {
                (_, refused @ (401 | 403)) => refused,
                ("GET /nothing", _) => 404,
                ("DELETE /v1/pools/web/backends/a", _) => continue,
                _ => expected,
            };
            let answer = guarded.ask(first, headers, "");
            assert_eq!(answer.status, expected, "{first} {headers:?}: {answer:?}");
            assert_eq!(answer.head.contains("www-authenticate: bearer"), expected == 401, "{answer:?}");
        }
    }
    let answer = guarded.ask("GET http://evil.example/v1/status", &["Host: localhost", right], "");
    assert_eq!(answer.status, 403, "{answer:?}");
    guarded.expect_untouched(0);
}

#[test]
fn the_read_only_token_shows_everything_and_changes_nothing() {
    let guarded = Guarded::start(nowhere());
    let token = format!("Authorization: Bearer {READ_TOKEN}");
    let json = "Content-Type: application/json";
    for (first, body, expected) in [
        ("GET /v1/status", "", 200),
        ("GET /v1/backends", "", 200),
        ("GET /metrics", "", 200),
        ("HEAD /v1/status", "", 200),
        // It has no file to read again, but it is let in.
        ("POST /v1/config/diff", "", 422),
        ("POST /v1/config/reload", "", 403),
        ("PATCH /v1/pools/web/backends/a", r#"{"weight":7}"#, 403),
        ("DELETE /v1/pools/web/backends/a", "", 403),
        ("POST /v1/pools/web/backends", r#"{"address":"127.0.0.1:7"}"#, 403),
        ("PUT /v1/log-level", r#"{"level":"off"}"#, 403),
        ("DELETE /v1/config/refusals/1", "", 403),
    ] {
        let answer = guarded.ask(first, &["Host: localhost", &token, json], body);
        assert_eq!(answer.status, expected, "{first}: {answer:?}");
    }
    let seen = |token: &str| guarded.ask("GET /v1/status", &["Host: localhost", token], "").body;
    assert!(seen(&token).contains("\"may_change\":false"), "an answer says so before anything is tried");
    let full = guarded.ask_given("GET /v1/status", &[], "").body;
    assert!(full.contains("\"may_change\":true"), "{full}");
    let metrics = guarded.ask_given("GET /metrics", &[], "").body;
    assert!(metrics.contains("l4lb_admin_denied_total{reason=\"read_only\"} 6\n"), "{metrics}");
    guarded.expect_untouched(0);
}

#[test]
fn denied_requests_are_counted_by_reason() {
    let guarded = Guarded::start(nowhere());
    for headers in [
        &["Host: localhost"][..],
        &["Host: localhost", "Authorization: Bearer a-wrong-one"],
        &["Host: evil.example"],
        &["Host: localhost", "Origin: http://evil.example"],
    ] {
        assert!(matches!(guarded.ask("GET /v1/status", headers, "").status, 401 | 403));
    }
    let metrics = guarded.ask_given("GET /metrics", &[], "").body;
    for reason in ["no_token", "token", "host", "origin"] {
        let line = format!("l4lb_admin_denied_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    guarded.expect_untouched(0);
}

#[test]
fn an_invalid_request_is_refused_and_changes_nothing() {
    let guarded = Guarded::start(nowhere());
    let json = "Content-Type: application/json";
    let long = format!("X: {}", "x".repeat(17 * 1024));
    let large = format!("{{\"address\":\"{}\"}}", " ".repeat(64 * 1024));
    let register = "POST /v1/pools/web/backends";
    let good = r#"{"address":"127.0.0.1:7"}"#;
    for (first, headers, body, expected) in [
        (register, &["Content-Type: text/plain"][..], good, 415),
        (register, &["Content-Type: application/x-www-form-urlencoded"], good, 415),
        (register, &[], good, 415),
        (register, &[json], "", 400),
        (register, &[json], "{", 400),
        (register, &[json], "[]", 422),
        (register, &[json], r#"{"address":7}"#, 422),
        (register, &[json], r#"{"address":"127.0.0.1:7","weight":-1}"#, 422),
        (register, &[json], r#"{"address":"127.0.0.1:7","ttl":"1000000000000h"}"#, 400),
        (register, &[json], &large, 413),
        ("GET /v1/status", &[&long], "", 431),
        ("BREW /v1/status", &[], "", 405),
        ("PUT /v1/status", &[json], "{}", 405),
        ("TRACE /v1/status", &[], "", 405),
        ("OPTIONS /v1/pools/web/backends", &["Access-Control-Request-Method: POST"], "", 405),
        ("GET /v1/", &[], "", 404),
        ("GET /v1/../v1/status", &[], "", 404),
        ("GET /v1/%2e%2e/v1/status", &[], "", 404),
        ("GET //v1/status", &[], "", 404),
        ("GET /v1/status/", &[], "", 404),
        ("GET /v1/Status", &[], "", 404),
        ("GET /v1/pools/web/backends/%ff", &[], "", 400),
        ("GET /v1/pools/web/backends/%00", &[], "", 404),
        ("GET /v1/pools/web/backends/%zz", &[], "", 404),
        ("GET /v1/pools/web/backends/%2e%2e%2f%2e%2e%2fstatus", &[], "", 404),
        ("GET /v1/pools/web%2fbackends%2fa", &[], "", 404),
        ("DELETE /v1/pools/web/backends/..%2fa", &[], "", 404),
        ("GET /v1/backends?pool=%ff", &[], "", 404),
        ("GET /v1/backends?pool=web&pool=web", &[], "", 400),
        ("GET /v1/backends?colour=red", &[], "", 400),
        ("GET /v1/events?limit=0", &[], "", 400),
        ("GET /v1/events?limit=1001", &[], "", 400),
        ("GET /v1/events?after=-1", &[], "", 400),
    ] {
        let answer = guarded.ask_given(first, headers, body);
        assert_eq!(answer.status, expected, "{first} {headers:?}: {answer:?}");
        if expected != 431 {
            let problem: Value = serde_json::from_str(&answer.body).expect("a problem");
            let error = problem["error"].as_str().expect("words");
            assert!(!error.is_empty() && !error.contains(char::is_control), "{first}: {error:?}");
        }
        assert_eq!(answer.head.contains("\r\nallow: "), expected == 405, "{first}: {answer:?}");
    }
    guarded.expect_untouched(0);
}

/// What HTTP forbids ends the connection, and what stands behind it is not a request.
/// Case 101.
#[test]
fn bytes_that_are_not_http_are_no_request() {
    let guarded = Guarded::start(nowhere());
    let behind = format!(
        "DELETE /v1/pools/web/backends/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    let head = format!(
        "POST /v1/pools/web/backends HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    );
    for bytes in [
        "\0\x01\x02\x03\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("{head}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{behind}", behind.len()),
        format!("{head}Content-Length: -1\r\n\r\n{behind}"),
        format!("{head}Transfer-Encoding: chunked, identity\r\n\r\n{behind}"),
        format!("{head}Host : evil.example\r\n\r\n{behind}"),
        format!("{head}\0: x\r\n\r\n{behind}"),
    ] {
        let answer = guarded.send(bytes.as_bytes());
        assert!(answer.as_ref().is_none_or(|answer| answer.status == 400), "{bytes:?}: {answer:?}");
        assert!(answer.is_none_or(|answer| !answer.body.contains("HTTP/1.1")), "{bytes:?}: two answers");
    }
    guarded.expect_untouched(0);
}

#[test]
fn a_thousand_stuck_clients_block_no_other_client_and_no_session() {
    let backend = patient_backend(IPV4);
    let guarded = Guarded::start(backend.local_addr().expect("its address"));
    let beginnings = [
        "",
        "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthoriz",
        "POST /v1/pools/web/backends HTTP/1.1\r\n",
    ];
    let stuck = (0..STUCK).zip(beginnings.iter().cycle()).map(|(_, beginning)| {
        let mut stream = guarded.connect();
        match stream.write_all(beginning.as_bytes()) {
            // It has given its place to another one already.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            result => result.expect("send"),
        }
        stream
    });
    let stuck: Vec<TcpStream> = stuck.collect();
    for _ in 0..SESSIONS {
        let mut client = patient_client(guarded.server.addresses[0]);
        let (mut server, _) = retry(|| backend.accept()).expect("it reaches the backend");
        server.write_all(b"x").expect("send");
        client.read_exact(&mut [0]).expect("receive");
        assert_eq!(guarded.ask_given("GET /v1/status", &[], "").status, 200);
    }
    drop(stuck);
    guarded.expect_untouched(SESSIONS);
}
