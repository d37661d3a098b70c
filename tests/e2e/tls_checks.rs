//! Checks over TLS, against servers of rustls: what they accept, what they report, and what they cost others.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use l4lb::api::{self, Health};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, UnixTime};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::{UNAVAILABLE, until};

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(UnixTime::now().as_secs())
}

/// An authority of the test, whose certificate is in a file.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// The side of a server with a certificate for `name`, valid from two days ago until `end` from now.
    fn server(&self, name: &str, end: SystemTime) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        params.not_before = (now() - 2 * DAY).into();
        params.not_after = end.into();
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key in DER");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("both versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate and its key");
        Arc::new(config)
    }
}

/// What a backend does with a connection.
#[derive(Clone)]
enum Manner {
    /// Serves TLS, and answers a request with this.
    Serves(Arc<ServerConfig>, &'static [u8]),
    /// Sends this instead, until the other side has closed.
    Floods(&'static [u8]),
}

/// A backend of the test.
struct Server {
    port: u16,
    manner: Arc<Mutex<Manner>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new(manner: Manner) -> Self {
        let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        let manner = Arc::new(Mutex::new(manner));
        let is_over = Arc::<AtomicBool>::default();
        let (manner_of_thread, is_enough) = (Arc::clone(&manner), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            for client in socket.incoming() {
                if is_enough.load(Ordering::Relaxed) {
                    return;
                }
                let manner = manner_of_thread.lock().expect("lock not poisoned").clone();
                // A check that has failed leaves in the middle of the handshake.
                let _left = client.and_then(|client| serve(client, &manner));
            }
        });
        Self { port, manner, is_over, thread: Some(thread) }
    }

    fn now(&self, manner: Manner) {
        *self.manner.lock().expect("lock not poisoned") = manner;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _woken = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic");
        }
    }
}

fn serve(mut client: TcpStream, manner: &Manner) -> std::io::Result<()> {
    match manner {
        Manner::Serves(config, answer) => {
            let connection = ServerConnection::new(Arc::clone(config)).expect("a server");
            let mut stream = StreamOwned::new(connection, client);
            let mut question = [0; 4096];
            if stream.read(&mut question)? > 0 {
                stream.write_all(answer)?;
            }
            // Until the check has taken leave.
            while stream.read(&mut question)? > 0 {}
            Ok(())
        }
        Manner::Floods(bytes) => loop {
            client.write_all(bytes)?;
        },
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn pool(port: u16, ca_file: &Path, keys: &str) -> String {
    format!(
        "[[pool]]\nname = \"web\"\nbackend = [{{ name = \"a\", address = \"127.0.0.1:{port}\" }}]\n\
         [pool.health]\ninterval = \"500ms\"\ntimeout = \"500ms\"\nfast_interval = \"20ms\"\nrise = 1\nfall = 1\n{}\n",
        keys.replace("CA", &ca_file.display().to_string())
    )
}

fn backend(daemon: &Daemon) -> api::Backend {
    daemon.admin().get("/v1/pools/web/backends/a").expect("the backend")
}

#[track_caller]
fn is(daemon: &Daemon, health: Health, reason: &str) {
    until(&format!("{health:?}: {reason}"), || {
        let now = backend(daemon);
        // On a busy machine it may have failed for another reason first: then only the last result has this one.
        let last = now.checks.into_iter().next().and_then(|check| check.reason);
        let has_reason = |text: Option<String>| text.is_some_and(|text| text.contains(reason));
        now.health == health && (has_reason(now.health_reason) || has_reason(last))
    });
}

fn ca_file(authority: &Authority) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &authority.pem).expect("written");
    file
}

/// From the hello to the farewell: what is wrong is said in words, and what is right again brings it up.
#[test]
fn a_check_over_tls_reports_what_is_wrong_with_the_certificate() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let today = now();
    let good = ours.server("web.example", today + 30 * DAY);
    let server = Server::new(Manner::Serves(Arc::clone(&good), OK));
    let file = ca_file(&ours);
    let keys = "type = \"https\"\nhost = \"web.example\"\ntls = { ca_file = \"CA\" }";
    let daemon = Daemon::start(&pool(server.port, file.path(), keys), IPV4);
    is(&daemon, Health::Up, "check passed");
    let spoilt = [
        (Manner::Serves(Arc::clone(&good), UNAVAILABLE), "expected status 200, got 503"),
        (Manner::Serves(ours.server("web.example", today - DAY), OK), "certificate expired 1 day ago"),
        (
            Manner::Serves(ours.server("a.example", today + DAY), OK),
            "certificate is for a.example, not web.example",
        ),
        (
            Manner::Serves(theirs.server("web.example", today + DAY), OK),
            "certificate is signed by an unknown issuer",
        ),
        (
            Manner::Serves(Authority::new("ours").server("web.example", today + DAY), OK),
            "certificate is signed with another key than that of its issuer",
        ),
        (Manner::Floods(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "answer is not TLS: got \"HTTP/1.1 400"),
        (Manner::Floods(&[22, 3, 3, 0, 4, 2, 0, 0xff, 0xff]), "TLS"),
        (Manner::Floods(&[21, 3, 3, 0, 2, 1, 90]), "TLS"),
    ];
    for (manner, reason) in spoilt {
        server.now(manner);
        is(&daemon, Health::Down, reason);
        server.now(Manner::Serves(Arc::clone(&good), OK));
        is(&daemon, Health::Up, "check passed");
    }
}

