//! Manual pages: one per command, generated from its help, and one for the config file, generated from the commented
//! example.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::builder::Resettable;

use super::args::Cli;
use super::print::print;

/// The config file with every key, its default and its purpose.
const CONFIG: &str = include_str!("../../config/l4lb.toml");
const CONFIG_PAGE: &str = "l4lb.toml.5";

/// Prints the manual pages, or writes them into the folder `out`.
pub(super) fn man(out: Option<&Path>) -> io::Result<ExitCode> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, &mut pages)?;
    pages.push((CONFIG_PAGE.to_owned(), config_page()));
    for (name, text) in pages {
        match out {
            None => print(text.as_bytes()),
            Some(folder) => fs::write(folder.join(name), text)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds the page of `command` and those of its subcommands.
fn add_pages(command: &clap::Command, pages: &mut Vec<(String, String)>) -> io::Result<()> {
    // Notes after the help are laid out already; clap_mangen would fill them.
    let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let page = clap_mangen::Man::new(command.clone().after_help(Resettable::Reset));
    let mut text = Vec::new();
    page.render(&mut text)?;
    let mut text = String::from_utf8(text).map_err(io::Error::other)?;
    text += &sections(&notes);
    pages.push((page.get_filename(), text));
    command.get_subcommands().try_for_each(|command| add_pages(command, pages))
}

/// Returns the notes after a command's help as sections of its page: examples line by line, the rest as prose.
fn sections(notes: &str) -> String {
    let mut text = String::new();
    let (examples, rest) = match notes.strip_prefix("Examples:\n") {
        Some(behind) => behind.split_once("\n\n").unwrap_or((behind, "")),
        None => ("", notes),
    };
    if !examples.is_empty() {
        text += &format!(".SH EXAMPLES\n{}", as_is(examples));
    }
    if !rest.is_empty() {
        text += ".SH NOTES\n";
        let mut was_sentence = false;
        for line in rest.lines() {
            if was_sentence {
                text += ".PP\n";
            }
            writeln!(text, "{}", escaped(line)).expect("writing to a String never fails");
            was_sentence = line.ends_with(['.', ':']);
        }
    }
    text
}

fn config_page() -> String {
    let version = env!("L4LB_VERSION").split(' ').next().unwrap_or_default();
    format!(
        ".TH l4lb.toml 5 \"\" \"l4lb {}\"\n.SH NAME\nl4lb.toml \\- the config file of l4lb\n.SH DESCRIPTION\n\
         A file in TOML that names the listeners, the pools and their backends. \\fBl4lb check\\fR(1) says what a file would \
         run or what is wrong with it, and a running l4lb reads it again at SIGHUP.\n.PP\n\
         Every key with its default, and with an example where it has none and is commented out:\n{}\
         .SH SEE ALSO\n.BR l4lb (1),\n.BR l4lb-check (1),\n.BR l4lb-doctor (1)\n",
        escaped(version),
        as_is(CONFIG)
    )
}

/// Returns text that must not be filled.
fn as_is(text: &str) -> String {
    let lines: String = text.lines().map(|line| escaped(line) + "\n").collect();
    format!(".nf\n{lines}.fi\n")
}

/// Returns a line that roff(7) takes for text: no escape, no control line, and hyphens that can be copied.
fn escaped(line: &str) -> String {
    let plain = line
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('~', "\\(ti")
        .replace('^', "\\(ha")
        .replace('`', "\\(ga");
    if plain.starts_with(['.', '\'']) { format!("\\&{plain}") } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_lines_and_all_else_is_filled() {
        let notes = "Examples:\n  l4lb -l :9090    one\n  l4lb top         two\n\nA sentence that\ngoes on.\n.Another.";
        assert_eq!(
            sections(notes),
            ".SH EXAMPLES\n.nf\n  l4lb \\-l :9090    one\n  l4lb top         two\n.fi\n\
             .SH NOTES\nA sentence that\ngoes on.\n.PP\n\\&.Another.\n"
        );
    }

    #[test]
    fn every_line_of_the_config_file_is_in_its_page() {
        let page = config_page();
        assert!(CONFIG.lines().all(|line| page.contains(&escaped(line))));
        let controls = [".TH", ".SH", ".PP", ".nf", ".fi", ".BR"];
        let is_control = |line: &str| line.starts_with(['.', '\'']);
        let known = |line: &str| controls.iter().any(|control| line.starts_with(control));
        assert!(page.lines().filter(|line| is_control(line)).all(known));
    }
}
