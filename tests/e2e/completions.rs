//! Names of the running process in shells, as an operator gets them who presses Tab. bash is everywhere; zsh and fish
//! are tried where they are installed, which the gate sees to.

use std::path::Path;
use std::process::Command;

use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::until;
use crate::harness::program::output;

const POOLS: &str = "pool = \"web\"\nname = \"public\"\n[[pool]]\nname = \"web\"\nhealth = { type = \"off\" }\n\
    backend = [{ name = \"a1\", address = \"127.0.0.1:1\" }, { address = \"127.0.0.1:2\" }]\n\
    [[pool]]\nname = \"api\"\nbackend = [{ name = \"a1\", address = \"127.0.0.1:3\" }]\n";

/// What Tab offers behind a line: bash leaves out what is in front of the last colon.
const OFFERED: [(&str, &[&str]); 9] = [
    ("l4lb ctl drain ", &["api/a1", "web/127.0.0.1:2", "web/a1"]),
    ("l4lb ctl drain web/a", &["web/a1"]),
    ("l4lb ctl maint api/a1 web/a", &["web/a1"]),
    ("l4lb ctl health web/a1 u", &["up"]),
    ("l4lb ctl sessions --backend api/", &["api/a1"]),
    ("l4lb ctl backends ", &["api", "web"]),
    ("l4lb ctl listener p", &["public"]),
    ("l4lb ctl listener public re", &["resume"]),
    ("l4lb comp", &["completions"]),
];

/// Runs a shell with the program in its path and its socket in the environment; returns the lines that it prints.
fn lines(shell: &str, args: &[&str], runtime: &Path, line: &str) -> Vec<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_l4lb"));
    let folder = program.parent().expect("a folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(shell);
    command.args(args).env("PATH", path).env("RUNTIME_DIRECTORY", runtime).env("LINE", line);
    let printed = output(&mut command);
    let text = String::from_utf8(printed.stdout).expect("UTF-8");
    assert_eq!(String::from_utf8_lossy(&printed.stderr), "", "{shell}: {line}");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
    lines.sort();
    lines
}

const BASH: &str = "source <(l4lb completions bash)\n\
    COMP_LINE=$LINE COMP_POINT=${#LINE}\n\
    read -ra COMP_WORDS <<<\"$LINE\"\n\
    [[ $LINE != *' ' ]] || COMP_WORDS+=('')\n\
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n\
    _l4lb_with_names l4lb \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"\n\
    printf '%s\\n' \"${COMPREPLY[@]}\"";

fn bash(runtime: &Path, line: &str) -> Vec<String> {
    lines("bash", &["--norc", "-c", BASH], runtime, line)
}

#[test]
fn bash_offers_the_names_of_the_running_process() {
    let daemon = Daemon::start(POOLS, IPV4);
    let runtime = daemon.runtime();
    for (line, expected) in OFFERED {
        until(line, || bash(runtime, line) == expected);
    }
    until("what is behind the colon", || bash(runtime, "l4lb ctl drain web/127.0.0.1:") == ["2"]);
    assert!(bash(runtime, "l4lb ctl drain --w").contains(&"--wait".to_owned()), "flags too");
}

#[test]
fn without_a_process_there_are_no_names_and_no_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    for line in ["l4lb ctl drain web/", "l4lb ctl listener ", "l4lb ctl drain --socket /none web/"] {
        let offered = bash(folder.path(), line);
        assert!(offered.iter().all(|word| !word.contains("web")), "{line}: {offered:?}");
    }
}

/// Returns whether a shell is installed.
fn has(shell: &str) -> bool {
    Command::new(shell).arg("-c").arg(":").output().is_ok_and(|output| output.status.success())
}

#[test]
fn fish_offers_the_names_of_the_running_process() {
    if !has("fish") {
        return;
    }
    let daemon = Daemon::start(POOLS, IPV4);
    let script = "l4lb completions fish | source; complete -C $LINE";
    for (line, expected) in OFFERED {
        until(line, || {
            let offered = lines("fish", &["--no-config", "-c", script], daemon.runtime(), line);
            // Behind a tab it has what the word means.
            let words: Vec<&str> =
                offered.iter().map(|line| line.split('\t').next().unwrap_or(line)).collect();
            expected.iter().all(|word| words.contains(word))
        });
    }
}

/// zsh has no way to ask for completions but a terminal: it gets one of its own, and prints the line that it has.
const ZSH: &str = "zmodload zsh/zpty; zpty inner zsh -f -i\n\
    zpty -w inner 'PS1=; autoload -Uz compinit; compinit -u -D; source <(l4lb completions zsh); print rea\"\"dy'\n\
    zpty -r -m inner seen '*ready*'\n\
    zpty -w -n inner \"$LINE\"$'\\t'\n\
    zpty -w -n inner $'\\C-aprint -r -- \\C-e:e\"\"nd\\n'\n\
    zpty -r -m inner seen '*:end*'\n\
    print -r -- \"$seen\"";

#[test]
fn zsh_completes_a_name_of_the_running_process() {
    if !has("zsh") {
        return;
    }
    let daemon = Daemon::start(POOLS, IPV4);
    for (line, expected) in [
        ("l4lb ctl drain api/", "l4lb ctl drain api/a1"),
        ("l4lb ctl listener p", "l4lb ctl listener public"),
    ] {
        let completed = format!("{expected}:end");
        // A machine that is busy may take longer for an answer than a completion waits.
        until(&completed, || {
            let printed = lines("zsh", &["-f", "-c", ZSH], daemon.runtime(), line);
            printed.iter().any(|line| line.trim().ends_with(&completed))
        });
    }
}