/// A reload that reads a broken file of authorities is refused, and one with other authorities holds from then on.
#[test]
fn the_authorities_are_read_with_the_configuration() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = Server::new(Manner::Serves(ours.server("127.0.0.1", now() + DAY), OK));
    let file = ca_file(&ours);
    let keys = "type = \"tls\"\ntls = { ca_file = \"CA\" }";
    let text = pool(server.port, file.path(), keys);
    let daemon = Daemon::start(&text, IPV4);
    is(&daemon, Health::Up, "check passed");
    std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("written");
    daemon.reload(&text);
    let line = daemon.wait_for_line(&["certificate 1 cannot be read"]);
    assert!(line.contains("health: tls: ca_file: "), "{line}");
    until("it stays up", || backend(&daemon).health == Health::Up);
    std::fs::write(file.path(), &theirs.pem).expect("written");
    daemon.reload(&text);
    is(&daemon, Health::Down, "certificate is signed by an unknown issuer");
}

/// With `[global] watch` the authorities are watched as the configuration is.
#[test]
fn other_authorities_hold_as_soon_as_their_file_has_them() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = Server::new(Manner::Serves(ours.server("127.0.0.1", now() + DAY), OK));
    let file = ca_file(&ours);
    let keys = "type = \"tls\"\ntls = { ca_file = \"CA\" }";
    let text = format!("[global]\nwatch = true\n{}", pool(server.port, file.path(), keys));
    let daemon = Daemon::start(&text, IPV4);
    is(&daemon, Health::Up, "check passed");
    std::fs::write(file.path(), &theirs.pem).expect("written");
    is(&daemon, Health::Down, "certificate is signed by an unknown issuer");
    std::fs::write(file.path(), &ours.pem).expect("written");
    is(&daemon, Health::Up, "check passed");
}

/// Where an operator looks: the rows of the API, the table of ctl, the metrics, and a warning once a day.
#[test]
fn the_certificate_is_shown_and_its_end_is_announced() {
    let authority = Authority::new("ours");
    let end = now() + 3 * DAY;
    let server = Server::new(Manner::Serves(authority.server("web.example", end), OK));
    let file = ca_file(&authority);
    let keys =
        "type = \"https\"\nhost = \"web.example\"\ntls = { ca_file = \"CA\", expires_within = \"96h\" }";
    let daemon = Daemon::start(&pool(server.port, file.path(), keys), IPV4);
    until("there is a certificate", || backend(&daemon).checks[0].certificate.is_some());
    let shown = backend(&daemon).checks[0].certificate.clone().expect("it was there");
    let seconds = end.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs();
    assert_eq!((shown.names, shown.names_total), (vec!["web.example".to_owned()], 1));
    assert_eq!(shown.not_after.as_second().unsigned_abs(), seconds);
    let line = daemon.wait_for_line(&["expires in"]);
    assert!(line.contains("the certificate for web.example expires in 2 days, at "), "{line}");
    assert!(line.contains("WARN") && line.contains("pool=web backend=a"), "{line}");
    let of_certificates = || {
        let events: Vec<api::Event> = daemon.admin().get("/v1/events").expect("events");
        events.into_iter().filter(|event| event.kind == api::EventKind::Certificate).count()
    };
    until("the event is there", || of_certificates() == 1);
    let admin = daemon.admin();
    let metrics = admin.answer(axum::http::Method::GET, "/metrics", None::<&()>).expect("metrics").body;
    let family = "l4lb_backend_certificate_not_after_timestamp_seconds{pool=\"web\",backend=\"a\"}";
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert!(metrics.contains(&format!("{family} {seconds}\n")), "{metrics}");
    let table = daemon.command(&["ctl", "backends"]).output().expect("ctl").stdout;
    let table = String::from_utf8_lossy(&table).into_owned();
    assert!(table.contains("certificate for web.example until "), "{table}");
    // Another one is shown soon, and one that lasts is not announced.
    server.now(Manner::Serves(authority.server("web.example", end + 300 * DAY), OK));
    until("the next one is shown", || {
        let certificate = backend(&daemon).checks[0].certificate.clone();
        certificate.is_some_and(|shown| shown.not_after.as_second().unsigned_abs() > seconds)
    });
    assert_eq!(of_certificates(), 1);
}

/// `l4lb ctl check` shows the plain bytes, or what is wrong with the handshake.
#[test]
fn an_operator_sees_what_is_said_inside_of_tls() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = Server::new(Manner::Serves(ours.server("web.example", now() + DAY), OK));
    let file = ca_file(&ours);
    let keys = "type = \"https\"\nhost = \"web.example\"\ntls = { ca_file = \"CA\" }";
    let long = pool(server.port, file.path(), keys).replace("500ms", "1h");
    let daemon = Daemon::start(&long, IPV4);
    let check = || {
        let output = daemon.command(&["ctl", "check", "web/a"]).output().expect("ctl");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = check();
    assert_eq!(code, Some(0), "{text}");
    for words in [
        "check health, https at 127.0.0.1:",
        "  connected\n",
        "  TLS handshake complete\n",
        "  sent      \"GET /health HTTP/1.1\\r\\nHost: web.example\\r\\n",
        "  expects   the HTTP status \"200\"\n",
        "  received  \"HTTP/1.1 200 OK\\r\\n",
        "certificate for web.example until ",
        "  passed\n",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    server.now(Manner::Serves(theirs.server("web.example", now() + DAY), OK));
    let (code, text) = check();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("failed: certificate is signed by an unknown issuer"), "{text}");
    assert!(!text.contains("handshake complete"), "{text}");
}
