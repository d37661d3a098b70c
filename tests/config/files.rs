//! Configurations of several files, and values from environment variables.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use l4lb::config::diff::diff;
use l4lb::config::model::Check;
use l4lb::config::{self, Config, Error, Inputs, Overrides};

use super::At::*;
use super::{file, lines_of, resolve};

/// What these tests set; `LATIN` is no UTF-8.
const VARIABLES: Inputs = Inputs {
    variable: |name| match name {
        "PORT" => Some("8081".into()),
        "WEIGHT" => Some("7".into()),
        "HEAVY" => Some("too much".into()),
        "WORKERS" => Some("3".into()),
        "PIN" => Some("true".into()),
        "SECRET" => Some("hunter2".into()),
        "BACKSLASHES" => Some(r"a\nb\".into()),
        "LINES" => Some("x\"\n[[pool]]\nname = \"evil".into()),
        "LATIN" => Some(OsString::from_vec(vec![b'a', 0xe9])),
        _ => None,
    },
    ..l4lb::sys::INPUTS
};

fn load_with_variables(text: &str) -> Result<Config, Vec<Error>> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.toml");
    std::fs::write(&file, text).expect("write it");
    let result = config::load(Some(&file), &Overrides::default(), VARIABLES, &mut resolve);
    // Only the name is of interest.
    let folder = format!("{}/", folder.path().display());
    result.map_err(|errors| {
        let mut errors = errors;
        for error in &mut errors {
            if let Error::Line { file, what, .. } | Error::File { file, what } = error {
                *file = file.replace(&folder, "");
                *what = what.replace(&folder, "");
            }
        }
        errors
    })
}

#[test]
fn values_take_environment_variables_in_whatever_they_are() {
    let text = file(Global, "workers = \"${WORKERS}\"\npin = \"${PIN}\"")
        .replace("name = \"web\"", "name = \"web-${WEIGHT}\"")
        .replace("\"10.0.0.1:80\"", "\"10.0.0.1:${PORT}\"\nweight = \"${WEIGHT}\"");
    let config = load_with_variables(&text).unwrap();
    let (global, pool) = (&config.global, &config.pools[0]);
    assert_eq!((global.workers.get(), global.pin, pool.name.as_str()), (3, true, "web-7"));
    assert_eq!(
        (pool.backends[0].address.to_string().as_str(), pool.backends[0].weight),
        ("10.0.0.1:8081", 7)
    );
}

#[test]
fn a_variable_that_cannot_be_put_in_is_reported_with_its_place() {
    for (at, lines, expected) in [
        (
            Global,
            "workers = \"${GONE}\"",
            "x.toml:2: global: workers: the environment variable GONE is not set",
        ),
        (
            Backend,
            "name = \"a\"\nweight = \"${GONE}\"",
            "x.toml:18: pool \"web\": backend \"a\": weight: the environment variable GONE is not set",
        ),
        (
            Health,
            "type = \"${LATIN}\"",
            "x.toml:14: pool \"web\": health: type: the environment variable LATIN is not UTF-8",
        ),
        (
            Global,
            "access_log = { path = \"a\", at = [\"${GONE}\"] }",
            "x.toml:2: global: access_log: at: the environment variable GONE is not set",
        ),
        (
            Pool,
            "balance = \"${GONE\"",
            "x.toml:8: pool \"web\": balance: ${ without }: write ${NAME}, or $${ for what is no variable",
        ),
        // Messages repeat what the file has.
        (
            Backend,
            "weight = \"${HEAVY}\"",
            "x.toml:17: pool \"web\": backend 10.0.0.1:80: weight: must be a whole number 0..=256, got \"${HEAVY}\"",
        ),
        (
            Global,
            "workers = \"${SECRET}\"",
            "x.toml:2: global: workers: must be \"auto\" or 1..=256, got \"${SECRET}\"",
        ),
        (
            Backend,
            "[[pool.discover]]\ntype = \"dns\"\nname = \"${LINES}\"\nport = 80",
            "x.toml:19: pool \"web\": discover \"${LINES}\": name: must be a name like \"web.service.local\", \
             got \"${LINES}\"",
        ),
        (
            Backend,
            "[[pool.discover]]\ntype = \"dns\"\nname = \"a\"\nport = 80\nresolver = [\"127.0.0.1:53\", \"${SECRET}\"]",
            "x.toml:21: pool \"web\": discover \"a\": resolver: must be a list of addresses like \
             \"127.0.0.1:8600\", IP and port, got a list with \"${SECRET}\"",
        ),
        (
            Health,
            "type = \"command\"\ncommand = [\"/bin/true\", \"${SECRET}\"]",
            "x.toml:15: pool \"web\": health: command: must have no ${variable}: any user of this machine may read the \
             arguments of a program",
        ),
        // A number in quotes is no number but where a variable has put it.
        (
            Global,
            "max_sessions = \"7\"",
            "x.toml:2: global: max_sessions: must be a whole number 1..=10000000, got \"7\"",
        ),
    ] {
        let errors = load_with_variables(&file(at, lines)).unwrap_err();
        assert_eq!(lines_of(&errors), [expected], "{lines}");
    }
    let both = load_with_variables(&file(Global, "pin = \"${ONE}\"\nsplice = \"${OTHER}\"")).unwrap_err();
    assert_eq!(both.len(), 2, "one mistake hides no other: {both:?}");
}

