//! Reads the text of a file that may be of any size and hold anything. What it is read by is handed in as [`Inputs`].

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::error::{Error, one_line};
use crate::config::ranges::FILE_MIB_MAX;
use crate::tls::Authorities;

/// The inputs that a configuration is read from: files and variables.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// Opens a file for reading. Must not block on anything but a file.
    pub open: fn(&Path) -> io::Result<File>,
    /// The names in a folder.
    pub list: fn(&Path) -> io::Result<Vec<OsString>>,
    /// The value of an environment variable, if it is set.
    pub variable: fn(&str) -> Option<OsString>,
    /// The certificate authorities of a file, or those of the system; fails with a sentence.
    pub authorities: fn(Option<&Path>) -> Result<Authorities, String>,
}

impl Inputs {
    /// Folders without a file, no variable, and no authorities.
    pub(in crate::config) const NOTHING: Self = Self {
        open: |_| Err(io::ErrorKind::Unsupported.into()),
        list: |_| Ok(Vec::new()),
        variable: |_| None,
        authorities: |_| Ok(Authorities::nobody()),
    };
}

/// Identifies a file whatever its name: device and inode.
pub(in crate::config) type Id = (u64, u64);

/// A file that was read.
pub(in crate::config) struct Text {
    pub(in crate::config) file: String,
    pub(in crate::config) text: String,
    /// Where it begins among all texts of the configuration, in bytes.
    pub(in crate::config) start: usize,
    /// The folder of the file, as it was named.
    pub(in crate::config) folder: PathBuf,
    /// `None` of what is no file.
    pub(in crate::config) id: Option<Id>,
}

impl Text {
    /// A text that is in no file.
    pub(in crate::config) fn of(file: &str, text: &str) -> Self {
        Self { file: one_line(file), text: text.to_owned(), start: 0, folder: PathBuf::new(), id: None }
    }

    /// Where the next text begins. The byte between them is the end of this file, at which mistakes may be.
    pub(in crate::config) fn end(&self) -> usize {
        self.start + self.text.len() + 1
    }
}

/// The file at `path`, which may be of any size, behind `start` bytes of other texts.
pub(in crate::config) fn read(path: &Path, start: usize, inputs: Inputs) -> Result<Text, Error> {
    const LEN_MAX: u64 = FILE_MIB_MAX << 20;
    let name = one_line(&path.display().to_string());
    let wrong = |what| Error::File { file: name.clone(), what };
    let unreadable = |error: io::Error| wrong(format!("cannot read it: {error}"));
    let file = (inputs.open)(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mut bytes = Vec::new();
    let len = file.take(LEN_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)? as u64;
    if len > LEN_MAX {
        return Err(wrong(format!("larger than {FILE_MIB_MAX} MiB")));
    }
    if start as u64 + len > LEN_MAX {
        return Err(wrong(format!("larger than {FILE_MIB_MAX} MiB, with the files before it")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        Error::Line { file: name.clone(), line, what: "not UTF-8".to_owned() }
    })?;
    let folder = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    Ok(Text { file: name, text, start, folder, id: Some((metadata.dev(), metadata.ino())) })
}
