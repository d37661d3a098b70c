//! Every mistake that a file can hold, each with the exact line that it brings up; `cli.rs` has those of
//! flags. `files` has what concerns variables and included files, `mangled` what no
//! text may do.

mod files;
mod mangled;

use std::io;
use std::net::SocketAddr;

use l4lb::config::{self, Config, Error, Overrides};

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

#[rustfmt::skip]
const BAD_FILES: &[(At, &str, &str)] = &[
    // Not TOML, or not ours.
    (File, "[[listener]\n",
        "x.toml:1: not TOML: unclosed array table, expected `]`"),
    (File, "[global]\nworkers = 1\nworkers = 2\n",
        "x.toml:3: not TOML: duplicate key"),
    (File, "pool = 3\n",
        "x.toml:1: pool: must be a list of tables, write [[pool]]"),
    (File, "[pool]\nname = \"web\"\n",
        "x.toml:1: pool: must be a list of tables, write [[pool]]"),
    (File, "[[pool]]\n[pool.backend]\naddress = \":81\"\n",
        "x.toml:2: pool #1: backend: must be a list of tables, write [[pool.backend]]"),
    (File, "[[pool]]\nbackend = [1]\n",
        "x.toml:2: pool #1: backend: must be a table, got integer 1"),
    (File, "[globl]\nworkers = 1\n[[listener]]\nbind = \":80\"\n[[pool]]\nbackend = [{ address = \":81\" }]\n",
        "x.toml:1: globl: unknown key, expected one of include, global, admin, announce, listener, pool, did you mean \"global\"?"),
    (Global, "\"a\\nb\" = 1",
        "x.toml:2: global: a\\nb: unknown key, expected one of workers, pin, splice, busy_poll, max_sessions, drain_timeout, shutdown_delay, reload_timeout, watch, resolve, log, access_log, user, group"),
    // [global]
    (Global, "threads = 2",
        "x.toml:2: global: threads: unknown key, expected one of workers, pin, splice, busy_poll, max_sessions, drain_timeout, shutdown_delay, reload_timeout, watch, resolve, log, access_log, user, group"),
    (Global, "workers = 0",
        "x.toml:2: global: workers: must be 1..=256, got 0"),
    (Global, "workers = 257",
        "x.toml:2: global: workers: must be 1..=256, got 257"),
    (Global, "workers = \"many\"",
        "x.toml:2: global: workers: must be \"auto\" or 1..=256, got \"many\""),
    (Global, "workers = 1.5",
        "x.toml:2: global: workers: must be a whole number 1..=256, got 1.5"),
    (Global, "pin = \"yes\"",
        "x.toml:2: global: pin: must be true or false, got \"yes\""),
    (Global, "max_sessions = 0",
        "x.toml:2: global: max_sessions: must be 1..=10000000, got 0"),
    (Global, "max_sessions = -1",
        "x.toml:2: global: max_sessions: must be 1..=10000000, got -1"),
    (Global, "max_sessions = 99999999999999999999",
        "x.toml:2: global: max_sessions: number out of range"),
    (Global, "max_sessions = 10000000000000000000",
        "x.toml:2: global: max_sessions: number out of range"),
    (Global, "max_sessions = 999999999999999999999999999999999999999999",
        "x.toml:2: global: max_sessions: number out of range"),
    (Global, "drain_timeout = 30",
        "x.toml:2: global: drain_timeout: must be a duration like \"500ms\", \"2s\", \"1m30s\" or \"1h\", got 30"),
    (Global, "drain_timeout = \"30\"",
        "x.toml:2: global: drain_timeout: must be a duration like \"500ms\", \"2s\", \"1m30s\" or \"1h\", got \"30\""),
    (Global, "drain_timeout = \"1 hour\"",
        "x.toml:2: global: drain_timeout: must be a duration like \"500ms\", \"2s\", \"1m30s\" or \"1h\", got \"1 hour\""),
    (Global, "drain_timeout = \"9000h\"",
        "x.toml:2: global: drain_timeout: must be 0s..=8760h, got \"9000h\""),
    (Global, "busy_poll = true",
        "x.toml:2: global: busy_poll: must be a duration like \"500ms\", \"2s\", \"1m30s\" or \"1h\", got true"),
    (Global, "busy_poll = \"2ms\"",
        "x.toml:2: global: busy_poll: must be 0s (sleep at once) or 1us..=1ms, got \"2ms\""),
    (Global, "log = \"info\"",
        "x.toml:2: global: log: must be a table, got string \"info\""),
    (Global, "log = { level = \"loud\" }",
        "x.toml:2: global: log: level: must be one of off, error, warn, info, debug, trace, got \"loud\""),
    (Global, "log = { format = true }",
        "x.toml:2: global: log: format: must be one of text, json, got true"),
    (Global, "log = { file = \"x\" }",
        "x.toml:2: global: log: file: unknown key, expected one of level, format, target, socket, facility, app_name, header, fields"),
    (Global, "log = { socket = \"/dev/log\" }",
        "x.toml:2: global: log: socket: goes with target = \"syslog\""),
    (Global, "log = { target = \"sislog\" }",
        "x.toml:2: global: log: target: must be one of stderr, syslog, got \"sislog\", did you mean \"syslog\"?"),
    (Global, "log = { target = \"syslog\", socket = \"log\" }",
        "x.toml:2: global: log: socket: must be an absolute path of at most 107 bytes, got \"log\""),
    (Global, "log = { target = \"syslog\", app_name = \"l4 lb\" }",
        "x.toml:2: global: log: app_name: must be 1..=48 printable ASCII characters without a space, got \"l4 lb\""),
    (Global, "log = { target = \"syslog\", facility = \"local8\" }",
        "x.toml:2: global: log: facility: must be one of kern, user, mail, daemon, auth, syslog, lpr, news, uucp, cron, authpriv, ftp, local0, local1, local2, local3, local4, local5, local6, local7, got \"local8\", did you mean \"local0\"?"),
    (Global, "log = { fields = [\"session\", \"sesion\"] }",
        "x.toml:2: global: log: fields: must be a list of some of \"session\", \"listener\", \"pool\", \"backend\", \"backend_address\", \"client\", \"peer\", \"sni\", \"alpn\", \"route\", \"source\", \"to_backend\", \"to_client\", \"connect_ms\", \"duration_ms\", \"retries\", \"state\", \"reason\", \"code\", \"reset_by\", \"half_closed_by\", got \"sesion\""),
    (Global, "log = { fields = [] }",
        "x.toml:2: global: log: fields: an empty list: a line would say nothing; leave fields out"),
    (Global, "log = { fields = [\"pool\", \"pool\"] }",
        "x.toml:2: global: log: fields: \"pool\" is there twice"),
    (Global, "access_log = \"a.log\"",
        "x.toml:2: global: access_log: must be a table, got string \"a.log\""),
    (Global, "access_log = { format = \"json\" }",
        "x.toml:2: global: access_log: path: missing, write path = \"/var/log/l4lb/access.log\""),
    (Global, "access_log = { path = \"\" }",
        "x.toml:2: global: access_log: path: must be a file or \"-\", got \"\""),
    (Global, "access_log = { path = \"-\", at = \"start\" }",
        "x.toml:2: global: access_log: at: must be a list of some of \"start\", \"end\", got \"start\""),
    (Global, "access_log = { path = \"-\", at = [\"start\", \"ends\"] }",
        "x.toml:2: global: access_log: at: must be a list of some of \"start\", \"end\", got \"ends\""),
    (Global, "access_log = { path = \"-\", at = [] }",
        "x.toml:2: global: access_log: at: an empty list without every: no line would be written; leave access_log out"),
    (Global, "access_log = { path = \"-\", every = \"500ms\" }",
        "x.toml:2: global: access_log: every: must be 1s..=24h, got \"500ms\""),
    (Global, "access_log = { path = \"-\", format = \"json\" }",
        "x.toml:2: global: access_log: format: what goes to standard error has the format of log"),
    (Global, "user = \"a b\"",
        "x.toml:2: global: user: must be a name, got \"a b\""),
    (Global, "user = 1000",
        "x.toml:2: global: user: must be a string, got 1000"),
    (Global, "group = \"l4lb\"",
        "x.toml:2: global: group: goes with user, which is missing"),
    // [[listener]]
    (Listener, "name = \"a b\"",
        "x.toml:5: listener \"a b\": name: must be 1..=64 characters of A-Z a-z 0-9 . _ : - [ ], got \"a b\""),
    (Listener, "name = \"\"",
        "x.toml:5: listener \"\": name: must be 1..=64 characters of A-Z a-z 0-9 . _ : - [ ], got \"\""),
    (Listener, "name = \"..\"",
        "x.toml:5: listener \"..\": name: must have a letter or a digit, got \"..\""),
    (Listener, "name = 80",
        "x.toml:5: listener :9090: name: must be a string, got 80"),
    (Listener, "pool = \"wob\"",
        "x.toml:5: listener :9090: pool: there is no pool \"wob\", did you mean \"web\"?"),
    (Listener, "pool = 1",
        "x.toml:5: listener :9090: pool: must be a string, got 1"),
    (Listener, "backlog = 0",
        "x.toml:5: listener :9090: backlog: must be 1..=65535, got 0"),
    (Listener, "accept = \"least\"",
        "x.toml:5: listener :9090: accept: must be one of reuseport, balance, got \"least\""),
    (Listener, "max_sessions = \"10\"",
        "x.toml:5: listener :9090: max_sessions: must be a whole number 1..=10000000, got \"10\""),
    (Listener, "timeouts = [\"5s\"]",
        "x.toml:5: listener :9090: timeouts: must be a table, got an array"),
    (Listener, "timeouts = { idle = \"0s\" }",
        "x.toml:5: listener :9090: timeouts: idle: must be 1ms..=8760h, got \"0s\""),
    (Listener, "port = 80",
        "x.toml:5: listener :9090: port: unknown key, expected one of name, bind, pool, backlog, accept, max_sessions, proxy_protocol, tls, on_no_sni, route, timeouts"),
    (Listener, "[[listener]]",
        "x.toml:5: listener #2: bind: missing, write bind = \"ADDR:PORT\""),
    (Listener, "[[listener]]\nbind = \"localhost:80\"",
        "x.toml:6: listener localhost:80: bind: a listener needs an IP address like 0.0.0.0, got host name \"localhost\""),
    (Listener, "[[listener]]\nbind = \"127.0.0.1:0\"",
        "x.toml:6: listener 127.0.0.1:0: bind: port must be 1..=65535, got \"0\""),
    (Listener, "[[listener]]\nbind = \"127.0.0.1\"",
        "x.toml:6: listener 127.0.0.1: bind: port missing, write ADDR:PORT"),
    (Listener, "[[listener]]\nbind = \"::1\"",
        "x.toml:6: listener ::1: bind: IPv6 needs brackets and a port, write [::1]:PORT"),
    (Listener, "[[listener]]\nbind = \"[::1]\"",
        "x.toml:6: listener [::1]: bind: port missing, write [::1]:PORT"),
    (Listener, "[[listener]]\nbind = \"224.0.0.1:80\"",
        "x.toml:6: listener 224.0.0.1:80: bind: must not be a multicast address"),
    (Listener, "[[listener]]\nbind = \"127.0.0.1:9090\"",
        "x.toml:6: listener 127.0.0.1:9090: bind: 127.0.0.1:9090 overlaps 0.0.0.0:9090, see line 4"),
    (Listener, "[[listener]]\nbind = \"[::]:9090\"",
        "x.toml:6: listener [::]:9090: bind: [::]:9090 overlaps 0.0.0.0:9090, see line 4"),
    (Listener, "[[listener]]\nbind = \":9090\"",
        "x.toml:6: listener :9090: bind: 0.0.0.0:9090 overlaps 0.0.0.0:9090, see line 4"),
    (Listener, "[[listener]]\nname = \"0.0.0.0:9090\"\nbind = \":9091\"",
        "x.toml:6: listener \"0.0.0.0:9090\": name: 0.0.0.0:9090 is taken, see line 3"),
    // [[pool]]
    (Pool, "balance = \"fastest\"",
        "x.toml:8: pool \"web\": balance: must be one of round_robin, least_connections, power_of_two, source_hash, random, got \"fastest\""),
    (Pool, "retries = 17",
        "x.toml:8: pool \"web\": retries: must be 0..=16, got 17"),
    (Pool, "when_all_down = \"panic\"",
        "x.toml:8: pool \"web\": when_all_down: must be one of close, try_anyway, got \"panic\""),
    (Pool, "relay = \"zero-copy\"",
        "x.toml:8: pool \"web\": relay: must be one of auto, copy, splice, got \"zero-copy\""),
    (Listener, "proxy_protocol = { others = \"plain\" }",
        "x.toml:5: listener :9090: proxy_protocol: from: missing, write from = [\"10.0.0.0/8\"]: the balancers in front"),
    (Listener, "proxy_protocol = { from = [] }",
        "x.toml:5: listener :9090: proxy_protocol: from: must be a list of 1..=256 networks, got an array"),
    (Listener, "proxy_protocol = { from = [\"lb.local\", 7] }",
        "x.toml:5: listener :9090: proxy_protocol: from: must be an IP address or a network like 10.0.0.0/8 or 2001:db8::/32, got \"lb.local\"\n\
         x.toml:5: listener :9090: proxy_protocol: from: must be a list of strings, got 7"),
    (Listener, "proxy_protocol = { from = [\"10.0.0.0/8\"], others = \"drop\" }",
        "x.toml:5: listener :9090: proxy_protocol: others: must be one of reject, plain, got \"drop\""),
    (Listener, "tls = \"terminate\"",
        "x.toml:5: listener :9090: tls: must be one of passthrough, got \"terminate\""),
    (Listener, "on_no_sni = \"reject\"",
        "x.toml:5: listener :9090: on_no_sni: needs tls = \"passthrough\" beside it"),
    (Listener, "tls = \"passthrough\"\non_no_sni = \"reset\"",
        "x.toml:6: listener :9090: on_no_sni: must be one of default, reject, got \"reset\""),
    (Listener, "route = \"web\"",
        "x.toml:5: listener :9090: route: must be a list of tables, write [[listener.route]]"),
    (Listener, "route = [{ sni = [\"a.example\"], pool = \"web\" }]",
        "x.toml:5: listener :9090: route #1: sni: needs tls = \"passthrough\" beside it"),
    (Listener, "route = [{ client = [\"10.0.0.0/8\"], pool = \"wbe\" }]",
        "x.toml:5: listener :9090: route #1: pool: there is no pool \"wbe\", did you mean \"web\"?"),
    (Listener, "route = [{ client = [\"10.0.0.0/8\"] }]",
        "x.toml:5: listener :9090: route #1: pool: missing, name the pool to serve"),
    (Listener, "route = [{ pool = \"web\" }]",
        "x.toml:5: listener :9090: route #1: sni: missing, a route needs one of sni, alpn and client"),
    (Listener, "route = [{ client = \"10.0.0.0/8\", pool = \"web\" }]",
        "x.toml:5: listener :9090: route #1: client: must be a list of 1..=256 networks, got \"10.0.0.0/8\""),
    (Listener, "route = [{ client = [\"lan\", 7], pool = \"web\" }]",
        "x.toml:5: listener :9090: route #1: client: must be an IP address or a network like 10.0.0.0/8 or 2001:db8::/32, got \"lan\"\n\
         x.toml:5: listener :9090: route #1: client: must be a list of strings, got 7"),
    (Listener, "tls = \"passthrough\"\n[[listener.route]]\npool = \"web\"\nsni = [\"a.*.com\", \"*\"]",
        "x.toml:8: listener :9090: route #1: sni: must be a name like \"a.example.com\", or \"*.example.com\" for all names below one, got \"a.*.com\"\n\
         x.toml:8: listener :9090: route #1: sni: must be a name like \"a.example.com\", or \"*.example.com\" for all names below one, got \"*\""),
    (Listener, "tls = \"passthrough\"\nroute = [{ alpn = [], pool = \"web\" }]",
        "x.toml:6: listener :9090: route #1: alpn: must be a list of 1..=256 protocols, got an array"),
    (Listener, "tls = \"passthrough\"\nroute = [{ alpn = [\"\"], pool = \"web\" }]",
        "x.toml:6: listener :9090: route #1: alpn: must be protocols of 1..=255 bytes, got \"\""),
    (Listener, "route = [{ to = \"web\" }]",
        "x.toml:5: listener :9090: route #1: to: unknown key, expected one of sni, alpn, client, pool\n\
         x.toml:5: listener :9090: route #1: sni: missing, a route needs one of sni, alpn and client\n\
         x.toml:5: listener :9090: route #1: pool: missing, name the pool to serve"),
    (Listener, "timeouts = { preread = \"0s\" }",
        "x.toml:5: listener :9090: timeouts: preread: must be 1ms..=8760h, got \"0s\""),
    (Timeouts, "preread = \"1s\"",
        "x.toml:10: pool \"web\": timeouts: preread: unknown key, expected one of connect, idle, half_close"),
    (Pool, "proxy_protocol = \"v3\"",
        "x.toml:8: pool \"web\": proxy_protocol: must be one of v1, v2, got \"v3\""),
    (Pool, "proxy_protocol = true",
        "x.toml:8: pool \"web\": proxy_protocol: must be \"v1\", \"v2\" or a table {version, tlvs, check}, got boolean true"),
    (Pool, "proxy_protocol = { check = \"local\" }",
        "x.toml:8: pool \"web\": proxy_protocol: version: missing, write version = \"v1\" or \"v2\""),
    (Pool, "proxy_protocol = { version = \"v2\", check = \"client\" }",
        "x.toml:8: pool \"web\": proxy_protocol: check: must be one of none, local, proxy, got \"client\""),
    (Pool, "proxy_protocol = { version = \"v2\", tlvs = [\"crc32\"] }",
        "x.toml:8: pool \"web\": proxy_protocol: tlvs: must be a list of some of \"crc32c\", \"unique_id\", got \"crc32\""),
    (Pool, "proxy_protocol = { version = \"v1\", tlvs = [\"crc32c\"] }",
        "x.toml:8: pool \"web\": proxy_protocol: tlvs: only version \"v2\" has TLVs"),
    (Pool, "proxy_protocol = { version = \"v2\", tlv = [] }",
        "x.toml:8: pool \"web\": proxy_protocol: tlv: unknown key, expected one of version, tlvs, check, did you mean \"tlvs\"?"),
    (File, "[[listener]]\nbind = \":80\"\n[[pool]]\n",
        "x.toml:3: pool \"default\": no backend: add [[pool.backend]] with address = \"ADDR:PORT\""),
    (File, "[[listener]]\nbind = \":80\"\n[[pool]]\nname = \"a\"\nbackend = [{ address = \":81\" }]\n[[pool]]\nname = \"b\"\nbackend = [{ address = \":81\" }]\n",
        "x.toml:1: listener :80: pool: missing: the file has 2 pools, name the one to serve"),
    (File, "[[listener]]\nbind = \":80\"\npool = \"a\"\n[[pool]]\nname = \"a\"\nbackend = [{ address = \":81\" }]\n[[pool]]\nbackend = [{ address = \":81\" }]\n",
        "x.toml:7: pool #2: name: missing: with several pools each needs one"),
    (File, "[[listener]]\nbind = \":80\"\npool = \"a\"\n[[pool]]\nname = \"a\"\nbackend = [{ address = \":81\" }]\n[[pool]]\nname = \"a\"\nbackend = [{ address = \":81\" }]\n",
        "x.toml:8: pool \"a\": name: a is taken, see line 5"),
    (File, "[[pool]]\nbackend = [{ address = \":81\" }]\n",
        "x.toml: no listener: add [[listener]] with bind = \"0.0.0.0:9090\", or use --listen"),
    (File, "[[listener]]\nbind = \":80\"\n",
        "x.toml: no pool: add [[pool]] with a [[pool.backend]], or use --backend"),
    // [pool.timeouts]
    (Timeouts, "connect = \"0s\"",
        "x.toml:10: pool \"web\": timeouts: connect: must be 1ms..=8760h, got \"0s\""),
    (Timeouts, "connect = 5",
        "x.toml:10: pool \"web\": timeouts: connect: must be a duration like \"500ms\", \"2s\", \"1m30s\" or \"1h\", got 5"),
    (Timeouts, "idle = \"1d\"",
        "x.toml:10: pool \"web\": timeouts: idle: must be a duration like \"500ms\", \"2s\", \"1m30s\" or \"1h\", got \"1d\""),
    (Timeouts, "half_close = \"-1s\"",
        "x.toml:10: pool \"web\": timeouts: half_close: must be a duration like \"500ms\", \"2s\", \"1m30s\" or \"1h\", got \"-1s\""),
    (Timeouts, "half_open = \"1s\"",
        "x.toml:10: pool \"web\": timeouts: half_open: unknown key, expected one of connect, idle, half_close"),
    // [pool.tcp]
    (Tcp, "nodelay = 1",
        "x.toml:12: pool \"web\": tcp: nodelay: must be true or false, got 1"),
    (Tcp, "keepalive = true",
        "x.toml:12: pool \"web\": tcp: keepalive: must be false or a table {idle, interval, count}, got boolean true"),
    (Tcp, "keepalive = \"60s\"",
        "x.toml:12: pool \"web\": tcp: keepalive: must be false or a table {idle, interval, count}, got string \"60s\""),
    (Tcp, "keepalive = { idle = \"500ms\" }",
        "x.toml:12: pool \"web\": tcp: keepalive: idle: must be 1s..=9h, got \"500ms\""),
    (Tcp, "keepalive = { interval = \"1.5s\" }",
        "x.toml:12: pool \"web\": tcp: keepalive: interval: must be in whole seconds, got 1s500ms"),
    (Tcp, "keepalive = { count = 128 }",
        "x.toml:12: pool \"web\": tcp: keepalive: count: must be 1..=127, got 128"),
    (Tcp, "keepalive = { idel = \"60s\" }",
        "x.toml:12: pool \"web\": tcp: keepalive: idel: unknown key, expected one of idle, interval, count, did you mean \"idle\"?"),
    (Tcp, "user_timeout = \"25h\"",
        "x.toml:12: pool \"web\": tcp: user_timeout: must be 0s (the kernel's own) or 1ms..=24h, got \"25h\""),
    // [pool.health]
    (Health, "type = \"htttp\"",
        "x.toml:14: pool \"web\": health: type: must be one of tcp, send_expect, http, redis, postgres, mysql, smtp, grpc, mqtt, tls, https, command, off, got \"htttp\", did you mean \"http\"?"),
    (Health, "type = \"tls\"\npath = \"/health\"",
        "x.toml:15: pool \"web\": health: path: belongs to type = \"http\" or \"https\", but type is \"tls\""),
    (Health, "type = \"tls\"\nsteps = [{ expect = \"a\" }]",
        "x.toml:14: pool \"web\": health: steps: belongs to type = \"tcp\", but type is \"tls\""),
    (Health, "type = \"https\"\ntls = false",
        "x.toml:15: pool \"web\": health: tls: must not be false: this type of check is over TLS"),
    (Health, "tls = \"full\"",
        "x.toml:14: pool \"web\": health: tls: must be true, false or a table {server_name, verify, ca_file, alpn, expires_within}, got string \"full\""),
    (Health, "tls = { sni = \"web\" }",
        "x.toml:14: pool \"web\": health: tls: sni: unknown key, expected one of server_name, verify, ca_file, alpn, expires_within"),
    (Health, "tls = { server_name = \"a b\" }",
        "x.toml:14: pool \"web\": health: tls: server_name: must be a host name or an IP address, got \"a b\""),
    (Health, "tls = { verify = \"required\" }",
        "x.toml:14: pool \"web\": health: tls: verify: must be one of full, chain, none, got \"required\""),
    (Health, "tls = { verify = \"none\", ca_file = \"ca.pem\" }",
        "x.toml:14: pool \"web\": health: tls: ca_file: verify = \"none\" trusts every certificate"),
    (Health, "tls = { alpn = \"h2\" }",
        "x.toml:14: pool \"web\": health: tls: alpn: must be a list of at most 8 names of protocols, like [\"http/1.1\"], got \"h2\""),
    (Health, "tls = { alpn = [\"\"] }",
        "x.toml:14: pool \"web\": health: tls: alpn: must be a list of at most 8 names of protocols, like [\"http/1.1\"], got an array"),
    (Health, "tls = { expires_within = \"7d\" }",
        "x.toml:14: pool \"web\": health: tls: expires_within: must be a duration like \"500ms\", \"2s\", \"1m30s\" or \"1h\", got \"7d\""),
    (Health, "type = \"redis\"\nuser = \"x\"",
        "x.toml:15: pool \"web\": health: user: belongs to type = \"postgres\" or \"mysql\", but type is \"redis\""),
    (Health, "type = \"http\"\nservice = \"x\"",
        "x.toml:15: pool \"web\": health: service: belongs to type = \"grpc\", but type is \"http\""),
    (Health, "type = \"smtp\"\ndomain = \"a b\"",
        "x.toml:15: pool \"web\": health: domain: must be 1..=100 visible ASCII characters, got \"a b\""),
    (Health, "type = \"mqtt\"\nclient_id = 7",
        "x.toml:15: pool \"web\": health: client_id: must be a string, got 7"),
    (Health, "type = \"command\"",
        "x.toml:14: pool \"web\": health: command: missing: write command = [\"/path/of/program\", \"argument\"]"),
    (Health, "type = \"command\"\ncommand = \"/bin/true\"",
        "x.toml:15: pool \"web\": health: command: must be a list of texts, got \"/bin/true\""),
    (Health, "type = \"command\"\ncommand = [\"/bin/true\", 7]",
        "x.toml:15: pool \"web\": health: command: must be a list of texts, got an array"),
    (Health, "type = \"command\"\ncommand = [\"true\"]",
        "x.toml:15: pool \"web\": health: command: must begin with the path of the program, from / on"),
    (Health, "type = \"command\"\ncommand = []",
        "x.toml:15: pool \"web\": health: command: must begin with the path of the program, from / on"),
    (Health, "type = \"command\"\ncommand = [\"/bin/true\", \"a\\u0000b\"]",
        "x.toml:15: pool \"web\": health: command: must be at most 32 texts of at most 1024 bytes, without a null byte"),
    (Health, "command = [\"/bin/true\"]",
        "x.toml:14: pool \"web\": health: command: belongs to type = \"command\", but type is \"tcp\""),
    (Health, "type = \"http\"\nsteps = [{ send = \"a\", expect = \"b\" }]",
        "x.toml:14: pool \"web\": health: steps: belongs to type = \"tcp\", but type is \"http\""),
    (Health, "steps = [{ send = \"a\" }]",
        "x.toml:13: pool \"web\": health: steps: none of them expects an answer"),
    (Health, "steps = [{ expect = \"a\" }, {}]",
        "x.toml:13: pool \"web\": health: steps: step 2: has neither send nor expect"),
    (Health, "steps = [{ expect = \"a\" },\n { send = 'a\\q', expect = \"b\" }]",
        "x.toml:15: pool \"web\": health: steps: step 2: send: unknown escape \"\\\\q\", known are \\r, \\n, \\t, \\0, \\\\ and \\xHH"),
    (Health, "steps = [{ expect = \"\" }]",
        "x.toml:14: pool \"web\": health: steps: step 1: expect: must be 1..=1024 bytes, got 0"),
    (Health, "steps = [{ send = 4, expect = \"a\" }]",
        "x.toml:14: pool \"web\": health: steps: step 1: send: must be a string, got 4"),
    (Health, "steps = 4",
        "x.toml:14: pool \"web\": health: steps: must be a list of tables, write [[pool.health.steps]]"),
    (Health, "steps = [{ sned = \"a\", expect = \"b\" }]",
        "x.toml:14: pool \"web\": health: steps #1: sned: unknown key, expected send or expect, did you mean \"send\"?"),
    (Health, "path = \"/health\"",
        "x.toml:14: pool \"web\": health: path: belongs to type = \"http\" or \"https\", but type is \"tcp\""),
    (Health, "type = \"http\"\nsend = \"PING\"",
        "x.toml:15: pool \"web\": health: send: belongs to type = \"send_expect\", but type is \"http\""),
    (Health, "type = \"http\"\npath = \"health\"",
        "x.toml:15: pool \"web\": health: path: must start with /, got \"health\""),
    (Health, "type = \"http\"\npath = \"/a b\\r\\nHost: x\"",
        "x.toml:15: pool \"web\": health: path: must be 1..=1024 visible ASCII characters, got \"/a b\\r\\nHost: x\""),
    (Health, "type = \"http\"\nhost = \"\"",
        "x.toml:15: pool \"web\": health: host: must be 1..=1024 visible ASCII characters, got \"\""),
    (Health, "type = \"http\"\nstatus = 99",
        "x.toml:15: pool \"web\": health: status: must be 100..=599, got 99"),
    (Health, "type = \"send_expect\"",
        "x.toml:14: pool \"web\": health: expect: missing: write expect or contains = \"TEXT\""),
    (Health, "type = \"send_expect\"\nexpect = \"\"",
        "x.toml:15: pool \"web\": health: expect: must be 1..=1024 bytes, got 0"),
    (Health, "type = \"send_expect\"\nexpect = \"a\"\ncontains = \"b\"",
        "x.toml:16: pool \"web\": health: contains: expect is there too: keep one of them"),
    (Health, "interval = \"0s\"",
        "x.toml:14: pool \"web\": health: interval: must be 1ms..=8760h, got \"0s\""),
    (Health, "timeout = \"3s\"",
        "x.toml:14: pool \"web\": health: timeout: must be at most the interval, which is 2s, got 3s"),
    (Health, "interval = \"1s\"\nfast_interval = \"2s\"",
        "x.toml:15: pool \"web\": health: fast_interval: must be at most the interval, which is 1s, got 2s"),
    (Health, "rise = 0",
        "x.toml:14: pool \"web\": health: rise: must be 1..=100, got 0"),
    (Health, "fall = 101",
        "x.toml:14: pool \"web\": health: fall: must be 1..=100, got 101"),
    (Health, "jitter_percent = 51",
        "x.toml:14: pool \"web\": health: jitter_percent: must be 0..=50, got 51"),
    (Health, "port = 0",
        "x.toml:14: pool \"web\": health: port: must be 1..=65535, got 0"),
    (Health, "port = 65536",
        "x.toml:14: pool \"web\": health: port: must be 1..=65535, got 65536"),
    (Health, "initial_state = \"sideways\"",
        "x.toml:14: pool \"web\": health: initial_state: must be one of unknown, up, down, got \"sideways\""),
    (Health, "name = \"x\"",
        "x.toml:14: pool \"web\": health: name: belongs to [[pool.check]]"),
    // [[pool.check]]
    (Health, "[[pool.check]]\ntype = \"redis\"\ninterval = \"1s\"",
        "x.toml:16: pool \"web\": check #1: interval: belongs to [pool.health], for all checks of the pool"),
    (Health, "[[pool.check]]\nname = \"a\"\ntype = \"off\"",
        "x.toml:16: pool \"web\": check \"a\": type: off belongs to [pool.health]: leave this check out instead"),
    (Health, "[[pool.check]]\ntype = \"redis\"\n[[pool.check]]\ntype = \"redis\"",
        "x.toml:16: pool \"web\": check #2: name: \"redis\" is taken, name each check of the pool"),
    (Health, "[[pool.check]]\nname = \"health\"",
        "x.toml:15: pool \"web\": check \"health\": name: \"health\" is taken, name each check of the pool"),
    (Health, "[[pool.check]]\nport = 0",
        "x.toml:15: pool \"web\": check #1: port: must be 1..=65535, got 0"),
    // [[pool.backend]]
    (Backend, "check = 4",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: check: must be a table, got integer 4"),
    (Backend, "check = { address = \"10.0.0.1:80\" }",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: check: address: must be an IP address without a port, got \"10.0.0.1:80\""),
    (Backend, "check = { port = 0 }",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: check: port: must be 1..=65535, got 0"),
    (Backend, "check = { interval = \"0s\" }",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: check: interval: must be 1ms..=8760h, got \"0s\""),
    (Backend, "weight = 300",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: weight: must be 0..=256, got 300"),
    (Backend, "weight = -1",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: weight: must be 0..=256, got -1"),
    (Backend, "weight = \"high\"",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: weight: must be a whole number 0..=256, got \"high\""),
    (Backend, "backup = 0",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: backup: must be true or false, got 0"),
    (Backend, "priority = 16",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: priority: must be 0..=15, got 16"),
    (Backend, "priority = -1",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: priority: must be 0..=15, got -1"),
    (Backend, "backup = true\npriority = 3",
        "x.toml:18: pool \"web\": backend 10.0.0.1:80: priority: 3 contradicts backup = true: backup = true means priority = 15"),
    (Backend, "priority = 15\nbackup = false",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: priority: 15 contradicts backup = false: backup = true means priority = 15"),
    (Backend, "wieght = 1",
        "x.toml:17: pool \"web\": backend 10.0.0.1:80: wieght: unknown key, expected one of name, address, weight, priority, backup, check, did you mean \"weight\"?"),
    (Backend, "[[pool.backend]]",
        "x.toml:17: pool \"web\": backend #2: address: missing, write address = \"ADDR:PORT\""),
    (Backend, "[[pool.backend]]\nname = \"b\"\naddress = 80",
        "x.toml:19: pool \"web\": backend \"b\": address: must be a string, got 80"),
    (Backend, "[[pool.backend]]\naddress = \"10.0.0.1:80\"",
        "x.toml:18: pool \"web\": backend 10.0.0.1:80: address: 10.0.0.1:80 is taken, see line 16"),
    (Backend, "[[pool.backend]]\naddress = \"[::ffff:10.0.0.1]:80\"",
        "x.toml:18: pool \"web\": backend [::ffff:10.0.0.1]:80: address: 10.0.0.1:80 is taken, see line 16"),
    (Backend, "[[pool.backend]]\nname = \"10.0.0.1:80\"\naddress = \"10.0.0.2:80\"",
        "x.toml:18: pool \"web\": backend \"10.0.0.1:80\": name: 10.0.0.1:80 is taken, see line 15"),
    (Backend, "[[pool.backend]]\naddress = \"10.0.0.2:0\"",
        "x.toml:18: pool \"web\": backend 10.0.0.2:0: address: port must be 1..=65535, got \"0\""),
    (Backend, "[[pool.backend]]\naddress = \"10.0.0.2:http\"",
        "x.toml:18: pool \"web\": backend 10.0.0.2:http: address: port must be 1..=65535, got \"http\""),
    (Backend, "[[pool.backend]]\naddress = \"10.0.0.2\"",
        "x.toml:18: pool \"web\": backend 10.0.0.2: address: port missing, write ADDR:PORT"),
    (Backend, "[[pool.backend]]\naddress = \"10.0.2:80\"",
        "x.toml:18: pool \"web\": backend 10.0.2:80: address: \"10.0.2\" is neither an IP address nor a host name"),
    (Backend, "[[pool.backend]]\naddress = \"255.255.255.255:80\"",
        "x.toml:18: pool \"web\": backend 255.255.255.255:80: address: must not be a multicast or broadcast address"),
    (Backend, "[[pool.backend]]\naddress = \"http://10.0.0.2:80\"",
        "x.toml:18: pool \"web\": backend http://10.0.0.2:80: address: \"http://10.0.0.2\" is neither an IP address nor a host name"),
    (Backend, "[[pool.backend]]\naddress = \"127.0.0.1:9090\"",
        "x.toml:18: pool \"web\": backend 127.0.0.1:9090: address: 127.0.0.1:9090 is our own listener 0.0.0.0:9090, see line 4"),
    (Backend, "[[pool.backend]]\naddress = \":9090\"",
        "x.toml:18: pool \"web\": backend :9090: address: 127.0.0.1:9090 is our own listener 0.0.0.0:9090, see line 4"),
    (Backend, "[[pool.backend]]\naddress = \"good.example:80\"\n[[pool.backend]]\naddress = \"good.example:80\"",
        "x.toml:20: pool \"web\": backend good.example:80: address: good.example:80 is taken, see line 18"),
    (Backend, "[[pool.backend]]\naddress = \"filtered.example:80\"",
        "x.toml:18: pool \"web\": backend filtered.example:80: address: host \"filtered.example\" resolves to 0.0.0.0, no server"),
    (Backend, "[[pool.backend]]\naddress = \"ours.example:9090\"",
        "x.toml:18: pool \"web\": backend ours.example:9090: address: host resolves to 127.0.0.1:9090, which is our own listener 0.0.0.0:9090, see line 4"),
    (Backend, "[[pool.backend]]\naddress = \"bad.example:80\"",
        "x.toml:18: pool \"web\": backend bad.example:80: address: cannot resolve host \"bad.example\": no such host"),
    (Backend, "[[pool.backend]]\naddress = \"empty.example:80\"",
        "x.toml:18: pool \"web\": backend empty.example:80: address: host \"empty.example\" has no address"),
    (Backend, "[[pool.backend]]\naddress = \"multicast.example:80\"",
        "x.toml:18: pool \"web\": backend multicast.example:80: address: host \"multicast.example\" resolves to 224.0.0.1, no server"),
];

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
            "x.toml:2: foo: unknown key, expected one of include, global, admin, announce, listener, pool",
            "x.toml:4: global: wrokers: unknown key, expected one of workers, pin, splice, busy_poll, max_sessions, drain_timeout, shutdown_delay, reload_timeout, watch, resolve, log, access_log, user, group, did you mean \"workers\"?",
            "x.toml:5: global: pin: must be true or false, got \"yes\"",
            "x.toml:6: global: log: fmt: unknown key, expected one of level, format, target, socket, facility, app_name, header, fields",
            "x.toml:6: global: log: level: must be one of off, error, warn, info, debug, trace, got \"loud\"",
            "x.toml:8: listener 1.2.3.4: bind: port missing, write ADDR:PORT",
            "x.toml:9: listener 1.2.3.4: pool: there is no pool \"wob\", did you mean \"web\"?",
            "x.toml:10: listener #2: bind: missing, write bind = \"ADDR:PORT\"",
            "x.toml:10: listener #2: pool: missing: the file has 2 pools, name the one to serve",
            "x.toml:11: listener #2: bnd: unknown key, expected one of name, bind, pool, backlog, accept, max_sessions, proxy_protocol, tls, on_no_sni, route, timeouts, did you mean \"bind\"?",
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
