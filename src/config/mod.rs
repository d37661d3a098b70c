//! From flags and a file to a [`Config`] that is legal by construction.
//!
//! Text becomes its mirror in `parse` (only shape), the mirror becomes [`model`] in `check` (types, ranges, references,
//! conflicts), and nothing behind that checks again. One pass reports every mistake, each as one line that names file,
//! line and key. Never opens a socket, and resolves host names only through the [`Resolver`] that the caller
//! hands in, as it opens files and asks for environment variables only by its [`Inputs`].

pub mod agent;
pub mod announce;
pub mod cluster;
pub mod diff;
pub mod discover;
pub mod fd_budget;
pub mod fleet;
pub mod model;
pub mod proxy;
pub mod ranges;
pub mod routing;
pub mod server_tls;

mod common;
mod overrides;
mod parse;

mod check;

mod list;

mod address;
mod admin_socket;
mod names;
mod priority;
pub mod units;

mod error;
mod reproduce;
mod settle;
mod show;
mod warnings;
pub(crate) mod written;

use std::path::Path;

pub use address::{Resolver, Target, is_server, parse_bind, system_resolver};
pub use admin_socket::{NO_DEFAULT_ADMIN_SOCKET, default_admin_socket};
pub use check::access::read_lists_again;
pub use check::conflicts::{is_circle, is_circle_at_home, is_overlap};
pub use check::listener::BACKLOG;
pub use check::reader::{check_name, check_running_name};
pub use error::{Error, Invalid, one_line};
pub use list::{Mistake, parse_backend, parse_list};
pub use model::Config;
pub use names::{KnownNames, LookUp, load_and_look_up, load_looked};
pub use overrides::{
    BackendFlag, Overrides, parse_admin_socket, parse_sessions, parse_timeout, parse_workers,
};
pub use parse::file::Inputs;
pub use parse::include::{Looked, look};
pub use priority::priority_of;
pub use ranges::{LIST_LEN_MAX, LISTED_MAX, PRIORITY_MAX, WEIGHT_MAX};
pub use reproduce::Remarks;
pub use settle::settle;
pub use units::parse_duration;
pub use warnings::warnings;

use model::LogFormat;
use parse::file::Text;
use parse::include::{self, Texts};
use parse::raw;
use parse::report::{Report, Spot};

/// Returns the configuration of the file at `path` with `overrides` applied. Fails with every mistake in both. Without
/// a file the overrides must name a listener; without backends it serves the three of the tutorial.
pub fn load(
    path: Option<&Path>,
    overrides: &Overrides,
    inputs: Inputs,
    resolve: Resolver,
) -> Result<Config, Vec<Error>> {
    let texts = path.map(|path| include::read(path, inputs)).transpose()?;
    check_texts(texts.as_ref(), overrides, inputs, resolve)
}

/// See [`load`].
fn check_texts(
    texts: Option<&Texts>,
    overrides: &Overrides,
    inputs: Inputs,
    resolve: Resolver,
) -> Result<Config, Vec<Error>> {
    let Some(all @ Texts { texts, mistakes, errors, notes, .. }) = texts else {
        return from_flags(overrides, resolve);
    };
    let mut report = Report::new(texts);
    report.notes.clone_from(notes);
    mistakes.iter().for_each(|(byte, what)| report.add_bare(&Spot::Byte(*byte), what));
    errors.iter().for_each(|error| report.add_unreadable(error.clone()));
    let raw = raw::read(texts, inputs, &mut report);
    // Names that a missing file may define are not reported as missing.
    match raw.filter(|_| mistakes.is_empty() && errors.is_empty()) {
        Some(raw) => {
            let config = check::check(&raw, overrides, inputs, resolve, report)?;
            let is_file = texts.iter().any(|text| text.id.is_some());
            Ok(Config { digest: if is_file { all.digest() } else { 0 }, ..config })
        }
        None => Err(report.into_errors()),
    }
}

/// Returns the log format that the file at `path` configures, whatever its mistakes; text if it has none.
pub fn log_format(path: &Path, inputs: Inputs) -> LogFormat {
    let is_json = |text: &Text| {
        let table: Option<toml::Table> = text.text.parse().ok();
        let format =
            table.as_ref().and_then(|table| table.get("global")?.get("log")?.get("format")?.as_str());
        format == Some(LogFormat::Json.as_str())
    };
    let texts = include::read(path, inputs);
    if texts.is_ok_and(|texts| texts.texts.iter().any(is_json)) { LogFormat::Json } else { LogFormat::Text }
}

/// The configuration that `text` describes with `overrides` applied, or every mistake in both; `file` is its
/// name in errors. It can name no environment variable, because none is set, and include no other file.
pub fn parse(text: &str, file: &str, overrides: &Overrides, resolve: Resolver) -> Result<Config, Vec<Error>> {
    let texts = include::with_included(Text::of(file, text), Path::new(""), Inputs::NOTHING);
    check_texts(Some(&texts), overrides, Inputs::NOTHING, resolve)
}

