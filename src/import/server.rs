//! A `server`, `server-template` or `default-server` line.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::address::Place;
use super::lines::{Line, Note};
use super::values::{number, time};
use crate::config::ranges::{VERDICTS, WEIGHT_MAX};
use crate::config::written::Tls;

/// The settings that the keywords of a server make. Those of `default-server` are the start of each that follows.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) is_checked: bool,
    pub(super) weight: Option<u32>,
    pub(super) is_backup: bool,
    pub(super) interval: Option<Duration>,
    pub(super) fast_interval: Option<Duration>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
    pub(super) check_port: Option<u16>,
    pub(super) check_tls: CheckTls,
    /// The `resolvers` section that is asked for its name.
    pub(super) resolvers: Option<String>,
    /// The header that the server reads first.
    pub(super) header: Header,
    /// Begins out of service.
    pub(super) is_disabled: bool,
    pub(super) agent: Agent,
    /// Keywords with which a server cannot be kept, and why.
    unkept: Vec<(&'static str, &'static str)>,
}

/// The PROXY header that a server reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// The version, in the words of our own file.
    pub(super) version: Option<&'static str>,
    pub(super) crc32c: bool,
    pub(super) unique_id: bool,
    /// Checks have one whatever their port.
    pub(super) is_checked_with: bool,
}

/// What its keywords say of the TLS of its checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CheckTls {
    is_on: bool,
    sni: Option<String>,
    verified_host: Option<String>,
    is_unverified: bool,
    ca_file: Option<String>,
    alpn: Option<Vec<String>>,
}

impl CheckTls {
    fn read<'a>(&mut self, word: &str, values: &mut impl Iterator<Item = &'a str>) {
        let mut value = || values.next().map(str::to_owned);
        match word {
            "check-ssl" => self.is_on = true,
            "no-check-ssl" => self.is_on = false,
            "check-sni" => self.sni = value(),
            "check-alpn" => {
                self.alpn = value().map(|list| list.split(',').map(str::to_owned).collect());
            }
            "ca-file" => self.ca_file = value(),
            "verify" => self.is_unverified = value().as_deref() == Some("none"),
            "verifyhost" => self.verified_host = value(),
            "no-verifyhost" => self.verified_host = None,
            _ => {}
        }
    }

    /// Returns the same in our keys; `None` for checks without TLS. HAProxy verifies a name only where it has one.
    pub(super) fn keys(&self) -> Option<Tls> {
        let name = self.verified_host.as_ref().or(self.sni.as_ref());
        let verify = match (self.is_unverified, name) {
            (true, _) => "none",
            (false, Some(_)) => "full",
            (false, None) => "chain",
        };
        let ca_file = self.ca_file.clone().filter(|path| !self.is_unverified && path != "@system-ca");
        let server_name = if self.is_unverified { self.sni.clone() } else { name.cloned() };
        self.is_on.then(|| {
            let alpn = self.alpn.clone();
            Tls { server_name, verify, ca_file, alpn, ..Tls::default() }
        })
    }
}

/// The agent of a server, which is asked if `is_asked`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Agent {
    pub(super) is_asked: bool,
    pub(super) port: Option<u16>,
    pub(super) address: Option<String>,
    pub(super) interval: Option<Duration>,
    pub(super) send: Option<String>,
}

/// A server that is kept.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) line: Line,
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) settings: Settings,
    /// Of a `server-template`: the name is that of a service.
    pub(super) is_template: bool,
}

const WEIGHTS: RangeInclusive<u64> = 0..=WEIGHT_MAX as u64;
const TIMES_IN_A_ROW: RangeInclusive<u64> = *VERDICTS.start() as u64..=*VERDICTS.end() as u64;

/// Keywords that do what l4lb does anyway, or that only work in HTTP mode beside one that has a note.
const MET: [&str; 2] = ["no-check-send-proxy", "no-tfo"];

