//! What is known of the keys with a prefix, and which backends they are. No I/O.
//!
//! The last part of a key is the name of a backend, and its value the object that lists have. A value that is wrong
//! leaves the last good one of its key in force, and is reported with it. Of two keys with the same name or address the
//! first one counts.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use crate::base::address::Address;
use crate::config::{LISTED_MAX, check_name, one_line, parse_backend};
use crate::control::discovery::belief::Records;
use crate::control::discovery::listed::found;
use crate::etcd::messages::{Change, Event, KeyValue};
use crate::messages::discovery::Found;

/// Bytes of a value: that of a backend has some hundred.
const VALUE_LEN_MAX: usize = 4 << 10;
/// Bytes of a key behind its prefix.
const KEY_LEN_MAX: usize = 256;
/// Mistakes that one answer names; of more there is their number.
const NAMED_MAX: usize = 8;

/// The keys, in their order.
pub(super) struct View {
    prefix: Vec<u8>,
    keys: BTreeMap<Vec<u8>, Held>,
    /// Whether there are keys that are too long, and so not among them.
    has_overlong: bool,
}

/// What a key has.
#[derive(Default)]
struct Held {
    /// The last good value.
    good: Option<Found>,
    /// Why that is not what it has now.
    mistake: Option<String>,
}

impl View {
    /// None yet.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.as_bytes().to_vec(), keys: BTreeMap::new(), has_overlong: false }
    }

    /// These are all keys. What was good of one that has a wrong value now stays.
    pub(super) fn replace(&mut self, keys: Vec<KeyValue>) {
        let mut before = std::mem::take(&mut self.keys);
        self.has_overlong = false;
        for kv in keys {
            if let Some(known) = before.remove(&kv.key) {
                self.keys.insert(kv.key.clone(), known);
            }
            self.put(kv);
        }
    }

    /// Applies events, in their order. Fails when there are too many keys.
    pub(super) fn apply(&mut self, events: Vec<Event>) -> Result<(), String> {
        for Event { change, kv } in events {
            match change {
                Change::Put => self.put(bounded(kv, &self.prefix)),
                Change::Delete => _ = self.keys.remove(&kv.key),
            }
            if self.keys.len() > LISTED_MAX {
                return Err(format!("more than {LISTED_MAX} keys"));
            }
        }
        Ok(())
    }

    fn put(&mut self, kv: KeyValue) {
        if kv.key.len() > self.prefix.len() + KEY_LEN_MAX {
            self.has_overlong = true;
            return;
        }
        let read = self.read(&kv);
        let held = self.keys.entry(kv.key).or_default();
        match read {
            Ok(good) => *held = Held { good: Some(good), mistake: None },
            Err(mistake) => held.mistake = Some(mistake),
        }
    }

    /// Returns the backend that a key is.
    fn read(&self, KeyValue { key, value }: &KeyValue) -> Result<Found, String> {
        let behind = key.strip_prefix(&*self.prefix).ok_or("not asked for")?;
        let name = behind.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let name = str::from_utf8(name).map_err(|_| "its last part is no name: not UTF-8")?;
        check_name(name).map_err(|error| format!("its last part is no name: {error}"))?;
        if value.len() > VALUE_LEN_MAX {
            return Err(format!("its value is longer than {} KiB", VALUE_LEN_MAX >> 10));
        }
        let backend = parse_backend(value, name).map_err(|mistake| mistake.to_string())?;
        Ok(found(backend))
    }

    /// Returns all backends, with a note for each key that is not as it should be.
    pub(super) fn records(&self) -> Records {
        let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
        let mut records = Records::default();
        let (mut notes, mut more) = (Vec::new(), 0_usize);
        let mut note = |key: &[u8], what: &str| match notes.len() < NAMED_MAX {
            true => notes.push(format!("{}: {what}", shown(key))),
            false => more += 1,
        };
        for (key, Held { good, mistake }) in &self.keys {
            if let Some(mistake) = mistake {
                let stays = if good.is_some() { ", its last good value stays" } else { "" };
                note(key, &format!("{mistake}{stays}"));
            }
            let Some(found) = good else { continue };
            let Address::Ip(at) = found.address;
            if !addresses.insert(SocketAddr::new(at.ip().to_canonical(), at.port())) {
                note(key, &format!("another key has {at}"));
            } else if !names.insert(&found.name) {
                note(key, &format!("another key has the name {:?}", found.name));
            } else {
                records.listed.push((String::new(), found.clone()));
            }
        }
        if more > 0 {
            notes.push(format!("and {more} more"));
        }
        if self.has_overlong {
            notes.push(format!("keys with more than {KEY_LEN_MAX} bytes behind the prefix are left out"));
        }
        records.notes = notes;
        records
    }
}

/// Returns a key with its value, of each of which no more is kept than shows that it is too long.
pub(super) fn bounded(mut kv: KeyValue, prefix: &[u8]) -> KeyValue {
    kv.key.truncate(prefix.len() + KEY_LEN_MAX + 1);
    kv.key.shrink_to_fit();
    kv.value.truncate(VALUE_LEN_MAX + 1);
    kv.value.shrink_to_fit();
    kv
}

