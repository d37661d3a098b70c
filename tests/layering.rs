//! The layers of the design, as tests over the source text: imports point down only, no files import each other in a
//! circle, unsafe code and the names of system crates stay under `sys/`, and no file grows past what one sitting can
//! read.
//!
//! What a module may import is in the table of the architecture page, and nowhere else; what counts as an import is in
//! `layering/imports.rs`. `scripts/imports.py` draws what was found.

#![expect(clippy::unwrap_used, reason = "a test may")]

#[path = "layering/imports.rs"]
mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use imports::{Edges, Library, floors};

/// From the lowest module to the highest.
const FLOORS_MAX: usize = 8;
/// Crates that only `sys/` names.
const SYSTEM_CRATES: &[&str] = &["mio", "nix", "socket2", "procfs", "sd_notify"];
const LINES_MAX: usize = 600;

struct Source {
    path: String,
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = root();
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

/// A row of the table of layers.
#[derive(Debug)]
struct Layer {
    module: String,
    floor: usize,
    imports: BTreeSet<String>,
}

/// The table of layers in the manual.
fn layers() -> Vec<Layer> {
    let text = fs::read_to_string(root().join("src/manual/architecture.md")).unwrap();
    let (_, section) = text.split_once("\n## Layers\n").unwrap();
    let rows = section.lines().take_while(|line| !line.starts_with("## "));
    let rows = rows.filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [module, floor, imports, _what, ""] = cells[..] else { panic!("five cells: {row}") };
        let module = module.trim_end_matches('`').to_owned();
        let imports = imports.split(", ").filter(|import| !import.is_empty()).map(str::to_owned).collect();
        Layer { module, floor: floor.parse().unwrap(), imports }
    })
    .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn library() -> Library {
    Library::read(|module| {
        let path = root().join("src").join(module.iter().collect::<PathBuf>());
        let candidates = if module.is_empty() {
            vec![path.join("lib.rs")]
        } else {
            vec![path.with_extension("rs"), path.join("mod.rs")]
        };
        candidates
            .iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .unwrap_or_else(|| panic!("{candidates:?}"))
    })
}

