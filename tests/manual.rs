//! The documents against the code: each number of `tests/CASES.md` is claimed by a test and each claim is listed, the
//! pages of the manual are part of the crate documentation, what they name exists, and what they have the reader type
//! works.
//!
//! In a fence of README.md and of the manual, `sh` marks commands that run here: without root, without the network and
//! within seconds. `console` marks what needs more; its lines that call `l4lb` are parsed by the command line.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the documents has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const README_LINES_MAX: usize = 130;
/// The commands of one fence take a moment; this is for one that waits for something that never comes.
const FENCE_SECONDS_MAX: &str = "60";
/// How often five ports in a row are looked for: another process may take one meanwhile.
const DEMO_TRIES: u32 = 200;
/// Where: below the range of outgoing connections, of which thousands may linger after a load.
const DEMO_PORTS: Range<u16> = 15_000..32_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below `folder` with one of these extensions, by their paths from the root.
fn files(folder: &str, extensions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|has| extensions.iter().any(|extension| has == *extension))
            {
                found.push(path.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The numbers that follow a keyword: `12`, `21 and 22`, `5, 7 and 9`, `G1 and G15`.
fn numbers(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != 'G').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        if !number.ends_with(|c: char| c.is_ascii_digit()) {
            return found;
        }
        found.push(number.to_owned());
        let Some(next) = behind.strip_prefix(", ").or_else(|| behind.strip_prefix(" and ")) else {
            return found;
        };
        rest = next;
    }
}

#[test]
fn numbers_are_read_as_they_are_written() {
    for (text, expected) in [
        ("12. What is", "12"),
        ("21 and 22, in the", "21 22"),
        ("5, 7 and 9 of", "5 7 9"),
        ("61 and 64, goal G8", "61 64"),
        ("G1 and G15 of", "G1 G15"),
        ("of the", ""),
    ] {
        assert_eq!(numbers(text).join(" "), expected, "{text}");
    }
}

/// The cases and goals that a file names in comments.
fn cited(text: &str) -> BTreeSet<String> {
    let comments = text.lines().map(str::trim_start).filter(|line| line.starts_with(['/', '#', 'G', 'C']));
    let comments = comments.collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for keyword in ["Case ", "Cases ", "oal ", "oals "] {
        found.extend(comments.split(keyword).skip(1).flat_map(numbers));
    }
    found
}

/// The rows of the checklist: the number, and the files that claim it; whether it says that something is open.
fn checklist() -> BTreeMap<String, (BTreeSet<String>, bool)> {
    let mut rows = BTreeMap::new();
    for line in read("tests/CASES.md").lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, _, claims] = cells[..] else { continue };
        if !number.ends_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let (claims, open) = claims.split_once("open:").unwrap_or((claims, ""));
        let files = claims.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let before = rows.insert(number.to_owned(), (files, !open.trim().is_empty()));
        assert!(before.is_none(), "{number} is listed twice");
    }
    rows
}

#[test]
fn each_case_is_claimed_and_each_claim_is_a_case() {
    let mut claims: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let sources =
        ["src", "tests", "scripts"].into_iter().flat_map(|folder| files(folder, &["rs", "sh", "py"]));
    for path in sources.filter(|path| path != "tests/manual.rs" && !path.contains("/target/")) {
        for number in cited(&read(&path)) {
            claims.entry(number).or_default().insert(path.clone());
        }
    }
    let rows = checklist();
    let mut wrong = Vec::new();
    for (number, paths) in &claims {
        let listed = rows.get(number).map(|(files, _)| files);
        for path in paths.iter().filter(|path| listed.is_none_or(|files| !files.contains(*path))) {
            wrong.push(format!("{path} names {number}, and tests/CASES.md does not list it there"));
        }
    }
    for (number, (files, is_open)) in &rows {
        for path in files.iter().filter(|path| !claims.get(number).is_some_and(|paths| paths.contains(*path)))
        {
            wrong.push(format!("tests/CASES.md lists {path} at {number}, and that does not name it"));
        }
        if files.is_empty() && !is_open {
            wrong.push(format!("{number}: nothing claims it, and it is not open"));
        }
    }
    assert!(rows.len() > 100, "{} rows were read", rows.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The documents that people read in order.
fn documents() -> Vec<String> {
    let mut documents = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned(), "SECURITY.md".to_owned()];
    documents.extend(files("src/manual", &["md"]).into_iter().filter(|path| !path.contains("/assets/")));
    documents
}

/// A part of a document between lines of three backticks.
struct Fence {
    place: String,
    language: String,
    text: String,
}

fn fences(document: &str) -> Vec<Fence> {
    let mut found: Vec<Fence> = Vec::new();
    let mut is_open = false;
    for (number, line) in (1..).zip(read(document).lines()) {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            if !is_open {
                let (place, language) = (format!("{document}:{number}"), language.to_owned());
                found.push(Fence { place, language, text: String::new() });
            }
            is_open = !is_open;
        } else if let (true, Some(fence)) = (is_open, found.last_mut()) {
            fence.text += line;
            fence.text.push('\n');
        }
    }
    assert!(!is_open, "{document}: a fence does not end");
    found
}

fn all_fences() -> Vec<Fence> {
    documents().iter().flat_map(|document| fences(document)).collect()
}

#[test]
fn the_readme_is_read_in_one_sitting() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines: the rest belongs to the manual");
}

