//! Reads the text of a file that may be of any size and hold anything. What it is read by is handed in as [`Inputs`].

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::config::error::{Error, one_line};
use crate::config::ranges::FILE_MIB_MAX;

/// What of this machine a configuration is read from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// Opens a file to read, and never waits for one that is none.
    pub open: fn(&Path) -> io::Result<File>,
    /// The value of an environment variable, if it is set.
    pub variable: fn(&str) -> Option<OsString>,
}

impl Inputs {
    /// No file, and no variable.
    pub(in crate::config) const NOTHING: Self =
        Self { open: |_| Err(io::ErrorKind::Unsupported.into()), variable: |_| None };
}

/// A file that was read.
pub(in crate::config) struct Text {
    /// What errors call it.
    pub(in crate::config) file: String,
    pub(in crate::config) text: String,
}

/// The text of the file at `path`, which may be of any size.
pub(in crate::config) fn read(path: &Path, inputs: Inputs) -> Result<Text, Vec<Error>> {
    let file = one_line(&path.display().to_string());
    let text = text(path, &file, inputs).map_err(|error| vec![error])?;
    Ok(Text { file, text })
}

fn text(path: &Path, file: &str, inputs: Inputs) -> Result<String, Error> {
    const LEN_MAX: u64 = FILE_MIB_MAX << 20;
    let wrong = |what| Error::File { file: file.to_owned(), what };
    let mut bytes = Vec::new();
    let read = (inputs.open)(path).and_then(|file| file.take(LEN_MAX + 1).read_to_end(&mut bytes));
    if read.map_err(|error| wrong(format!("cannot read it: {error}")))? as u64 > LEN_MAX {
        return Err(wrong(format!("larger than {FILE_MIB_MAX} MiB")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        Error::Line { file: file.to_owned(), line, what: "not UTF-8".to_owned() }
    })
}
