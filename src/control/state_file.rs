//! The state file: what operators and backends have changed at run time, kept over a restart.
//!
//! Read once, before anything listens. Written by a thread of its own, because a disk may take its time and the control thread
//! has none: it only puts down what is to be written, and what nobody has begun to write is replaced by what comes next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::api::{Admin, OverrideTo};
use crate::config::{Invalid, WEIGHT_MAX, check_name};
use crate::sys;

/// What this version writes, and all that it reads.
const VERSION: u32 = 1;
/// 65,536 backends are some 16 MiB.
const FILE_LEN_MAX: u64 = 256 << 20;
/// The pause after a write has failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the last write.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// All that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    #[serde(deserialize_with = "version")]
    version: u32,
    /// Those that were registered, and those of the configuration that were changed.
    pub backends: Vec<SavedBackend>,
}

/// What is kept of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedBackend {
    /// Its pool.
    #[serde(deserialize_with = "name")]
    pub pool: String,
    /// Its name in there.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// As it was configured or registered.
    #[serde(deserialize_with = "weight")]
    pub weight: u16,
    /// As an operator has set it since.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "weight_if_any")]
    pub weight_set: Option<u16>,
    /// What it may do.
    pub admin: Admin,
    /// What an operator says of its health.
    pub health: OverrideTo,
    /// `null` for one of the configuration.
    pub registered: Option<SavedRegistration>,
}

/// How a backend was registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedRegistration {
    /// Where it is dialed.
    pub address: SocketAddr,
    /// Serves only when no other backend is eligible.
    pub backup: bool,
    /// Who has sent the latest request.
    pub who: String,
    /// When its lease ends, by the clock on the wall: no other one goes on while there is no process.
    pub lease: Option<Timestamp>,
    /// Whose leases it has. A file of a version that knew no holders has none, whether there is a lease or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<SavedHolder>,
}

/// One lease of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedHolder {
    /// Whose it is.
    #[serde(deserialize_with = "name")]
    pub holder: String,
    /// Whether whoever has it knows that name.
    pub known: bool,
    /// As its last request asked for.
    #[serde(deserialize_with = "weight")]
    pub weight: u16,
    /// The same.
    pub backup: bool,
    /// When it ends.
    pub lease: Timestamp,
}

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("state_file {}: {what}", path.display())]
pub struct StateFileError {
    path: PathBuf,
    what: String,
}

impl Saved {
    /// All that is to be kept.
    pub const fn of(backends: Vec<SavedBackend>) -> Self {
        Self { version: VERSION, backends }
    }

    /// What is in the file at `path`: nothing, if there is none.
    pub fn read(path: &Path) -> Result<Self, StateFileError> {
        let failed = |what| StateFileError { path: path.to_owned(), what };
        let mut text = Vec::new();
        match sys::open_regular(path) {
            Ok(file) => {
                let read = file.take(FILE_LEN_MAX).read_to_end(&mut text);
                read.map_err(|error| failed(format!("cannot be read: {error}")))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::of(Vec::new())),
            Err(error) => return Err(failed(format!("cannot be read: {error}"))),
        }
        serde_json::from_slice(&text).map_err(|error| {
            failed(format!("{error}; correct it, or move it away to start with what is configured"))
        })
    }

    /// Replaces the file at `path`, all of it or nothing, for this user only.
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        // What an end in the middle of a write has left behind. Made anew, the file is ours and no link to somewhere else.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&text)?;
        // Before it has its name: after a loss of power the name must not lead to an empty file (fsync(2)).
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| ".".as_ref()))?.sync_all()
    }
}

// What these refuse is told with its line, as serde_json tells what is no JSON.

fn version<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(from)?;
    let wrong = || format!("version: this l4lb knows {VERSION} only, got {version}");
    if version == VERSION { Ok(version) } else { Err(serde::de::Error::custom(wrong())) }
}

fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let wrong = |Invalid(what)| serde::de::Error::custom(format!("name: {what}"));
    check_name(&name).map(|()| name).map_err(wrong)
}

fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let weight = u16::deserialize(from)?;
    let wrong = || format!("weight: must be 0..={WEIGHT_MAX}, got {weight}");
    if weight <= WEIGHT_MAX { Ok(weight) } else { Err(serde::de::Error::custom(wrong())) }
}

fn weight_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    weight(from).map(Some)
}

/// How writing goes.
#[derive(Debug, Default)]
pub struct Writes {
    /// Files that were written.
    pub done: AtomicU64,
    /// Tries that were not.
    pub failed: AtomicU64,
}

/// The thread that writes.
pub struct StateFile {
    desk: Arc<Desk>,
    writes: Arc<Writes>,
}

#[derive(Default)]
struct Desk {
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Default)]
struct Orders {
    next: Option<Saved>,
    /// There will be no more.
    closed: bool,
    /// The thread has ended.
    over: bool,
}

impl StateFile {
    /// A thread that writes to `path` what it is given.
    pub fn start(path: PathBuf) -> io::Result<Self> {
        let (desk, writes) = <(Arc<Desk>, Arc<Writes>)>::default();
        let of_thread = (Arc::clone(&desk), Arc::clone(&writes));
        let work = move || of_thread.0.work(&path, &of_thread.1);
        thread::Builder::new().name("l4lb-state".into()).spawn(work)?;
        Ok(Self { desk, writes })
    }

    /// To be written next, in place of what waits to be written. Never waits for the disk.
    pub fn put(&self, saved: Saved) {
        self.desk.lock().next = Some(saved);
        self.desk.changed.notify_all();
    }

    /// How writing goes.
    pub fn writes(&self) -> Arc<Writes> {
        Arc::clone(&self.writes)
    }

    /// Waits until all is written, or the disk has had its time; whether it is.
    pub fn close(self) -> bool {
        let mut orders = self.desk.lock();
        orders.closed = true;
        self.desk.changed.notify_all();
        let is_at_work = |orders: &mut Orders| !orders.over;
        let (orders, _) = self
            .desk
            .changed
            .wait_timeout_while(orders, CLOSE_TIMEOUT, is_at_work)
            .expect("nobody panics with the lock");
        orders.over && orders.next.is_none()
    }
}

