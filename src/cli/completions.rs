//! Completions of shells, generated from flags and commands.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::builder::PossibleValue;
use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;

use super::args::Cli;
use super::print::print;

/// Prints the completions of `shell`.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut command = Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "l4lb", &mut script);
    print(&script);
    if shell == Shell::Fish {
        print(fish_values(&command).as_bytes());
    }
    ExitCode::SUCCESS
}

/// Returns the values that clap_complete leaves out for fish, which then offers files instead: those of arguments
/// without a flag, and those of flags before the command: their condition does not hold while the value is missing.
fn fish_values(command: &Command) -> String {
    let mut text = String::new();
    let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let names = names.join(" ");
    for arg in command.get_opts() {
        if let (Some(words), Some(long)) = (words(arg), arg.get_long()) {
            let condition = format!("not __fish_seen_subcommand_from {names}");
            writeln!(text, "complete -c l4lb -n \"{condition}\" -l {long} -r -f -a \"{words}\"")
                .expect("writing to a String never fails");
        }
    }
    for outer in command.get_subcommands() {
        add_positional(&mut text, outer, &format!("__fish_seen_subcommand_from {}", outer.get_name()));
        for inner in outer.get_subcommands() {
            let (outer, inner_name) = (outer.get_name(), inner.get_name());
            let condition =
                format!("__fish_seen_subcommand_from {outer}; and __fish_seen_subcommand_from {inner_name}");
            add_positional(&mut text, inner, &condition);
        }
    }
    text
}

fn add_positional(text: &mut String, command: &Command, condition: &str) {
    for words in command.get_positionals().filter_map(words) {
        writeln!(text, "complete -c l4lb -n \"{condition}\" -f -a \"{words}\"")
            .expect("writing to a String never fails");
    }
}

/// Returns the values of an argument, if they are known.
fn words(arg: &Arg) -> Option<String> {
    let values = arg.get_possible_values();
    let words: Vec<&str> = values.iter().map(PossibleValue::get_name).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// fish offered the files of the folder instead.
    #[test]
    fn fish_has_the_words_of_arguments_and_of_flags_in_front_of_commands() {
        let text = fish_values(&Cli::command());
        for expected in [
            " -l balance -r -f -a \"round_robin least_connections power_of_two source_hash random\"\n",
            "\"__fish_seen_subcommand_from completions\" -f -a \"bash elvish fish powershell zsh\"\n",
            "__fish_seen_subcommand_from ctl; and __fish_seen_subcommand_from health\" -f -a \"up down auto\"\n",
            "__fish_seen_subcommand_from ctl; and __fish_seen_subcommand_from ready-fail\" -f -a \"on off\"\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}
