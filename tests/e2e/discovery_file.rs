//! Backends that a file lists, in every way in which a file is written.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::discovery::{A1, A2, A3, backends, ctl, named, names, note, state, visit};
use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::until;

/// The folder of a list, and the port of its backends.
struct Listed {
    folder: TempDir,
    port: u16,
}

impl Listed {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), port: backends(&[A1, A2, A3]) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn json(&self, ips: &[Ipv4Addr]) -> String {
        let all = ips.iter().map(|ip| format!("  {{\"address\": \"{ip}:{}\"}}", self.port));
        format!("[\n{}\n]\n", all.collect::<Vec<_>>().join(",\n"))
    }

    fn toml(&self, ips: &[Ipv4Addr]) -> String {
        ips.iter().map(|ip| format!("[[backend]]\naddress = \"{ip}:{}\"\n", self.port)).collect()
    }

    /// One that only the kernel's reports make look again.
    fn daemon(&self, path: &Path) -> Daemon {
        let text = format!(
            "[[pool]]\nname = \"web\"\nhealth = {{ type = \"off\" }}\non_remove = \"keep\"\n\
             [[pool.discover]]\ntype = \"file\"\npath = \"{}\"\ninterval = \"1h\"\n",
            path.display()
        );
        Daemon::start(&text, IPV4)
    }

    #[track_caller]
    fn has(&self, daemon: &Daemon, ips: &[Ipv4Addr]) {
        until("the pool has what is listed", || names(daemon) == named(ips, self.port));
    }
}

#[test]
fn backends_come_and_go_with_a_file_however_it_is_saved() {
    let listed = Listed::new();
    let path = listed.at("web.json");
    fs::write(&path, listed.json(&[A1])).unwrap();
    let daemon = listed.daemon(&path);
    listed.has(&daemon, &[A1]);
    fs::write(&path, listed.json(&[A1, A2])).unwrap();
    listed.has(&daemon, &[A1, A2]);
    fs::write(listed.at("new"), listed.json(&[A2, A3])).unwrap();
    fs::rename(listed.at("new"), &path).unwrap();
    listed.has(&daemon, &[A2, A3]);
    until("its workers know it", || [Some(2), Some(3)].contains(&visit(&daemon)));
    fs::remove_file(&path).unwrap();
    until("there is no file", || state(&daemon) == "failed");
    assert!(note(&daemon).contains("cannot read it: No such file"), "{}", note(&daemon));
    assert_eq!(names(&daemon), named(&[A2, A3], listed.port), "what is known stays");
    fs::write(&path, listed.json(&[A3, A1])).unwrap();
    listed.has(&daemon, &[A1, A3]);
    // Nobody writes that by mistake.
    fs::write(&path, "[]").unwrap();
    listed.has(&daemon, &[]);
    assert_eq!(state(&daemon), "nothing");
    until("its workers know it", || visit(&daemon).is_none());
    daemon.stop();
}

#[test]
fn a_broken_list_changes_nothing_and_names_its_line() {
    let listed = Listed::new();
    let path = listed.at("web.json");
    fs::write(&path, listed.json(&[A1])).unwrap();
    let daemon = listed.daemon(&path);
    listed.has(&daemon, &[A1]);
    fs::write(&path, listed.json(&[A2]).replace("\"}", "\", \"wieght\": 2}")).unwrap();
    until("it is refused", || state(&daemon) == "failed");
    let place = format!("{}:2: unknown field `wieght`", path.display());
    assert!(note(&daemon).starts_with(&place), "{}", note(&daemon));
    assert_eq!(names(&daemon), named(&[A1], listed.port));
    let said = ctl(&daemon, &["ctl", "discover", "web"]);
    assert!(
        said.contains(&format!("file:{}: no answer, what is known stays: {place}", path.display())),
        "{said}"
    );
    fs::write(&path, listed.json(&[A2])).unwrap();
    listed.has(&daemon, &[A2]);
    assert_eq!(state(&daemon), "found");
    daemon.stop();
}

/// The first half of a TOML list is a list.
#[test]
fn a_file_that_is_still_being_written_is_not_taken() {
    let listed = Listed::new();
    let path = listed.at("web.toml");
    fs::write(&path, listed.toml(&[A1])).unwrap();
    let daemon = listed.daemon(&path);
    listed.has(&daemon, &[A1]);
    let mut file = File::create(&path).unwrap();
    for ip in [A2, A3] {
        file.write_all(listed.toml(&[ip]).as_bytes()).unwrap();
        until("somebody writes", || note(&daemon).contains("somebody writes to it"));
        assert_eq!(names(&daemon), named(&[A1], listed.port));
    }
    drop(file);
    listed.has(&daemon, &[A2, A3]);
    daemon.stop();
}

#[test]
fn the_list_in_a_config_map_is_followed() {
    let listed = Listed::new();
    let version = |name: &str, ips: &[Ipv4Addr]| {
        fs::create_dir(listed.at(name)).unwrap();
        fs::write(listed.at(name).join("web.json"), listed.json(ips)).unwrap();
        symlink(name, listed.at("..data_tmp")).unwrap();
        fs::rename(listed.at("..data_tmp"), listed.at("..data")).unwrap();
    };
    version("..1", &[A1]);
    symlink("..data/web.json", listed.at("web.json")).unwrap();
    let daemon = listed.daemon(&listed.at("web.json"));
    listed.has(&daemon, &[A1]);
    for (name, before, ips) in [("..2", "..1", &[A1, A2][..]), ("..3", "..2", &[A3])] {
        version(name, ips);
        fs::remove_dir_all(listed.at(before)).unwrap();
        listed.has(&daemon, ips);
    }
    assert_eq!(state(&daemon), "found");
    daemon.stop();
}
