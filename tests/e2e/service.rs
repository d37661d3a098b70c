//! The access log, which somebody rotates.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::fleet::fleet;
use crate::lab::IPV4;
use crate::peer::until;

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
    let fleet = fleet(1).workers(2).global(&keys);
    let service = fleet.start_daemon("info");
    let is_over = AtomicBool::new(false);
    let visits = || {
        let mut clients = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let visit = service.enter().talks();
            clients.push(visit.client.local_address().to_string());
            visit.leave();
        }
        clients
    };
    let mut clients: Vec<String> = thread::scope(|scope| {
        let load: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(visits)).collect();
        for rotation in 0..ROTATIONS {
            fs::rename(&path, dir.path().join(format!("access.log.{rotation}"))).expect("rename");
            service.server.signal("USR1", 1);
            until("the file is there again", || path.exists());
        }
        is_over.store(true, Ordering::Relaxed);
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
    let fleet = fleet(1).global(&format!("access_log = {{ path = {path:?}, format = \"json\" }}"));
    let service = fleet.start_daemon("info");
    service.enter().talks().leave();
    service.server.signal("USR1", 1);
    let line = service.server.wait_for_line(&[" session ", " share "]);
    assert!(line.contains(" share "), "{line}");
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
    let free = TcpListener::bind(IPV4).and_then(|socket| socket.local_addr()).expect("a free port");
    let text = format!(
        "global = {{ access_log = {{ path = {:?} }} }}\nlistener = [{{ bind = \"{free}\" }}]\n\
         pool = [{{ backend = [{{ address = \":1\" }}] }}]\n",
        dir.path()
    );
    fs::write(&file, text).expect("write the configuration");
    let output = Command::new(env!("CARGO_BIN_EXE_l4lb")).arg("-c").arg(&file).output().expect("run l4lb");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("access_log: cannot open "), "{errors}");
}
