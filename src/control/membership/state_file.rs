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
use crate::config::discover::host_of;
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
    /// The addresses and priorities that operators have set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placed: Vec<SavedPlacement>,
}

/// The address and the priority that operators have set of one backend, or of a host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPlacement {
    /// Its pool.
    #[serde(deserialize_with = "name")]
    pub pool: String,
    /// Its name in the pool.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// The address to dial.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "show_address_if_any",
        deserialize_with = "address_if_any"
    )]
    pub address: Option<Address>,
    /// Its tier.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "priority_if_any")]
    pub priority: Option<u8>,
    /// The last requester.
    pub who: String,
    /// Time of its request.
    pub since: Timestamp,
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
    /// As above.
    #[serde(default)]
    placed: Vec<Value>,
}

/// The parsed content of a state file.
#[derive(Debug, Default)]
pub struct Contents {
    /// The backends that may be restored.
    pub backends: Vec<SavedBackend>,
    /// What sources listed last.
    pub sources: Vec<SavedSource>,
    /// The addresses and priorities that operators have set.
    pub placed: Vec<SavedPlacement>,
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
    pub const fn of(
        backends: Vec<SavedBackend>,
        sources: Vec<SavedSource>,
        placed: Vec<SavedPlacement>,
    ) -> Self {
        Self { version: VERSION, backends, sources, placed }
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
        let mut seen = HashSet::new();
        for (place, entry) in entries.placed.into_iter().enumerate() {
            let word = |key| word_of(&entry, key);
            let named = format!("placed[{place}] (pool {:?}, backend {:?})", word("pool"), word("name"));
            match serde_json::from_value::<SavedPlacement>(entry) {
                Err(error) => contents.refused.push(format!("{named}: {error}")),
                Ok(placed) if !seen.insert((placed.pool.clone(), placed.name.clone())) => {
                    contents.refused.push(format!("{named}: another entry has that name"));
                }
                Ok(placed) if placed.address.is_some() && host_of(&placed.name).is_some() => {
                    let what = "address: the addresses of a host name are those that it resolves to";
                    contents.refused.push(format!("{named}: {what}"));
                }
                Ok(placed) => contents.placed.push(placed),
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

fn show_address_if_any<S: Serializer>(address: &Option<Address>, to: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => show_address(address, to),
        None => to.serialize_none(),
    }
}

fn address_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Address>, D::Error> {
    address(from).map(Some)
}

fn priority_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    priority(from).map(Some)
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
pub(in crate::control) mod tests;