#[test]
fn the_table_of_layers_lists_the_imports_of_each_module() {
    let (layers, imports) = (layers(), library().modules());
    let listed: Vec<&str> = layers.iter().map(|layer| layer.module.as_str()).collect();
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?.strip_suffix(';'));
    assert_eq!(
        listed,
        lines.collect::<Vec<_>>(),
        "the table has the modules in the order of their `mod` lines"
    );
    let mut wrong = Vec::new();
    for Layer { module, imports: may, .. } in &layers {
        let does = &imports[module];
        wrong.extend(
            does.difference(may)
                .map(|other| format!("{module} imports {other}, and the table does not say so")),
        );
        wrong.extend(may.difference(does).map(|other| format!("{module} may import {other}, and does not")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_point_down_only() {
    let layers = layers();
    let mut below = BTreeSet::new();
    for Layer { module, imports, .. } in &layers {
        let up: Vec<&String> = imports.difference(&below).collect();
        assert!(up.is_empty(), "{module} imports what does not come before it: {up:?}");
        below.insert(module.clone());
    }
    let may: BTreeMap<&str, &BTreeSet<String>> =
        layers.iter().map(|layer| (layer.module.as_str(), &layer.imports)).collect();
    let mut wrong = Vec::new();
    // Tests too.
    for source in sources().iter().filter(|source| source.module != "main" && source.module != "lib") {
        let may =
            may.get(source.module.as_str()).unwrap_or_else(|| panic!("{}: no layer for it", source.path));
        for (number, line) in code(source) {
            assert!(!line.contains("use crate::{"), "{}:{number}: import one module a line", source.path);
            for name in imports(line).filter(|name| below.contains(name) && *name != source.module) {
                if !may.contains(&name) {
                    wrong.push(format!("{}:{number}: {} imports {name}", source.path, source.module));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The top-level modules that a line of code names by `crate::`.
fn imports(line: &str) -> impl Iterator<Item = String> {
    let names = line.split("crate::").skip(1);
    names.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

#[test]
fn there_are_few_floors() {
    let floors = floors(&library().modules()).unwrap();
    let listed = layers().into_iter().map(|layer| (layer.module, layer.floor));
    assert_eq!(listed.collect::<BTreeMap<_, _>>(), floors, "the table has the floor of each module");
    assert!(floors.values().all(|floor| *floor <= FLOORS_MAX), "{floors:?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let files = library().files();
    if let Err(circle) = floors(&files) {
        let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
        panic!("a circle: {}: give what they share a file of its own", names.join(" -> "));
    }
}

/// One line for each file, with what it imports.
#[test]
#[ignore = "prints what scripts/imports.py draws"]
fn print_imports() {
    for (module, imports) in library().files() {
        let imports: Vec<String> = imports.iter().map(|import| import.join("::")).collect();
        println!("import {} {}", module.join("::"), imports.join(" "));
    }
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let texts = [
        ("", "pub mod a; pub mod b;"),
        (
            "a",
            "mod low; mod mid; pub use low::Low; pub use mid::{Mid as Renamed, other}; fn f(_: Renamed) {}",
        ),
        ("a::low", "pub struct Low; #[cfg(test)] mod tests { use super::super::mid::Mid; }"),
        ("a::mid", "use super::Low; pub struct Mid(Low); #[cfg(test)] use crate::b::B; pub fn other() {}"),
        ("b", "mod c; pub(crate) mod d; #[derive(serde::Serialize)] pub struct B;"),
        (
            "b::c",
            "// crate::b::d\n use crate::a::{self, Low}; const TEXT: &str = \"super::d::D\"; fn f() { a::other(); }",
        ),
        ("b::d", "macro!(1, super::B); fn f() -> std::fmt::Result { crate::a::Renamed::g() }"),
    ];
    let library = Library::read(|module| {
        let text = texts.iter().find(|(name, _)| *name == module.join("::"));
        text.unwrap_or_else(|| panic!("{module:?}")).1.to_owned()
    });
    let files: Vec<(String, Vec<String>)> = library
        .files()
        .iter()
        .map(|(module, imports)| {
            (module.join("::"), imports.iter().map(|import| import.join("::")).collect())
        })
        .collect();
    let expected: [(&str, &[&str]); 6] = [
        ("a", &["a::mid"]),
        ("a::low", &[]),
        ("a::mid", &["a::low"]),
        ("b", &[]),
        ("b::c", &["a::low", "a::mid"]),
        ("b::d", &["a::mid", "b"]),
    ];
    for ((module, imports), (name, wanted)) in files.iter().zip(expected) {
        assert_eq!(
            (module.as_str(), imports.as_slice()),
            (name, wanted.iter().map(ToString::to_string).collect::<Vec<_>>().as_slice())
        );
    }
    assert_eq!(files.len(), expected.len());
}

#[test]
fn a_circle_is_named_without_the_path_to_it() {
    let edges = |pairs: &[(&'static str, &[&'static str])]| -> Edges<&str> {
        pairs.iter().map(|(one, others)| (*one, others.iter().copied().collect())).collect()
    };
    let tower =
        edges(&[("base", &[]), ("left", &["base"]), ("right", &["left", "base"]), ("roof", &["right"])]);
    assert_eq!(floors(&tower).unwrap().into_values().collect::<Vec<_>>(), [1, 2, 3, 4]);
    let knot = edges(&[("a", &["b"]), ("b", &["c"]), ("c", &["d", "low"]), ("d", &["b"]), ("low", &[])]);
    assert_eq!(floors(&knot).unwrap_err(), ["b", "c", "d", "b"]);
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

/// Who has the slab of sessions is asked for one, so that what changes a session is in one folder.
#[test]
fn only_relay_has_the_sessions_of_a_worker() {
    for source in sources().iter().filter(|source| source.module == "worker") {
        let has = |line: &str| line.contains("Slots<") || line.contains(".sessions.");
        let found = code(source).find(|&(_, line)| has(line));
        let may = source.path.starts_with("src/worker/relay/");
        assert!(may || found.is_none(), "{}: {found:?}: ask `Relay`", source.path);
    }
}

/// Each of them panics where no thread can be started, or catches a panic, which ends the program all the same.
const NEVER: [&str; 4] = ["thread::spawn(", "spawn_blocking", "block_in_place", "catch_unwind"];

/// A lease renewal once ended the process, and every session with it, because it needed a thread and none could be
/// started.
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
