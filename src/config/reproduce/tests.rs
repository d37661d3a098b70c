use std::ffi::OsString;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::config::{self, Inputs, Overrides};

fn resolve(host: &str) -> std::io::Result<Vec<SocketAddr>> {
    match host.split_once(':') {
        Some((name, port)) if name.ends_with(".test") => {
            Ok(vec![([10, 0, 0, 99], port.parse().expect("a port")).into()])
        }
        Some(_) | None => Err(std::io::Error::other("no such host")),
    }
}

fn parse(text: &str) -> Config {
    config::parse(text, "test", &Overrides::default(), &mut resolve).unwrap_or_else(|errors| {
        panic!("{}\n{text}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

/// Returns the parts of a configuration that decide what runs.
fn parts(config: Config) -> Config {
    Config { notes: Vec::new(), digest: 0, ..config }
}

#[track_caller]
fn comes_back(text: &str) {
    let before = parts(parse(text));
    let written = before.to_toml(&Remarks::default());
    assert_eq!(parts(parse(&written)), before, "{written}");
}

#[test]
fn the_reference_configuration_comes_back() {
    comes_back(include_str!("../../../config/l4lb.toml"));
}

#[test]
fn a_configuration_of_flags_alone_comes_back() {
    let overrides = Overrides {
        listen: vec![([127, 0, 0, 1], 9090).into(), "[::1]:9091".parse().expect("an address")],
        ..Overrides::default()
    };
    let before = parts(config::load(None, &overrides, Inputs::NOTHING, &mut resolve).expect("good flags"));
    assert_eq!(parts(parse(&before.to_toml(&Remarks::default()))), before);
}

/// A key of the listener would go before the pool's own for each route.
#[test]
fn the_timeouts_of_the_pools_of_routes_come_back() {
    for own in ["", "timeouts = { idle = \"3h\" }\n"] {
        comes_back(&format!(
            "[[listener]]\nbind = \"127.0.0.1:443\"\npool = \"web\"\ntls = \"passthrough\"\n{own}\
             route = [{{ sni = [\"db.test\"], pool = \"db\" }}]\n\
             [[pool]]\nname = \"web\"\n[[pool.backend]]\naddress = \"10.0.0.1:80\"\n\
             [[pool]]\nname = \"db\"\ntimeouts = {{ idle = \"8h\" }}\n[[pool.backend]]\naddress = \"10.0.0.2:80\"\n"
        ));
    }
}

const LISTENER: &str = "[[listener]]\nbind = \"127.0.0.1:9090\"\npool = \"web\"\n";

/// Keys of `[global]`, `[admin]`, a listener, and a pool with its tables: each alternative of each.
const GLOBAL: [&str; 9] = [
    "log = { target = \"syslog\", facility = \"local3\", app_name = \"lb\", header = \"local\", fields = [\"client\", \"pool\"] }",
    "",
    "workers = 3\npin = true\nsplice = false\nbusy_poll = \"50us\"\nwatch = true",
    "max_sessions = 100\ndrain_timeout = \"0s\"\nshutdown_delay = \"5s\"\nreload_timeout = \"1m\"",
    "resolve = \"require\"\nlog = { level = \"off\", format = \"json\" }",
    "user = \"l4lb\"\ngroup = \"staff\"",
    "access_log = { path = \"/var/log/a $${b}\", at = [\"start\", \"end\"] }",
    "access_log = { path = \"-\", every = \"5m\", at = [] }",
    "access_log = { path = \"stdout\", format = \"json\", every = \"1s\" }\nuser = \"a\"",
];
const ADMIN: [&str; 5] = [
    "",
    "socket = false",
    "socket = \"/run/l4lb/admin.sock\"\nstate_file = \"/var/lib/$${x}\"",
    "listen = \"127.0.0.1:9901\"\ntoken_file = \"/etc/token\"\nread_token_file = \"/etc/read\"",
    "metrics = \"[::1]:9902\"\nsocket = true",
];
const OF_LISTENER: [&str; 6] = [
    "",
    "allow = [\"10.0.0.0/8\", \"::1\"]\ndeny = [\"10.9.9.9/16\"]\non_refuse = \"close\"",
    "name = \"in\"\nbacklog = 7\naccept = \"balance\"\nmax_sessions = 9",
    "timeouts = { connect = \"1ms\", idle = \"2h\" }",
    "proxy_protocol = { from = [\"10.0.0.0/8\"] }\ntls = \"passthrough\"\non_no_sni = \"reject\"\n\
     timeouts = { idle = \"3h\", preread = \"1s\" }\n\
     route = [{ sni = [\"A.test.\", \"*.b.test\"], alpn = [\"$${x}\"], pool = \"web\" }, { client = [\"::1\"], pool = \"web\" }]",
    "route = [{ client = [\"10.0.0.0/8\", \"10.0.0.1\"], pool = \"web\" }]",
];
const OF_POOL: [&str; 6] = [
    "proxy_protocol = \"v1\"",
    "proxy_protocol = { version = \"v2\", tlvs = [\"unique_id\", \"crc32c\", \"alpn\", \"authority\"], check = \"none\" }",
    "",
    "balance = \"source_hash\"\nretries = 0\nwhen_all_down = \"try_anyway\"\nrelay = \"copy\"\non_remove = \"keep\"",
    "drain_timeout = \"1m30s\"\ntimeouts = { half_close = \"1s\" }",
    "tcp = { nodelay = false, keepalive = false, user_timeout = \"0s\" }",
];
const TCP: [&str; 2] = ["", "[pool.tcp]\nkeepalive = { idle = \"5s\", interval = \"1s\", count = 2 }\n"];
const HEALTH: [&str; 15] = [
    "type = \"tls\"",
    "type = \"https\"\npath = \"/a\"\ntls = { server_name = \"a.test\", verify = \"none\", expires_within = \"0s\" }",
    "type = \"redis\"\ntls = { verify = \"chain\", ca_file = \"/etc/ca.pem\", alpn = [\"a\", \"b\"] }",
    "",
    "type = \"off\"\ninitial_state = \"down\"",
    "type = \"http\"\npath = \"/$${a}?b=\\\"\"\nhost = \"a.test\"\nstatus = 204\nport = 81",
    "type = \"send_expect\"\nsend = \"a\\r\\n\\\\ \\u0001 \u{fc} $${\"\nexpect = \"+\"",
    "type = \"send_expect\"\ncontains = \"'''\"\ninterval = \"3s\"\ntimeout = \"2s\"\nfast_interval = \"1s\"",
    "steps = [{ expect = '\\xff\\0' }, { send = 'a\\\\\\r\\n$${' , expect = \"b\" }]",
    "type = \"redis\"\nrise = 1\nfall = 9\njitter_percent = 0",
    "type = \"postgres\"\nuser = \"l4lb\"",
    "type = \"mysql\"\ninitial_state = \"up\"",
    "type = \"smtp\"\ndomain = \"lb.test\"",
    "type = \"grpc\"\nservice = \"shop.Orders\"\nhost = \"a\"",
    "type = \"mqtt\"\nclient_id = \"me\"",
];
const CHECK: [&str; 3] = [
    "",
    "[[pool.check]]\ntype = \"tcp\"\n[[pool.check]]\nname = \"two\"\ntype = \"mysql\"\nuser = \"u\"\nport = 8\n",
    "[[pool.check]]\ntype = \"grpc\"\n",
];
const AGENT: [&str; 3] = [
    "",
    "[pool.agent]\nport = 9707\nsend = \"{backend}\\n$${\"\non_lost = \"clear after 30s\"\n",
    "[pool.agent]\nport = 1\ntype = \"http\"\npath = \"/{backend}\"\nhost = \"a\"\naddress = \"::1\"\n",
];
const BACKENDS: [&str; 5] = [
    "[[pool.backend]]\naddress = \"10.0.0.1:80\"\n",
    "[[pool.backend]]\nname = \"a\"\naddress = \"[::1]:80\"\nweight = 0\npriority = 15\n",
    "[[pool.backend]]\naddress = \"one.test:80\"\n[[pool.backend]]\nname = \"b\"\naddress = \"two.test:81\"\n",
    "[[pool.backend]]\naddress = \"10.0.0.3:1\"\n\
     check = { address = \"10.0.0.4\", port = 2, interval = \"500ms\" }\n[[pool.backend]]\naddress = \":7\"\n",
    "",
];
const DISCOVER: [&str; 5] = [
    "[[pool.discover]]\ntype = \"dns\"\nname = \"web.test.\"\nport = 80\nprefer = \"both\"\nstale = \"1h\"\n",
    "[[pool.discover]]\ntype = \"dns\"\nname = \"_a._tcp.b\"\nrecord = \"srv\"\n\
     resolver = [\"127.0.0.1:53\", \"[::1]:53\"]\ninitial = \"fail\"\ninterval = \"1s\"\n",
    "[[pool.discover]]\ntype = \"file\"\npath = \"/etc/a.json\"\nmin_backends = 2\n",
    "[[pool.discover]]\ntype = \"http\"\nurl = \"http://a.test/b?c=d\"\ntoken_file = \"/e\"\nobsolete = 0\nnegatives = 9\n",
    "[[pool.discover]]\ntype = \"etcd\"\nprefix = \"/a/\"\nendpoints = [\"127.0.0.1:1\", \"[::1]:1\"]\ntls = { server_name = \"a.test\", verify = \"none\" }\nuser = \"b\"\n\
     password_file = \"/c\"\n",
];

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(
        (global, admin, listener, pool, tcp) in (
            prop::sample::select(&GLOBAL[..]), prop::sample::select(&ADMIN[..]),
            prop::sample::select(&OF_LISTENER[..]), prop::sample::select(&OF_POOL[..]),
            prop::sample::select(&TCP[..]),
        ),
        (health, check, agent, backends, discover, second) in (
            prop::sample::select(&HEALTH[..]), prop::sample::select(&CHECK[..]),
            prop::sample::select(&AGENT[..]), prop::sample::select(&BACKENDS[..]),
            prop::sample::select(&DISCOVER[..]), any::<bool>(),
        ),
    ) {
        // A table of that name is among the keys of the pool.
        let tcp = if pool.contains("tcp") { "" } else { tcp };
        let mut text = format!(
            "[global]\n{global}\n[admin]\n{admin}\n{LISTENER}{listener}\n[[pool]]\nname = \"web\"\n{pool}\n\
             {tcp}[pool.health]\n{health}\n{check}{agent}{backends}{discover}"
        );
        if second {
            text.push_str("[[pool]]\nname = \"second\"\nbackend = [{ address = \"10.1.0.1:80\" }]\n");
        }
        comes_back(&text);
    }
}

#[test]
fn a_value_of_a_variable_is_written_as_the_file_has_it() {
    fn variable(name: &str) -> Option<OsString> {
        (name == "SECRET").then(|| "s3cr3t".into())
    }
    let inputs = Inputs { variable, ..Inputs::NOTHING };
    let folder = tempfile::tempdir().expect("a folder");
    let load = |text: &str| {
        let path = folder.path().join("lb.toml");
        std::fs::write(&path, text).expect("it is written");
        let inputs = Inputs { open: |path| std::fs::File::open(path), ..inputs };
        parts(config::load(Some(&path), &Overrides::default(), inputs, &mut resolve).expect("a good config"))
    };
    for health in [
        "type = \"send_expect\"\nsend = \"AUTH ${SECRET}\\r\\n\"\nexpect = \"+OK $${\"",
        "steps = [{ send = 'AUTH ${SECRET}\\r\\n', expect = \"$${\\n\" }, { expect = \"\\\"\" }]",
        "type = \"http\"\npath = \"/${SECRET}\"\nhost = \"${SECRET}.test\"",
        "type = \"postgres\"\nuser = \"${SECRET}\"",
        "type = \"off\"\nsend = \"${SECRET}\"",
    ] {
        let backend = "[[pool.backend]]\naddress = \"10.0.0.1:80\"\n";
        let agent = "[pool.agent]\nport = 1\nsend = \"${SECRET}\"\n";
        let before =
            load(&format!("{LISTENER}[[pool]]\nname = \"web\"\n{backend}[pool.health]\n{health}\n{agent}"));
        let written = before.to_toml(&Remarks::default());
        assert!(!written.contains("s3cr3t"), "{written}");
        assert_eq!(load(&written), before, "{written}");
    }
}

#[test]
fn remarks_stand_before_what_they_are_about() {
    let config = parse(&format!(
        "{LISTENER}[[pool]]\nname = \"web\"\nbackend = [{{ name = \"a\", address = \"10.0.0.1:80\" }}, \
         {{ name = \"b\", address = \"10.0.0.2:80\" }}]\n"
    ));
    let backend = ("web".to_owned(), "b".to_owned());
    let remarks = Remarks {
        process: vec!["epoch 3".into()],
        pools: [("web".to_owned(), vec!["two\nlines".to_owned()])].into(),
        backends: [(backend, vec!["is in drain".to_owned()])].into(),
    };
    let text = config.to_toml(&remarks);
    let lines: Vec<&str> = text.lines().collect();
    let behind = |remark: &str| lines[1 + lines.iter().position(|line| *line == remark).expect(remark)];
    assert_eq!(behind("# epoch 3"), "");
    assert_eq!(behind("# two\\nlines"), "");
    assert_eq!(behind("# is in drain"), "");
    let at = text.find("# is in drain").expect("it is there");
    assert!(text[at..].starts_with("# is in drain\n\n[[pool.backend]]\nname = \"b\"\n"), "{}", &text[at..]);
    assert_eq!(parts(parse(&text)), parts(config));
}
