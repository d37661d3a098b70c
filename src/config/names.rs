//! Looks up the names of a configuration concurrently, and for a bounded time: a start and a reload must end, whatever
//! name servers do.
//!
//! The configuration is checked twice, the first time to learn its names; without a name, once. A name that what runs
//! follows already is not looked up again, see [`KnownNames`].

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::address::{Resolver, is_local};
use super::check_texts;
use super::discover::host_label;
use super::error::Error;
use super::model::Config;
use super::overrides::Overrides;
use super::parse::file::Inputs;
use super::parse::include::{self, Looked};

/// Names looked up at a time; more take turns. Of the whole process: a look-up that hangs holds its thread.
const LOOKUPS_MAX: usize = 64;
/// How long a start or a reload waits for its names. getaddrinfo(3) asks the next name server after 5 s.
const LIMIT: Duration = Duration::from_secs(7);

/// Turns `host:port` into addresses; must be callable by several threads at a time.
pub type LookUp = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// The result for each name.
type Found = HashMap<String, io::Result<Vec<SocketAddr>>>;

/// The addresses of names that need no look-up, because what runs follows them.
#[derive(Clone, Debug, Default)]
pub struct KnownNames(HashMap<String, Vec<SocketAddr>>);

impl KnownNames {
    /// Adds the addresses of a host name, by the label of its source, see
    /// [`Discover::label`](super::discover::Discover::label).
    pub fn insert(&mut self, label: &str, addresses: Vec<SocketAddr>) {
        if !addresses.is_empty() {
            self.0.insert(label.to_owned(), addresses);
        }
    }

    fn get(&self, host_and_port: &str) -> Option<Vec<SocketAddr>> {
        let (host, port) = host_and_port.rsplit_once(':')?;
        self.0.get(&host_label(host, port)).cloned()
    }
}

/// Same as [`load`](super::load), with all names but the `known` ones looked up concurrently.
pub fn load_and_look_up(
    path: Option<&Path>,
    overrides: &Overrides,
    inputs: Inputs,
    known: &KnownNames,
    look_up: LookUp,
) -> Result<Config, Vec<Error>> {
    let texts = path.map(|path| include::read(path, inputs)).transpose()?;
    let check = |resolve: Resolver| check_texts(texts.as_ref(), overrides, inputs, resolve);
    look_up_at_once(check, known, |names| look_up_all(names, look_up, LIMIT, &THREADS))
}

/// The same of files that were read already.
pub fn load_looked(
    looked: &Looked,
    overrides: &Overrides,
    inputs: Inputs,
    known: &KnownNames,
    look_up: LookUp,
) -> Result<Config, Vec<Error>> {
    let texts = looked.texts.as_ref().as_ref().map_err(Clone::clone)?;
    let check = |resolve: Resolver| check_texts(Some(texts), overrides, inputs, resolve);
    look_up_at_once(check, known, |names| look_up_all(names, look_up, LIMIT, &THREADS))
}

/// Returns the result of `check` with the addresses that are `known` or that `look_up` finds.
fn look_up_at_once<T>(
    check: impl Fn(Resolver) -> T,
    known: &KnownNames,
    look_up: impl FnOnce(Vec<String>) -> Found,
) -> T {
    let mut names = BTreeSet::new();
    let first = check(&mut |name| {
        known.get(name).ok_or_else(|| {
            names.insert(name.to_owned());
            io::Error::other("it is looked up next")
        })
    });
    if names.is_empty() {
        return first;
    }
    let mut names: Vec<String> = names.into_iter().collect();
    // The file of hosts knows these: none waits for the threads that name servers hold.
    names.sort_by_key(|name| !name.rsplit_once(':').is_some_and(|(host, _)| is_local(host)));
    let found = look_up(names);
    check(&mut |name| match known.get(name) {
        Some(addresses) => Ok(addresses),
        None => found_at(&found, name),
    })
}

/// Returns the result for `name`; an error, when it did not come in time.
fn found_at(found: &Found, name: &str) -> io::Result<Vec<SocketAddr>> {
    let again = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
    let late =
        || Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", LIMIT.as_secs())));
    found.get(name).map_or_else(late, |result| result.as_ref().cloned().map_err(again))
}

/// The threads that look up names, of which at most 64 run.
struct Threads(AtomicUsize);

static THREADS: Threads = Threads(AtomicUsize::new(0));

