//! A list of backends by itself, as files and HTTP servers have it: JSON, or TOML.
//!
//! `[{"address": "10.0.0.1:80", "weight": 2}]`, or a `[[backend]]` for each. The keys are those of `[[pool.backend]]`,
//! with its limits, except that an address is never a host name: nothing here asks a resolver. The first mistake is
//! returned with its place; a list is taken as a whole or not at all.

use std::collections::HashSet;
use std::fmt::{self, Display};
use std::net::SocketAddr;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::address::Target;
use super::check::reader::{check_name, quote};
use super::discover::Format;
use super::error::{Invalid, one_line};
use super::model::{Backend, BackendCheck};
use super::priority::priority_of;
use super::ranges::{LISTED_MAX, PRIORITY_MAX, WEIGHT_MAX};
use crate::base::address::Address;

/// What is wrong with a list, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// In bytes, counted from 1; 0 at the end of the line before.
    pub column: usize,
    /// The key and the mistake.
    pub what: String,
}

/// Returns the backends of `bytes`, no two of which have the same name or address, in their order.
pub fn parse_list(bytes: &[u8], format: Format) -> Result<Vec<Backend>, Mistake> {
    let text = utf8(bytes)?;
    match format {
        Format::Json => of_json(text, ListVisitor),
        Format::Toml => of_toml(text),
    }
}

/// Returns the backend of `bytes`, which is one element of such a list in JSON, called `name`: it must have no other
/// name of its own.
pub fn parse_backend(bytes: &[u8], name: &str) -> Result<Backend, Mistake> {
    let mut backend = of_json(utf8(bytes)?, BackendVisitor(&mut Seen::default()))?;
    let is_named = backend.name != backend.address.to_string();
    if is_named && backend.name != name {
        let what = format!("name: must be {name:?} or left out, got {:?}", backend.name);
        return Err(mistake_at(bytes, 0, &what));
    }
    name.clone_into(&mut backend.name);
    Ok(backend)
}

fn utf8(bytes: &[u8]) -> Result<&str, Mistake> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        mistake_at(good, good.len(), "not UTF-8")
    })
}

fn of_json<'de, V: Visitor<'de>>(text: &'de str, visitor: V) -> Result<V::Value, Mistake> {
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = json.deserialize_any(visitor).and_then(|list| json.end().map(|()| list));
    parsed.map_err(|error| {
        let (line, column, whole) = (error.line(), error.column(), error.to_string());
        let what = whole.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&whole);
        let what = if error.is_data() { what.to_owned() } else { format!("not JSON: {what}") };
        Mistake { line, column, what: one_line(&what) }
    })
}

fn of_toml(text: &str) -> Result<Vec<Backend>, Mistake> {
    let mistake = |error: toml::de::Error| {
        let byte = error.span().map_or(0, |span| span.start);
        mistake_at(text.as_bytes(), byte, error.message())
    };
    let document = toml::Deserializer::parse(text).map_err(|error| {
        let Mistake { line, column, what } = mistake(error);
        Mistake { line, column, what: format!("not TOML: {what}") }
    })?;
    document.deserialize_any(DocumentVisitor).map_err(mistake)
}

/// A mistake at that byte.
fn mistake_at(text: &[u8], byte: usize, what: &str) -> Mistake {
    let before = &text[..byte.min(text.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    Mistake { line, column: 1 + before.len() - line_start, what: one_line(what) }
}

/// Reads the table of a TOML file.
struct DocumentVisitor;

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum DocumentKey {
    Backend,
}

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Vec<Backend>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of [[backend]]")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut list = None;
        while let Some(DocumentKey::Backend) = map.next_key()? {
            list = Some(map.next_value_seed(ListVisitor)?);
        }
        // What was cut to nothing is no list of none.
        list.ok_or_else(|| {
            de::Error::custom("no list: write [[backend]], or backend = [] where there is none")
        })
    }
}

/// Reads the list.
struct ListVisitor;

impl<'de> DeserializeSeed<'de> for ListVisitor {
    type Value = Vec<Backend>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Vec<Backend>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of backends like [{\"address\": \"10.0.0.1:80\"}]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let (mut backends, mut seen) = (Vec::new(), Seen::default());
        while let Some(backend) = list.next_element_seed(BackendVisitor(&mut seen))? {
            if backends.len() == LISTED_MAX {
                return Err(de::Error::custom(format!("more than {LISTED_MAX} backends")));
            }
            backends.push(backend);
        }
        Ok(backends)
    }
}

/// What the backends before have.
#[derive(Default)]
struct Seen {
    names: HashSet<String>,
    addresses: HashSet<SocketAddr>,
}

/// Reads one backend.
struct BackendVisitor<'s>(&'s mut Seen);

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Address,
    Name,
    Weight,
    Priority,
    Backup,
}

