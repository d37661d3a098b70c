//! `l4lb import`.

use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use super::print::{EXIT_USAGE, print, print_error};
use crate::import;

/// A configuration of HAProxy is far smaller; anything larger is another file.
const FILE_LEN_MAX: u64 = 16 << 20;

/// Prints the translation of `file`, and each line that is not in it.
pub(super) fn import(file: &Path, is_strict: bool) -> ExitCode {
    let is_stdin = file == Path::new("-");
    let name = if is_stdin { "standard input".to_owned() } else { file.display().to_string() };
    let text = match if is_stdin { read(io::stdin()) } else { fs::File::open(file).and_then(read) } {
        Ok(text) => text,
        Err(error) => {
            print_error(format_args!("{name}: cannot read it: {error}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let imported = match import::haproxy(&text, &name) {
        Ok(imported) => imported,
        Err(errors) => {
            print_error(format_args!("{name}: its translation is not valid:"));
            errors.iter().for_each(print_error);
            return ExitCode::FAILURE;
        }
    };
    for note in &imported.notes {
        print_error(format_args!("{name}:{note}"));
    }
    let Some(text) = imported.text else {
        print_error(format_args!("{name}: no frontend or listen section could be translated"));
        return ExitCode::FAILURE;
    };
    print(text.as_bytes());
    if is_strict && !imported.notes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn read(source: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    let mut bounded = source.take(FILE_LEN_MAX + 1);
    io::Read::read_to_string(&mut bounded, &mut text)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_LEN_MAX} bytes")));
    }
    Ok(text)
}
