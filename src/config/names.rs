//! Looks up the names of a configuration concurrently: a name without an answer takes its ten seconds (resolv.conf(5))
//! beside the others, not before them.
//!
//! The configuration is checked twice, the first time to learn its names; without a name, once.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::address::Resolver;
use super::check_texts;
use super::error::Error;
use super::model::Config;
use super::overrides::Overrides;
use super::parse::file::Inputs;
use super::parse::include::{self, Looked};

/// Names looked up at a time; more take turns.
const LOOKUPS_MAX: usize = 64;

/// Turns `host:port` into addresses; must be callable by several threads at a time.
pub type LookUp = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// The result for each name.
type Found = HashMap<String, io::Result<Vec<SocketAddr>>>;

/// Same as [`load`](super::load), with all names looked up concurrently.
pub fn load_and_look_up(
    path: Option<&Path>,
    overrides: &Overrides,
    inputs: Inputs,
    look_up: LookUp,
) -> Result<Config, Vec<Error>> {
    let texts = path.map(|path| include::read(path, inputs)).transpose()?;
    look_up_at_once(|resolve| check_texts(texts.as_ref(), overrides, inputs, resolve), look_up)
}

/// The same of files that were read already.
pub fn load_looked(
    looked: &Looked,
    overrides: &Overrides,
    inputs: Inputs,
    look_up: LookUp,
) -> Result<Config, Vec<Error>> {
    let texts = looked.texts.as_ref().as_ref().map_err(Clone::clone)?;
    look_up_at_once(|resolve| check_texts(Some(texts), overrides, inputs, resolve), look_up)
}

/// Returns the result of `check` with the results of `look_up`.
fn look_up_at_once<T>(check: impl Fn(Resolver) -> T, look_up: LookUp) -> T {
    let mut names = BTreeSet::new();
    let first = check(&mut |name| {
        names.insert(name.to_owned());
        Err(io::Error::other("it is looked up next"))
    });
    if names.is_empty() {
        return first;
    }
    let found = look_up_all(&names.into_iter().collect::<Vec<_>>(), look_up);
    // Names that the first check did not reach are looked up now.
    check(&mut |name| found_at(&found, name).unwrap_or_else(|| look_up(name)))
}

/// Returns the result for `name`, if it was looked up.
fn found_at(found: &Found, name: &str) -> Option<io::Result<Vec<SocketAddr>>> {
    let again = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
    found.get(name).map(|result| result.as_ref().cloned().map_err(again))
}

/// Looks up all of `names`, at most 64 at a time.
fn look_up_all(names: &[String], look_up: LookUp) -> Found {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Found::new()));
    let work = || {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = look_up(name);
            found.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), result);
        }
    };
    thread::scope(|scope| {
        for _ in 1..names.len().min(LOOKUPS_MAX) {
            // At the limit of threads, the existing ones do the work.
            let started = thread::Builder::new().name("l4lb-names".into()).spawn_scoped(scope, work);
            if started.is_err() {
                break;
            }
        }
        work();
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::config::parse;

    const NAMES: usize = 50;

    fn text(names: usize) -> String {
        let backends: String = (0..names)
            .map(|number| format!("[[pool.backend]]\naddress = \"host{number}.example:80\"\n"))
            .collect();
        format!("[[listener]]\nbind = \":9090\"\n[[pool]]\n{backends}")
    }

    /// Fifty names without an answer took fifty times the timeout of the resolver.
    #[test]
    fn all_names_are_looked_up_at_once() {
        static ALL_THERE: Barrier = Barrier::new(NAMES);
        fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
            // Never passed one after the other.
            ALL_THERE.wait();
            let number: u8 = name["host".len()..].split('.').next().unwrap().parse().unwrap();
            Ok(vec![([10, 0, 0, number], 80).into()])
        }
        let text = text(NAMES);
        let check = |resolve: Resolver| parse(&text, "test.toml", &Overrides::default(), resolve);
        let config = look_up_at_once(check, look_up).unwrap();
        let last = config.hosts.last().unwrap();
        assert_eq!(last.source, "host:host49.example:80");
        assert_eq!(last.found, Ok(vec![([10, 0, 0, 49], 80).into()]));
    }

    #[test]
    fn there_is_a_bound_on_how_many_and_each_is_looked_up_once() {
        static AT_A_TIME: AtomicUsize = AtomicUsize::new(0);
        static MORE: AtomicBool = AtomicBool::new(false);
        fn look_up(_: &str) -> io::Result<Vec<SocketAddr>> {
            let others = AT_A_TIME.fetch_add(1, Ordering::Relaxed);
            MORE.fetch_or(others >= LOOKUPS_MAX, Ordering::Relaxed);
            thread::yield_now();
            AT_A_TIME.fetch_sub(1, Ordering::Relaxed);
            Err(io::Error::other("no such host"))
        }
        let names: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        assert_eq!(look_up_all(&names, look_up).len(), 1_000);
        assert!(!MORE.load(Ordering::Relaxed));
        let text = text(2);
        let check = |resolve: Resolver| parse(&text, "test.toml", &Overrides::default(), resolve);
        let errors = look_up_at_once(check, look_up).unwrap_err();
        assert_eq!(errors.len(), 2, "each mistake is reported once");
        assert!(errors[0].to_string().contains("\"host0.example\": no such host"), "{}", errors[0]);
    }
}
