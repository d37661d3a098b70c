//! The state file: run-time changes by operators and backends, kept over a restart.
//!
//! Read once, before anything listens. An entry that no request could have made is refused with a line that names it,
//! and affects no other entry; `saving` writes the file.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::api::{Admin, OverrideTo};
use crate::base::address::Address;
use crate::config::{Invalid, PRIORITY_MAX, Target, WEIGHT_MAX, check_running_name};
use crate::control::membership::origin::HOLDERS_MAX;
use crate::sys;

/// The version written, and the only one read.
const VERSION: u32 = 1;
/// 65,536 backends take some 16 MiB.
const FILE_LEN_MAX: u64 = 256 << 20;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Saved {
    version: u32,
    /// The registered backends, and the configured ones that were changed.
    pub backends: Vec<SavedBackend>,
    /// What sources listed last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SavedSource>,
}

/// What a source listed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSource {
    /// Its pool.
    #[serde(deserialize_with = "name")]
    pub pool: String,
    /// What it is called.
    pub source: String,
    /// All its backends.
    pub backends: Vec<SavedListing>,
    /// When it answered last, on the wall clock; absent where the list does not become stale, and in a file of a version
    /// without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Timestamp>,
}

/// One backend that a source listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedListing {
    /// Its name in the pool.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// The address to dial.
    #[serde(serialize_with = "show_address", deserialize_with = "address")]
    pub address: Address,
    /// Its weight, as listed.
    #[serde(deserialize_with = "weight")]
    pub weight: u16,
    /// Its tier.
    #[serde(deserialize_with = "priority")]
    pub priority: u8,
}

/// The saved state of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedBackend {
    /// Name of the pool that the backend belongs to.
    #[serde(deserialize_with = "name")]
    pub pool: String,
    /// Its name in the pool.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// The weight configured or registered.
    #[serde(deserialize_with = "weight")]
    pub weight: u16,
    /// The weight that an operator has set since.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "weight_if_any")]
    pub weight_set: Option<u16>,
    /// The state that an operator had set: ready, drain or maint.
    pub admin: Admin,
    /// Its author. A file of a version without it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_set: Option<SavedAuthor>,
    /// The override of its health.
    pub health: OverrideTo,
    /// Its registration; `null` for a configured backend.
    pub registered: Option<SavedRegistration>,
}

/// The requester of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedAuthor {
    /// The requester, as logs and events name it.
    pub who: String,
    /// Time of the request.
    pub since: Timestamp,
}

/// The saved registration of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedRegistration {
    /// The resolved address that sessions and checks dial.
    #[serde(serialize_with = "show_address", deserialize_with = "address")]
    pub address: Address,
    /// Its tier. A version without tiers has written `backup` in its place.
    #[serde(alias = "backup", deserialize_with = "priority")]
    pub priority: u8,
    /// The sender of the latest request.
    pub who: String,
    /// End of its lease on the wall clock, the only clock that runs while there is no process.
    pub lease: Option<Timestamp>,
    /// Its leases. A file of a version without holders has none, even when there is a lease.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<SavedHolder>,
}

/// One lease of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedHolder {
    /// The name of the holder.
    #[serde(deserialize_with = "name")]
    pub holder: String,
    /// Whether the client knows that name.
    pub known: bool,
    /// The weight of its last request.
    #[serde(deserialize_with = "weight")]
    pub weight: u16,
    /// The priority in its last request, in the same form.
    #[serde(alias = "backup", deserialize_with = "priority")]
    pub priority: u8,
    /// When the lease ends, in UTC.
    pub lease: Timestamp,
}

/// The file as a whole, with entries that must still be checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    #[serde(rename = "version", deserialize_with = "version")]
    _version: u32,
    backends: Vec<Value>,
    /// A file of a version without them has none.
    #[serde(default)]
    sources: Vec<Value>,
}

/// The parsed content of a state file.
#[derive(Debug, Default)]
pub struct Contents {
    /// The backends that may be restored.
    pub backends: Vec<SavedBackend>,
    /// What sources listed last.
    pub sources: Vec<SavedSource>,
    /// The entries that no request could have made, and why, one line each.
    pub refused: Vec<String>,
}

/// Explains why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("state_file {}: {what}", path.display())]
pub struct StateFileError {
    path: PathBuf,
    what: String,
}

impl Saved {
    /// Returns the content for these backends and sources.
    pub const fn of(backends: Vec<SavedBackend>, sources: Vec<SavedSource>) -> Self {
        Self { version: VERSION, backends, sources }
    }

    /// Replaces the file at `path`, atomically, readable by this user only.
    pub(in crate::control) fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        // Left behind by an end in the middle of a write. A newly created file is ours and no link to another place.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&text)?;
        // Before it gets its name: after a loss of power the name must not lead to an empty file (fsync(2)).
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| ".".as_ref()))?.sync_all()
    }
}

