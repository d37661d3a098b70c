//! Mistakes that a file can hold, each with the exact line that it brings up; `cli.rs` has those of flags. `bad_files`
//! has those of one key or section, `files` what concerns variables and included files, `mangled` what no text may do.

mod bad_files;
mod files;
mod mangled;

use std::io;
use std::net::SocketAddr;

use l4lb::config::{self, Config, Error, Overrides};

use bad_files::BAD_FILES;

/// Where a case puts its lines into an otherwise good file; `TEMPLATE` has the line numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    /// The lines are all of the file.
    File,
    Global,
    Listener,
    Pool,
    Timeouts,
    Tcp,
    Health,
    Backend,
}
use At::*;

const TEMPLATE: [(At, &str); 7] = [
    (Global, "[global]\n"),                                     // the case is line 2
    (Listener, "[[listener]]\nbind = \":9090\"\n"),             // line 5
    (Pool, "[[pool]]\nname = \"web\"\n"),                       // line 8
    (Timeouts, "[pool.timeouts]\n"),                            // line 10
    (Tcp, "[pool.tcp]\n"),                                      // line 12
    (Health, "[pool.health]\n"),                                // line 14
    (Backend, "[[pool.backend]]\naddress = \"10.0.0.1:80\"\n"), // line 17
];

fn file(at: At, lines: &str) -> String {
    if at == File {
        return lines.to_string();
    }
    TEMPLATE.iter().map(|(part, text)| format!("{text}{}\n", if *part == at { lines } else { "" })).collect()
}

fn parse(text: &str) -> Result<Config, Vec<Error>> {
    config::parse(text, "x.toml", &Overrides::default(), &mut resolve)
}

/// Knows a few hosts.
fn resolve(host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
    match host_and_port {
        "good.example:80" => Ok(vec![SocketAddr::from(([10, 0, 0, 1], 80))]),
        "empty.example:80" => Ok(Vec::new()),
        "filtered.example:80" => Ok(vec![SocketAddr::from(([0, 0, 0, 0], 80))]),
        "ours.example:9090" => {
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], 9090)), SocketAddr::from(([127, 0, 0, 2], 9090))])
        }
        "multicast.example:80" => Ok(vec![SocketAddr::from(([224, 0, 0, 1], 80))]),
        _ => Err(io::Error::other("no such host")),
    }
}

