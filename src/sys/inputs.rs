//! The files and the environment of this process, as a configuration reads them.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::authorities::authorities;
use super::files::open_regular;
use crate::config::Inputs;

/// Reads a configuration from the files and the environment of this process.
pub const INPUTS: Inputs =
    Inputs { open: open_regular, list: names_in, variable: |name| std::env::var_os(name), authorities };

fn names_in(folder: &Path) -> io::Result<Vec<OsString>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}