/// Returns a key as messages have it.
fn shown(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(&key[..key.len().min(2 * KEY_LEN_MAX)]);
    one_line(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &str) -> KeyValue {
        KeyValue { key: format!("/l4lb/web/{key}").into(), value: value.into() }
    }

    fn at(last: u8) -> String {
        format!("{{\"address\": \"10.0.0.{last}:80\"}}")
    }

    fn put(key: &str, value: &str) -> Event {
        Event { change: Change::Put, kv: kv(key, value) }
    }

    fn delete(key: &str) -> Event {
        Event { change: Change::Delete, kv: kv(key, "") }
    }

    /// NAME=ADDRESS of all backends, and the notes.
    fn known(view: &View) -> (Vec<String>, Vec<String>) {
        let Records { listed, notes, .. } = view.records();
        (listed.iter().map(|(_, found)| format!("{}={}", found.name, found.address)).collect(), notes)
    }

    #[test]
    fn a_key_is_a_backend_of_its_last_part() {
        let mut view = View::new("/l4lb/web/");
        view.replace(vec![kv("b", &at(2)), kv("zone/a", &at(1))]);
        assert_eq!(known(&view).0, ["b=10.0.0.2:80", "a=10.0.0.1:80"]);
        view.apply(vec![put("c", &at(3)), delete("b"), delete("never")]).unwrap();
        assert_eq!(known(&view), (vec!["c=10.0.0.3:80".into(), "a=10.0.0.1:80".into()], Vec::new()));
        view.replace(Vec::new());
        assert_eq!(known(&view), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_wrong_value_keeps_the_last_good_one_of_its_key_and_is_named_with_it() {
        let mut view = View::new("/l4lb/web/");
        view.replace(vec![kv("a", &at(1)), kv("b", &at(2))]);
        let wrong = "{\"address\": \"10.0.0.9:80\", \"weight\": 999}";
        view.apply(vec![put("a", wrong)]).unwrap();
        let (backends, notes) = known(&view);
        assert_eq!(backends, ["a=10.0.0.1:80", "b=10.0.0.2:80"]);
        assert_eq!(
            notes,
            [
                "/l4lb/web/a: line 1, column 40: weight: must be a whole number 0..=256, got 999, its last good value stays"
            ]
        );
        // A list after a lost watch has the same wrong value.
        view.replace(vec![kv("a", wrong), kv("b", &at(2)), kv("c", "")]);
        let (backends, notes) = known(&view);
        assert_eq!(backends, ["a=10.0.0.1:80", "b=10.0.0.2:80"]);
        assert!(notes[1].starts_with("/l4lb/web/c: line 1, column 0: not JSON: EOF"), "{notes:?}");
        view.apply(vec![put("a", &at(1)), delete("c")]).unwrap();
        assert_eq!(known(&view).1.len(), 0);
        view.apply(vec![put("a", wrong), delete("a")]).unwrap();
        assert_eq!(known(&view).0, ["b=10.0.0.2:80"], "no key, no backend");
    }

    #[test]
    fn of_two_keys_with_the_same_address_or_name_the_first_one_counts() {
        let mut view = View::new("/l4lb/web/");
        view.replace(vec![kv("a", &at(1)), kv("b", &at(1)), kv("z/a", &at(3))]);
        let (backends, notes) = known(&view);
        assert_eq!(backends, ["a=10.0.0.1:80"]);
        assert_eq!(
            notes,
            ["/l4lb/web/b: another key has 10.0.0.1:80", "/l4lb/web/z/a: another key has the name \"a\""]
        );
        view.apply(vec![delete("a")]).unwrap();
        assert_eq!(known(&view), (vec!["b=10.0.0.1:80".into(), "a=10.0.0.3:80".into()], Vec::new()));
    }

    #[test]
    fn keys_that_are_no_names_and_values_that_are_too_long_are_named() {
        let mut view = View::new("/l4lb/web/");
        let long = format!("{{\"address\": \"10.0.0.1:80\"{}}}", " ".repeat(VALUE_LEN_MAX));
        view.apply(vec![put("", &at(1)), put("a b", &at(2)), put("c", &long), put("d\n", &at(4))]).unwrap();
        let latin = KeyValue { key: b"/l4lb/web/\xe4".into(), value: at(5).into() };
        view.apply(vec![Event { change: Change::Put, kv: latin }]).unwrap();
        let (backends, notes) = known(&view);
        assert_eq!((backends.len(), notes.len()), (0, 5));
        for (note, expected) in notes.iter().zip([
            "no name: must be",
            "no name: must be",
            "longer than 4 KiB",
            "no name",
            "not UTF-8",
        ]) {
            assert!(note.contains(expected) && !note.contains('\n'), "{notes:?}");
        }
        view.apply((0..20).map(|n| put(&format!("e{n}"), "{}")).collect()).unwrap();
        let notes = known(&view).1;
        assert_eq!((notes.len(), notes[8].as_str()), (9, "and 17 more"));
    }
}