/// Returns the configuration that flags alone describe.
fn from_flags(overrides: &Overrides, resolve: Resolver) -> Result<Config, Vec<Error>> {
    if overrides.listen.is_empty() {
        return Err(vec![Error::NothingToDo]);
    }
    let mut overrides = overrides.clone();
    if overrides.backends.is_empty() {
        overrides.backends = BackendFlag::tutorial();
    }
    check::check(
        &raw::RawConfig::default(),
        &overrides,
        Inputs::NOTHING,
        resolve,
        Report::new(&[Text::of("command line", "")]),
    )
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::config::agent::Agent;

    const FULL: &str = include_str!("../../config/l4lb.toml");

    fn load_text(text: &str) -> Result<Config, Vec<Error>> {
        let mut nobody = |host: &str| Err(io::Error::other(format!("{host}: tests resolve nothing")));
        parse(text, "test.toml", &Overrides::default(), &mut nobody)
    }

    /// The full file without the agents of its pool, and their table: not all of their keys go together.
    fn without_announce() -> (String, String) {
        let (before, announce) = FULL.split_once("#[announce]").unwrap();
        let (announce, after) = announce.split_once("\n\n").unwrap();
        (format!("{before}\n{after}"), format!("#[announce]{announce}\n"))
    }

    #[test]
    fn an_unset_key_of_announce_is_good_when_set_and_shows_its_default() {
        let (file, announce) = without_announce();
        let file = file.replace("shutdown_delay = \"0s\"", "shutdown_delay = \"1s\"");
        let (before, after) = file.split_once("[[listener]]").unwrap();
        let with = |keys: &str| load_text(&format!("{before}\n{keys}\n[[listener]]{after}")).unwrap();
        let all = set_all(&announce);
        let optional = [
            "prefix",
            "tls",
            "user",
            "password_file",
            "ttl",
            "lease",
            "only_with_backends",
            "leave_when_alone",
        ];
        let is_kept = |line: &&str| !optional.iter().any(|key| line.starts_with(&format!("{key} = ")));
        let few: String = all.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
        let (all, few) = (with(&all), with(&few));
        let (all_fleet, few_fleet) = (all.fleet.unwrap(), few.fleet.unwrap());
        let cluster = few_fleet.cluster.clone();
        assert_eq!(few_fleet, fleet::Fleet { cluster, ..all_fleet }, "the file shows the defaults");
        let (all, few) = (all.announce.unwrap(), few.announce.unwrap());
        assert!(all.cluster.login.is_some());
        let cluster = few.cluster.clone();
        assert_eq!(few, announce::Announce { cluster, ..all }, "the file shows the defaults");
    }

    fn without_agents() -> (String, String) {
        let (full, _) = without_announce();
        let (before, agents) = full.split_once("#[pool.agent]").unwrap();
        let (agents, after) = agents.split_once("\n\n").unwrap();
        (format!("{before}\n{after}"), format!("#[pool.agent]{agents}\n"))
    }

    #[test]
    fn an_unset_key_of_agents_is_good_when_set() {
        let (file, agents) = without_agents();
        let (before, after) = file.split_once("#[[pool.discover]]").unwrap();
        let with = |agents: &str| load_text(&format!("{before}\n{agents}\n#[[pool.discover]]{after}"));
        let only = |keys: &[&str]| -> String {
            let is_kept = |line: &&str| !keys.iter().any(|key| line.starts_with(&format!("{key} = ")));
            set_all(&agents).lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
        };
        let tcp = with(&only(&["path", "host"])).unwrap();
        assert!(tcp.pools[0].agent.is_some());
        let http = only(&["send"]).replace("\"tcp\"", "\"http\"");
        assert!(with(&http).unwrap().pools[0].agent.is_some());
        let all_but_port = ["type", "send", "path", "host", "address", "interval", "timeout", "on_lost"];
        let bare = with(&only(&all_but_port)).unwrap().pools[0].agent.clone();
        let shown = Agent {
            address: None,
            question: bare.clone().unwrap().question,
            ..tcp.pools[0].agent.clone().unwrap()
        };
        assert_eq!(bare.unwrap(), shown, "the file shows the defaults");
    }

    /// The full file with each unset key set.
    fn uncommented() -> String {
        set_all(FULL)
    }

    fn set_all(text: &str) -> String {
        let uncomment = |line: &str| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') => {
                key.to_string()
            }
            Some(_) | None => line.to_string(),
        };
        text.lines().map(|line| uncomment(line) + "\n").collect()
    }

    #[test]
    fn the_minimal_file_is_good() {
        let minimal = load_text(include_str!("../../config/minimal.toml")).unwrap();
        assert_eq!(
            (minimal.listeners.len(), minimal.pools.len(), minimal.pools[0].backends.len()),
            (1, 1, 3)
        );
    }

    #[test]
    fn the_full_file_shows_the_defaults() {
        let bare = r#"
            [[listener]]
            bind = "0.0.0.0:9090"
            [[pool]]
            backend = [
                { name = "a", address = "127.0.0.1:8081" },
                { address = "127.0.0.1:8082" },
                { address = "127.0.0.1:8083" },
            ]
        "#;
        assert_eq!(load_text(FULL).unwrap(), load_text(bare).unwrap());
    }

    #[test]
    fn the_unset_keys_of_an_http_check_show_its_defaults() {
        let http = without_agents().0.replace("type = \"tcp\"", "type = \"http\"");
        let set = http.replacen("#path", "path", 1).replace("#status", "status");
        assert_eq!(load_text(&set).unwrap(), load_text(&http).unwrap());
    }

    #[test]
    fn the_full_file_shows_every_key() {
        let text = uncommented();
        // Backends after the first one do not repeat its keys.
        let (text, _) = text.split_once("[[pool.backend]]\naddress").unwrap();
        // Nor do further checks repeat those of the first one, which has no name.
        let (before, further) = text.split_once("[[pool.check]]").unwrap();
        let (_, after) = further.split_once("\n[[").unwrap();
        let named = before.replace("\n[pool.health]\n", "\n[pool.health]\nname = \"health\"\n");
        let text = &format!("{named}\n[[{after}");
        // A source has the keys of its type only: here all of them are one.
        let text = text.replace("[[pool.discover]]\ntype = \"file\"\n", "");
        let text = text.replace("[[pool.discover]]\ntype = \"http\"\n", "");
        let text = text.replace("[[pool.discover]]\ntype = \"etcd\"\n", "");
        // Those of syslog go with that target only.
        let (before, log) = text.split_once("\nlog = ").unwrap();
        let (_, after) = log.split_once('\n').unwrap();
        let keys = ["level", "format", "target", "socket", "facility", "app_name", "header", "fields"];
        assert!(keys.iter().all(|key| FULL.contains(key)));
        let log = keys.map(|key| format!("{key} = \"\"")).join(", ");
        let text = format!("{before}\nlog = {{ {log} }}\n{after}");
        // Not every step both sends and expects.
        let (before, steps) = text.split_once("\nsteps = ").unwrap();
        let (_, after) = steps.split_once('\n').unwrap();
        let text = format!("{before}\nsteps = [{{ send = \"a\", expect = \"b\" }}]\n{after}");
        let texts = [Text::of("", &text)];
        let raw = raw::read(&texts, Inputs::NOTHING, &mut Report::new(&texts)).unwrap();
        assert!(!format!("{raw:?}").contains(": None"), "{raw:#?}");
    }

    #[test]
    fn an_unset_key_is_good_when_set() {
        // A check or a source that is not there has all its keys unset.
        let full = without_agents().0;
        let (before, added) = full.split_once("#[[pool.check]]").unwrap();
        let (added, after) = added.split_once("\n[[").unwrap();
        let with_added = format!("{before}{}\n[[{after}", set_all(&format!("#[[pool.check]]{added}")));
        let counts = |config: Config| (config.pools[0].health.more.len(), config.pools[0].discover.len());
        assert_eq!(load_text(&with_added).map(counts), Ok((1, 4)));
        let alone = format!("{before}\n[[{after}");
        for (line, _) in alone.lines().zip(set_all(&alone).lines()).filter(|(full, set)| full != set) {
            let key = line.trim_start_matches('#');
            let kind = match key.split(' ').next() {
                Some("send" | "expect" | "contains") => "send_expect",
                Some("path" | "host" | "status") => "http",
                // Those of [global] are set together with that of a check.
                Some("user" | "group") => "postgres",
                Some("domain") => "smtp",
                Some("service") => "grpc",
                Some("client_id") => "mqtt",
                Some("command") => "command",
                _ => "tcp",
            };
            let mut text = alone.replace(line, key).replace("type = \"tcp\"", &format!("type = {kind:?}"));
            // Some keys require another one.
            if key.starts_with("read_token_file") {
                text = text.replace("#listen", "listen").replace("#token_file", "token_file");
            }
            if key.starts_with("listen") {
                text = text.replace("#token_file", "token_file");
            }
            if key.starts_with("send") {
                text = text.replace("#expect", "expect");
            }
            if key.starts_with("on_no_sni") || key.starts_with("route") {
                text = text.replace("#tls", "tls");
            }
            if key.starts_with("group") {
                text = text.replace("#user", "user");
            }
            assert!(load_text(&text).is_ok(), "{key}: {:?}", load_text(&text));
        }
    }

    #[test]
    fn a_short_interval_shortens_what_must_fit_into_it() {
        let overrides = Overrides { health_interval: parse_timeout("200ms").ok(), ..Overrides::default() };
        let config = parse(FULL, "test.toml", &overrides, &mut system_resolver);
        assert_eq!(config.unwrap_err().len(), 2, "the file sets fast_interval and timeout");
        let text = FULL.replace("fast_interval =", "#").replace("timeout = \"1s\"", "#");
        let config = parse(&text, "test.toml", &overrides, &mut system_resolver).unwrap();
        let health = &config.pools[0].health;
        assert_eq!([health.fast_interval, health.timeout], [Duration::from_millis(200); 2]);
    }

    #[test]
    fn a_flag_beats_the_listener_and_the_listener_beats_the_pool() {
        let text = r#"
            [[listener]]
            bind = ":9090"
            timeouts = { connect = "1s", idle = "1m" }
            [[pool]]
            timeouts = { connect = "2s", idle = "2m", half_close = "3s" }
            backend = [{ address = ":8081" }]
        "#;
        let overrides = Overrides { idle_timeout: parse_timeout("9m").ok(), ..Overrides::default() };
        let config = parse(text, "test.toml", &overrides, &mut system_resolver).unwrap();
        let seconds = |t: model::Timeouts| [t.connect, t.idle, t.half_close].map(|d| d.as_secs());
        assert_eq!(seconds(config.listeners[0].timeouts), [1, 540, 3]);
        assert_eq!(seconds(config.pools[0].timeouts), [2, 540, 3]);
    }

    #[test]
    fn a_pool_has_the_drain_timeout_of_the_process_unless_it_sets_its_own() {
        let text = r#"
            [global]
            drain_timeout = "7s"
            [[listener]]
            bind = ":9090"
            [[pool]]
            backend = [{ address = ":8081" }]
        "#;
        for (key, seconds) in [("", 7), ("drain_timeout = \"2s\"", 2), ("drain_timeout = \"0s\"", 0)] {
            let config = load_text(&text.replace("backend =", &format!("{key}\nbackend ="))).unwrap();
            assert_eq!(config.pools[0].drain_timeout, Duration::from_secs(seconds), "{key}");
        }
    }

    #[test]
    fn flags_alone_serve_the_backends_of_the_tutorial() {
        let overrides = Overrides { listen: vec![parse_bind(":9090").unwrap()], ..Overrides::default() };
        let config = load(None, &overrides, Inputs::NOTHING, &mut system_resolver).unwrap();
        let addresses: Vec<String> = config.pools[0].backends.iter().map(|b| b.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"]);
    }

    #[test]
    fn a_host_name_in_a_flag_is_followed_like_one_in_a_file() {
        let flags = |target: &str| Overrides {
            listen: vec![parse_bind(":9090").unwrap()],
            backends: vec![target.parse().unwrap()],
            ..Overrides::default()
        };
        let mut resolve = |name: &str| match name {
            "web.test:80" => Ok(["10.0.0.1:80", "10.0.0.2:80"].map(|at| at.parse().unwrap()).into()),
            _ => Err(io::Error::other("no such host")),
        };
        let mut load = |target| load(None, &flags(target), Inputs::NOTHING, &mut resolve).unwrap();
        let config = load("web.test:80,weight=3");
        assert_eq!(config.hosts[0].found.as_ref().unwrap().len(), 2);
        let host = config.pools[0].discover[0].as_host().unwrap().clone();
        assert_eq!((host.backend.as_str(), host.weight), ("web.test:80", 3));
        let unknown = load("nobody.test:80");
        let note = "backend nobody.test:80: cannot resolve host \"nobody.test\": no such host: it is down until its name \
                    resolves";
        assert!(unknown.notes[0].ends_with(note), "{:?}", unknown.notes);
        // RFC 6761: it needs no name server, and moves nowhere.
        let here = load("localhost:80");
        assert_eq!((here.hosts.len(), &here.pools[0].backends[0].address), (0, &([127, 0, 0, 1], 80).into()));
    }

    #[test]
    fn the_name_of_a_file_that_cannot_be_read_stays_on_its_line() {
        let path = Path::new("no\nsuch.toml");
        let errors =
            load(Some(path), &Overrides::default(), Inputs::NOTHING, &mut system_resolver).unwrap_err();
        assert!(errors[0].to_string().starts_with("no\\nsuch.toml: cannot read it: "), "{}", errors[0]);
    }

    #[test]
    fn listeners_on_port_0_share_an_address() {
        let bind = SocketAddr::from(([127, 0, 0, 1], 0));
        let overrides = Overrides { listen: vec![bind, bind], ..Overrides::default() };
        let config = load(None, &overrides, Inputs::NOTHING, &mut system_resolver).unwrap();
        assert_ne!(config.listeners[0].name, config.listeners[1].name);
    }
}
