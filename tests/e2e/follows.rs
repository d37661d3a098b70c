//! What a running process makes of keys that it was started with: it follows most of them, and says which wait for a
//! restart.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use l4lb::api;

use crate::harness::backends::{Backends, Service, backends};
use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::{free_address, until};
use crate::harness::program::output;

const APPLIED: &str = "configuration applied";

/// The status line of the answer to a GET, or nothing where nothing answers.
fn get(address: SocketAddr, path: &str, token: &str) -> Option<String> {
    answer(address, path, token)?.lines().next().map(str::to_owned)
}

fn answer(address: SocketAddr, path: &str, token: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n");
    write!(stream, "{head}Connection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn write_token(path: &Path, token: &str) {
    fs::write(path, token).expect("write the token");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
}

/// Has it read a file with these keys of `[global]` and `[admin]`.
fn reload(service: &Service<'_, Daemon>, backends: &Backends, global: &str, admin: &str) -> String {
    let toml = backends.daemon_toml().replace("[global]\n", &format!("[global]\n{global}\n"));
    service.server.reload(&format!("{toml}\n[admin]\n{admin}\n"));
    service.server.wait_for_line(&[APPLIED, "configuration refused"])
}

fn status(service: &Service<'_, Daemon>) -> api::Status {
    service.server.admin().get("/v1/status").expect("status")
}

fn ctl(service: &Service<'_, Daemon>, args: &[&str]) -> String {
    let output = output(&mut service.server.command(&[&["ctl"], args].concat()));
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The API and the metrics answered where the process was started, whatever the file said since.
#[test]
fn the_admin_listeners_follow_a_reload() {
    let (dir, backends) = (tempfile::tempdir().expect("a directory"), backends(1));
    let service = backends.start_daemon("info");
    let [first, second, api] = [(); 3].map(|()| free_address());
    let token = dir.path().join("token");
    write_token(&token, "the-first-token-of-all");
    let keys =
        |metrics: SocketAddr| format!("metrics = \"{metrics}\"\nlisten = \"{api}\"\ntoken_file = {token:?}");
    let ok = Some("HTTP/1.1 200 OK".to_owned());

    assert!(reload(&service, &backends, "", &keys(first)).contains(APPLIED));
    until("the metrics are there", || get(first, "/metrics", "") == ok);
    until("the API is there", || get(api, "/v1/status", "the-first-token-of-all") == ok);

    write_token(&token, "the-second-token-of-all");
    assert!(reload(&service, &backends, "", &keys(second)).contains(APPLIED));
    until("the metrics have moved", || get(second, "/metrics", "") == ok && get(first, "/", "").is_none());
    assert_eq!(get(api, "/v1/status", "the-second-token-of-all"), ok);
    let denied = get(api, "/v1/status", "the-first-token-of-all").expect("an answer");
    assert!(denied.starts_with("HTTP/1.1 401"), "{denied}");
    assert_eq!(status(&service).restart_pending, None);

    // An address that somebody has is refused, and all stays.
    let taken = TcpListener::bind(IPV4).expect("bind");
    let taken_at = taken.local_addr().expect("getsockname");
    assert!(reload(&service, &backends, "", &keys(taken_at)).contains("configuration refused"));
    assert_eq!(get(second, "/metrics", ""), ok);

    assert!(reload(&service, &backends, "", "").contains(APPLIED));
    until("nothing answers any more", || get(second, "/", "").is_none() && get(api, "/", "").is_none());
    service.stops();
}

#[test]
fn the_logs_follow_a_reload() {
    let dir = tempfile::tempdir().expect("a directory");
    let [first, second] = ["first.log", "second.log"].map(|name| dir.path().join(name));
    let backends = backends(1);
    let service = backends.start_daemon("info");
    let keys = |path: &Path, format| {
        format!("log = {{ format = \"{format}\" }}\naccess_log = {{ path = {path:?}, format = \"text\" }}")
    };
    let sessions = |path: &Path| fs::read_to_string(path).unwrap_or_default().matches(" session ").count();

    reload(&service, &backends, &keys(&first, "text"), "");
    service.enter().talks().leave();
    until("its line is in the new file", || sessions(&first) == 1);
    let line = reload(&service, &backends, &keys(&second, "json"), "");
    service.enter().talks().leave();
    until("its line is in the other file", || sessions(&second) == 1);
    assert_eq!(sessions(&first), 1);
    service.server.signal("USR1", 1);
    let share = service.server.wait_for_line(&["worker_stats"]);
    assert!(serde_json::from_str::<serde_json::Value>(&share).is_ok(), "{share} behind {line}");

    // A folder is no file: refused, and lines go on.
    assert!(reload(&service, &backends, &keys(dir.path(), "json"), "").contains("configuration refused"));
    reload(&service, &backends, "", "");
    service.enter().talks().leave();
    service.server.wait_for_line(&[" session "]);
    assert_eq!((sessions(&first), sessions(&second)), (1, 1));
    assert_eq!(status(&service).restart_pending, None);
    service.stops();
}

#[test]
fn a_session_that_lasts_has_a_line_at_its_start_and_every_so_often_where_that_is_asked_for() {
    let backends = backends(1);
    let service = backends.start_daemon("info");
    reload(&service, &backends, "access_log = { path = \"-\", at = [\"start\"], every = \"1s\" }", "");
    let visit = service.enter().talks();
    let client = format!(" client={} ", visit.client.local_address());
    for what in ["session begins", "session continues", "session continues"] {
        let line = service.server.wait_for_line(&[what, &client]);
        let source =
            line.split(" source=").nth(1).and_then(|rest| rest.split(' ').next()).expect("it has one");
        source.parse::<SocketAddr>().expect("an address");
        assert!(line.contains(" backend=n0 ") && line.ends_with(" state=open"), "{line}");
    }
    // It has no line at its end; one behind it that has shows that none came.
    visit.leave();
    reload(&service, &backends, "", "");
    service.enter().talks().leave();
    let line = service.server.wait_for_line(&[" session session="]);
    assert!(!line.contains(&client), "{line}");
    service.stops();
}

/// `ctl config` showed what did not run, and a dry run had nothing to change.
#[test]
fn pending_keys_are_shown_until_the_file_matches_what_runs() {
    let (dir, backends) = (tempfile::tempdir().expect("a directory"), backends(1));
    let service = backends.start_daemon("info");
    let (metrics, state) = (free_address(), dir.path().join("state.json"));
    let admin = format!("metrics = \"{metrics}\"\nstate_file = {state:?}");
    reload(&service, &backends, "pin = true\nbusy_poll = \"50us\"", &admin);
    let pending = status(&service).restart_pending.expect("keys wait");
    assert_eq!(pending.keys, ["pin", "busy_poll", "admin.state_file"]);
    let words = "restart pending: pin, busy_poll, admin.state_file (since ";
    let config = ctl(&service, &["config"]);
    assert!(config.contains(words) && config.contains(", 3 keys)"), "{config}");
    assert!(config.contains("\nglobal: workers=1 pin=false") && !config.contains("state_file="), "{config}");
    assert!(ctl(&service, &["status"]).contains("pin, busy_poll, admin.state_file (since "));
    let figure = "\nl4lb_restart_pending_keys 3\n";
    until("the metrics are there", || {
        answer(metrics, "/metrics", "").is_some_and(|all| all.contains(figure))
    });
    let dry = ctl(&service, &["reload", "--dry-run"]);
    assert!(dry.contains("pin false -> true (needs a restart: a thread") && !dry.contains(") ("), "{dry}");

    fs::write(&state, "no JSON").expect("write");
    assert!(reload(&service, &backends, "", &admin).contains("configuration refused"), "it could not start");
    reload(&service, &backends, "pin = true", "");
    let since = pending.since;
    let pending = status(&service).restart_pending.expect("one waits");
    assert_eq!((pending.keys, pending.since), (vec!["pin".to_owned()], since));
    assert!(reload(&service, &backends, "user = \"no-such-user\"", "").contains("configuration refused"));
    assert_eq!(
        status(&service).reload.errors,
        ["cannot become user \"no-such-user\": there is no user \"no-such-user\""]
    );
    // A dry run said that such a file would be run.
    let dry = output(&mut service.server.command(&["ctl", "reload", "--dry-run"]));
    let errors = String::from_utf8(dry.stderr).expect("UTF-8");
    assert!(!dry.status.success() && errors.contains("there is no user \"no-such-user\""), "{errors}");
    reload(&service, &backends, "", "");
    assert_eq!(status(&service).restart_pending, None);
    service.stops();
}

/// Until a restart it could not be reached any more.
/// Case 102.
#[test]
fn an_admin_socket_whose_file_was_removed_is_made_again_on_reload() {
    let config = "[[pool]]\nhealth = { type = \"off\" }\nbackend = [{ address = \"127.0.0.1:1\" }]\n";
    let daemon = Daemon::start(config, IPV4);
    let path = daemon.socket();
    let answers = || daemon.admin().get::<api::Status>("/v1/status").is_ok();
    fs::remove_file(&path).expect("remove it");
    assert!(!answers());
    daemon.reload(config);
    daemon.wait_for_line(&["admin socket file was removed: created again"]);
    until("it answers again", answers);
    // What others put there is theirs.
    fs::remove_file(&path).expect("remove it");
    fs::write(&path, "mine").expect("a file");
    daemon.reload(config);
    let line = daemon.wait_for_line(&["cannot be created again"]);
    assert!(line.contains("it is no socket"), "{line}");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "mine");
    fs::remove_file(&path).expect("remove it");
    let other = std::os::unix::net::UnixListener::bind(&path).expect("listen there");
    daemon.reload(config);
    let line = daemon.wait_for_line(&["cannot be created again"]);
    assert!(line.contains("another process answers there"), "{line}");
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    // Left behind by a process that has ended, it is taken over, as a start takes it.
    drop(other);
    until("it is taken over", || {
        // A child of another test may hold the listener too, until it runs its program.
        daemon.signal("HUP", 1);
        answers()
    });
    daemon.stop();
    assert!(!path.exists(), "the last one goes with the process");
}

/// One name that did not resolve kept all others from serving.
/// Case 100.
#[test]
fn a_backend_whose_name_does_not_resolve_is_down_and_keeps_no_other_from_serving() {
    let config = |keys: &str| {
        format!(
            "[global]\n{keys}\n[[pool]]\nhealth = {{ type = \"off\" }}\n\
             backend = [{{ name = \"a\", address = \"nobody.invalid:80\" }}, {{ name = \"b\", address = \":1\" }}]\n"
        )
    };
    let daemon = Daemon::start(&config(""), IPV4);
    let backends = || daemon.admin().get::<Vec<api::Backend>>("/v1/backends").expect("backends");
    // The control thread begins behind the API.
    until("the reason is shown", || backends().iter().any(|one| one.health_reason.is_some()));
    let backends = backends();
    let named = |name: &str| backends.iter().find(|one| one.name == name).expect("it is in the pool");
    let (a, b) = (named("a"), named("b"));
    assert_eq!((a.health, a.eligible, a.address.as_str()), (api::Health::Down, false, "nobody.invalid:80"));
    let reason = a.health_reason.as_deref().unwrap_or_default();
    assert!(reason.starts_with("has no address: cannot resolve host \"nobody.invalid\""), "{reason}");
    assert!(b.eligible);
    daemon.reload(&config("resolve = \"require\""));
    let line = daemon.wait_for_line(&["ERROR"]);
    assert!(line.contains("cannot resolve host"), "{line}");
    // A machine without a name server can check it too.
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(&file, format!("[[listener]]\nbind = \"127.0.0.1:9090\"\n{}", config(""))).expect("write");
    let path = file.path().to_str().expect("UTF-8");
    let checked = output(&mut daemon.command(&["check", path]));
    let warnings = String::from_utf8(checked.stderr).expect("UTF-8");
    assert!(checked.status.success(), "{warnings}");
    let words = "backend \"a\": cannot resolve host \"nobody.invalid\": ";
    assert!(
        warnings.contains(words) && warnings.contains("it is down until its name resolves"),
        "{warnings}"
    );
    daemon.stop();
}
