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
    let script = String::from_utf8_lossy(&script);
    let script = if shell == Shell::Bash {
        format!("{script}\n{BASH_NAMES}")
    } else if shell == Shell::Zsh {
        zsh_with_names(&script)
    } else if shell == Shell::Fish {
        format!("{script}{}{FISH_NAMES}", fish_values(&command))
    } else {
        script.into_owned()
    };
    print(script.as_bytes());
    ExitCode::SUCCESS
}

/// Names of the running process in front of the fixed words. bash splits words at colons, and replaces only what is
/// behind the last one; names have colons.
const BASH_NAMES: &str = r#"_l4lb_with_names() {
    _l4lb "$@"
    local line=${COMP_LINE:0:COMP_POINT} before="" words names
    read -ra words <<<"$line"
    [[ $line != *[[:space:]] ]] || words+=("")
    mapfile -t names < <("${words[0]}" complete-names -- "${words[@]:1}" 2>/dev/null)
    ((${#names[@]})) || return 0
    local word=${line##*[[:space:]]}
    [[ $word != *:* || $COMP_WORDBREAKS != *:* ]] || before=${word%"${word##*:}"}
    COMPREPLY=("${names[@]#"$before"}")
}
complete -F _l4lb_with_names -o bashdefault -o default l4lb
"#;

const ZSH_NAMES: &str = r#"_l4lb_with_names() {
    local -a names
    names=("${(@f)$(${words[1]} complete-names -- "${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    if [[ -n ${names[1]} ]]; then
        compadd -a names
    else
        _l4lb "$@"
    fi
}
"#;

const FISH_NAMES: &str = r#"function __l4lb_names
    set -l words (commandline -opc)
    command $words[1] complete-names -- $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c l4lb -n "count (__l4lb_names) >/dev/null" -f -a "(__l4lb_names)"
for flag in backend pool
    complete -c l4lb -n "count (__l4lb_names) >/dev/null" -l $flag -r -f -a "(__l4lb_names)"
end
"#;

/// Returns the script of clap_complete, with names of the running process in front of the fixed words.
fn zsh_with_names(script: &str) -> String {
    let end = "if [ \"$funcstack[1]\" = \"_l4lb\" ]; then";
    let (definitions, end) = script.split_once(end).map_or((script, String::new()), |(before, behind)| {
        let called = behind.replace("_l4lb \"$@\"", "_l4lb_with_names \"$@\"");
        (before, format!("{end}{}", called.replace("compdef _l4lb l4lb", "compdef _l4lb_with_names l4lb")))
    });
    format!("{definitions}{ZSH_NAMES}\n{end}")
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

    #[test]
    fn zsh_is_given_names_whichever_way_it_loads_the_script() {
        let mut script = Vec::new();
        clap_complete::generate(Shell::Zsh, &mut Cli::command(), "l4lb", &mut script);
        let script = zsh_with_names(&String::from_utf8_lossy(&script));
        for expected in [
            "\n    _l4lb_with_names \"$@\"\n",
            "\n    compdef _l4lb_with_names l4lb\n",
            "\n_l4lb_with_names() {\n",
        ] {
            assert_eq!(script.matches(expected).count(), 1, "{expected}");
        }
    }

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
