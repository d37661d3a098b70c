//! The documents against the code: each number of `tests/CASES.md` is claimed by a test and each claim is listed, the pages of
//! the manual are part of the crate documentation, what they name exists, and what they have the reader type works.
//!
//! In a fence of README.md and of the manual, `sh` marks commands that run here: without root, without the network and within
//! seconds. `console` marks what needs more; its lines that call `l4lb` are parsed by the command line.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the documents has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

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
