//! Answers a shell that completes a command line: which names of the running process may stand at its end.
//!
//! `l4lb complete-names -- WORDS` is called by the scripts of `l4lb completions`, with the words up to the cursor. It
//! prints a name a line, or nothing: no error reaches the terminal behind a Tab.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValue;
use clap::{Arg, Command, CommandFactory};

use super::args::Cli;
use super::print::print;
use crate::ctl::{At, NameKind, SETTING_KEYS, names};

/// The command that scripts call.
const COMMAND: &str = "complete-names";

/// Same as [`Cli::read`], for the command of the scripts too, which is not one for people.
pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    if complete(&args) { Err(ExitCode::SUCCESS) } else { Cli::read(args) }
}

/// Prints the names for these arguments of the program; returns whether they ask for names at all.
fn complete(args: &[OsString]) -> bool {
    let Some((command, words)) = args.get(1..).and_then(<[_]>::split_first) else { return false };
    if command != COMMAND {
        return false;
    }
    let words: Vec<&str> =
        words.iter().filter_map(|word| word.to_str()).skip_while(|word| *word == "--").collect();
    let mut program = Cli::command();
    program.build();
    if let Some(Wanted { at, kind, prefix, values }) = wanted(&program, &words) {
        let values = values.into_iter().filter(|value| value.starts_with(&prefix));
        let lines = names(at, kind, &prefix).into_iter().chain(values).map(|name| name + "\n");
        print(lines.collect::<String>().as_bytes());
    }
    true
}

/// What is looked for at the end of a command line.
#[derive(Debug)]
struct Wanted {
    at: At,
    kind: NameKind,
    prefix: String,
    /// What may stand there instead: the values of the argument behind one that may be repeated.
    values: Vec<String>,
}

/// Returns what the last of `words` may name; `None` where it names nothing that runs.
fn wanted(program: &Command, words: &[&str]) -> Option<Wanted> {
    let (last, before) = words.split_last()?;
    let mut at = At { address_flag: "--address", ..At::default() };
    let (mut command, mut positionals, mut flag): (&Command, usize, Option<&Arg>) = (program, 0, None);
    // Options of all commands are known to the command that has them.
    let mut global: Vec<&Arg> = Vec::new();
    for word in before {
        if let Some(arg) = flag.take() {
            note(&mut at, arg, word);
        } else if let Some(name) = word.strip_prefix("--") {
            let (name, value) =
                name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
            let known = command.get_opts().chain(global.iter().copied());
            let arg = { known }.find(|arg| arg.get_long() == Some(name));
            match (arg, value) {
                (Some(arg), Some(value)) => note(&mut at, arg, value),
                (Some(arg), None) => flag = arg.get_action().takes_values().then_some(arg),
                (None, _) => {}
            }
        } else if let Some(short) = word.strip_prefix('-').and_then(|rest| rest.chars().next()) {
            let is_alone = word.len() == 2;
            let arg = command.get_opts().find(|arg| arg.get_short() == Some(short));
            flag = arg.filter(|arg| is_alone && arg.get_action().takes_values());
        } else if let Some(inner) = command.find_subcommand(word) {
            global.extend(command.get_opts().filter(|arg| arg.is_global_set()));
            (command, positionals) = (inner, 0);
        } else {
            positionals += 1;
        }
    }
    let arg = match flag {
        Some(arg) => arg,
        None if last.starts_with('-') => return None,
        None => positional(command, positionals)?,
    };
    let behind = command.get_positionals().last().filter(|_| flag.is_none() && positionals > 0);
    let values = behind.map(Arg::get_possible_values).unwrap_or_default();
    let values = values.iter().map(PossibleValue::get_name);
    let keys = SETTING_KEYS.iter().copied().filter(|_| command.get_name() == "set" && behind.is_some());
    let values = values.chain(keys).map(str::to_owned).collect();
    Some(Wanted { at, kind: kind_of(arg)?, prefix: (*last).to_owned(), values })
}

/// Returns the argument at that place; one that may be repeated takes all places from its own on.
fn positional(command: &Command, place: usize) -> Option<&Arg> {
    let args: Vec<&Arg> = command.get_positionals().collect();
    let repeated = |arg: &&&Arg| arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    let first_repeated = args.iter().take(place + 1).find(repeated);
    first_repeated.or_else(|| args.get(place)).copied()
}