/// Keywords with values that are not translated, and how many they have.
const WITH_VALUES: [(&str, usize); 34] = [
    ("addr", 1),
    ("alpn", 1),
    ("check-proto", 1),
    ("ciphers", 1),
    ("ciphersuites", 1),
    ("cookie", 1),
    ("crl-file", 1),
    ("crt", 1),
    ("downinter", 1),
    ("error-limit", 1),
    ("id", 1),
    ("init-addr", 1),
    ("log-proto", 1),
    ("max-reuse", 1),
    ("maxconn", 1),
    ("maxqueue", 1),
    ("minconn", 1),
    ("namespace", 1),
    ("observe", 1),
    ("on-error", 1),
    ("on-marked-down", 1),
    ("on-marked-up", 1),
    ("pool-low-conn", 1),
    ("pool-max-conn", 1),
    ("pool-purge-delay", 1),
    ("proto", 1),
    ("redir", 1),
    ("resolve-net", 1),
    ("resolve-opts", 1),
    ("resolve-prefer", 1),
    ("slowstart", 1),
    ("sni", 1),
    ("ssl-max-ver", 1),
    ("ssl-min-ver", 1),
];

/// The same without which a backend would be spoken to in another protocol.
const UNKEPT: [(&str, &str); 4] = [
    ("ssl", "l4lb makes no TLS to a backend: the server is left out"),
    ("send-proxy-v2-ssl", "l4lb knows no TLS of the client: the server is left out"),
    ("send-proxy-v2-ssl-cn", "l4lb knows no TLS of the client: the server is left out"),
    ("socks4", "l4lb dials through no SOCKS proxy: the server is left out"),
];

impl Header {
    /// Returns what sessions read: version and TLVs, which only version 2 has.
    pub(super) fn of_sessions(self) -> (Option<&'static str>, bool, bool) {
        let has_tlvs = self.version == Some("v2");
        (self.version, has_tlvs && self.crc32c, has_tlvs && self.unique_id)
    }

    /// Takes the value of `proxy-v2-options`.
    fn options(&mut self, value: Option<&str>) -> Result<(), String> {
        let mut left_out = Vec::new();
        for option in value.unwrap_or_default().split(',') {
            match option {
                "crc32c" => self.crc32c = true,
                "unique-id" => self.unique_id = true,
                other => left_out.push(other),
            }
        }
        if left_out.is_empty() { Ok(()) } else { Err(format!("without {}", left_out.join(" and "))) }
    }
}

