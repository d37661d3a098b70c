//! Backends that an HTTP server lists, and servers that do it badly.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::discovery::{A1, A2, A3, backends, ctl, named, names, note, sources, state, visit};
use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::until;

/// What is sent for a request, by its head. The connection is closed then, unless it is `Stall`.
type Script = dyn Fn(&str) -> Say + Send + Sync;

enum Say {
    Bytes(Vec<u8>),
    /// These, and nothing more until the other side gives up.
    Stall(Vec<u8>),
}

/// An HTTP server on a thread that ends with the test program.
struct Server {
    at: SocketAddr,
    script: Arc<Mutex<Arc<Script>>>,
    /// The heads of all requests.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(script: impl Fn(&str) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = listener.local_addr().expect("it is bound");
        let script: Arc<Script> = Arc::new(script);
        let server = Self { at, script: Arc::new(Mutex::new(script)), heads: Arc::default() };
        let (script, heads) = (Arc::clone(&server.script), Arc::clone(&server.heads));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, heads) = (Arc::clone(&script), Arc::clone(&heads));
                thread::spawn(move || serve(stream.expect("a connection"), &script, &heads));
            }
        });
        server
    }

    fn says(&self, script: impl Fn(&str) -> Say + Send + Sync + 'static) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(script);
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn daemon(&self, keys: &str) -> Daemon {
        let text = format!(
            "[[pool]]\nname = \"web\"\nhealth = {{ type = \"off\" }}\non_remove = \"keep\"\n[[pool.discover]]\n\
             type = \"http\"\nurl = \"http://{}/web.json?zone=a\"\ninterval = \"100ms\"\nobsolete = 0\n{keys}\n",
            self.at
        );
        Daemon::start(&text, IPV4)
    }
}

/// The client may go at any time.
fn serve(mut stream: TcpStream, script: &Mutex<Arc<Script>>, heads: &Mutex<Vec<String>>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !stream.read(&mut byte).is_ok_and(|len| len == 1) {
            return;
        }
        head.extend(byte);
    }
    let head = String::from_utf8(head).expect("a head is text");
    heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let script = Arc::clone(&script.lock().unwrap_or_else(PoisonError::into_inner));
    match script(&head) {
        Say::Bytes(bytes) => _ = stream.write_all(&bytes),
        Say::Stall(bytes) => {
            _ = stream.write_all(&bytes);
            _ = stream.read(&mut byte);
        }
    }
}

fn json(ips: &[Ipv4Addr], port: u16) -> String {
    let all = ips.iter().map(|ip| format!("{{\"address\": \"{ip}:{port}\"}}"));
    format!("[{}]", all.collect::<Vec<_>>().join(", "))
}

/// An answer with that status line, these headers, and a body.
fn answer(status: &str, headers: &str, body: &str) -> Say {
    let len = body.len();
    Say::Bytes(format!("HTTP/1.1 {status}\r\ncontent-length: {len}\r\n{headers}\r\n{body}").into_bytes())
}

/// A list with the ETag `etag`, and 304 for a request that names it.
fn list(etag: &'static str, body: String) -> impl Fn(&str) -> Say {
    move |head| {
        if head.contains(&format!("if-none-match: {etag}\r\n")) {
            return Say::Bytes(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec());
        }
        answer("200 OK", &format!("etag: {etag}\r\n"), &body)
    }
}

#[test]
fn backends_come_and_go_with_the_list_of_a_server() {
    let port = backends(&[A1, A2, A3]);
    let server = Server::start(list("\"1\"", json(&[A1], port)));
    let daemon = server.daemon("");
    until("the first one is there", || names(&daemon) == named(&[A1], port));
    until("its workers know it", || visit(&daemon) == Some(1));
    let asked = server.heads().len();
    until("the list is known", || server.heads().len() > asked + 2);
    let last = server.heads().pop().expect("a request");
    let line = "GET /web.json?zone=a HTTP/1.1\r\n";
    assert!(last.starts_with(line) && last.contains("if-none-match: \"1\"\r\n"), "{last}");
    assert!(last.contains(&format!("host: {}\r\n", server.at)), "{last}");
    server.says(list("\"2\"", json(&[A2, A3], port)));
    until("the others are there", || names(&daemon) == named(&[A2, A3], port));
    let source = sources(&daemon).remove(0);
    assert_eq!(
        (source.source, source.state),
        (format!("http://{}/web.json?zone=a", server.at), "found".into())
    );
    let said = ctl(&daemon, &["ctl", "discover", "web"]);
    assert!(said.contains("2 backends") && said.matches("there").count() == 2, "{said}");
    daemon.stop();
}