impl<'de> DeserializeSeed<'de> for BackendVisitor<'_> {
    type Value = Backend;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BackendVisitor<'_> {
    type Value = Backend;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a backend like {\"address\": \"10.0.0.1:80\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Seen { names, addresses } = self.0;
        let (mut address, mut name, mut weight, mut priority, mut backup) = (None, None, None, None, None);
        while let Some(key) = map.next_key()? {
            match key {
                Key::Address => {
                    once("address", &mut address, &mut map, |given| of_address(given, addresses))?;
                }
                Key::Name => once("name", &mut name, &mut map, |given| of_name(given, names))?,
                Key::Weight => once("weight", &mut weight, &mut map, of_weight)?,
                Key::Priority => once("priority", &mut priority, &mut map, of_priority)?,
                Key::Backup => once("backup", &mut backup, &mut map, of_backup)?,
            }
        }
        let address: Address =
            address.ok_or_else(|| de::Error::custom("address: missing, a backend needs one"))?;
        let name = match name {
            Some(name) => name,
            None => of_name(Given::Text(&address.to_string()), names)
                .map_err(|what| de::Error::custom(format!("name: {what}")))?,
        };
        let priority = priority_of(priority, backup)
            .map_err(|Invalid(what)| de::Error::custom(format!("priority: {what}")))?;
        Ok(Backend { name, address, weight: weight.unwrap_or(1), priority, check: BackendCheck::default() })
    }
}

/// Puts the value of `key` into its `place`, which must be free, as `check` returns it.
fn once<'de, A: MapAccess<'de>, T>(
    key: &'static str,
    place: &mut Option<T>,
    map: &mut A,
    check: impl FnOnce(Given<'_>) -> Result<T, String>,
) -> Result<(), A::Error> {
    if place.is_some() {
        return Err(de::Error::custom(format!("{key}: is there twice")));
    }
    *place = Some(map.next_value_seed(Value { key, check })?);
    Ok(())
}

/// A value as it is written.
#[derive(Clone, Copy)]
enum Given<'a> {
    Text(&'a str),
    Whole(i128),
    Boolean(bool),
    /// What no key has, in the words of messages.
    Other(&'static str),
}

impl Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quote(text)),
            Self::Whole(number) => number.fmt(f),
            Self::Boolean(on) => on.fmt(f),
            Self::Other(what) => f.write_str(what),
        }
    }
}

fn of_address(given: Given<'_>, taken: &mut HashSet<SocketAddr>) -> Result<Address, String> {
    let Given::Text(text) = given else { return Err(format!("must be a string, got {given}")) };
    match Target::parse(text) {
        Ok(Target::Address(address)) => {
            let Address::Ip(ip) = address;
            match taken.insert(SocketAddr::new(ip.ip().to_canonical(), ip.port())) {
                true => Ok(address),
                false => Err(format!("another backend has {ip}")),
            }
        }
        Ok(Target::Host { .. }) => Err(format!(
            "must be IP:PORT, got the host name {}: a [[pool.discover]] of type = \"dns\" follows a name",
            quote(text)
        )),
        Err(Invalid(what)) => Err(what),
    }
}

fn of_name(given: Given<'_>, taken: &mut HashSet<String>) -> Result<String, String> {
    let Given::Text(text) = given else { return Err(format!("must be a string, got {given}")) };
    check_name(text).map_err(|Invalid(what)| what)?;
    match taken.insert(text.to_owned()) {
        true => Ok(text.to_owned()),
        false => Err(format!("another backend has {text:?}")),
    }
}

fn of_weight(given: Given<'_>) -> Result<u16, String> {
    let number = match given {
        Given::Whole(number) => u16::try_from(number).ok().filter(|&number| number <= WEIGHT_MAX),
        Given::Text(_) | Given::Boolean(_) | Given::Other(_) => None,
    };
    number.ok_or_else(|| format!("must be a whole number 0..={WEIGHT_MAX}, got {given}"))
}

fn of_priority(given: Given<'_>) -> Result<u8, String> {
    let number = match given {
        Given::Whole(number) => u8::try_from(number).ok().filter(|&number| number <= PRIORITY_MAX),
        Given::Text(_) | Given::Boolean(_) | Given::Other(_) => None,
    };
    number.ok_or_else(|| format!("must be a whole number 0..={PRIORITY_MAX}, got {given}"))
}

fn of_backup(given: Given<'_>) -> Result<bool, String> {
    match given {
        Given::Boolean(on) => Ok(on),
        Given::Text(_) | Given::Whole(_) | Given::Other(_) => {
            Err(format!("must be true or false, got {given}"))
        }
    }
}

