//! Log lines for the syslog daemon, which is a scripted datagram socket here: what they are, and what becomes of them
//! while it is stuck or gone.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use l4lb::api;
use l4lb::config::model::SESSION_FIELDS;
use tempfile::TempDir;

use crate::harness::backends::{Backends, Service, Visit, backends};
use crate::harness::daemon::Daemon;
use crate::harness::peer::{PATIENCE, until};

struct Syslog {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Syslog {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = bind(&folder);
        Self { folder, socket }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The keys of `[global]` for it.
    fn keys(&self, more: &str) -> String {
        format!("log = {{ target = \"syslog\", socket = {:?}{more} }}", self.path())
    }

    /// The next message that contains `words`.
    #[track_caller]
    fn find(&self, words: &str) -> String {
        loop {
            let mut message = [0; 64 * 1024];
            let len = self.socket.recv(&mut message).unwrap_or_else(|error| panic!("{words}: {error}"));
            let message = std::str::from_utf8(&message[..len]).expect("UTF-8");
            if message.contains(words) {
                return message.to_owned();
            }
        }
    }

    /// Goes, which removes its socket.
    fn stop(self) -> TempDir {
        std::fs::remove_file(self.path()).expect("remove the socket");
        self.folder
    }
}

fn bind(folder: &TempDir) -> UnixDatagram {
    let socket = UnixDatagram::bind(folder.path().join("log")).expect("bind the socket of the log");
    socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    socket
}

/// A service that logged to standard error at its start and to the daemon after a reload.
fn reloaded<'a>(backends: &'a Backends, keys: &str) -> Service<'a, Daemon> {
    let service = backends.start_daemon("info");
    let with_syslog = backends.daemon_toml().replacen("[global]\n", &format!("[global]\n{keys}\n"), 1);
    service.server.reload(&with_syslog);
    service
}

/// Ends it by SIGTERM; its last lines are not on standard error.
#[track_caller]
fn ends(service: Service<'_, Daemon>) {
    let Service { server, .. } = service;
    drop(server.lines_until_it_ends());
}

#[test]
fn a_line_is_a_message_of_rfc_5424_with_the_fields_that_are_wanted() {
    let syslog = Syslog::start();
    let backends = backends(1);
    let keys =
        ", facility = \"local3\", app_name = \"edge\", fields = [\"reason\", \"client\", \"to_client\"]";
    let service = reloaded(&backends, &syslog.keys(keys));
    syslog.find(" audit - configuration applied");
    let visit = service.enter().talks();
    let client = visit.client.local_address();
    visit.leave();
    let message = syslog.find(" session - ");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("the name of this machine");
    let (head, words) = message.split_once(" session - ").expect("a session");
    assert_eq!(words, format!("session reason=done client={client} to_client=6"));
    let [priority, time, origin] = head.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
    let pid = service.server.admin().get::<api::Status>("/v1/status").expect("the status").pid;
    assert_eq!((priority, origin), ("<158>1", &*format!("{} edge {pid}", host.trim_end())));
    assert_eq!(time.len(), "2026-01-02T03:04:05.000006Z".len(), "{time}");
    ends(service);
    syslog.find(" process - stopped: accepted=1 ");
}

#[test]
fn lines_wait_for_a_daemon_that_starts_anew() {
    let syslog = Syslog::start();
    let backends = backends(1);
    let service = reloaded(&backends, &syslog.keys(", fields = [\"client\"]"));
    syslog.find("configuration applied");
    let folder = syslog.stop();
    let client = service.client();
    let address = client.local_address();
    Visit::greeted(client).leave();
    let line = service.server.wait_for_line(&["the syslog daemon cannot be reached, log lines wait"]);
    assert!(line.contains(" ERROR "), "{line}");
    let syslog = Syslog { socket: bind(&folder), folder };
    assert!(syslog.find(" session - ").ends_with(&format!(" - session client={address}")));
    ends(service);
}

/// The queue of the daemon is full at once; sessions are served all the same, and no line is lost.
#[test]
fn a_daemon_that_reads_nothing_holds_up_no_session() {
    const SESSIONS: usize = 600;
    let syslog = Syslog::start();
    let backends = backends(2).workers(2);
    let service = reloaded(&backends, &syslog.keys(""));
    syslog.find("configuration applied");
    service.visits(SESSIONS);
    let status: api::Status = service.server.admin().get("/v1/status").expect("the status");
    assert_eq!(status.log_lines_dropped, 0);
    (0..SESSIONS).for_each(|_| _ = syslog.find(" session - "));
    ends(service);
}

/// And back: the lines of a process that ends are on standard error.
#[test]
fn a_reload_takes_the_lines_back_to_standard_error() {
    let syslog = Syslog::start();
    let backends = backends(1);
    let service = reloaded(&backends, &syslog.keys(""));
    syslog.find("configuration applied");
    drop(syslog.stop());
    service.server.reload(&backends.daemon_toml());
    service.server.wait_for_line(&["configuration applied"]);
    service.stops();
}

#[test]
fn the_fields_to_choose_from_are_those_of_the_lines() {
    let backends = backends(1).global("access_log = { path = \"-\", at = [\"start\", \"end\"] }");
    let service = backends.start_daemon("info");
    service.visit();
    let keys = |words: &str| -> Vec<String> {
        let line = service.server.wait_for_line(&[words]);
        line.split(' ').filter_map(|word| word.split_once('=')).map(|(key, _)| key.to_owned()).collect()
    };
    let (begun, ended) = (keys("session begins"), keys(" session session="));
    let of = |keys: &[String]| -> Vec<&str> {
        SESSION_FIELDS.into_iter().filter(|field| keys.iter().any(|key| key == field)).collect()
    };
    assert_eq!(of(&begun), begun);
    assert_eq!(of(&ended), ended);
    let unknown: Vec<&str> = SESSION_FIELDS
        .into_iter()
        .filter(|field| !begun.iter().chain(&ended).any(|key| key == field))
        .collect();
    assert_eq!(unknown, [""; 0], "no line has them");
    until("it is over", || service.server.admin().get::<api::Status>("/v1/status").is_ok());
    service.stops();
}
