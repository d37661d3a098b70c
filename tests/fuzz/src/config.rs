//! Config text: a configuration that can be run and shown, or mistakes that say where they are.
//!
//! Case 97.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;

use l4lb::base::address::Address;
use l4lb::config::fd_budget::FdBudget;
use l4lb::config::{self, Config, Error, Overrides};

const FILE: &str = "fuzz.toml";

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parse = || config::parse(text, FILE, &Overrides::default(), &mut resolve);
    let parsed = parse();
    assert_eq!(parsed, parse(), "the same text is read in the same way");
    match parsed {
        Ok(config) => expect_legal(&config),
        Err(errors) => expect_reported(&errors, text),
    }
}

/// The names that there are.
pub fn resolve(host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
    let (host, _) = host_and_port.rsplit_once(':').unwrap_or_default();
    let addresses: &[&str] = match host {
        "web1.example" => &["10.0.0.1:80"],
        "both.example" => &["[2001:db8::1]:80", "10.0.0.2:80"],
        "local" => &["[::1]:80"],
        "empty.example" => &[],
        "multicast.example" => &["224.0.0.1:80"],
        _ => return Err(io::Error::other("no such host")),
    };
    Ok(addresses.iter().map(|address| address.parse().expect("an address")).collect())
}

/// What the rest of the program takes for granted.
pub fn expect_legal(config: &Config) {
    assert!(!config.listeners.is_empty() && !config.pools.is_empty());
    expect_distinct(config.listeners.iter().map(|listener| listener.name.as_str()));
    expect_distinct(config.pools.iter().map(|pool| pool.name.as_str()));
    assert!(config.listeners.iter().all(|listener| listener.pool < config.pools.len()));
    for pool in &config.pools {
        let has_any = !pool.backends.is_empty() || !pool.discover.is_empty();
        assert!(has_any, "pool {} serves nothing", pool.name);
        assert!(pool.backends.iter().all(|backend| {
            let Address::Ip(address) = backend.address;
            backend.weight <= 256 && (address.port() > 0 || !backend.is_resolved())
        }));
        expect_distinct(pool.backends.iter().map(|backend| backend.name.as_str()));
        let health = &pool.health;
        assert!(health.timeout <= health.interval && health.fast_interval <= health.interval);
    }
    expect_shown(config);
}

fn expect_distinct<'a>(names: impl Iterator<Item = &'a str>) {
    let mut seen = HashSet::new();
    for name in names {
        assert!(!name.is_empty() && seen.insert(name), "{name:?} is taken");
    }
}

/// What `l4lb check` prints.
fn expect_shown(config: &Config) {
    let shown = config.to_string();
    assert!(
        !shown.is_empty() && shown.split('\n').all(|line| !line.chars().any(char::is_control)),
        "{shown:?}"
    );
    for nofile in [0, 1024, u64::MAX] {
        let budget = FdBudget::of(config, nofile, Some(nofile));
        assert!(!budget.to_string().is_empty());
        match budget.sessions_max(config) {
            Ok(sessions) => assert!(sessions > 0, "a limit of no sessions"),
            Err(error) => expect_one_line(&error.to_string()),
        }
    }
}

fn expect_reported(errors: &[Error], text: &str) {
    assert!(!errors.is_empty(), "refused without a reason");
    let lines = 1 + text.matches('\n').count();
    for error in errors {
        expect_one_line(&error.to_string());
        match error {
            Error::Line { file, line, what } => {
                assert!(file == FILE && !what.is_empty() && (1..=lines).contains(line), "{error}");
            }
            // What is not there has no line.
            Error::File { file, what } => assert!(file == FILE && what.starts_with("no "), "{error}"),
            Error::Flag { .. } | Error::NothingToDo => panic!("there are no flags: {error}"),
        }
    }
}

pub fn expect_one_line(message: &str) {
    assert!(!message.is_empty() && !message.chars().any(char::is_control), "{message:?}");
}
