//! What a fleet asks of etcd and of its backends, by its size: the table of src/manual/fleet.md, computed.
//!
//! Rates follow from the defaults of l4lb. The values of keys are made by its own code, what etcd 3.4 adds to them was
//! measured on the wire, and the shares of balancers that check a part of the backends each are simulated.

mod shares;
mod views;

use std::fs;
use std::path::Path;

use shares::most_of_a_balancer;
use views::{outage, record_bytes};

/// `--ttl` of `l4lb register`, `lease` of `[announce]` and of `[fleet]`, and renewals in the length of a lease.
const REGISTER_TTL_S: f64 = 10.0;
const ANNOUNCE_LEASE_S: f64 = 5.0;
const FLEET_LEASE_S: f64 = 5.0;
const RENEWALS: f64 = 3.0;
/// `interval` of `[pool.health]`.
const CHECK_INTERVAL_S: f64 = 2.0;
/// Balancers that check a backend where they share the checks.
const CHECKERS: usize = 3;
/// All backends are replaced in this time: a key goes and another one comes for each.
const ROLLOUT_S: f64 = 600.0;
const WRITES_OF_A_REPLACEMENT: f64 = 2.0;
/// What an event of a watch has besides key and value, which are base64 in JSON.
const EVENT_EXTRA_BYTES: usize = 264;
/// A listed key with its value.
const LISTED_BYTES: f64 = 148.0;
/// How often a balancer writes its record while its load changes.
const LOAD_PERIOD_S: f64 = 5.0;

/// Returns the bytes of an event of a watch.
fn event_bytes(key: &str, value: &str) -> usize {
    let base64 = |bytes: usize| 4 * bytes.div_ceil(3);
    base64(key.len()) + base64(value.len()) + EVENT_EXTRA_BYTES
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a fleet has fewer members and sends fewer bytes at a time"))
}

/// A size of a fleet.
struct Fleet {
    balancers: usize,
    backends: usize,
}

const FLEETS: [Fleet; 3] = [
    Fleet { balancers: 3, backends: 30 },
    Fleet { balancers: 10, backends: 1_000 },
    Fleet { balancers: 100, backends: 10_000 },
];

impl Fleet {
    fn counts(&self) -> (f64, f64) {
        (float(self.balancers), float(self.backends))
    }

    /// Renewals of leases per second, of which each backend has one and each balancer two.
    fn renewals(&self) -> f64 {
        let (balancers, backends) = self.counts();
        RENEWALS * (backends / REGISTER_TTL_S + balancers / ANNOUNCE_LEASE_S + balancers / FLEET_LEASE_S)
    }

    /// Keys written per second while all backends are replaced.
    fn writes(&self) -> f64 {
        WRITES_OF_A_REPLACEMENT * self.counts().1 / ROLLOUT_S
    }

    /// Events that etcd sends per second then: each write to each balancer.
    fn events(&self) -> f64 {
        self.writes() * self.counts().0
    }