fn note(at: &mut At, arg: &Arg, value: &str) {
    match arg.get_long() {
        Some("socket") => at.socket = Some(PathBuf::from(value)),
        Some("address") => at.address = value.parse().ok(),
        Some("token-file") => at.token_file = Some(PathBuf::from(value)),
        Some(_) | None => {}
    }
}

/// Returns what an argument names, by the name of its value in the help.
fn kind_of(arg: &Arg) -> Option<NameKind> {
    let value = arg.get_value_names().and_then(<[_]>::first).map(clap::builder::Str::as_str);
    match value {
        Some("LISTENER") => Some(NameKind::Listeners),
        Some("POOL/BACKEND") => Some(NameKind::Backends),
        Some("POOL[/BACKEND]") => Some(NameKind::PoolsAndBackends),
        Some("POOL") => Some(NameKind::Pools),
        Some(_) => None,
        None => (arg.get_id() == "pool").then_some(NameKind::Pools),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(line: &str) -> Option<NameKind> {
        let mut command = Cli::command();
        command.build();
        let words: Vec<&str> = line.split(' ').collect();
        wanted(&command, &words).map(|wanted| wanted.kind)
    }

    #[test]
    fn the_place_decides_what_is_named() {
        for (line, expected) in [
            ("", None),
            ("ctl", None),
            ("ctl ", None),
            ("ctl drain ", Some(NameKind::Backends)),
            ("ctl drain web/", Some(NameKind::Backends)),
            ("ctl drain web/a web/", Some(NameKind::Backends)),
            ("ctl drain --wait ", Some(NameKind::Backends)),
            ("ctl drain --timeout ", None),
            ("ctl drain --timeout 5s ", Some(NameKind::Backends)),
            ("ctl drain -", None),
            ("ctl weight ", Some(NameKind::Backends)),
            ("ctl weight web/a ", Some(NameKind::Backends)),
            ("ctl set web/a ", Some(NameKind::Backends)),
            ("ctl health ", Some(NameKind::Backends)),
            ("ctl remove ", Some(NameKind::Backends)),
            ("ctl check web/a ", Some(NameKind::Backends)),
            ("ctl listener ", Some(NameKind::Listeners)),
            ("ctl listener in ", None),
            ("ctl acl test ", None),
            ("ctl acl test ::1 ", Some(NameKind::Listeners)),
            ("ctl backends ", Some(NameKind::Pools)),
            ("ctl backends web ", None),
            ("ctl discover ", Some(NameKind::Pools)),
            ("ctl add :80 --pool ", Some(NameKind::Pools)),
            ("ctl sessions --backend ", Some(NameKind::Backends)),
            ("ctl sessions --pool ", Some(NameKind::Pools)),
            ("ctl sessions -n ", None),
            ("ctl kill --backend ", Some(NameKind::Backends)),
            ("ctl counters clear ", Some(NameKind::PoolsAndBackends)),
            ("ctl --socket /s drain ", Some(NameKind::Backends)),
            ("ctl drain --socket ", None),
            ("register --pool ", Some(NameKind::Pools)),
            ("check ", None),
            ("ctl explain ", None),
        ] {
            assert_eq!(kind(line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_process_is_the_one_that_the_line_names() {
        let mut command = Cli::command();
        command.build();
        let words = ["ctl", "--socket", "/a", "drain", "--address=127.0.0.1:1", "--token-file", "/t", "web/"];
        let Wanted { at, prefix, .. } = wanted(&command, &words).expect("it names backends");
        assert_eq!((at.socket, at.token_file), (Some("/a".into()), Some("/t".into())));
        assert_eq!((at.address, prefix.as_str()), (Some(([127, 0, 0, 1], 1).into()), "web/"));
    }

    #[test]
    fn the_keys_of_settings_are_offered_behind_the_first_backend() {
        let mut command = Cli::command();
        command.build();
        let values = |words: &[&str]| wanted(&command, words).expect("it names backends").values;
        assert_eq!(values(&["ctl", "set", "web/a", "a"]), SETTING_KEYS);
        assert!(
            values(&["ctl", "set", "a"]).is_empty() && values(&["ctl", "drain", "web/a", "a"]).is_empty()
        );
    }

    #[test]
    fn only_that_command_is_for_names() {
        let args = |line: &str| -> Vec<OsString> { line.split(' ').map(OsString::from).collect() };
        assert!(!complete(&args("l4lb")) && !complete(&args("l4lb ctl status")));
        assert!(complete(&args("l4lb complete-names -- check x")));
    }
}
