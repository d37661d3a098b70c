//! `[global] watch`: a change of the files is a reload, whoever writes them and however.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;

use crate::harness::backends::{Backends, Service, backends};
use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;

const LOG: &str = "info,l4lb::session=off,l4lb::control::watch=debug";

fn watched() -> Backends {
    backends(2).global("watch = true")
}

/// Its configuration, with that many retries.
fn retrying(backends: &Backends, retries: u32) -> String {
    backends.daemon_toml().replace("backend = [", &format!("retries = {retries}\nbackend = ["))
}

/// Waits until a reload has changed the retries, and nothing else.
#[track_caller]
fn retries_change(service: &Service<'_, Daemon>, from: u32, to: u32) {
    service.server.wait_for_line(&["the files of the configuration have changed"]);
    service.server.wait_for_line(&[&format!("retries {from} -> {to}")]);
    let line = service.server.wait_for_line(&["configuration applied"]);
    assert!(line.contains("who=watch") && line.contains("changes=1"), "{line}");
}

#[test]
fn a_change_of_the_file_is_a_reload_and_a_broken_file_changes_nothing() {
    let backends = watched();
    let service = backends.start_daemon(LOG);
    service.server.rewrite("nonsense");
    let refused = service.server.wait_for_line(&["configuration refused"]);
    assert!(refused.contains("who=watch"), "{refused}");
    assert_eq!(service.visits(2), [1, 1]);
    service.server.rewrite(&retrying(&backends, 7));
    retries_change(&service, 2, 7);
    // As an editor saves: another file in its place.
    let file = service.server.config_file();
    let text = fs::read_to_string(file).expect("the configuration").replace("retries = 7", "retries = 8");
    let beside = file.with_extension("new");
    fs::write(&beside, text).expect("write beside it");
    fs::rename(&beside, file).expect("put it in its place");
    retries_change(&service, 7, 8);
    service.stops();
}

#[test]
fn a_file_that_is_still_being_written_is_not_read() {
    let backends = watched();
    let service = backends.start_daemon(LOG);
    // It watches.
    service.server.rewrite(&retrying(&backends, 7));
    retries_change(&service, 2, 7);
    let path = service.server.config_file();
    let text = fs::read_to_string(path).expect("the configuration");
    let mut file = File::create(path).expect("truncate it");
    // A good configuration so far, but not the one that is meant.
    let half = text.replace("retries = 7", "retries = 3");
    file.write_all(half.as_bytes()).expect("write it");
    service.server.wait_for_line(&["the file is being written"]);
    file.write_all(b"[pool.timeouts]\nidle = \"7m\"\n").expect("write the rest");
    drop(file);
    service.server.wait_for_line(&["the files of the configuration have changed"]);
    let line = service.server.wait_for_line(&["configuration applied"]);
    assert!(!line.contains("changes=1"), "half of it was run: {line}");
    service.stops();
}

#[test]
fn the_files_of_a_config_map_are_followed_once_a_reload_asks_for_it() {
    let backends = watched().pool("name = \"web\"");
    let on = format!("pool = \"web\"\n{}", backends.daemon_toml());
    let service = backends.serve_by(Daemon::start(&on.replace("watch = true", ""), IPV4));
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let version = |name: &str, pool: &str| {
        fs::create_dir(at(name)).expect("a version");
        let text = format!("[[pool]]\nname = \"{pool}\"\nbackend = [{{ address = \"127.0.0.1:1\" }}]\n");
        fs::write(at(name).join("pool.toml"), text).expect("a file of it");
    };
    version("..1", "first");
    symlink("..1", at("..data")).expect("a link");
    symlink("..data/pool.toml", at("pool.toml")).expect("a link");
    service.server.reload(&on);
    let line = service.server.wait_for_line(&["configuration applied"]);
    assert!(line.contains("who=SIGHUP"), "{line}");
    let file = service.server.config_file();
    let text = fs::read_to_string(file).expect("the configuration");
    fs::write(file, format!("include = [\"{}/*.toml\"]\n{text}", folder.path().display()))
        .expect("include it");
    service.server.wait_for_line(&["configuration applied"]);
    // The swap that kubelet makes.
    version("..2", "second");
    symlink("..2", at("..data_tmp")).expect("a link");
    fs::rename(at("..data_tmp"), at("..data")).expect("the swap");
    fs::remove_dir_all(at("..1")).expect("remove the version before");
    service.server.wait_for_line(&["second"]);
    service.server.wait_for_line(&["configuration applied"]);
    service.stops();
}