    /// Kilobytes per second of these.
    fn event_kilobytes(&self) -> f64 {
        self.events() * float(event_bytes("/l4lb/web/b12345", r#"{"address":"10.0.12.34:8080"}"#)) / 1e3
    }

    /// Records of balancers written per second while their load changes.
    fn records(&self) -> f64 {
        self.counts().0 / LOAD_PERIOD_S
    }

    /// Kilobytes per second of the events of these: each to each balancer.
    fn record_kilobytes(&self) -> f64 {
        self.records() * self.counts().0 * float(record_bytes(self.backends)) / 1e3
    }

    /// Keys that all balancers write when one of a hundred backends fails.
    fn outage_keys(&self) -> f64 {
        self.counts().0 * float(outage(self.backends).keys)
    }

    /// Megabytes of the events of these.
    fn outage_megabytes(&self) -> f64 {
        self.counts().0 * self.counts().0 * float(outage(self.backends).bytes) / 1e6
    }

    /// Megabytes that etcd sends when all balancers list all keys, as they do once their watches end.
    fn listed_megabytes(&self) -> f64 {
        let (balancers, backends) = self.counts();
        balancers * backends * LISTED_BYTES / 1e6
    }

    /// Checks per second that a backend gets from so many balancers.
    fn checks_of_a_backend(checkers: f64) -> f64 {
        checkers / CHECK_INTERVAL_S
    }
}

/// A number, rounded where it is large, and in groups of three.
fn shown(value: f64) -> String {
    let digits = match value {
        _ if value >= 10.0 || value == value.round() => 0,
        _ if value >= 0.1 => 1,
        _ => 2,
    };
    let plain = format!("{value:.digits$}");
    let (whole, rest) = plain.split_once('.').map_or((plain.as_str(), ""), |(whole, rest)| (whole, rest));
    let groups: Vec<&str> =
        whole.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    let whole = groups.join(",");
    if rest.is_empty() { whole } else { format!("{whole}.{rest}") }
}

fn table() -> String {
    let checkers = float(CHECKERS);
    type Row = (&'static str, Box<dyn Fn(&Fleet) -> f64>);
    let rows: [Row; 15] = [
        ("renewals of leases, per second", Box::new(Fleet::renewals)),
        (
            "keys written while all backends are replaced within 10 minutes, per second",
            Box::new(Fleet::writes),
        ),
        ("events to watches then, per second", Box::new(Fleet::events)),
        ("traffic of watches then, kB/s", Box::new(Fleet::event_kilobytes)),
        ("all balancers list all keys, MB", Box::new(Fleet::listed_megabytes)),
        ("records of `[fleet]` written while the load changes, per second", Box::new(Fleet::records)),
        ("events of these, per second", Box::new(|fleet| fleet.records() * fleet.counts().0)),
        ("traffic of these, kB/s", Box::new(Fleet::record_kilobytes)),
        ("keys of `[fleet]` written once 1 of 100 backends fails", Box::new(Fleet::outage_keys)),
        ("events of these", Box::new(|fleet| fleet.outage_keys() * fleet.counts().0)),
        ("traffic of these, MB", Box::new(Fleet::outage_megabytes)),
        ("checks of a backend by all balancers, per second", {
            Box::new(|fleet| Fleet::checks_of_a_backend(fleet.counts().0))
        }),
        ("the same by 3 of them", Box::new(move |_| Fleet::checks_of_a_backend(checkers))),
        ("checks by a balancer of all backends, per second", {
            Box::new(|fleet| fleet.counts().1 / CHECK_INTERVAL_S)
        }),
        ("the same where 3 check each backend, the busiest balancer", {
            Box::new(move |fleet| {
                float(most_of_a_balancer(fleet.balancers, fleet.backends, CHECKERS)) / CHECK_INTERVAL_S
            })
        }),
    ];
    let mut lines = String::from("| balancers × backends |");
    for fleet in &FLEETS {
        lines += &format!(" {} × {} |", shown(fleet.counts().0), shown(fleet.counts().1));
    }
    lines += "\n|---|--:|--:|--:|\n";
    for (what, value) in &rows {
        lines += &format!("| {what} |");
        for fleet in &FLEETS {
            lines += &format!(" {} |", shown(value(fleet)));
        }
        lines.push('\n');
    }
    lines
}

#[test]
fn the_manual_shows_the_table_that_is_computed() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/fleet.md");
    let manual = fs::read_to_string(manual).expect("the page of the manual");
    let table = table();
    assert!(manual.contains(&table), "src/manual/fleet.md has another table than:\n\n{table}");
}

#[test]
fn numbers_are_shown_in_groups_of_three_digits() {
    let given = [0.013, 0.1, 1.5, 3.0, 33.3, 999.6, 1_234.0, 1_000_000.0];
    let expected = ["0.01", "0.1", "1.5", "3", "33", "1,000", "1,234", "1,000,000"];
    assert_eq!(given.map(shown), expected);
}