/// Were they put into the text, a variable could write tables.
#[test]
fn the_content_of_a_variable_stays_in_its_value() {
    let text = file(Health, "type = \"send_expect\"\nsend = \"${LINES}\"\nexpect = \"+\"");
    let config = load_with_variables(&text).unwrap();
    assert_eq!(config.pools.len(), 1);
}

#[test]
fn the_bytes_of_a_check_are_shown_as_in_the_file() {
    let text = |send: &str| {
        let keys = format!("type = \"send_expect\"\nsend = \"AUTH {send}\\r\\n\"\nexpect = \"+OK\"");
        load_with_variables(&file(Health, &keys)).unwrap()
    };
    let config = text("${SECRET}");
    let Check::SendExpect { send, .. } = &config.pools[0].health.check else { panic!("another check") };
    assert_eq!(send.as_slice(), b"AUTH hunter2\r\n");
    let shown = config.to_string();
    assert!(shown.contains("send=\"AUTH ${SECRET}\\r\\n\" expect=\"+OK\""), "{shown}");
    let changes: Vec<String> = diff(&text("x"), &config).iter().map(ToString::to_string).collect();
    let expected = "pool \"web\": health.send \"AUTH x\\r\\n\" -> \"AUTH ${SECRET}\\r\\n\"";
    assert_eq!(changes, [expected]);
    assert!(!shown.contains("hunter2"));
}

