//! `l4lb ctl` as operators and their scripts run it: what it prints, what it changes, how it ends.

use std::process::{Command, Output, Stdio};

use l4lb::api;
use serde::de::DeserializeOwned;

use crate::harness::daemon::Daemon;
use crate::harness::fake_admin_api::Canned;
use crate::harness::lab::{IPV4, setup};
use crate::harness::peer::{free_address, until};
use crate::harness::program::{Lines, Program, output};

const WEB: &str = "[[pool]]\nname = \"web\"\nhealth = { type = \"off\" }\n\
    backend = [{ name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"[::1]:2\" }]\n";

/// What a command has said.
struct Printed {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn said(mut command: Command) -> Printed {
    let Output { status, stdout, stderr } = output(&mut command);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Printed { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn ctl_command(daemon: &Daemon, args: &str) -> Command {
    let args: Vec<&str> = ["ctl"].into_iter().chain(args.split_whitespace()).collect();
    daemon.command(&args)
}

fn ctl(daemon: &Daemon, args: &str) -> Printed {
    said(ctl_command(daemon, args))
}

/// What a command prints that does what it should.
#[track_caller]
fn done(said: Printed) -> String {
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{}", said.stdout);
    said.stdout
}

/// The line of a command that does not do it, and its exit code.
#[track_caller]
fn refused(said: &Printed) -> (i32, &str) {
    assert_eq!((said.stdout.as_str(), said.stderr.lines().count()), ("", 1), "{}", said.stderr);
    (said.code.expect("it exits"), said.stderr.trim_end())
}

fn is<T: DeserializeOwned>(json: &str) {
    if let Err(error) = serde_json::from_str::<T>(json) {
        panic!("{error}: {json}");
    }
}

/// Arguments, words of the table, and the type of the JSON.
type Case = (&'static str, &'static [&'static str], fn(&str));

#[rustfmt::skip]
const SHOWN: &[Case] = &[
    ("status", &["process ", "serving, l4lb 0.", "WORKER", "SESSIONS"], is::<api::Status>),
    ("listeners", &["LISTENER", "1 listener, 0 sessions"], is::<Vec<api::Listener>>),
    ("pools", &["round_robin", "1 pool, 2 backends, 2 eligible, 0 sessions"], is::<Vec<api::Pool>>),
    ("backends", &["web/a", "web/b", "[::1]:2", "2 backends, 2 eligible"], is::<Vec<api::Backend>>),
    ("backends web", &["web/a"], is::<Vec<api::Backend>>),
    ("topology", &["web: round_robin", "web/a", "50.0%", "+0.0%"], is::<api::Topology>),
    ("config", &["# epoch 0, file: ", "pool web: balance=round_robin"], is::<api::Config>),
    ("listeners", &["STATE", "listening"], is::<Vec<api::Listener>>),
    ("config --toml", &["[[pool]]\nname = \"web\"", "[[pool.backend]]\nname = \"a\""], is::<api::ConfigToml>),
    ("sessions", &["0 sessions"], is::<api::SessionPage>),
    ("sessions --sort bytes", &["0 sessions"], is::<api::SessionPage>),
    ("sessions --sort age --backend w*/* --client 10.0.0.0/8 -n 5", &["0 sessions"], is::<api::SessionPage>),
    ("sessions --ended --sort client", &[], is::<api::SessionPage>),
    ("drains", &[], is::<api::Drains>),
    ("reload --dry-run", &[], is::<api::ReloadReport>),
    ("reload", &[], is::<api::ReloadReport>),
    ("log-level", &["info"], is::<api::LogLevel>),
    ("log-level debug", &["debug"], is::<api::LogLevel>),
    ("weight a 7", &["web/a: ", "weight 7, may have new sessions"], is::<api::Backend>),
    ("events -n 5", &["  backend  ", "web/a: weight 1 -> 7 (uid "], is::<Vec<api::Event>>),
    ("events --audit -n 1", &["web/a: weight 1 -> 7 (uid "], is::<Vec<api::Event>>),
    ("weight web/b 0", &["web/b: ", "weight 0, gets no new sessions"], is::<api::Backend>),
    ("drain web/a", &["web/a: drain,", "gets no new sessions, has 0 sessions"], is::<api::Backend>),
    ("drain web/a --wait", &["web/a: drain,"], is::<api::Backend>),
    ("maint a", &["web/a: maint,"], is::<api::Backend>),
    ("ready a", &["web/a: ", "may have new sessions"], is::<api::Backend>),
    ("health a down", &["web/a: down,override", "gets no new sessions"], is::<api::Backend>),
    ("health a auto", &["web/a: unknown,", "may have new sessions"], is::<api::Backend>),
    ("weight * 3 --dry-run", &["web/a: ", "would change: weight ", "2 backends, 2 would change"], is::<api::BackendsChanged>),
    ("weight a b 3", &["web/a: ", "2 backends, 2 changed"], is::<api::BackendsChanged>),
    ("set a address=127.0.0.1:9 priority=1 --dry-run", &["would change: address 127.0.0.1:1 -> 127.0.0.1:9, priority 0 -> 1"], is::<api::BackendsChanged>),
    ("set web/a weight=3 address=127.0.0.1:9", &["web/a: ", "1 backend, 1 changed"], is::<api::BackendsChanged>),
    ("backends", &["127.0.0.1:9", "address set by uid ", " in place of 127.0.0.1:1"], is::<Vec<api::Backend>>),
    ("set * priority=2", &["2 backends, 2 changed"], is::<api::BackendsChanged>),
    ("set * address=default priority=default", &["address 127.0.0.1:9 -> 127.0.0.1:1, priority 2 -> 0"], is::<api::BackendsChanged>),
    ("drain web/a --force", &["; admin state ready -> drain", "1 backend, 1 changed"], is::<api::BackendsChanged>),
    ("ready */127.0.0.1:* web/b", &["; as it was", "2 backends, 1 changed"], is::<api::BackendsChanged>),
    ("health w*/? down --force", &["2 backends, 2 changed"], is::<api::BackendsChanged>),
    ("health web/a b auto", &["2 backends, 2 changed"], is::<api::BackendsChanged>),
    ("add :3 --name c --weight 2 --ttl 1h", &["web/c: ", "weight 2,", "its lease ends in "], is::<api::Backend>),
    ("add [::1]:4 --pool web --backup", &["web/[::1]:4: ", "priority 15"], is::<api::Backend>),
    ("weight web/[::1]:4 5", &["weight 5"], is::<api::Backend>),
];

#[test]
fn each_command_prints_text_or_json() {
    let daemon = Daemon::start(WEB, IPV4);
    for (args, words, read) in SHOWN {
        let quiet = |said: Printed| Printed { stderr: String::new(), ..said };
        let text = done(quiet(ctl(&daemon, args)));
        for word in *words {
            assert!(text.contains(word), "{args}: no {word:?} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{args}: a pipe is no terminal: {text:?}");
        read(&done(quiet(ctl(&daemon, &format!("{args} --json")))));
    }
    assert_eq!(done(ctl(&daemon, "remove web/c")), "web/c: removed, has 0 sessions left\n");
    is::<api::Removed>(&done(ctl(&daemon, "remove [::1]:4 --json")));
    let backends: Vec<api::Backend> = daemon.admin().get("/v1/backends").expect("backends");
    let names: Vec<&str> = backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_failed_command_is_one_line_and_an_exit_code() {
    let two = format!(
        "pool = \"web\"\n{WEB}[[pool]]\nname = \"api\"\nbackend = [{{ address = \"127.0.0.1:3\" }}]\n"
    );
    let daemon = Daemon::start(&two, IPV4);
    for (args, expected, code) in [
        ("weight a 1", "a: name the pool, there are several: web, api", 2),
        ("add :5", "--pool: name the pool, there are several: web, api", 2),
        ("weight /a 1", "/a: a backend is named POOL/BACKEND", 2),
        ("weight web/a 257", "<N> 257: 257 is not in 0..=256", 2),
        ("set web/a", "what to set is missing: address=ADDR, priority=N or weight=N, behind the backends", 2),
        ("set web/a weight=257", "weight=257: must be 0..=256, got \"257\"", 2),
        ("set web/none priority=1", "l4lb: pool \"web\" has no backend \"none\"", 1),
        ("set web/* address=127.0.0.1:9", "l4lb: address: names one backend by its name, got web/*", 1),
        ("set web/a address=127.0.0.1:0", "address=127.0.0.1:0: port must be 1..=65535, got \"0\"", 2),
        ("explain --codes --json", "--codes: not available as JSON", 2),
        (
            "status --address 127.0.0.1:1",
            "--address: needs --token-file, the file that token_file of [admin] names",
            2,
        ),
        ("ready web/none", "l4lb: pool \"web\" has no backend \"none\"", 1),
        ("ready web/a web/none", "l4lb: pool \"web\" has no backend \"none\"", 1),
        ("sessions --backend web/x*", "l4lb: no backend matches \"web/x*\"", 1),
        ("maint web/x*", "l4lb: no backend matches \"web/x*\"", 1),
        ("maint a* b", "l4lb: a*: name the pool, there are several: web, api", 1),
        (
            "maint web/* --dry-run",
            "l4lb: pool \"web\" would have no eligible backend left: nothing is changed unless it is forced (--force)",
            1,
        ),
        ("listener wbe pause", "l4lb: there is no listener \"wbe\"", 1),
        ("backends none", "l4lb: there is no pool \"none\"", 1),
        (
            "add 127.0.0.1:1 --pool web",
            "l4lb: pool \"web\": backend \"127.0.0.1:1\": 127.0.0.1:1 is backend \"a\" already",
            1,
        ),
        ("log-level loud", "l4lb: level: must be one of off, error, warn, info, debug, trace", 1),
    ] {
        assert_eq!(refused(&ctl(&daemon, args)), (code, expected), "{args}");
    }
}

#[test]
fn the_places_searched_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let l4lb = |args: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_l4lb"));
        command.args(args.split_whitespace()).env("RUNTIME_DIRECTORY", folder.path());
        said(command)
    };
    let socket = folder.path().join("admin.sock").display().to_string();
    let remedy =
        "No such file or directory (os error 2); is it running? Its socket can be given with --socket";
    assert_eq!(refused(&l4lb("ctl status")), (1, &*format!("l4lb: cannot reach l4lb at {socket}: {remedy}")));
    let elsewhere = l4lb("ctl status --socket /none/such");
    assert_eq!(refused(&elsewhere), (1, &*format!("l4lb: cannot reach l4lb at /none/such: {remedy}")));
}

#[test]
fn a_drain_is_waited_for_until_its_last_session_has_gone() {
    let lab = setup().start_daemon();
    let relay = lab.relay().established();
    let name = lab.backend_address().to_string();
    let late = ctl(&lab.server, &format!("drain {name} --wait --timeout 10ms"));
    assert_eq!((late.code, late.stdout.as_str()), (Some(1), ""));
    let last = format!("l4lb: default/{name}: 1 session left after 10ms");
    assert_eq!(late.stderr.lines().last(), Some(&*last), "{}", late.stderr);

    let mut waiting = Piped::start(&lab.server, &format!("drain {name} --wait"));
    let progress = |left| format!("default/{name}: {left} of 1 session left after ");
    assert!(waiting.stderr.next().starts_with(&progress(1)));
    drop(relay);
    assert!(waiting.stderr.next().starts_with(&progress(0)));
    let (status, stdout) = (waiting.program.ends(), waiting.stdout.rest());
    assert!(status.success() && stdout.iter().any(|line| line.contains("has 0 sessions")), "{stdout:?}");
    lab.stops();
}

#[test]
fn of_a_set_that_drains_the_progress_of_each_is_shown() {
    let lab = setup().start_daemon();
    let relay = lab.relay().established();
    let name = lab.backend_address().to_string();
    let mut waiting = Piped::start(&lab.server, &format!("drain def*/* {name} --wait --force"));
    let progress = |left| format!("default/{name}: {left} of 1 session left after ");
    assert!(waiting.stderr.next().starts_with(&progress(1)));
    drop(relay);
    assert!(waiting.stderr.next().starts_with(&progress(0)));
    let (status, stdout) = (waiting.program.ends(), waiting.stdout.rest());
    assert!(status.success(), "{stdout:?}");
    assert!(
        stdout.iter().any(|line| line.ends_with("has 0 sessions; admin state ready -> drain")),
        "{stdout:?}"
    );
    lab.stops();
}

/// Returns the running configuration as a file, read as `l4lb check` reads it.
fn config_of(daemon: &Daemon) -> (String, l4lb::config::Config) {
    let text = done(ctl(daemon, "config --toml"));
    let no_names = &mut |_: &str| Err(std::io::Error::other("no names here"));
    let parsed = l4lb::config::parse(&text, "running", &l4lb::config::Overrides::default(), no_names);
    let config = parsed.unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
    (text, config)
}

#[test]
fn the_configuration_that_is_printed_has_what_was_changed_at_run_time() {
    let daemon = Daemon::start(WEB, IPV4);
    let backends = |config: &l4lb::config::Config| -> Vec<String> {
        let all = config.pools.iter().flat_map(|pool| &pool.backends);
        all.map(|backend| format!("{}@{}*{}", backend.name, backend.address, backend.weight)).collect()
    };
    let (_, config) = config_of(&daemon);
    assert_eq!(backends(&config), ["a@127.0.0.1:1*1", "b@[::1]:2*1"]);
    for change in [
        "weight a 7",
        "drain a",
        "remove b",
        "add :3 --name c --weight 2 --priority 4",
        "add :4 --ttl 1h",
        "health c down",
        "log-level debug",
        "ready-fail on",
        "set a address=127.0.0.1:9 priority=3",
    ] {
        done(ctl(&daemon, change));
    }
    let (text, config) = config_of(&daemon);
    assert_eq!(backends(&config), ["a@127.0.0.1:9*7", "c@127.0.0.1:3*2"]);
    assert_eq!(config.pools[0].backends[1].priority, 4);
    for remark in [
        "# log level at present: debug\n",
        "# ready-fail is on, set by uid ",
        "# 127.0.0.1:4 at 127.0.0.1:4, weight 1, is registered with a lease by uid ",
        "# weight was set at run time, the configuration has 1\n# address 127.0.0.1:9 and priority 3 set at run time by ",
        ", the configuration has address 127.0.0.1:1 and priority 0\n# is in drain, set at run time\n",
        "# registered at run time by uid ",
        "# health is down, set at run time\n",
    ] {
        assert!(text.contains(remark), "no {remark:?} in\n{text}");
    }
    // A pool must list a backend, so the last one is there without its lease.
    done(ctl(&daemon, "remove a"));
    done(ctl(&daemon, "remove c"));
    let (text, config) = config_of(&daemon);
    assert_eq!(backends(&config), ["127.0.0.1:4@127.0.0.1:4*1"]);
    assert!(text.contains("; here it has none\n"), "{text}");
}

/// A command whose output is read while it runs.
struct Piped {
    program: Program,
    stdout: Lines,
    stderr: Lines,
}

impl Piped {
    fn start(daemon: &Daemon, args: &str) -> Self {
        let mut command = ctl_command(daemon, args);
        let mut program = Program::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let [stdout, stderr] = [Lines::of(program.stdout()), Lines::of(program.stderr())];
        Self { program, stdout, stderr }
    }
}

#[test]
fn events_are_followed_until_the_reader_ends() {
    let daemon = Daemon::start(WEB, IPV4);
    done(ctl(&daemon, "weight a 2"));
    let Piped { mut program, stdout: text, stderr } = Piped::start(&daemon, "events --follow");
    let json = Piped::start(&daemon, "events --follow --json");
    // Each has printed the events so far; later ones cannot be missed.
    for lines in [&text, &json.stdout] {
        lines.find("the first change", |line| line.contains("weight 1 -> 2"));
    }
    done(ctl(&daemon, "weight a 3"));
    assert!(text.next().contains("web/a: weight 2 -> 3 (uid "));
    is::<api::Event>(&json.stdout.next());

    // Its reader goes away, as `head` does.
    drop(text);
    let mut weight = 3;
    until("it ends without a reader", || {
        // Another one each time: what changes nothing is no event.
        weight = 10 + (weight + 1) % 10;
        done(ctl(&daemon, &format!("weight a {weight}")));
        program.status().is_some()
    });
    assert_eq!((program.ends().code(), stderr.rest()), (Some(0), Vec::new()));
}

fn json(value: &impl serde::Serialize) -> (u16, String) {
    (200, serde_json::to_string(value).expect("JSON"))
}

fn session(id: &str) -> api::Session {
    api::Session {
        id: id.into(),
        listener: "front".into(),
        pool: "web".into(),
        backend: Some("a".into()),
        backend_address: Some("10.0.0.1:80".into()),
        client: "192.0.2.7:1234".into(),
        peer: None,
        sni: None,
        alpn: None,
        route: None,
        source: None,
        state: "relaying".into(),
        age: 1.0,
        idle: 1.0,
        to_backend: 1,
        to_client: 1,
        reason: None,
        ended_ago: None,
    }
}

/// Asks an API that gives `answers`: what it prints, and what it has asked.
#[track_caller]
fn asks<const N: usize>(args: &str, answers: [(u16, String); N]) -> (String, [String; N]) {
    let folder = tempfile::tempdir().expect("a folder");
    let canned = Canned::start(folder.path(), answers.into());
    let mut command = Command::new(env!("CARGO_BIN_EXE_l4lb"));
    command.arg("ctl").args(args.split_whitespace()).arg("--socket").arg(&canned.socket);
    (done(said(command)), std::array::from_fn(|_| canned.asked()))
}

#[test]
fn sessions_are_read_page_by_page() {
    let pages = || {
        let next = Some("0.2".to_owned());
        let first = api::SessionPage { sessions: vec![session("0.1.0")], next, has_older: false };
        [
            json(&first),
            json(&api::SessionPage { sessions: vec![session("0.2.0")], next: None, has_older: false }),
        ]
    };
    let [first, last] = pages();
    let (text, asked) = asks("sessions --client 192.0.2.7 -n 1", [first.clone()]);
    assert_eq!(asked, ["GET /v1/sessions?client=192.0.2.7&limit=1"]);
    assert!(text.contains("0.1.0") && text.ends_with("there are more: --from 0.2, or --all\n"), "{text}");
    let (text, asked) = asks("sessions --backend web/a --all", pages());
    let query = "GET /v1/sessions?pool=web&backend=a";
    assert_eq!(asked, [query.to_owned(), format!("{query}&from=0.2")]);
    assert!(text.contains("0.1.0") && text.contains("2 sessions, 2 B to backends"), "{text}");
    let (text, _) = asks("sessions --all --json", pages());
    assert_eq!(text, format!("{}\n{}\n", first.1, last.1));
}

#[test]
fn session_and_configuration_commands_request_their_paths() {
    let killed = json(&api::Killed { sessions: 2 });
    let (text, asked) = asks("kill 0.12.3", [killed.clone()]);
    assert_eq!((text.as_str(), asked), ("2 sessions cut\n", ["DELETE /v1/sessions/0.12.3".to_owned()]));
    let (_, asked) = asks("kill --backend web/[::1]:80", [killed]);
    assert_eq!(asked, ["DELETE /v1/pools/web/backends/%5B%3A%3A1%5D%3A80/sessions"]);

    let explanation = api::Explanation {
        session: session("0.12.3"),
        story: vec!["accepted".into()],
        candidates: Vec::new(),
        as_of_choice: true,
        end_code: None,
        end: None,
    };
    let (text, asked) = asks("explain 0.12.3", [json(&explanation)]);
    assert_eq!(asked, ["GET /v1/sessions/0.12.3/explanation"]);
    assert!(text.contains("  1. accepted\n"), "{text}");

    let report = api::ReloadReport { applied: true, epoch: 4, changes: Vec::new(), notes: Vec::new() };
    let (text, asked) = asks("reload", [json(&report)]);
    assert_eq!(
        (text.as_str(), asked),
        ("nothing to change, epoch 4\n", ["POST /v1/config/reload".to_owned()])
    );
    let (_, asked) = asks("reload --dry-run", [json(&report)]);
    assert_eq!(asked, ["POST /v1/config/diff"]);
    let (_, asked) = asks("drains", [json(&api::Drains { process: None, backends: Vec::new() })]);
    assert_eq!(asked, ["GET /v1/drains"]);
}

#[test]
fn the_token_is_shown_over_tcp() {
    let admin = free_address();
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "0123456789abcdef0123456789abcdef\n").expect("write");
    let file = token.path().display();
    let daemon =
        Daemon::start(&format!("{WEB}[admin]\nlisten = \"{admin}\"\ntoken_file = \"{file}\"\n"), IPV4);
    let text = done(ctl(&daemon, &format!("pools --address {admin} --token-file {file}")));
    assert!(text.contains("1 pool, 2 backends"), "{text}");
    std::fs::write(token.path(), "not the token at all").expect("write");
    let (code, line) = (1, "l4lb: the token does not match that of token_file");
    assert_eq!(refused(&ctl(&daemon, &format!("pools --address {admin} --token-file {file}"))), (code, line));
}
