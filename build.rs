//! Says which commit a release is built from. Debug builds have no commit in them: each would be built anew for the next one.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Digits of a commit that are shown.
const DIGITS: usize = 12;

fn main() {
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // A script that names no file is run again for a change of any.
    println!("cargo:rerun-if-changed=build.rs");
    let commit = if is_release { packaged().or_else(checked_out) } else { None };
    let version = commit.map_or_else(|| version.clone(), |commit| format!("{version} ({commit})"));
    println!("cargo:rustc-env=L4LB_VERSION={version}");
}

/// The commit that cargo has put into the package, where this is one.
fn packaged() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    shortened(rest.split('"').nth(1)?)
}

/// The commit that is checked out here; none without git, or in a folder that is part of somebody else's repository.
fn checked_out() -> Option<String> {
    let top = fs::canonicalize(git(&["rev-parse", "--show-toplevel"])?).ok()?;
    if top != fs::canonicalize(env::var_os("CARGO_MANIFEST_DIR")?).ok()? {
        return None;
    }
    // git writes to the log of HEAD whenever HEAD moves; without one, the commit is in the file of the branch, or with others.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    let branch = git(&["symbolic-ref", "-q", "HEAD"]).unwrap_or_default();
    let watched =
        if Path::new(&log).exists() { vec!["logs/HEAD"] } else { vec!["HEAD", &branch, "packed-refs"] };
    for name in watched.into_iter().filter(|name| !name.is_empty()) {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    shortened(&git(&["rev-parse", "HEAD"])?)
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn shortened(commit: &str) -> Option<String> {
    let is_commit = commit.len() >= DIGITS && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| commit[..DIGITS].to_owned())
}