#[test]
fn a_server_that_fails_takes_nothing_away_and_its_failure_is_named() {
    let port = backends(&[A1]);
    let server = Server::start(list("\"1\"", json(&[A1], port)));
    let daemon = server.daemon("");
    let good =
        || until("the list is there", || state(&daemon) == "found" && names(&daemon) == named(&[A1], port));
    good();
    let cut = |headers: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}").into_bytes();
    let huge = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20)).repeat(17);
    let answers: Vec<(Box<Script>, &str)> = vec![
        (Box::new(|_| answer("500 Internal Server Error", "", "")), "answers 500 Internal Server Error"),
        (Box::new(|_| answer("401 Unauthorized", "", "")), "answers 401 Unauthorized"),
        (
            Box::new(|_| answer("302 Found", "location: /other\r\n", "")),
            "302 Found to /other: redirects are not",
        ),
        (Box::new(|_| answer("200 OK", "", "<html>\n")), "line 1, column 1: not JSON"),
        (
            Box::new(|_| answer("200 OK", "", "[\n{\"adress\": 1}]")),
            "line 2, column 9: unknown field `adress`",
        ),
        (Box::new(|_| Say::Bytes(b"SSH-2.0-garbage\r\n".to_vec())), "invalid HTTP"),
        (Box::new(|_| Say::Bytes(Vec::new())), "connection closed"),
        (Box::new(move |_| Say::Bytes(cut("content-length: 100\r\n", "[{\"address\": "))), "breaks off"),
        (Box::new(|_| Say::Bytes(b"HTTP/1.1 200 OK\r\n\r\n[{".to_vec())), "not JSON: EOF"),
        (
            Box::new(|_| Say::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_vec())),
            "longer than 16 MiB",
        ),
        (
            Box::new(move |_| {
                Say::Bytes(
                    [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", huge.as_bytes()].concat(),
                )
            }),
            "longer than 16 MiB",
        ),
        (
            Box::new(|_| Say::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[".to_vec())),
            "no whole answer within 10 s",
        ),
    ];
    for (script, expected) in answers {
        server.says(script);
        until(expected, || state(&daemon) == "failed" && note(&daemon).contains(expected));
        assert_eq!(names(&daemon), named(&[A1], port), "{expected}");
        // With another tag: what is known of the first one is no answer to it.
        server.says(list("\"2\"", json(&[A1], port)));
        good();
    }
    daemon.stop();
}

#[test]
fn a_token_is_shown_to_the_server_is_read_again_and_is_in_no_log() {
    const TOKENS: [&str; 2] = ["0123456789abcdef-first", "0123456789abcdef-other"];
    let port = backends(&[A1]);
    let needs = |token: &'static str, body: String| {
        move |head: &str| match head.contains(&format!("authorization: Bearer {token}\r\n")) {
            true => answer("200 OK", "", &body),
            false => answer("401 Unauthorized", "", ""),
        }
    };
    let server = Server::start(needs(TOKENS[0], json(&[A1], port)));
    let file = tempfile::NamedTempFile::new().expect("a file for the token");
    fs::write(file.path(), TOKENS[0]).unwrap();
    let mode = |mode| fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o600);
    let daemon = server.daemon(&format!("token_file = \"{}\"", file.path().display()));
    until("it is let in", || state(&daemon) == "found");
    server.says(needs(TOKENS[1], json(&[A1], port)));
    until("it is not", || state(&daemon) == "failed" && note(&daemon).contains("401"));
    fs::write(file.path(), TOKENS[1]).unwrap();
    until("it is let in again", || state(&daemon) == "found");
    mode(0o644);
    until("others may read it", || note(&daemon).contains("others may use it (mode 644): chmod 600"));
    assert_eq!(names(&daemon), named(&[A1], port));
    let log = daemon.lines_until_it_ends().join("\n");
    assert!(log.contains("401 Unauthorized") && !log.contains("0123456789abcdef"), "{log}");
}
