//! Which file a source reads.

use std::path::PathBuf;

use super::super::reader::Reader;
use crate::config::discover::{Format, ListFile};
use crate::config::parse::raw::{Key, RawDiscover};

/// How a file is read, by the end of its name.
const FORMATS: [(&str, Format); 2] = [("json", Format::Json), ("toml", Format::Toml)];

/// The file; `None` if its path is missing or wrong.
pub(super) fn check(raw: &RawDiscover, read: &mut Reader<'_>) -> Option<ListFile> {
    if raw.path.is_none() {
        read.wrong("path", &raw.path, "missing, write path = \"backends.json\"");
    }
    let path = path(read, "path", &raw.path)?;
    let format = path.extension().and_then(|end| FORMATS.iter().find(|(word, _)| end == *word));
    let Some((_, format)) = format else {
        let got = read.got(&raw.path);
        read.wrong(
            "path",
            &raw.path,
            format_args!("must end with .json or .toml, by which it is read, got {got}"),
        );
        return None;
    };
    Some(ListFile { path, format: *format })
}

/// A path, which is relative to the folder of the file that has it.
pub(in super::super) fn path(read: &mut Reader<'_>, name: &str, key: &Key) -> Option<PathBuf> {
    let text = read.text(name, key)?;
    // It is part of log lines and of the names of metrics.
    if text.is_empty() || text.chars().any(char::is_control) {
        let got = read.got(key);
        read.wrong(name, key, format_args!("must be the path of a file, got {got}"));
        return None;
    }
    Some(read.folder(key).join(text))
}