fn lines_of(errors: &[Error]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Cases 97 and 99.
#[test]
fn each_bad_file_brings_up_exactly_its_line() {
    let mut wrong = String::new();
    for (at, lines, expected) in BAD_FILES {
        let found = match parse(&file(*at, lines)) {
            Ok(_) => "nothing".to_string(),
            Err(errors) => lines_of(&errors).join("\n"),
        };
        if found != *expected {
            wrong += &format!("{at:?} {lines:?}\n  expected {expected}\n  found    {found}\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn one_mistake_hides_no_other() {
    let text = r#"
        foo = 1
        [global]
        wrokers = 3
        pin = "yes"
        log = { level = "loud", fmt = 3 }
        [[listener]]
        bind = "1.2.3.4"
        pool = "wob"
        [[listener]]
        bnd = ":80"
        [[pool]]
        name = "web"
        tcp = { keepalive = true, nodelay = 3 }
        health = 4
        [[pool.backend]]
        address = "10.0.0.1:80"
        weight = 300
        weigth = 300
        [[pool]]
        name = "web"
        [pool.health]
        type = "http"
        expect = "x"
        pth = 1
    "#;
    let errors = parse(text).unwrap_err();
    assert_eq!(
        lines_of(&errors),
        [
            "x.toml:2: foo: unknown key, expected one of include, global, admin, announce, fleet, listener, pool",
            "x.toml:4: global: wrokers: unknown key, expected one of workers, pin, splice, busy_poll, max_sessions, drain_timeout, shutdown_delay, reload_timeout, watch, resolve, log, access_log, user, group, did you mean \"workers\"?",
            "x.toml:5: global: pin: must be true or false, got \"yes\"",
            "x.toml:6: global: log: fmt: unknown key, expected one of level, format, target, socket, facility, app_name, header, fields",
            "x.toml:6: global: log: level: must be one of off, error, warn, info, debug, trace, got \"loud\"",
            "x.toml:8: listener 1.2.3.4: bind: port missing, write ADDR:PORT",
            "x.toml:9: listener 1.2.3.4: pool: there is no pool \"wob\", did you mean \"web\"?",
            "x.toml:10: listener #2: bind: missing, write bind = \"ADDR:PORT\"",
            "x.toml:10: listener #2: pool: missing: the file has 2 pools, name the one to serve",
            "x.toml:11: listener #2: bnd: unknown key, expected one of name, bind, pool, backlog, accept, max_sessions, allow, deny, on_refuse, proxy_protocol, tls, on_no_sni, route, timeouts, did you mean \"bind\"?",
            "x.toml:14: pool \"web\": tcp: keepalive: must be false or a table {idle, interval, count}, got boolean true",
            "x.toml:14: pool \"web\": tcp: nodelay: must be true or false, got 3",
            "x.toml:15: pool \"web\": health: must be a table, got integer 4",
            "x.toml:18: pool \"web\": backend 10.0.0.1:80: weight: must be 0..=256, got 300",
            "x.toml:19: pool \"web\": backend 10.0.0.1:80: weigth: unknown key, expected one of name, address, weight, \
             priority, backup, check, did you mean \"weight\"?",
            "x.toml:20: pool \"web\": no backend: add [[pool.backend]] with address = \"ADDR:PORT\"",
            "x.toml:21: pool \"web\": name: web is taken, see line 13",
            "x.toml:24: pool \"web\": health: expect: belongs to type = \"send_expect\", but type is \"http\"",
            "x.toml:25: pool \"web\": health: pth: unknown key, expected one of name, type, send, expect, contains, path, \
             host, status, steps, user, domain, service, client_id, tls, command, interval, fast_interval, timeout, rise, fall, jitter_percent, port, initial_state, did you mean \"path\"?",
        ]
    );
}

/// "See line 3" of line 3 says nothing.
#[test]
fn a_conflict_within_one_entry_is_reported_as_such() {
    let text =
        "[[listener]]\nbind = \":80\"\n[[pool]]\nbackend = [{ address = \":81\" }, { address = \":81\" }]\n";
    assert_eq!(
        lines_of(&parse(text).unwrap_err()),
        ["x.toml:4: pool \"default\": backend :81: address: 127.0.0.1:81 is taken in the same line"]
    );
}

#[test]
fn an_empty_file_lacks_two_things() {
    assert_eq!(
        lines_of(&parse("").unwrap_err()),
        [
            "x.toml: no pool: add [[pool]] with a [[pool.backend]], or use --backend",
            "x.toml: no listener: add [[listener]] with bind = \"0.0.0.0:9090\", or use --listen",
        ]
    );
}

/// It published the admin API, and the metrics, to every client of the listener.
#[test]
fn no_backend_is_the_admin_api_or_the_metrics_address_however_it_is_spelled() {
    for (listen, metrics, backend, expected) in [
        ("127.0.0.1:9901", "10.0.0.9:9902", "127.0.0.1:9901", "our own admin API 127.0.0.1:9901, see line 2"),
        (
            "127.0.0.1:9901",
            "10.0.0.9:9902",
            "[::ffff:127.0.0.1]:9901",
            "our own admin API 127.0.0.1:9901, see line 2",
        ),
        ("127.0.0.1:9901", "10.0.0.9:9902", "0.0.0.0:9901", "our own admin API 127.0.0.1:9901, see line 2"),
        ("127.0.0.1:9901", "10.0.0.9:9902", ":9901", "our own admin API 127.0.0.1:9901, see line 2"),
        ("[::1]:9901", "10.0.0.9:9902", "[::]:9901", "our own admin API [::1]:9901, see line 2"),
        (
            "127.0.0.1:9901",
            "10.0.0.9:9902",
            "10.0.0.9:9902",
            "our own metrics address 10.0.0.9:9902, see line 4",
        ),
        (
            "127.0.0.1:9901",
            "0.0.0.0:9902",
            "127.0.0.3:9902",
            "our own metrics address 0.0.0.0:9902, see line 4",
        ),
        ("127.0.0.1:9901", "[::]:9902", "127.0.0.1:9902", "our own metrics address [::]:9902, see line 4"),
    ] {
        let text = format!(
            "[admin]\nlisten = \"{listen}\"\ntoken_file = \"/t\"\nmetrics = \"{metrics}\"\n\
             [[listener]]\nbind = \":9090\"\n[[pool]]\nbackend = [{{ address = \"{backend}\" }}]\n"
        );
        let errors = parse(&text).expect_err(&text);
        assert!(lines_of(&errors).concat().ends_with(expected), "{backend}: {:?}", lines_of(&errors));
    }
}