#[test]
fn each_page_is_part_of_the_crate_documentation() {
    let module = read("src/manual/mod.rs");
    for page in documents().iter().filter_map(|path| path.strip_prefix("src/manual/")) {
        assert!(
            module.contains(&format!("include_str!(\"{page}\")")),
            "src/manual/mod.rs does not include {page}"
        );
    }
}

/// rustdoc would run a fence without a language as Rust.
#[test]
fn each_code_block_names_its_language() {
    for Fence { place, language, .. } in all_fences() {
        let known = ["sh", "sh demo", "console", "text", "toml"];
        assert!(known.contains(&language.as_str()), "{place}: \"{language}\" is none of {known:?}");
    }
}

/// Whether a path that a document names exists, from the root or from `src/`.
fn exists(path: &str) -> bool {
    [root().to_owned(), root().join("src")].iter().any(|folder| folder.join(path).exists())
}

#[test]
fn each_name_in_a_document_exists() {
    let metrics = read("config/metrics.md");
    let decisions: Vec<String> = files("src/manual/decisions", &["md"]);
    let mut wrong = Vec::new();
    for document in documents() {
        let text = read(&document);
        let folder = Path::new(&document).parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let is_missing = !link.starts_with("http") && !root().join(folder).join(link).exists();
            if is_missing {
                wrong.push(format!("{document}: the link {link} leads nowhere"));
            }
        }
        let words = text.split(|c: char| c.is_whitespace() || "`()\"'|→=".contains(c));
        for word in words.map(|word| word.trim_end_matches(['.', ',', ':', ';'])) {
            let is_path =
                ["scripts/", "tests/", "config/", "src/", ".ci/"].iter().any(|start| word.starts_with(start))
                    || word.ends_with(".rs") && word.contains('/');
            if is_path && !word.contains('*') && !exists(word) {
                wrong.push(format!("{document}: there is no {word}"));
            }
            let is_metric = word.starts_with("l4lb_") && !metrics.contains(&format!("`{word}`"));
            if is_metric {
                wrong.push(format!("{document}: config/metrics.md has no {word}"));
            }
        }
        for number in text.split("ecision ").skip(1).filter_map(|rest| rest.get(..4)) {
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            if is_number && !decisions.iter().any(|path| path.contains(&format!("/{number}-"))) {
                wrong.push(format!("{document}: there is no decision {number}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Words of a command as a shell would separate them; quotes hold words together, and `#` begins a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '#') if word.is_empty() => break,
            (None, _) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

#[test]
fn the_command_line_knows_each_command_that_is_shown() {
    let mut count = 0;
    for Fence { place, text, .. } in fences_of("console") {
        let text = text.replace("\\\n", " ");
        let commands =
            text.lines().map(words).filter(|words| words.first().is_some_and(|word| word == "l4lb"));
        for command in commands {
            count += 1;
            let shown = command.join(" ");
            assert!(l4lb::cli::Cli::read(command.into_iter().map(Into::into)).is_ok(), "{place}: {shown}");
        }
    }
    assert!(count > 10, "only {count} commands were found");
}

/// Runs the commands of a fence where `l4lb` is on the path and `config/` is this repository's.
fn run(fence: &Fence, folder: &Path) {
    let program = Path::new(env!("CARGO_BIN_EXE_l4lb")).parent().unwrap();
    let output = Command::new("timeout")
        .args([FENCE_SECONDS_MAX, "sh", "-e", "-c", &fence.text])
        .env("PATH", format!("{}:{}", program.display(), std::env::var("PATH").unwrap()))
        .env("RUNTIME_DIRECTORY", folder)
        .current_dir(folder)
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {}\n{}\n{said}", fence.place, output.status, fence.text);
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    symlink(root().join("config"), folder.path().join("config")).unwrap();
    folder
}

fn fences_of(language: &str) -> Vec<Fence> {
    let found: Vec<Fence> = all_fences().into_iter().filter(|fence| fence.language == language).collect();
    assert!(!found.is_empty(), "no fence is \"{language}\"");
    found
}

#[test]
fn commands_that_need_no_server_work_as_documented() {
    for fence in fences_of("sh") {
        run(&fence, folder().path());
    }
}

/// A running `l4lb demo`; dropped, it ends.
struct Demo {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Demo {
    /// Returns whether it serves; it prints what to try then, and ends where a port is taken.
    fn serves(&mut self) -> bool {
        let mut line = String::new();
        while matches!(self.output.read_line(&mut line), Ok(1..)) {
            if line.contains("Ctrl-C stops it") {
                return true;
            }
            line.clear();
        }
        false
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts the demo on five ports of those that nobody uses, with its admin socket in `folder`.
fn demo(folder: &Path) -> Demo {
    let count = u32::from(DEMO_PORTS.end - DEMO_PORTS.start);
    for tried in 0..DEMO_TRIES {
        // Runs that begin at the same time look in different places.
        let place = (std::process::id() * 5 + tried * 5) % count;
        let base = DEMO_PORTS.start + u16::try_from(place).unwrap();
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if !(base..base + 5).all(is_free) {
            continue;
        }
        let mut process = Command::new(env!("CARGO_BIN_EXE_l4lb"))
            .args(["demo", "--port-base", &base.to_string()])
            .envs([("RUNTIME_DIRECTORY", folder), ("TMPDIR", folder)])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut demo = Demo { process, output };
        if demo.serves() {
            return demo;
        }
    }
    panic!("the demo found no five ports in a row");
}

#[test]
fn commands_beside_the_demo_work_as_documented() {
    for fence in fences_of("sh demo") {
        let folder = folder();
        let _demo = demo(folder.path());
        run(&fence, folder.path());
    }
}