/// Reads one value. A mistake in it is found here, where its place is known.
struct Value<C> {
    key: &'static str,
    check: C,
}

impl<C> Value<C> {
    fn checked<T, E: de::Error>(self, given: Given<'_>) -> Result<T, E>
    where
        C: FnOnce(Given<'_>) -> Result<T, String>,
    {
        (self.check)(given).map_err(|what| E::custom(format!("{}: {what}", self.key)))
    }
}

impl<'de, T, C: FnOnce(Given<'_>) -> Result<T, String>> DeserializeSeed<'de> for Value<C> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T, C: FnOnce(Given<'_>) -> Result<T, String>> Visitor<'de> for Value<C> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of {}", self.key)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        self.checked(Given::Text(text))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.checked(Given::Whole(number.into()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.checked(Given::Whole(number.into()))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<T, E> {
        self.checked(Given::Other("a fraction"))
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<T, E> {
        self.checked(Given::Boolean(on))
    }

    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        self.checked(Given::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<T, A::Error> {
        self.checked(Given::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<T, A::Error> {
        self.checked(Given::Other("a table"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NAME=ADDRESS@WEIGHT, with the priority where that is not 0.
    fn shown(list: &[Backend]) -> Vec<String> {
        let show = |backend: &Backend| {
            let Backend { name, address, weight, priority, check: _ } = backend;
            let tier = if *priority > 0 { format!("/{priority}") } else { String::new() };
            format!("{name}={address}@{weight}{tier}")
        };
        list.iter().map(show).collect()
    }

    fn json(text: &str) -> Result<Vec<String>, String> {
        parse_list(text.as_bytes(), Format::Json).map(|list| shown(&list)).map_err(|error| error.to_string())
    }

    fn toml(text: &str) -> Result<Vec<String>, String> {
        parse_list(text.as_bytes(), Format::Toml).map(|list| shown(&list)).map_err(|error| error.to_string())
    }

    #[test]
    fn both_formats_have_the_keys_of_a_backend_and_its_defaults() {
        let expected = ["10.0.0.1:80=10.0.0.1:80@1", "two=[::1]:80@0/15", "127.0.0.1:81=127.0.0.1:81@256/3"];
        let text = "[{\"address\": \"10.0.0.1:80\"},\n\
             {\"name\": \"two\", \"address\": \"[::1]:80\", \"weight\": 0, \"backup\": true},\n\
             {\"weight\": 256, \"priority\": 3, \"address\": \":81\"}]\n";
        assert_eq!(json(text).unwrap(), expected);
        let text = "[[backend]]\naddress = \"10.0.0.1:80\"\n[[backend]]\nname = \"two\"\naddress = \"[::1]:80\"\n\
             weight = 0\nbackup = true\n[[backend]]\naddress = \":81\"\nweight = 256\npriority = 3\n";
        assert_eq!(toml(text).unwrap(), expected);
    }

    #[test]
    fn none_is_a_list_only_if_it_is_written() {
        assert_eq!(json(" [ ] "), Ok(Vec::new()));
        assert_eq!(toml("backend = []"), Ok(Vec::new()));
        assert!(json("").unwrap_err().starts_with("line 1, column 0: not JSON: EOF"), "{:?}", json(""));
        assert_eq!(
            toml("# cut\n").unwrap_err(),
            "line 1, column 1: no list: write [[backend]], or backend = [] where there is none"
        );
    }

    #[test]
    fn a_mistake_is_returned_with_its_place() {
        let good = "{\"address\": \"10.0.0.1:80\"}";
        for (text, expected) in [
            ("{}".to_owned(), "line 1, column 2: invalid type: map, expected a list of backends like"),
            (format!("[{good},\n{good}]"), "line 2, column 25: address: another backend has 10.0.0.1:80"),
            (format!("[\n{good},\n  7]"), "line 3, column 3: invalid type: integer `7`, expected a backend"),
            (
                "[{\n\"weight\": 257\n}]".into(),
                "line 2, column 13: weight: must be a whole number 0..=256, got 257",
            ),
            ("[{\"weight\": 1.0}]".into(), "weight: must be a whole number 0..=256, got a fraction"),
            ("[{\"weight\": \"1\"}]".into(), "weight: must be a whole number 0..=256, got \"1\""),
            ("[{\"weight\": [1]}]".into(), "weight: must be a whole number 0..=256, got an array"),
            ("[{\"priority\": 16}]".into(), "priority: must be a whole number 0..=15, got 16"),
            (
                "[{\"address\": \":80\", \"priority\": 3, \"backup\": true}]".into(),
                "priority: 3 contradicts backup = true",
            ),
            ("[{\"backup\": null}]".into(), "backup: must be true or false, got null"),
            ("[{\"address\": {}}]".into(), "address: must be a string, got a table"),
            ("[{\"address\": \"10.0.0.1\"}]".into(), "address: port missing"),
            (
                "[{\"address\": \"web.local:80\"}]".into(),
                "must be IP:PORT, got the host name \"web.local:80\"",
            ),
            ("[{\"address\": \"224.0.0.1:80\"}]".into(), "multicast"),
            ("[{\"name\": \"a b\"}]".into(), "name: must be 1..=64 characters"),
            ("[{\n\"adress\": 1}]".into(), "line 2, column 8: unknown field `adress`"),
            ("[{\n\"name\": \"a\"\n}]".into(), "line 3, column 1: address: missing"),
            ("[{\"weight\": 1, \"weight\": 2}]".into(), "weight: is there twice"),
            (format!("[{good},"), "not JSON: EOF while parsing"),
            (format!("[{good}"), "not JSON: EOF while parsing a list"),
            (format!("[{good}] x"), "line 1, column 30: not JSON: trailing characters"),
            ("\"\u{202e}".into(), "not JSON: "),
        ] {
            let error = json(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for (text, expected) in [
            ("[[backend]]\naddress = \"10.0.0.1:80\"\nweight = 300\n", "line 3, column 10: weight: must be"),
            (
                "[[backend]]\naddress = \"10.0.0.1:80\"\nwieght = 3\n",
                "line 3, column 1: unknown field `wieght`",
            ),
            ("[[backends]]\naddress = \"10.0.0.1:80\"\n", "line 1, column 3: unknown field `backends`"),
            ("[[backend]]\naddress = 1979-05-27\n", "line 2, column 11: address: must be a string"),
            ("backend = 7\n", "line 1, column 11: invalid type: integer `7`, expected a list"),
            ("[[backend]]\n\n[[backend]]\naddress = \":80\"", "address: missing"),
            ("[[backend]]\naddress = \"10.0.0.1:80", "line 2, column 23: not TOML: "),
        ] {
            let error = toml(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let latin = parse_list(b"[\n\"\xe4\"]", Format::Json).unwrap_err();
        assert_eq!(latin.to_string(), "line 2, column 2: not UTF-8");
    }

    #[test]
    fn one_backend_by_itself_has_the_name_that_it_is_given() {
        let parsed = |text: &str| parse_backend(text.as_bytes(), "b4").map_err(|error| error.to_string());
        let backend = parsed("{\"address\": \"10.0.0.1:80\", \"weight\": 3, \"backup\": true}").unwrap();
        assert_eq!(shown(&[backend]), ["b4=10.0.0.1:80@3/15"]);
        assert!(parsed("{\"address\": \"10.0.0.1:80\", \"name\": \"b4\"}").is_ok());
        for (text, expected) in [
            (
                "{\"address\": \"10.0.0.1:80\", \"name\": \"b5\"}",
                "name: must be \"b4\" or left out, got \"b5\"",
            ),
            ("[{\"address\": \"10.0.0.1:80\"}]", "invalid type: sequence, expected a backend like"),
            ("{\"address\": \"10.0.0.1:80\"}}", "not JSON: trailing characters"),
            ("10.0.0.1:80", "invalid type: floating point"),
            ("{\"adress\": 1}", "unknown field `adress`"),
            ("", "not JSON: EOF"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(parse_backend(b"{\"\xe4", "b4").unwrap_err().to_string().contains("not UTF-8"));
    }

    /// One that goes by its address had the name of another.
    #[test]
    fn an_address_is_a_name_too() {
        let text =
            "[{\"name\": \"10.0.0.1:80\", \"address\": \"10.0.0.2:80\"},\n{\"address\": \"10.0.0.1:80\"}]";
        assert!(json(text).unwrap_err().contains("name: another backend has \"10.0.0.1:80\""));
        let mapped = "[{\"address\": \"10.0.0.1:80\"}, {\"address\": \"[::ffff:10.0.0.1]:80\"}]";
        assert!(json(mapped).unwrap_err().contains("another backend has"), "one server has two addresses");
    }

    #[test]
    fn a_list_has_an_end() {
        let all =
            (0..=LISTED_MAX).map(|n| format!("{{\"address\": \"10.{}.{}.1:80\"}}", n >> 8 & 255, n & 255));
        let mut all: Vec<String> = all.collect();
        all[LISTED_MAX] = "{\"address\": \"10.0.0.2:80\"}".into();
        let error = json(&format!("[{}]", all.join(","))).unwrap_err();
        assert!(error.ends_with("more than 65536 backends"), "{error}");
        assert_eq!(json(&format!("[{}]", all[1..].join(","))).unwrap().len(), LISTED_MAX);
    }
}