impl Contents {
    /// Returns the content of the file at `path`; empty, if there is none. Fails when it cannot be read or parsed.
    pub fn read(path: &Path) -> Result<Self, StateFileError> {
        let failed = |what| StateFileError { path: path.to_owned(), what };
        let mut text = Vec::new();
        match sys::open_regular(path) {
            Ok(file) => {
                let read = file.take(FILE_LEN_MAX).read_to_end(&mut text);
                read.map_err(|error| failed(format!("cannot be read: {error}")))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(format!("cannot be read: {error}"))),
        }
        Self::parse(&text).map_err(failed)
    }

    /// Parses `text`. Fails with the reason why it is no state file.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let entries: Entries = serde_json::from_slice(text).map_err(|error| {
            format!("{error}; correct it, or move it away to start with what is configured")
        })?;
        let mut contents = Self::default();
        let mut seen = HashSet::new();
        for (place, entry) in entries.backends.into_iter().enumerate() {
            let named = named(place, &entry);
            let checked = serde_json::from_value::<SavedBackend>(entry).map_err(|error| error.to_string());
            match checked.and_then(|backend| backend.check(&mut seen).map(|()| backend)) {
                Ok(backend) => contents.backends.push(backend),
                Err(why) => contents.refused.push(format!("{named}: {why}")),
            }
        }
        let mut seen = HashSet::new();
        for (place, entry) in entries.sources.into_iter().enumerate() {
            let word = |key| word_of(&entry, key);
            let named = format!("sources[{place}] (pool {:?}, source {:?})", word("pool"), word("source"));
            match serde_json::from_value::<SavedSource>(entry) {
                Err(error) => contents.refused.push(format!("{named}: {error}")),
                Ok(source) if !seen.insert((source.pool.clone(), source.source.clone())) => {
                    contents.refused.push(format!("{named}: another entry has that source"));
                }
                Ok(source) => contents.sources.push(source),
            }
        }
        Ok(contents)
    }

    /// Keeps the file at `path` unchanged under another name, which is returned, because the next write drops the
    /// refused entries.
    pub fn keep_refused(path: &Path) -> io::Result<PathBuf> {
        let mut kept = path.as_os_str().to_owned();
        kept.push(".refused");
        let kept = PathBuf::from(kept);
        match fs::remove_file(&kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A write replaces the file under its name, and does not touch one with another name.
        fs::hard_link(path, &kept)?;
        Ok(kept)
    }
}

/// Returns which entry that is, by its position and its own names.
fn named(place: usize, entry: &Value) -> String {
    let word = |key| word_of(entry, key);
    format!("backends[{place}] (pool {:?}, backend {:?})", word("pool"), word("name"))
}

fn word_of(entry: &Value, key: &str) -> String {
    entry.get(key).and_then(Value::as_str).unwrap_or("?").to_owned()
}

impl SavedBackend {
    /// Fails unless it fits the entries before it, which are `seen`, and its leases fit each other.
    fn check(&self, seen: &mut HashSet<(String, String)>) -> Result<(), String> {
        let holders = self.registered.iter().flat_map(|registered| &registered.holders);
        let names: HashSet<&str> = holders.clone().map(|holder| holder.holder.as_str()).collect();
        let holders = holders.count();
        if holders > HOLDERS_MAX {
            return Err(format!("holders: must be 0..={HOLDERS_MAX}, got {holders}"));
        }
        if names.len() < holders {
            return Err("holders: one of them is there twice".into());
        }
        if !seen.insert((self.pool.clone(), self.name.clone())) {
            return Err("another entry has that name".into());
        }
        Ok(())
    }
}

// Their errors refuse the file as a whole, with the line, as for syntax errors of JSON.

fn version<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(from)?;
    let wrong = || format!("version: this l4lb knows {VERSION} only, got {version}");
    if version == VERSION { Ok(version) } else { Err(serde::de::Error::custom(wrong())) }
}

fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let wrong = |Invalid(what)| serde::de::Error::custom(format!("name: {what}"));
    check_running_name(&name).map(|()| name).map_err(wrong)
}

fn show_address<S: Serializer>(address: &Address, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(address)
}

fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Address, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = |what: &str| serde::de::Error::custom(format!("address: {what}"));
    match Target::parse(&text) {
        Ok(Target::Address(address)) => Ok(address),
        Ok(Target::Host { .. }) => Err(wrong("must be an IP address and a port")),
        Err(Invalid(what)) => Err(wrong(&what)),
    }
}

fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let weight = u16::deserialize(from)?;
    let wrong = || format!("weight: must be 0..={WEIGHT_MAX}, got {weight}");
    if weight <= WEIGHT_MAX { Ok(weight) } else { Err(serde::de::Error::custom(wrong())) }
}