/// A password may have a backslash.
#[test]
fn the_content_of_a_variable_has_no_escapes() {
    let steps = r"steps = [{ send = 'AUTH ${BACKSLASHES}\r\n', expect = '+${SECRET}\x20' }]";
    let config = load_with_variables(&file(Health, steps)).unwrap();
    let health = &config.pools[0].health;
    let Check::Script(steps) = &health.check else { panic!("another check") };
    assert_eq!(steps[0].send.as_slice(), b"AUTH a\\nb\\\r\n");
    assert_eq!(steps[0].expect.as_slice(), b"+hunter2 ");
    let secrets: Vec<(&str, &str)> =
        health.secrets.iter().map(|secret| (secret.variable.as_str(), secret.value.as_str())).collect();
    assert_eq!(secrets, [("SECRET", "hunter2"), ("BACKSLASHES", r"a\nb\")]);
    assert!(!format!("{config:?}").contains("\"hunter2\""), "the content of no variable is printed as such");
}

/// A configuration of several files, in a folder of its own; errors name them relative to it.
fn load_files(files: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("conf.d")).expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("write it");
    }
    let result =
        config::load(Some(&folder.path().join("x.toml")), &Overrides::default(), VARIABLES, &mut resolve);
    result.map_err(|errors| {
        lines_of(&errors)
            .iter()
            .map(|line| line.replace(&format!("{}/", folder.path().display()), ""))
            .collect()
    })
}

const MAIN: &str = "include = [\"conf.d/*.toml\"]\n[[listener]]\nbind = \":9090\"\npool = \"a\"\n";
const POOL_A: &str = "[[pool]]\nname = \"a\"\n[[pool.backend]]\naddress = \"10.0.0.1:80\"\n";
const POOL_B: &str = "\n[[pool]]\nname = \"b\"\n[[pool.backend]]\naddress = \"10.0.0.1:80\"\n";

#[test]
fn included_files_follow_the_main_file_sorted_by_name() {
    let config = load_files(&[
        ("x.toml", MAIN),
        ("conf.d/20-a.toml", POOL_A),
        ("conf.d/10-b.toml", POOL_B),
        ("conf.d/.#20-a.toml", "an editor's"),
        ("conf.d/20-a.toml~", "an editor's"),
        (
            "conf.d/30-log.toml",
            "[global]\nworkers = \"${WORKERS}\"\n[[listener]]\nbind = \":9091\"\npool = \"b\"\n",
        ),
    ]);
    let config = config.unwrap();
    let pools: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    let listeners: Vec<u16> = config.listeners.iter().map(|listener| listener.bind.port()).collect();
    assert_eq!((pools, listeners), (vec!["b", "a"], vec![9090, 9091]));
    assert_eq!((config.global.workers.get(), config.notes.len()), (3, 0), "{:?}", config.notes);
}

#[test]
fn a_file_that_several_patterns_match_counts_once() {
    let main = MAIN.replace(
        "conf.d/*.toml",
        "conf.d/a.toml\", \"conf.d/?.toml\", \"*.toml\", \"conf.d/z*\", \"conf.d/[a-b].toml",
    );
    let config =
        load_files(&[("x.toml", &main), ("conf.d/a.toml", POOL_A), ("conf.d/b.toml", POOL_B)]).unwrap();
    assert_eq!(config.pools.len(), 2);
    assert_eq!(config.notes, ["include: no file is called \"conf.d/z*\""]);
}

#[test]
fn a_mistake_in_several_files_names_the_file_and_the_line() {
    let missing =
        "[[pool]]\nname = \"c\"\nbalanse = 1\n[[pool.backend]]\naddress = \"10.0.0.1:80\"\nweight = 999\n";
    let cases: &[(&str, &str, &[&str])] = &[
        // Two of one name, which is what several files bring.
        (MAIN, POOL_A, &["conf.d/b.toml:2: pool \"a\": name: a is taken, see conf.d/a.toml:2"]),
        (
            MAIN,
            "[[listener]]\nbind = \":9090\"\npool = \"a\"\n",
            &["conf.d/b.toml:2: listener :9090: bind: 0.0.0.0:9090 overlaps 0.0.0.0:9090, see x.toml:3"],
        ),
        (
            MAIN,
            missing,
            &[
                "conf.d/b.toml:3: pool \"c\": balanse: unknown key",
                "conf.d/b.toml:6: pool \"c\": backend 10.0.0.1:80: weight:",
            ],
        ),
        (
            MAIN,
            &missing.replace("balanse = 1", ""),
            &["conf.d/b.toml:6: pool \"c\": backend 10.0.0.1:80: weight: must be 0..=256, got 999"],
        ),
        (
            MAIN,
            "[[pool]]\nname = \"${GONE}\"\n",
            &["conf.d/b.toml:2: pool \"${GONE}\": name: the environment variable GONE is not set"],
        ),
        (MAIN, "\n[[pool]\n", &["conf.d/b.toml:2: not TOML: unclosed array table, expected `]`"]),
        (MAIN, "pool = 3\n", &["conf.d/b.toml:1: pool: must be a list of tables, write [[pool]]"]),
        (MAIN, "pools = 3\n", &["conf.d/b.toml:1: pools: unknown key"]),
        (
            MAIN,
            "include = [\"c.toml\"]\n",
            &["conf.d/b.toml:1: include: an included file includes no others"],
        ),
        (
            &format!("{MAIN}[global]\nworkers = 1\n"),
            "\n[global]\npin = true\n",
            &["conf.d/b.toml:2: global: is in another file too, see x.toml:5"],
        ),
        // Of the file itself first, whatever it is.
        (
            &MAIN.replace("pool = \"a\"", "pool = \"d\"\nbacklog = 0"),
            &missing.replace("balanse = 1", ""),
            &["x.toml:4: listener :9090: pool:", "x.toml:5: listener :9090: backlog:", "conf.d/b.toml:6: "],
        ),
        // `include` itself.
        (
            &MAIN.replace("conf.d/*.toml", "x.toml"),
            "",
            &["x.toml:1: include: \"x.toml\" is there already, as this file"],
        ),
        (
            &MAIN.replace("conf.d/*.toml", "c*.d/a.toml"),
            "",
            &["x.toml:1: include: wildcards may be in the name of the file only, got \"c*.d/a.toml\""],
        ),
        (
            &MAIN.replace("conf.d/*.toml", "conf.d/"),
            "",
            &["x.toml:1: include: must end with the name of a file, got \"conf.d/\""],
        ),
        (
            &MAIN.replace("conf.d/*.toml", ""),
            "",
            &["x.toml:1: include: must end with the name of a file, got \"\""],
        ),
        (&MAIN.replace("conf.d/*.toml", "conf.d/[.toml"), "", &["x.toml:1: include: \"[.toml\": "]),
        (
            &MAIN.replace("conf.d/*.toml", "none/*.toml"),
            "",
            &["x.toml:1: include: cannot list none: No such file or directory"],
        ),
        (
            &MAIN.replace("[\"conf.d/*.toml\"]", "\"conf.d/*.toml\""),
            "",
            &["x.toml:1: include: must be a list of files, write include ="],
        ),
        (
            &MAIN.replace("[\"conf.d/*.toml\"]", "[1]"),
            "",
            &["x.toml:1: include: must be a list of files, write include ="],
        ),
        (
            &MAIN.replace("conf.d/*", "${GONE}/*"),
            "",
            &["x.toml:1: include: the environment variable GONE is not set"],
        ),
        // What a variable holds is not repeated.
        (
            &MAIN.replace("conf.d/*", "${SECRET}*/*"),
            "",
            &["x.toml:1: include: wildcards may be in the name of the file only, got \"${SECRET}*/*.toml\""],
        ),
        // Without the pool that it may have, nothing else is checked.
        (
            &MAIN.replace("conf.d/*", "conf.d/none"),
            "",
            &["conf.d/none.toml: cannot read it: No such file or directory"],
        ),
        (&MAIN.replace("conf.d/*.toml", "conf.d"), "", &["conf.d: cannot read it: Is a directory"]),
    ];
    for (main, included, expected) in cases {
        let files = [("x.toml", *main), ("conf.d/a.toml", POOL_A), ("conf.d/b.toml", *included)];
        let lines = load_files(&files).unwrap_err();
        let fits = lines.len() == expected.len()
            && lines.iter().zip(*expected).all(|(line, expected)| line.starts_with(expected));
        assert!(fits, "{main}\n{included}\nreports {lines:#?}\ninstead of {expected:#?}");
    }
}

/// With a path of the folder that the process happens to run in, an included file could not be moved with its list.
#[test]
fn the_path_of_a_list_is_relative_to_the_file_that_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("teams")).expect("a folder in it");
    let discover = |path: &str| format!("discover = [{{ type = \"file\", path = \"{path}\" }}]\n");
    let main =
        "include = [\"teams/*.toml\"]\n[[listener]]\nbind = \":1\"\npool = \"a\"\n[[pool]]\nname = \"a\"\n"
            .to_owned();
    std::fs::write(at("x.toml"), main + &discover("a.json")).expect("write it");
    let team = format!(
        "[[pool]]\nname = \"b\"\n{}[[pool]]\nname = \"c\"\n{}",
        discover("b.json"),
        discover("/c.json")
    );
    std::fs::write(at("teams/b.toml"), team).expect("write it");
    let config =
        config::load(Some(&at("x.toml")), &Overrides::default(), l4lb::sys::INPUTS, &mut resolve).unwrap();
    let label = |path: &std::path::Path| format!("file:{}", path.display());
    let found: Vec<String> = config.pools.iter().map(|pool| pool.discover[0].label()).collect();
    assert_eq!(found, [label(&at("a.json")), label(&at("teams/b.json")), "file:/c.json".into()]);
}
