//! The layers of the design, as tests over the source text: imports point down only, unsafe code and the names of
//! system crates stay under `sys/`, and no file grows past what one sitting can read.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// For each module, all that it may import. A file of `sys/` may not see a session, `control` may not see `worker`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("manual", &[]),
    ("base", &[]),
    ("api", &[]),
    ("balance", &["base"]),
    ("config", &["base", "balance"]),
    ("session", &["base"]),
    ("pool", &["base", "balance", "config", "stats"]),
    ("health", &["base", "config"]),
    ("stats", &["base", "session"]),
    ("sys", &["base", "config", "session"]),
    ("messages", &["base", "config", "pool", "session", "sys"]),
    ("worker", &["base", "balance", "config", "session", "pool", "health", "stats", "sys", "messages"]),
    ("logging", &["base", "config", "sys"]),
    ("control", &["base", "api", "config", "pool", "session", "stats", "sys", "messages", "logging"]),
    ("server", &["base", "config", "pool", "stats", "sys", "messages", "worker", "control", "logging"]),
    ("demo", &["sys"]),
    ("doctor", &["config", "sys", "control"]),
    ("ctl", &["api", "base", "config", "session", "sys"]),
    ("top", &["api", "base", "config", "ctl", "session", "sys"]),
    (
        "cli",
        &[
            "balance", "base", "config", "ctl", "demo", "doctor", "logging", "messages", "server", "sys",
            "top",
        ],
    ),
];

/// Crates that only `sys/` names.
const SYSTEM_CRATES: &[&str] = &["mio", "nix", "socket2", "procfs", "sd_notify"];
const LINES_MAX: usize = 600;

struct Source {
    path: String,
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join("src"), &mut paths);
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let relative = path.strip_prefix(root).unwrap();
            let module = relative.iter().nth(1).unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
            Source { path: relative.display().to_string(), module, text }
        })
        .collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// The lines of a file that are code, with their numbers.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.text.lines().zip(1..).map(|(line, number)| (number, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The top-level modules that a line of code names by `crate::`, also in a nested `use crate::{a, b}`.
fn imports(line: &str) -> Vec<String> {
    let mut named = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let rest = rest.trim_start_matches('{');
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        named.push(name);
    }
    named
}

#[test]
fn imports_point_down_only() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module != "main" && source.module != "lib") {
        let may =
            allowed.get(source.module.as_str()).unwrap_or_else(|| panic!("{}: no layer for it", source.path));
        for (number, line) in code(source) {
            assert!(!line.contains("use crate::{"), "{}:{number}: import one module a line", source.path);
            for name in imports(line) {
                let is_module = allowed.contains_key(name.as_str());
                if is_module && name != source.module && !may.contains(&name.as_str()) {
                    wrong.push(format!("{}:{number}: {} imports {name}", source.path, source.module));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_layers_have_no_cycle() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut placed: Vec<&str> = Vec::new();
    while placed.len() < allowed.len() {
        let next = allowed.iter().find(|(module, may)| {
            !placed.contains(*module) && may.iter().all(|lower| placed.contains(lower))
        });
        let (module, _) = next.unwrap_or_else(|| panic!("a cycle above {placed:?}"));
        placed.push(module);
    }
}

/// Whether a line of code has a path that begins with `name`.
fn names_crate(line: &str, name: &str) -> bool {
    let path = format!("{name}::");
    let is_word = |before: Option<char>| before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(&path).any(|(at, _)| !is_word(line[..at].chars().next_back()))
}

/// Goal G23.
#[test]
fn only_sys_names_the_system_crates_and_writes_unsafe() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module != "sys") {
        for (number, line) in code(source) {
            for name in SYSTEM_CRATES.iter().filter(|name| names_crate(line, name)) {
                wrong.push(format!("{}:{number}: names {name}", source.path));
            }
            if line.contains("unsafe ") && !line.contains('"') {
                wrong.push(format!("{}:{number}: unsafe", source.path));
            }
            if line.contains("std::time::Instant") {
                wrong.push(format!("{}:{number}: reads a clock of its own", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sessions_are_pure() {
    for source in sources().iter().filter(|source| source.module == "session") {
        for (number, line) in code(source) {
            for banned in ["std::net::Tcp", "std::fs", "std::thread", "std::sync", "use std::io;"] {
                assert!(
                    !line.contains(banned),
                    "{}:{number}: session/ does no I/O, yet: {line}",
                    source.path
                );
            }
        }
    }
}

#[test]
fn only_close_frees_a_session() {
    for source in sources().iter().filter(|source| source.module == "worker") {
        let frees = code(source).any(|(_, line)| line.contains("sessions.remove("));
        assert_eq!(frees, source.path.ends_with("close.rs"), "{}", source.path);
    }
}

/// Each of them panics where no thread can be started, or catches a panic, which ends the program all the same.
const NEVER: [&str; 4] = ["thread::spawn(", "spawn_blocking", "block_in_place", "catch_unwind"];

/// A lease renewal once ended the process, and every session with it, because it needed a thread and none could be started.
#[test]
fn nothing_that_runs_panics_for_want_of_a_thread() {
    for source in sources() {
        let not_tests = code(&source).take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
        for (number, line) in not_tests.filter(|_| !source.path.ends_with("tests.rs")) {
            for banned in NEVER {
                assert!(
                    !line.contains(banned),
                    "{}:{number}: {banned}: thread::Builder, or control/standby.rs",
                    source.path
                );
            }
        }
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= LINES_MAX, "{}: {lines} lines: split it by state or by noun", source.path);
    }
}
