//! Every mistake that a command line can hold, each with the exact line that the binary prints; and what
//! `check` shows.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files has failed")]

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

/// A good file with one pool, and one with two.
const ONE_POOL: &str = "\
[[listener]]
bind = \":9090\"
[[pool]]
backend = [{ address = \"10.0.0.1:80\" }]
health = { timeout = \"1s\" }
";
const TWO_POOLS: &str = "\
[[listener]]
bind = \":9090\"
pool = \"a\"
[[pool]]
name = \"a\"
backend = [{ address = \"10.0.0.1:80\" }]
[[pool]]
name = \"b\"
backend = [{ address = \"10.0.0.1:80\" }]
";

/// Runs the binary where `one.toml` and `two.toml` are those above. Every case ends before anything is
/// served.
fn l4lb(args: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("one.toml"), ONE_POOL).unwrap();
    fs::write(dir.path().join("two.toml"), TWO_POOLS).unwrap();
    fs::write(dir.path().join("binary.toml"), b"[global]\n\xff\xfe").unwrap();
    // Blank as far as it is read, and without a block on disk.
    fs::File::create(dir.path().join("large.toml")).unwrap().set_len((16 << 20) + 1).unwrap();
    Command::new(env!("CARGO_BIN_EXE_l4lb"))
        .args(args.split_whitespace())
        .current_dir(dir.path())
        .output()
        .unwrap()
}

#[test]
fn the_doctor_prints_the_same_findings_in_columns_and_in_json() {
    let (table, json) = (l4lb("doctor -c one.toml"), l4lb("doctor -c one.toml --json"));
    assert_eq!((table.status.code(), json.status.code()), (Some(0), Some(0)), "{table:?}");
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let findings = document["findings"].as_array().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    let words = |line: &str| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = table.lines().map(words).collect();
    assert!(findings.len() > 10, "{table}");
    for finding in findings {
        let [verdict, name, found] = ["verdict", "name", "found"].map(|key| finding[key].as_str().unwrap());
        let line = words(&format!("{verdict} {name} {found}"));
        assert!(lines.contains(&line), "{line} is not in\n{table}");
    }
}

#[rustfmt::skip]
const BAD_FLAGS: &[(&str, &str)] = &[
    // Wrong values.
    ("-l 1.2.3.4", "--listen 1.2.3.4: port missing, write ADDR:PORT"),
    ("-l localhost:80", "--listen localhost:80: a listener needs an IP address like 0.0.0.0, got host name \"localhost\""),
    ("-l 127.0.0.1:0", "--listen 127.0.0.1:0: port must be 1..=65535, got \"0\""),
    ("-l [::1:80", "--listen [::1:80: IPv6 is written [ADDR]:PORT"),
    ("-l ::", "--listen ::: IPv6 needs brackets and a port, write [::]:PORT"),
    ("-l ::1:8080", "--listen ::1:8080: IPv6 needs brackets, write [::1]:8080"),
    ("-l :80 -b 1.2.3.4", "--backend 1.2.3.4: port missing, write ADDR:PORT"),
    ("-l :80 -b 1.2.3.4:99999", "--backend 1.2.3.4:99999: port must be 1..=65535, got \"99999\""),
    ("-l :80 -b 1.2.3.4:81,weight=257", "--backend 1.2.3.4:81,weight=257: weight must be 0..=256, got \"257\""),
    ("-l :80 -b 1.2.3.4:81,wieght=2", "--backend 1.2.3.4:81,wieght=2: after the address comes weight=N or nothing, got \"wieght=2\""),
    ("-l :80 -b 1.2.3.4:81,", "--backend 1.2.3.4:81,: after the address comes weight=N or nothing, got \"\""),
    ("-l :80 --balance least_conn", "--balance least_conn: must be one of round_robin, least_connections, power_of_two, source_hash, random, did you mean \"least_connections\"?"),
    ("-l :80 --balance fastest", "--balance fastest: must be one of round_robin, least_connections, power_of_two, source_hash, random"),
    ("-l :80 --workers 0", "--workers 0: must be auto or 1..=256, got \"0\""),
    ("-l :80 -w many", "--workers many: must be auto or 1..=256, got \"many\""),
    ("-l :80 --health-interval 2", "--health-interval 2: must be a duration like 500ms, 2s, 1m30s or 1h, got \"2\""),
    ("-l :80 --connect-timeout 0s", "--connect-timeout 0s: must be 1ms..=8760h, got \"0s\""),
    ("-l :80 --idle-timeout 1y", "--idle-timeout 1y: must be a duration like 500ms, 2s, 1m30s or 1h, got \"1y\""),
    ("-l :80 --max-sessions 0", "--max-sessions 0: must be 1..=10000000, got \"0\""),
    // Wrong flags and commands.
    ("", "nothing to listen on: try `l4lb -l :9090`, `l4lb -c FILE` or `l4lb demo`; see `l4lb --help`"),
    ("-b 1.2.3.4:80", "nothing to listen on: try `l4lb -l :9090`, `l4lb -c FILE` or `l4lb demo`; see `l4lb --help`"),
    ("-l", "--listen: value missing"),
    ("--lisen :80", "unexpected argument '--lisen' found, tip: a similar argument exists: '--listen'; see `l4lb --help`"),
    ("chek one.toml", "unrecognized subcommand 'chek', tip: a similar subcommand exists: 'check'; see `l4lb --help`"),
    ("-l :80 demo", "the subcommand 'demo' cannot be used with '--listen <ADDR>'; see `l4lb --help`"),
    ("-v -q -l :80", "the argument '--verbose...' cannot be used with '--quiet...'; see `l4lb --help`"),
    ("-w 1 -w 2 -l :80", "the argument '--workers <N>' cannot be used multiple times; see `l4lb --help`"),
    ("check", "the following required arguments were not provided: <FILE>; see `l4lb --help`"),
    ("backend", "the following required arguments were not provided: --port <N>; see `l4lb --help`"),
    ("backend --port 0", "--port 0: 0 is not in 1..=65535"),
    ("completions tcsh", "<SHELL> tcsh: must be one of bash, elvish, fish, powershell, zsh"),
    ("ctl", "what to ask is missing: see `l4lb ctl --help`"),
    ("ctl weight a many", "<N> many: invalid digit found in string"),
    ("ctl health a sick", "<HEALTH> sick: must be one of up, down, auto"),
    ("ctl kill", "the following required arguments were not provided: <ID|--backend <POOL/BACKEND>>; see `l4lb --help`"),
    ("ctl kill 0.1.2 --backend a", "the argument '[ID]' cannot be used with '--backend <POOL/BACKEND>'; see `l4lb --help`"),
    ("ctl drain a b --wait --dry-run", "the argument '--wait' cannot be used with '--dry-run'; see `l4lb --help`"),
    ("ctl drain", "the following required arguments were not provided: <POOL/BACKEND>...; see `l4lb --help`"),
    ("ctl weight a", "<N> a: invalid digit found in string"),
    ("ctl listener a stop", "<VERB> stop: must be one of pause, resume"),
    ("ctl drain a --timeout 1s", "the following required arguments were not provided: --wait; see `l4lb --help`"),
    ("ctl sessions -n 0", "--limit 0: 0 is not in 1..=1000"),
    ("ctl sessions --sort size", "--sort size: must be one of bytes, age, idle, backend, client"),
    ("ctl sessions --sort age --all", "the argument '--sort <KEY>' cannot be used with '--all'; see `l4lb --help`"),
    ("ctl sessions --client 10.0.0.0/33", "--client 10.0.0.0/33: must be an IP address or a network like 10.0.0.0/8 or 2001:db8::/32, got \"10.0.0.0/33\""),
    ("ctl status --socket /s --address 127.0.0.1:1", "--socket: not together with --address"),
    ("ctl status --token-file /t", "--token-file: only together with --address"),
    ("register --address :81", "the following required arguments were not provided: --pool <POOL>; see `l4lb --help`"),
    ("register --pool a --address :81 --ttl 10", "--ttl 10: must be a duration like 500ms, 2s, 1m30s or 1h, got \"10\""),
    ("register --pool a --address :81 --admin-address 127.0.0.1:1", "--admin-address: needs --token-file, the file that token_file of [admin] names"),
    ("register --etcd :2379 --pool a --address 10.0.0.1:81", "--etcd :2379: must be an address like 10.0.0.1:2379, IP and port"),
    ("register --etcd https://10.0.0.1:1,http://10.0.0.2:1 --pool a --address 10.0.0.1:81", "--etcd: must be http:// without TLS, or all https://"),
    ("register --etcd 10.0.0.1:1,10.0.0.1:1 --pool a --address 10.0.0.1:81", "--etcd: 10.0.0.1:1 is there twice"),
    ("register --etcd 10.0.0.1:1 --prefix /a --address 10.0.0.1:81", "--prefix /a: must end with a slash like \"/l4lb/web/\", or keys of other names begin so too"),
    ("register --prefix /a/ --address 10.0.0.1:81", "the following required arguments were not provided: --etcd <ADDR,...>; see `l4lb --help`"),
    ("register --etcd 10.0.0.1:1 --pool a --address web.example:81", "--address: web.example:81: with --etcd it must be an IP with a port"),
    ("register --etcd 10.0.0.1:1 --pool a/b --address 10.0.0.1:81", "--pool: must be 1..=64 characters of A-Z a-z 0-9 . _ : - [ ], got \"a/b\""),
    ("register --etcd 10.0.0.1:1 --pool a --address 10.0.0.1:81 --priority 3 --backup", "--backup: priority: 3 contradicts backup = true: backup = true means priority = 15"),
    ("register --etcd 10.0.0.1:1 --pool a --address 10.0.0.1:81 --user b", "the following required arguments were not provided: --password-file <FILE>; see `l4lb --help`"),
    ("register --etcd 10.0.0.1:1 --socket /s --pool a --address 10.0.0.1:81", "the argument '--etcd <ADDR,...>' cannot be used with '--socket <PATH>'; see `l4lb --help`"),
    // Flags against each other and against the file.
    ("-l :8081", "--backend 127.0.0.1:8081: address: 127.0.0.1:8081 is our own listener 0.0.0.0:8081, see --listen 0.0.0.0:8081"),
    ("-l :8080 -b :8081 --metrics :8081", "--backend 127.0.0.1:8081: address: 127.0.0.1:8081 is our own metrics address 0.0.0.0:8081, see --metrics 0.0.0.0:8081"),
    ("-l :80 -l 127.0.0.1:80", "--listen 127.0.0.1:80: bind: 127.0.0.1:80 overlaps 0.0.0.0:80, see --listen 0.0.0.0:80"),
    ("-l :80 -b :81 -b :81,weight=2", "--backend 127.0.0.1:81,weight=2: address: 127.0.0.1:81 is taken, see --backend 127.0.0.1:81"),
    ("check one.toml -l :9090", "--listen 0.0.0.0:9090: bind: 0.0.0.0:9090 overlaps 0.0.0.0:9090, see line 2"),
    ("check one.toml -b 10.0.0.1:80", "--backend 10.0.0.1:80: address: 10.0.0.1:80 is taken, see line 4"),
    ("check one.toml --health-interval 500ms", "one.toml:5: pool \"default\": health: timeout: must be at most the interval, which is 500ms, got 1s"),
    ("check two.toml -l :80", "--listen 0.0.0.0:80: the file has several pools: write it there, as [[listener]]"),
    ("-c two.toml -b 10.0.0.2:80,weight=3", "--backend 10.0.0.2:80,weight=3: the file has several pools: write it there, as [[pool.backend]]"),
    ("-c none.toml", "none.toml: cannot read it: No such file or directory (os error 2)"),
    ("check .", ".: cannot read it: Is a directory (os error 21)"),
    ("check binary.toml", "binary.toml:2: not UTF-8"),
    ("check large.toml", "large.toml: larger than 16 MiB"),
];

#[test]
fn each_bad_command_line_prints_exactly_its_line_and_exits_with_2() {
    let mut wrong = String::new();
    for (args, expected) in BAD_FLAGS {
        let Output { status, stdout, stderr } = l4lb(args);
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        if status.code() != Some(2) || stderr != format!("{expected}\n") || !stdout.is_empty() {
            wrong += &format!(
                "{args:?}\n  expected {expected}\n  found    {stderr}  {status}, stdout {stdout:?}\n"
            );
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// An address of RFC 5737, which no machine has.
#[test]
fn an_address_of_another_machine_is_reported_once_and_exits_with_1() {
    let Output { status, stderr, .. } = l4lb("-q -l 192.0.2.1:9090 -b 127.0.0.1:1");
    assert_eq!(
        String::from_utf8_lossy(&stderr),
        "l4lb: listener \"192.0.2.1:9090\": cannot listen on 192.0.2.1:9090: Cannot assign requested address \
         (os error 99); no interface of this machine has that address\n"
    );
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_backend_whose_port_is_taken_names_the_holder_and_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let Output { status, stderr, .. } = l4lb(&format!("backend --port {}", address.port()));
    let stderr = String::from_utf8_lossy(&stderr);
    let start = format!("l4lb: cannot listen on {address}: address in use, held by ");
    assert!(stderr.starts_with(&start), "{stderr}");
    assert!(stderr.contains(&format!("(pid {})", std::process::id())), "{stderr}");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn check_shows_what_file_and_flags_would_run() {
    let output = l4lb(
        "check one.toml -l [::1]:80 -b 10.0.0.2:80,weight=3 --balance source_hash -w 3 --health-interval 4s \
         --connect-timeout 1s --idle-timeout 1m30s --max-sessions 7 -q",
    );
    // Limits of this machine are reported, and are no error.
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.lines().all(|line| line.starts_with("warning: address: ")), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (config, limits) = stdout.split_once("limits: ").unwrap();
    assert_eq!(
        config,
        "\
global: workers=3 pin=false splice=true busy_poll=0s drain_timeout=30s shutdown_delay=0s reload_timeout=30s max_sessions=7 log=warn,text
admin: socket=default
listener 0.0.0.0:9090: pool=default bind=0.0.0.0:9090 connect=1s idle=1m30s half_close=30s backlog=4096 accept=reuseport
listener [::1]:80: pool=default bind=[::1]:80 connect=1s idle=1m30s half_close=30s backlog=4096 accept=reuseport
pool default: balance=source_hash retries=2 when_all_down=close relay=auto on_remove=drain drain_timeout=30s
  timeouts: connect=1s idle=1m30s half_close=30s
  tcp: nodelay=true keepalive=1m/15s/4 user_timeout=30s
  health: type=tcp interval=4s fast_interval=500ms timeout=1s rise=2 fall=3 jitter_percent=10 initial_state=unknown
  backend 10.0.0.1:80: address=10.0.0.1:80 weight=1
  backend 10.0.0.2:80: address=10.0.0.2:80 weight=3
"
    );
    assert!(limits.starts_with("max_sessions=7, "), "{limits}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn help_version_and_completions_are_no_errors() {
    for (args, expected) in [
        ("--help", "Durations are written 500ms, 2s, 1m30s, 1h."),
        ("--help", "Manual: README.md and src/manual/"),
        ("check --help", "Flags are applied as with -c."),
        ("--version", "l4lb 0."),
        ("completions bash", "round_robin"),
        ("ctl --help", "l4lb ctl drain web/10.0.0.1:80 --wait"),
        ("ctl drain --help", "--wait"),
        ("ctl explain --codes", "BC one whose backend refused it"),
        ("register --help", "drains and removes the backend"),
        ("top --help", "s sort by the next column"),
        ("import --help", "is accepted by `l4lb check`"),
        ("man", ".TH l4lb-ctl-drain 1"),
        ("man", ".TH l4lb.toml 5"),
        ("completions fish", "least_connections"),
    ] {
        let Output { status, stdout, stderr } = l4lb(args);
        assert!(String::from_utf8_lossy(&stdout).contains(expected), "{args}");
        assert_eq!((status.code(), stderr), (Some(0), Vec::new()), "{args}");
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().display().to_string();
    let output = l4lb(&format!("man --out {out}"));
    assert_eq!((output.status.code(), output.stdout.len(), output.stderr.len()), (Some(0), 0, 0));
    for name in [
        "l4lb",
        "l4lb-check",
        "l4lb-ctl",
        "l4lb-ctl-status",
        "l4lb-ctl-log-level",
        "l4lb-register",
        "l4lb-top",
    ] {
        let page = fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")) && !page.contains(".SH EXTRA"), "{page}");
    }
    let nowhere = l4lb(&format!("man --out {out}/none"));
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).starts_with("l4lb: cannot write the pages: "));
}

#[test]
fn an_imported_configuration_is_printed_and_what_is_not_in_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let [source, result] =
        ["haproxy.cfg", "l4lb.toml"].map(|name| dir.path().join(name).display().to_string());
    let known = "listen web\n bind :80\n server a 10.0.0.1:80 check\n";
    fs::write(&source, format!("{known} cookie x\n")).unwrap();
    let imported = l4lb(&format!("import {source}"));
    assert_eq!(imported.status.code(), Some(0));
    let notes = String::from_utf8(imported.stderr).unwrap();
    assert!(notes.starts_with(&format!("{source}:4: cookie x: ")) && notes.lines().count() == 1, "{notes}");
    fs::write(&result, &imported.stdout).unwrap();
    assert_eq!(l4lb(&format!("check {result}")).status.code(), Some(0));
    assert_eq!(l4lb(&format!("import --strict {source}")).status.code(), Some(1));
    fs::write(&source, known).unwrap();
    assert_eq!(l4lb(&format!("import --strict {source}")).status.code(), Some(0));
    fs::write(&source, "global\n daemon\n").unwrap();
    let nothing = l4lb(&format!("import {source}"));
    assert_eq!((nothing.status.code(), nothing.stdout), (Some(1), Vec::new()));
    let nowhere = l4lb("import nowhere.cfg");
    assert_eq!((nowhere.status.code(), nowhere.stdout), (Some(2), Vec::new()));
}