impl Desk {
    fn lock(&self) -> std::sync::MutexGuard<'_, Orders> {
        self.orders.lock().expect("nobody panics with the lock")
    }

    fn work(&self, path: &Path, writes: &Writes) {
        while let Some(saved) = self.take() {
            match saved.write(path) {
                Ok(()) => _ = writes.done.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    let failures = writes.failed.fetch_add(1, Ordering::Relaxed) + 1;
                    log::warn!(path:% = path.display(), error:%, failures; "state_file was not written");
                    let mut orders = self.lock();
                    orders.next.get_or_insert(saved);
                    if orders.closed {
                        break;
                    }
                    let is_open = |orders: &mut Orders| !orders.closed;
                    let waited = self.changed.wait_timeout_while(orders, RETRY_PAUSE, is_open);
                    drop(waited.expect("nobody panics with the lock"));
                }
            }
        }
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// Waits for something to write; `None` once there will be nothing more.
    fn take(&self) -> Option<Saved> {
        let is_idle = |orders: &mut Orders| orders.next.is_none() && !orders.closed;
        let waited = self.changed.wait_while(self.lock(), is_idle);
        waited.expect("nobody panics with the lock").next.take()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn backend(name: &str) -> SavedBackend {
        SavedBackend {
            pool: "web".into(),
            name: name.into(),
            weight: 1,
            weight_set: None,
            admin: Admin::Ready,
            health: OverrideTo::Auto,
            registered: None,
        }
    }

    fn saved(backends: impl IntoIterator<Item = SavedBackend>) -> Saved {
        Saved::of(backends.into_iter().collect())
    }

    fn arbitrary_backend() -> impl Strategy<Value = SavedBackend> {
        let admin = prop::sample::select(vec![Admin::Ready, Admin::Drain, Admin::Maint]);
        let health = prop::sample::select(vec![OverrideTo::Auto, OverrideTo::Up, OverrideTo::Down]);
        let name = "[A-Za-z0-9._:\\[\\]-]{0,63}[A-Za-z0-9]";
        let second = (0_i64..253_402_000_000).prop_map(|at| Timestamp::from_second(at).unwrap());
        let weight = 0..=WEIGHT_MAX;
        let holder = (name, any::<bool>(), weight.clone(), any::<bool>(), second.clone()).prop_map(
            |(holder, known, weight, backup, lease)| SavedHolder { holder, known, weight, backup, lease },
        );
        let holders = prop::collection::vec(holder, 0..3);
        let registration = (any::<SocketAddr>(), any::<bool>(), ".{0,40}", prop::option::of(second), holders)
            .prop_map(|(address, backup, who, lease, holders)| SavedRegistration {
                address,
                backup,
                who,
                lease,
                holders,
            });
        (name, name, weight.clone(), prop::option::of(weight), admin, health, prop::option::of(registration))
            .prop_map(|(pool, name, weight, weight_set, admin, health, registered)| SavedBackend {
                pool,
                name,
                weight,
                weight_set,
                admin,
                health,
                registered,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read(backends in prop::collection::vec(arbitrary_backend(), 0..8)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.json");
            let saved = saved(backends);
            saved.write(&path).unwrap();
            let read = Saved::read(&path).unwrap();
            // An IPv6 scope or flow is not part of the text of an address, and no address of a request has one.
            let text = |saved: &Saved| serde_json::to_string(saved).unwrap();
            prop_assert_eq!(text(&read), text(&saved));
        }
    }

    #[test]
    fn without_a_file_nothing_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Saved::read(&folder.path().join("none")).unwrap(), saved([]));
    }

    #[test]
    fn a_broken_file_is_told_with_its_line_and_the_way_on() {
        let good = serde_json::to_string_pretty(&saved([backend("a")])).unwrap();
        for (from, to, expected) in [
            ("", "", None),
            ("\"web\"", "web", Some("line 5 column 15")),
            ("\"weight\": 1", "\"weight\": 257", Some("weight: must be 0..=256, got 257 at line 7")),
            ("\"version\": 1", "\"version\": 9", Some("version: this l4lb knows 1 only, got 9 at line 2")),
            ("\"name\": \"a\"", "\"name\": \"a b\"", Some("name: must be 1..=64 characters")),
            ("\"name\"", "\"nom\"", Some("unknown field `nom`")),
            ("\n}", "", Some("EOF while parsing")),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.json");
            fs::write(&path, good.replace(from, to)).unwrap();
            match (Saved::read(&path), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => {
                    let error = error.to_string();
                    assert!(error.starts_with(&format!("state_file {}: ", path.display())), "{error}");
                    assert!(error.contains(expected) && error.contains("move it away"), "{error}");
                }
                other => panic!("{to}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_file_is_for_this_user_only_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::write(folder.path().join("state.json.new"), "left behind").unwrap();
        fs::write(&path, "old").unwrap();
        let old = File::open(&path).unwrap();
        saved([backend("a")]).write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(io::read_to_string(old).unwrap(), "old", "who reads it meanwhile reads one of both");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("later");
        let path = inner.join("state.json");
        let file = StateFile::start(path.clone()).unwrap();
        let writes = file.writes();
        file.put(saved([backend("a")]));
        let failed = || writes.failed.load(Ordering::Relaxed) > 0;
        let looks =
            (0..30_000).take_while(|_| !failed()).map(|_| thread::park_timeout(Duration::from_millis(1)));
        assert!(looks.count() < 30_000, "it fails at once");
        fs::create_dir(&inner).unwrap();
        // Newer than what waits for its next try.
        file.put(saved([backend("b")]));
        assert!(file.close());
        assert_eq!(Saved::read(&path).unwrap(), saved([backend("b")]));
        assert_eq!(writes.done.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn only_the_latest_of_what_waits_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let file = StateFile::start(path.clone()).unwrap();
        (0..1000).for_each(|number| file.put(saved([backend(&number.to_string())])));
        assert!(file.close());
        assert_eq!(Saved::read(&path).unwrap(), saved([backend("999")]));
    }
}