/// A number; or `true` or `false`, as a version without tiers has written for the last and the first one.
fn priority<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let value = Value::deserialize(from)?;
    let number = value.as_u64().and_then(|number| u8::try_from(number).ok());
    let of_backup = value.as_bool().map(|backup| if backup { PRIORITY_MAX } else { 0 });
    let known = number.filter(|&priority| priority <= PRIORITY_MAX).or(of_backup);
    known
        .ok_or_else(|| serde::de::Error::custom(format!("priority: must be 0..={PRIORITY_MAX}, got {value}")))
}

fn weight_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    weight(from).map(Some)
}

#[cfg(test)]
pub(in crate::control) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    pub(in crate::control) fn backend(name: &str) -> SavedBackend {
        SavedBackend {
            pool: "web".into(),
            name: name.into(),
            weight: 1,
            weight_set: None,
            admin: Admin::Ready,
            admin_set: None,
            health: OverrideTo::Auto,
            registered: None,
        }
    }

    pub(in crate::control) fn saved(backends: impl IntoIterator<Item = SavedBackend>) -> Saved {
        Saved::of(backends.into_iter().collect(), Vec::new())
    }

    fn arbitrary_backend() -> impl Strategy<Value = SavedBackend> {
        let admin = prop::sample::select(vec![Admin::Ready, Admin::Drain, Admin::Maint]);
        let health = prop::sample::select(vec![OverrideTo::Auto, OverrideTo::Up, OverrideTo::Down]);
        let name = "[A-Za-z0-9._:\\[\\]-]{0,63}[A-Za-z0-9]";
        let second = (0_i64..253_402_000_000).prop_map(|at| Timestamp::from_second(at).unwrap());
        let weight = 0..=WEIGHT_MAX;
        let priority = 0..=PRIORITY_MAX;
        let holder = (name, any::<bool>(), weight.clone(), priority.clone(), second.clone()).prop_map(
            |(holder, known, weight, priority, lease)| SavedHolder { holder, known, weight, priority, lease },
        );
        // Duplicates appear now and then, which no request can cause.
        let holders = prop::collection::vec(holder, 0..3)
            .prop_filter("no holder twice", |all| all.len() < 2 || all[0].holder != all[1].holder);
        let address =
            any::<std::net::SocketAddr>().prop_map(Address::Ip).prop_filter("a server", |address| {
                matches!(Target::parse(&address.to_string()), Ok(Target::Address(_)))
            });
        let registration = (address, priority, ".{0,40}", prop::option::of(second.clone()), holders)
            .prop_map(|(address, priority, who, lease, holders)| SavedRegistration {
                address,
                priority,
                who,
                lease,
                holders,
            });
        let author = (".{0,40}", second).prop_map(|(who, since)| SavedAuthor { who, since });
        let admin = (admin, prop::option::of(author));
        (name, name, weight.clone(), prop::option::of(weight), admin, health, prop::option::of(registration))
            .prop_map(|(pool, name, weight, weight_set, (admin, admin_set), health, registered)| {
                SavedBackend { pool, name, weight, weight_set, admin, admin_set, health, registered }
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_written_file_can_be_read_back(backends in prop::collection::vec(arbitrary_backend(), 0..8)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.json");
            let mut seen = HashSet::new();
            let saved = saved(backends.into_iter().filter(|backend| backend.check(&mut seen).is_ok()));
            saved.write(&path).unwrap();
            let read = Contents::read(&path).unwrap();
            prop_assert_eq!(read.refused, Vec::<String>::new());
            // The text of an address has no IPv6 flow, and no address of a request has one.
            let text = |backends: Vec<SavedBackend>| serde_json::to_string(&backends).unwrap();
            prop_assert_eq!(text(read.backends), text(saved.backends));
        }
    }

    #[test]
    fn without_a_file_nothing_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::read(&folder.path().join("none")).unwrap();
        assert!(contents.backends.is_empty() && contents.refused.is_empty());
    }

    #[test]
    fn a_broken_file_is_reported_with_its_line_and_what_to_do() {
        let good = serde_json::to_string_pretty(&saved([backend("a")])).unwrap();
        for (from, to, expected) in [
            ("", "", None),
            ("\"web\"", "web", Some("line 5 column 15")),
            ("\"version\": 1", "\"version\": 9", Some("version: this l4lb knows 1 only, got 9 at line 2")),
            ("\"backends\"", "\"backend\"", Some("unknown field `backend`")),
            ("\n}", "", Some("EOF while parsing")),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.json");
            fs::write(&path, good.replace(from, to)).unwrap();
            match (Contents::read(&path), expected) {
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

    /// One weight of 257 kept the process from starting, and an address that no request may have was dialed.
    #[test]
    fn a_saved_entry_is_refused_exactly_when_no_request_could_have_made_it() {
        let second = Timestamp::from_second(1_700_000_000).unwrap();
        let held = |holder: &str| SavedHolder {
            holder: holder.into(),
            known: true,
            weight: 1,
            priority: 0,
            lease: second,
        };
        let registered = SavedRegistration {
            address: ([127, 0, 0, 1], 3).into(),
            priority: 3,
            who: "uid 7".into(),
            lease: Some(second),
            holders: vec![held("one"), held("two")],
        };
        let bad = SavedBackend { weight_set: Some(2), registered: Some(registered), ..backend("bad") };
        let good = serde_json::to_string(&saved([backend("a"), bad, backend("c")])).unwrap();
        assert_eq!(Contents::parse(good.as_bytes()).unwrap().backends.len(), 3);
        let many: Vec<_> = (0..=HOLDERS_MAX).map(|number| held(&number.to_string())).collect();
        let many = serde_json::to_string(&many).unwrap();
        let holders = serde_json::to_string(&[held("one"), held("two")]).unwrap();
        for (from, to, expected) in [
            ("\"weight_set\":2", "\"weight_set\":257", "weight: must be 0..=256, got 257"),
            ("\"weight_set\":2", "\"weight_set\":-1", "invalid value"),
            ("\"weight_set\":2", "\"weights\":2", "unknown field `weights`"),
            ("127.0.0.1:3", "127.0.0.1:0", "address: port must be 1..=65535"),
            ("127.0.0.1:3", "224.0.0.1:3", "address: must not be a multicast or broadcast address"),
            ("127.0.0.1:3", "localhost:3", "address: must be an IP address and a port"),
            ("127.0.0.1:3", "unix:/run/web.sock", "address: \"unix:/run/web.sock\" is a Unix socket"),
            ("\"priority\":3", "\"priority\":16", "priority: must be 0..=15, got 16"),
            ("\"priority\":3", "\"priority\":\"last\"", "priority: must be 0..=15, got \"last\""),
            ("\"priority\":3", "\"priority\":3,\"backup\":true", "duplicate field"),
            ("\"one\"", "\"\"", "name: must be 1..=64 characters"),
            ("\"one\"", "\"two\"", "holders: one of them is there twice"),
            (&holders, &many, "holders: must be 0..=16, got 17"),
            ("2023-11-14T22:13:20Z", "soon", "failed to parse"),
            ("\"bad\"", "\"..\"", "must have a letter or a digit"),
            ("\"bad\"", "\"a\"", "another entry has that name"),
            ("\"bad\"", "7", "invalid type"),
        ] {
            assert!(good.contains(from), "{from}");
            let contents = Contents::parse(good.replace(from, to).as_bytes()).unwrap();
            let names: Vec<&str> = contents.backends.iter().map(|backend| backend.name.as_str()).collect();
            assert_eq!(names, ["a", "c"], "{to}");
            let [refused] = &contents.refused[..] else { panic!("{to}: {:?}", contents.refused) };
            assert!(refused.starts_with("backends[1] (pool \"web\", backend "), "{refused}");
            assert!(refused.contains(expected), "{to}: {refused}");
        }
    }

    #[test]
    fn the_backups_of_a_version_without_tiers_are_in_the_last_one() {
        let text = |backup: bool| {
            let held = format!(
                "{{\"holder\":\"h\",\"known\":true,\"weight\":1,\"backup\":{backup},\"lease\":\"2023-11-14T22:13:20Z\"}}"
            );
            format!(
                "{{\"version\":1,\"backends\":[{{\"pool\":\"web\",\"name\":\"a\",\"weight\":1,\"admin\":\"ready\",\"health\":\"auto\",\
                 \"registered\":{{\"address\":\"127.0.0.1:3\",\"backup\":{backup},\"who\":\"uid 7\",\"lease\":null,\"holders\":[{held}]}}}}]}}"
            )
        };
        for (backup, expected) in [(true, 15), (false, 0)] {
            let contents = Contents::parse(text(backup).as_bytes()).unwrap();
            let registered = contents.backends[0].registered.as_ref().unwrap();
            assert_eq!((registered.priority, registered.holders[0].priority), (expected, expected));
        }
    }

    #[test]
    fn a_refused_entry_is_kept_in_a_file_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        for text in ["old", "older"] {
            _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            let kept = Contents::keep_refused(&path).unwrap();
            saved([]).write(&path).unwrap();
            assert_eq!(fs::read_to_string(kept).unwrap(), text);
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
        assert_eq!(io::read_to_string(old).unwrap(), "old", "a reader gets the old file or the new one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