/// One of the threads that may run.
struct Permit(&'static Threads);

impl Threads {
    fn permit(&'static self) -> Option<Permit> {
        let more = |running: usize| (running < LOOKUPS_MAX).then_some(running + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Permit(self))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The names of one reading, which several threads look up.
struct Reading {
    names: Vec<String>,
    next: AtomicUsize,
    /// The others are not wanted any more.
    is_over: AtomicBool,
    found: Mutex<Found>,
    came: Condvar,
}

impl Reading {
    /// Looks up those that no other thread has taken, one after the other.
    fn work(&self, look_up: LookUp) {
        while let Some(name) = self.names.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let result = look_up(name);
            self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), result);
            self.came.notify_one();
        }
    }
}

fn none_free() -> io::Error {
    let why = format!("{LOOKUPS_MAX} earlier look-ups have not returned");
    io::Error::new(io::ErrorKind::ResourceBusy, why)
}

/// Looks up all of `names`, which are distinct, for at most `limit`; returns what has come by then. A look-up that hangs
/// is left alone with its thread.
fn look_up_all(names: Vec<String>, look_up: LookUp, limit: Duration, threads: &'static Threads) -> Found {
    let count = names.len();
    let reading = Arc::new(Reading {
        names,
        next: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
        found: Mutex::default(),
        came: Condvar::new(),
    });
    let mut started = 0;
    let mut has_room = true;
    while has_room && started < count.min(LOOKUPS_MAX) {
        let Some(permit) = threads.permit() else { break };
        let of_thread = Arc::clone(&reading);
        let run = move || {
            let _permit = permit;
            of_thread.work(look_up);
        };
        // At the limit of threads, the existing ones do the work.
        has_room = thread::Builder::new().name("l4lb-names".into()).spawn(run).is_ok();
        started += usize::from(has_room);
    }
    if started == 0 && has_room {
        return reading.names.iter().map(|name| (name.clone(), Err(none_free()))).collect();
    }
    if started == 0 {
        reading.work(look_up);
    }
    let found = reading.found.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = reading.came.wait_timeout_while(found, limit, |found| found.len() < count);
    let (mut found, _) = waited.unwrap_or_else(PoisonError::into_inner);
    reading.is_over.store(true, Ordering::Relaxed);
    mem::take(&mut *found)
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, OnceLock};

    use super::*;
    use crate::config::parse;

    const NAMES: usize = 50;
    /// Longer than any test runs.
    const LONG: Duration = Duration::from_hours(1);

    fn text(names: usize) -> String {
        let backends: String = (0..names)
            .map(|number| format!("[[pool.backend]]\naddress = \"host{number}.example:80\"\n"))
            .collect();
        format!("[[listener]]\nbind = \":9090\"\n[[pool]]\n{backends}")
    }

    fn check(text: &str) -> impl Fn(Resolver) -> Result<Config, Vec<Error>> {
        move |resolve| parse(text, "test.toml", &Overrides::default(), resolve)
    }

    /// Fifty names without an answer took fifty times the timeout of the resolver.
    #[test]
    fn all_names_are_looked_up_at_once() {
        static ALL_THERE: Barrier = Barrier::new(NAMES);
        static THREADS: Threads = Threads(AtomicUsize::new(0));
        fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
            // Never passed one after the other.
            ALL_THERE.wait();
            let number: u8 = name["host".len()..].split('.').next().unwrap().parse().unwrap();
            Ok(vec![([10, 0, 0, number], 80).into()])
        }
        let all = |names| look_up_all(names, look_up, LONG, &THREADS);
        let config = look_up_at_once(check(&text(NAMES)), &KnownNames::default(), all).unwrap();
        let last = config.hosts.last().unwrap();
        assert_eq!(last.source, "host:host49.example:80");
        assert_eq!(last.found, Ok(vec![([10, 0, 0, 49], 80).into()]));
    }

    #[test]
    fn there_is_a_bound_on_how_many_and_each_is_looked_up_once() {
        static AT_A_TIME: AtomicUsize = AtomicUsize::new(0);
        static MORE: AtomicBool = AtomicBool::new(false);
        static THREADS: Threads = Threads(AtomicUsize::new(0));
        fn look_up(_: &str) -> io::Result<Vec<SocketAddr>> {
            let others = AT_A_TIME.fetch_add(1, Ordering::Relaxed);
            MORE.fetch_or(others >= LOOKUPS_MAX, Ordering::Relaxed);
            thread::yield_now();
            AT_A_TIME.fetch_sub(1, Ordering::Relaxed);
            Err(io::Error::other("no such host"))
        }
        let all = |names| look_up_all(names, look_up, LONG, &THREADS);
        let names: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        assert_eq!(all(names).len(), 1_000);
        assert!(!MORE.load(Ordering::Relaxed));
        let text = format!("global = {{ resolve = \"require\" }}\n{}", text(2));
        let errors = look_up_at_once(check(&text), &KnownNames::default(), all).unwrap_err();
        assert_eq!(errors.len(), 2, "each mistake is reported once");
        assert!(errors[0].to_string().contains("\"host0.example\": no such host"), "{}", errors[0]);
    }

    /// A name server without an answer held up a start for as long as getaddrinfo(3) asked it.
    /// Case 100.
    #[test]
    fn a_look_up_that_hangs_is_left_alone_and_the_others_count() {
        static RELEASED: OnceLock<()> = OnceLock::new();
        static HANG: AtomicUsize = AtomicUsize::new(0);
        static THREADS: Threads = Threads(AtomicUsize::new(0));
        fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
            if name.starts_with("host0") {
                HANG.fetch_add(1, Ordering::Relaxed);
                RELEASED.wait();
            }
            Ok(vec![([10, 0, 0, 1], 80).into()])
        }
        let found = |limit| {
            let all = |names| look_up_all(names, look_up, limit, &THREADS);
            let config = look_up_at_once(check(&text(2)), &KnownNames::default(), all).unwrap();
            config.hosts.into_iter().map(|host| host.found).collect::<Vec<_>>()
        };
        let late = Err("cannot resolve host \"host0.example\": no answer within 7 s".to_owned());
        // The other one may be late as well, on a busy machine, until the limit is long enough for it.
        let mut limit = Duration::from_millis(1);
        while found(limit) != [late.clone(), Ok(vec![([10, 0, 0, 1], 80).into()])] {
            limit *= 2;
        }
        // Each of those that hang holds a thread, and there are no more than that.
        while HANG.load(Ordering::Relaxed) < LOOKUPS_MAX {
            let names = (0..LOOKUPS_MAX).map(|number| format!("host0{number}.example:80"));
            look_up_all(names.collect(), look_up, limit, &THREADS);
        }
        let none = found(limit).remove(1).unwrap_err();
        assert_eq!(none, "cannot resolve host \"host1.example\": 64 earlier look-ups have not returned");
        // This one would have become another backend, where it is at [::1].
        let local = text(1).replace("host0.example", "localhost");
        let all = |names| look_up_all(names, look_up, limit, &THREADS);
        let errors = look_up_at_once(check(&local), &KnownNames::default(), all).unwrap_err();
        assert!(errors[0].to_string().contains("64 earlier look-ups have not returned"), "{}", errors[0]);
        RELEASED.set(()).unwrap();
        while found(LONG)[0].is_err() {}
    }

    /// It was late behind names that hang, and became 127.0.0.1.
    #[test]
    fn this_machine_is_looked_up_before_all_other_names() {
        let text = text(3).replace("host1.example", "LocalHost").replace("host2.example", "web.localhost.");
        let look_up = |names: Vec<String>| {
            assert_eq!(names, ["LocalHost:80", "web.localhost.:80", "host0.example:80"]);
            HashMap::from([(names[0].clone(), Ok(vec!["[::1]:80".parse().unwrap()]))])
        };
        let config = look_up_at_once(check(&text), &KnownNames::default(), look_up).unwrap();
        let backends = config.pools[0].backends.iter().map(|backend| backend.address.to_string());
        assert_eq!(backends.collect::<Vec<_>>(), ["[::1]:80", "127.0.0.1:80"]);
    }

    #[test]
    fn a_name_that_is_followed_is_not_looked_up_again() {
        let mut known = KnownNames::default();
        known.insert("host:host0.example:80", vec![([10, 0, 0, 7], 80).into()]);
        known.insert("host:host1.example:80", Vec::new());
        let text = text(3).replace("host0.example", "HOST0.example.");
        let look_up = |names: Vec<String>| {
            assert_eq!(names, ["host1.example:80", "host2.example:80"]);
            names.into_iter().map(|name| (name, Ok(vec![([10, 0, 0, 8], 80).into()]))).collect()
        };
        let config = look_up_at_once(check(&text), &known, look_up).unwrap();
        assert_eq!(config.hosts[0].found, Ok(vec![([10, 0, 0, 7], 80).into()]));
        assert_eq!(config.hosts[1].found, Ok(vec![([10, 0, 0, 8], 80).into()]));
    }
}
