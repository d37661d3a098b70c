//! The mirror of the file: its tables and keys, with the place of every value. Knows nothing of types, ranges or
//! defaults; those are `check`'s.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Range};

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::document;
use super::file::{Inputs, Text};
use super::label::label_of;
use super::report::{Report, Spot};
use super::variables;
use crate::base::nearest::did_you_mean;

/// The value of a key, if the file has it.
pub(in crate::config) type Key = Option<Spanned<toml::Value>>;
/// A table, if the file has it; its span is its header.
pub(in crate::config) type Section<T> = Option<Spanned<Table<T>>>;
/// `[[name]]`, in the order of the file.
pub(in crate::config) type Sections<T> = Vec<Spanned<Table<T>>>;

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawConfig {
    /// Read by `include`, in front of all others.
    pub(in crate::config) include: Key,
    pub(in crate::config) global: Section<RawGlobal>,
    pub(in crate::config) admin: Section<RawAdmin>,
    pub(in crate::config) announce: Section<RawAnnounce>,
    pub(in crate::config) fleet: Section<RawFleet>,
    pub(in crate::config) listener: Sections<RawListener>,
    pub(in crate::config) pool: Sections<RawPool>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawGlobal {
    pub(in crate::config) workers: Key,
    pub(in crate::config) pin: Key,
    pub(in crate::config) splice: Key,
    pub(in crate::config) busy_poll: Key,
    pub(in crate::config) max_sessions: Key,
    pub(in crate::config) drain_timeout: Key,
    pub(in crate::config) shutdown_delay: Key,
    pub(in crate::config) reload_timeout: Key,
    pub(in crate::config) watch: Key,
    pub(in crate::config) resolve: Key,
    pub(in crate::config) log: Section<RawLog>,
    pub(in crate::config) access_log: Section<RawAccessLog>,
    pub(in crate::config) user: Key,
    pub(in crate::config) group: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawAccessLog {
    pub(in crate::config) path: Key,
    pub(in crate::config) format: Key,
    pub(in crate::config) at: Key,
    pub(in crate::config) every: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawLog {
    pub(in crate::config) level: Key,
    pub(in crate::config) format: Key,
    pub(in crate::config) target: Key,
    pub(in crate::config) socket: Key,
    pub(in crate::config) facility: Key,
    pub(in crate::config) app_name: Key,
    pub(in crate::config) header: Key,
    pub(in crate::config) fields: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawAdmin {
    pub(in crate::config) socket: Key,
    pub(in crate::config) listen: Key,
    pub(in crate::config) token_file: Key,
    pub(in crate::config) read_token_file: Key,
    pub(in crate::config) metrics: Key,
    pub(in crate::config) state_file: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawAnnounce {
    pub(in crate::config) domain: Key,
    pub(in crate::config) name: Key,
    pub(in crate::config) addresses: Key,
    pub(in crate::config) prefix: Key,
    pub(in crate::config) endpoints: Key,
    pub(in crate::config) tls: Option<Spanned<RawTls>>,
    pub(in crate::config) user: Key,
    pub(in crate::config) password_file: Key,
    pub(in crate::config) ttl: Key,
    pub(in crate::config) lease: Key,
    pub(in crate::config) only_with_backends: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawFleet {
    pub(in crate::config) leave_when_alone: Key,
    pub(in crate::config) name: Key,
    pub(in crate::config) prefix: Key,
    pub(in crate::config) endpoints: Key,
    pub(in crate::config) tls: Option<Spanned<RawTls>>,
    pub(in crate::config) user: Key,
    pub(in crate::config) password_file: Key,
    pub(in crate::config) lease: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawListener {
    pub(in crate::config) name: Key,
    pub(in crate::config) bind: Key,
    pub(in crate::config) pool: Key,
    pub(in crate::config) backlog: Key,
    pub(in crate::config) accept: Key,
    pub(in crate::config) max_sessions: Key,
    pub(in crate::config) allow: Key,
    pub(in crate::config) deny: Key,
    pub(in crate::config) on_refuse: Key,
    pub(in crate::config) proxy_protocol: Section<RawProxyIn>,
    pub(in crate::config) tls: Key,
    pub(in crate::config) on_no_sni: Key,
    pub(in crate::config) route: Sections<RawRoute>,
    pub(in crate::config) timeouts: Section<RawListenerTimeouts>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawRoute {
    pub(in crate::config) sni: Key,
    pub(in crate::config) alpn: Key,
    pub(in crate::config) client: Key,
    pub(in crate::config) pool: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawProxyIn {
    pub(in crate::config) from: Key,
    pub(in crate::config) others: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawListenerTimeouts {
    pub(in crate::config) connect: Key,
    pub(in crate::config) idle: Key,
    pub(in crate::config) half_close: Key,
    pub(in crate::config) preread: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawTimeouts {
    pub(in crate::config) connect: Key,
    pub(in crate::config) idle: Key,
    pub(in crate::config) half_close: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawPool {
    pub(in crate::config) name: Key,
    pub(in crate::config) balance: Key,
    pub(in crate::config) retries: Key,
    pub(in crate::config) when_all_down: Key,
    pub(in crate::config) relay: Key,
    pub(in crate::config) proxy_protocol: Option<Spanned<RawProxyOut>>,
    pub(in crate::config) on_remove: Key,
    pub(in crate::config) drain_timeout: Key,
    pub(in crate::config) timeouts: Section<RawTimeouts>,
    pub(in crate::config) tcp: Section<RawTcp>,
    pub(in crate::config) health: Section<RawHealth>,
    pub(in crate::config) check: Sections<RawHealth>,
    pub(in crate::config) backend: Sections<RawBackend>,
    pub(in crate::config) discover: Sections<RawDiscover>,
    pub(in crate::config) agent: Section<RawAgent>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawTcp {
    pub(in crate::config) nodelay: Key,
    pub(in crate::config) keepalive: Option<Spanned<RawKeepalive>>,
    pub(in crate::config) user_timeout: Key,
}

#[derive(Debug)]
pub(in crate::config) enum RawKeepalive {
    Off,
    On(RawKeepaliveFigures),
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawKeepaliveFigures {
    pub(in crate::config) idle: Key,
    pub(in crate::config) interval: Key,
    pub(in crate::config) count: Key,
}

/// The version alone, or a table.
#[derive(Debug)]
pub(in crate::config) enum RawProxyOut {
    Version(String),
    Keys(RawProxyOutKeys),
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawProxyOutKeys {
    pub(in crate::config) version: Key,
    pub(in crate::config) tlvs: Key,
    pub(in crate::config) check: Key,
}

/// `[pool.health]`, and `[[pool.check]]` with a part of its keys.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawHealth {
    pub(in crate::config) name: Key,
    #[serde(rename = "type")]
    pub(in crate::config) kind: Key,
    pub(in crate::config) send: Key,
    pub(in crate::config) expect: Key,
    pub(in crate::config) contains: Key,
    pub(in crate::config) path: Key,
    pub(in crate::config) host: Key,
    pub(in crate::config) status: Key,
    pub(in crate::config) steps: Sections<RawStep>,
    pub(in crate::config) user: Key,
    pub(in crate::config) domain: Key,
    pub(in crate::config) service: Key,
    pub(in crate::config) client_id: Key,
    pub(in crate::config) tls: Option<Spanned<RawTls>>,
    pub(in crate::config) command: Key,
    pub(in crate::config) interval: Key,
    pub(in crate::config) fast_interval: Key,
    pub(in crate::config) timeout: Key,
    pub(in crate::config) rise: Key,
    pub(in crate::config) fall: Key,
    pub(in crate::config) jitter_percent: Key,
    pub(in crate::config) port: Key,
    pub(in crate::config) initial_state: Key,
}

/// `tls` of a check, or of a server that is asked.
#[derive(Debug)]
pub(in crate::config) enum RawTls {
    Switch(bool),
    Settings(Box<RawTlsSettings>),
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawTlsSettings {
    pub(in crate::config) server_name: Key,
    pub(in crate::config) verify: Key,
    pub(in crate::config) ca_file: Key,
    pub(in crate::config) alpn: Key,
    pub(in crate::config) expires_within: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawStep {
    pub(in crate::config) send: Key,
    pub(in crate::config) expect: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawBackend {
    pub(in crate::config) name: Key,
    pub(in crate::config) address: Key,
    pub(in crate::config) weight: Key,
    pub(in crate::config) priority: Key,
    pub(in crate::config) backup: Key,
    pub(in crate::config) check: Section<RawBackendCheck>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawBackendCheck {
    pub(in crate::config) address: Key,
    pub(in crate::config) port: Key,
    pub(in crate::config) interval: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawDiscover {
    #[serde(rename = "type")]
    pub(in crate::config) kind: Key,
    pub(in crate::config) name: Key,
    pub(in crate::config) record: Key,
    pub(in crate::config) port: Key,
    pub(in crate::config) resolver: Key,
    pub(in crate::config) prefer: Key,
    pub(in crate::config) path: Key,
    pub(in crate::config) url: Key,
    pub(in crate::config) token_file: Key,
    pub(in crate::config) tls: Option<Spanned<RawTls>>,
    pub(in crate::config) prefix: Key,
    pub(in crate::config) endpoints: Key,
    pub(in crate::config) user: Key,
    pub(in crate::config) password_file: Key,
    pub(in crate::config) when_absent: Key,
    pub(in crate::config) stale: Key,
    pub(in crate::config) obsolete: Key,
    pub(in crate::config) negatives: Key,
    pub(in crate::config) min_backends: Key,
    pub(in crate::config) initial: Key,
    pub(in crate::config) interval: Key,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawAgent {
    #[serde(rename = "type")]
    pub(in crate::config) kind: Key,
    pub(in crate::config) send: Key,
    pub(in crate::config) path: Key,
    pub(in crate::config) host: Key,
    pub(in crate::config) address: Key,
    pub(in crate::config) port: Key,
    pub(in crate::config) interval: Key,
    pub(in crate::config) timeout: Key,
    pub(in crate::config) on_lost: Key,
}

/// A table that is written as a table: derived structs would also accept an array, by position.
#[derive(Debug, Default)]
pub(in crate::config) struct Table<T>(T);

impl<T> Deref for Table<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TableVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }

        deserializer.deserialize_any(TableVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for RawKeepalive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeepaliveVisitor;

        impl<'de> Visitor<'de> for KeepaliveVisitor {
            type Value = RawKeepalive;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("false or a table {idle, interval, count}")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Self::Value, E> {
                if on {
                    return Err(E::invalid_value(de::Unexpected::Bool(on), &self));
                }
                Ok(RawKeepalive::Off)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(RawKeepalive::On)
            }
        }

        deserializer.deserialize_any(KeepaliveVisitor)
    }
}

impl<'de> Deserialize<'de> for RawProxyOut {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ProxyVisitor;

        impl<'de> Visitor<'de> for ProxyVisitor {
            type Value = RawProxyOut;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"v1\", \"v2\" or a table {version, tlvs, check}")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
                Ok(RawProxyOut::Version(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(RawProxyOut::Keys)
            }
        }

        deserializer.deserialize_any(ProxyVisitor)
    }
}

impl<'de> Deserialize<'de> for RawTls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TlsVisitor;

        impl<'de> Visitor<'de> for TlsVisitor {
            type Value = RawTls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a table {server_name, verify, ca_file, alpn, expires_within}")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<RawTls, E> {
                Ok(RawTls::Switch(on))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawTls, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map))
                    .map(|settings| RawTls::Settings(Box::new(settings)))
            }
        }

        deserializer.deserialize_any(TlsVisitor)
    }
}

/// The mirror of `texts`. A key or table that does not fit goes into the report and is left out, so that one
/// mistake hides no other. `None` when so much is missing that a check would bring up mistakes that no user
/// made.
pub(in crate::config) fn read(texts: &[Text], inputs: Inputs, report: &mut Report) -> Option<RawConfig> {
    let (mut document, is_whole) = document::read(texts, report)?;
    let mut is_checkable = variables::put_in(document.get_mut(), inputs, report) && is_whole;
    for _ in 0..MISFITS_MAX {
        let value = Spanned::new(document.span(), DeValue::Table(document.get_ref().clone()));
        let error = match RawConfig::deserialize(ValueDeserializer::from(value)) {
            Ok(raw) => return is_checkable.then_some(raw),
            Err(error) => error,
        };
        let span = error.span().unwrap_or_default();
        let spot = Spot::Byte(span.start);
        let Some(path) = remove(document.get_mut(), &span) else {
            report.add_bare(&spot, error.message());
            return None;
        };
        report.add_bare(&spot, format_args!("{}: {}", path.join(": "), misfit_text(error.message(), &path)));
        is_checkable &= match path.as_slice() {
            [list] => !matches!(list.as_str(), "listener" | "pool"),
            [_, list] => !matches!(list.as_str(), "backend" | "discover"),
            _ => true,
        };
    }
    None
}

/// Most misfitting keys and tables reported in one run.
const MISFITS_MAX: usize = 100;

/// Removes the entry with this span as key or value from the table or its content. Returns its path, in the words of
/// messages.
fn remove(table: &mut DeTable, span: &Range<usize>) -> Option<Vec<String>> {
    for (key, value) in table.iter_mut() {
        let below = match value.get_mut() {
            DeValue::Table(inner) => remove(inner, span).map(|path| (key.get_ref().to_string(), path)),
            DeValue::Array(array) => array.iter_mut().enumerate().find_map(|(index, element)| {
                let DeValue::Table(inner) = element.get_mut() else { return None };
                let label = label_of(key.get_ref(), inner, index);
                remove(inner, span).map(|path| (label, path))
            }),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => None,
        };
        if let Some((label, path)) = below {
            return Some([vec![label], path].concat());
        }
    }
    let is_it = |(key, value): &(&Spanned<_>, &Spanned<DeValue>)| {
        let elements = value.get_ref().as_array().into_iter().flat_map(|array| array.iter());
        key.span() == *span || elements.chain([*value]).any(|value| value.span() == *span)
    };
    let key = table.iter().find(is_it).map(|(key, _)| key.clone())?;
    table.remove(&key);
    Some(vec![key.into_inner().into_owned()])
}

/// Returns serde's message in the words of the file.
fn misfit_text(message: &str, path: &[String]) -> String {
    // Numbers beyond i64, u64 and i128.
    if message.contains("as i128") || message.ends_with("too large") || message.ends_with("overflowed") {
        return "number out of range".to_string();
    }
    let Some((found, expected)) = message.split_once(", expected ") else { return message.to_string() };
    if found.starts_with("unknown field") {
        let quoted =
            |text: &'_ str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let (written, known) = (quoted(found), quoted(expected));
        let written = written.first().map_or("", String::as_str);
        let hint = did_you_mean(written, known.iter().map(String::as_str));
        return format!("unknown key, expected {}{hint}", expected.replace('`', ""));
    }
    if expected == "a sequence" {
        let header = match path.last().map(String::as_str) {
            Some("route") => "listener.route",
            Some("backend") => "pool.backend",
            Some("discover") => "pool.discover",
            Some("check") => "pool.check",
            Some("steps") => "pool.health.steps",
            key => key.unwrap_or_default(),
        };
        return format!("must be a list of tables, write [[{header}]]");
    }
    let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    let found = match found {
        "map" => "a table",
        "sequence" => "an array",
        other => other,
    };
    format!("must be {expected}, got {}", found.replace('`', ""))
}