impl Settings {
    /// Takes the keywords in `words` of `line`, and adds a note for each that is not translated.
    pub(super) fn read(&mut self, line: &Line, words: &[&str], notes: &mut Vec<Note>) {
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let read = match word {
                "check" => {
                    self.is_checked = true;
                    Ok(())
                }
                "no-check" => {
                    self.is_checked = false;
                    Ok(())
                }
                "backup" => {
                    self.is_backup = true;
                    Ok(())
                }
                "no-backup" => {
                    self.is_backup = false;
                    Ok(())
                }
                "no-ssl" => {
                    self.unkept.retain(|(known, _)| *known != "ssl");
                    Ok(())
                }
                "send-proxy" => {
                    self.header.version = Some("v1");
                    Ok(())
                }
                "send-proxy-v2" => {
                    self.header.version = Some("v2");
                    Ok(())
                }
                "no-send-proxy" | "no-send-proxy-v2" => {
                    self.header.version = None;
                    Ok(())
                }
                "check-send-proxy" => {
                    self.header.is_checked_with = true;
                    Ok(())
                }
                "proxy-v2-options" => self.header.options(words.next()),
                "disabled" => {
                    self.is_disabled = true;
                    Err("the backend has weight 0: it gets no sessions".to_owned())
                }
                "enabled" => {
                    self.is_disabled = false;
                    Ok(())
                }
                "weight" => number(words.next(), WEIGHTS).map(|weight| self.weight = Some(weight)),
                "rise" => number(words.next(), TIMES_IN_A_ROW).map(|times| self.rise = Some(times)),
                "fall" => number(words.next(), TIMES_IN_A_ROW).map(|times| self.fall = Some(times)),
                "port" => number(words.next(), 1..=65535).and_then(|port: u32| {
                    self.check_port = Some(u16::try_from(port).map_err(|error| error.to_string())?);
                    Ok(())
                }),
                "inter" => time(words.next()).map(|time| self.interval = Some(time)),
                "fastinter" => time(words.next()).map(|time| self.fast_interval = Some(time)),
                "agent-check" => {
                    self.agent.is_asked = true;
                    Ok(())
                }
                "no-agent-check" => {
                    self.agent.is_asked = false;
                    Ok(())
                }
                "agent-port" => number(words.next(), 1..=65535).map(|port| self.agent.port = Some(port)),
                "agent-inter" => time(words.next()).map(|time| self.agent.interval = Some(time)),
                "agent-send" => {
                    self.agent.send = words.next().map(str::to_owned);
                    Ok(())
                }
                "agent-addr" => {
                    let address = words.next().unwrap_or_default();
                    self.agent.address = address.parse::<IpAddr>().is_ok().then(|| address.to_owned());
                    let why = || format!("must be an IP address, got {address:?}");
                    self.agent.address.as_ref().map(|_| ()).ok_or_else(why)
                }
                "resolvers" => {
                    self.resolvers = words.next().map(str::to_owned);
                    Ok(())
                }
                // Without check-ssl they concern no check.
                "check-ssl" | "no-check-ssl" | "check-sni" | "check-alpn" | "ca-file" | "verify"
                | "verifyhost" | "no-verifyhost" => {
                    self.check_tls.read(word, &mut words);
                    Ok(())
                }
                word if MET.contains(&word) => Ok(()),
                word => Err(self.skip(word, &mut words)),
            };
            if let Err(why) = read {
                notes.push(line.note(format!("{word}: {why}")));
            }
        }
    }

    /// Skips the values of a keyword that is not translated, and returns why it is not.
    fn skip<'a>(&mut self, word: &str, values: &mut impl Iterator<Item = &'a str>) -> String {
        if let Some(known) = UNKEPT.iter().find(|(known, _)| *known == word) {
            if word == "socks4" {
                values.next();
            }
            self.unkept.push(*known);
            return known.1.to_owned();
        }
        if let Some((_, count)) = WITH_VALUES.iter().find(|(known, _)| *known == word) {
            (0..*count).for_each(|_| {
                values.next();
            });
        }
        match word {
            "maxconn" | "minconn" | "maxqueue" => "sessions of a backend are not limited",
            "slowstart" => "a backend that is back gets its whole share at once",
            "on-marked-down" => "sessions of a backend that is down continue until they end",
            "downinter" => "the interval is the same while a backend is down",
            "addr" => "a check goes to the address of the backend",
            "source" | "usesrc" | "interface" => {
                values.next();
                "a backend is dialed from the address that the kernel picks"
            }
            "track" => {
                values.next();
                "each backend is checked by itself"
            }
            "init-addr" | "resolve-prefer" | "resolve-opts" | "resolve-net" => {
                "names are resolved as [global] resolve says"
            }
            _ => "not known here",
        }
        .to_owned()
    }
}

/// Returns the server of `line`, or `None` when it is left out, for which a note says why.
pub(super) fn read(line: Line, defaults: &Settings, notes: &mut Vec<Note>) -> Option<Server> {
    let words = line.words();
    let is_template = words.first() == Some(&"server-template");
    let (name, place, rest) = match words.as_slice() {
        [_, name, place, rest @ ..] if !is_template => (*name, *place, rest),
        [_, name, _count, place, rest @ ..] => (*name, *place, rest),
        _ => {
            notes.push(line.note("it has no address"));
            return None;
        }
    };
    let mut settings = defaults.clone();
    settings.read(&line, rest, notes);
    let unkept = settings.unkept.first().map(|(_, why)| *why);
    match Place::read(place) {
        Ok(place) if unkept.is_none() => {
            let name = name.to_owned();
            Some(Server { name, place, settings, is_template, line })
        }
        Ok(_) => {
            // By a keyword of its defaults, if it has no note of its own.
            let why = unkept.unwrap_or_default();
            if !notes.iter().any(|note| note.line == line.number && note.why.ends_with(why)) {
                notes.push(line.note(why));
            }
            None
        }
        Err(why) => {
            notes.push(line.note(format!("{why}: the server is left out")));
            None
        }
    }
}
