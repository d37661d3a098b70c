//! `include = ["conf.d/*.toml"]`: the further files that a file names, and the texts of all of them.
//!
//! Only the first file includes others, so that no circle is possible, and each file counts once, however many patterns
//! match it. A pattern is relative to the folder of the file as it was named: a link to a file elsewhere changes
//! nothing about that.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glob::{MatchOptions, Pattern};
use toml::de::{DeTable, DeValue};

use super::file::{self, Inputs, Text};
use super::named::{self, Named};
use super::variables;
use crate::config::error::Error;
use crate::config::ranges::INCLUDED_FILES_MAX;

/// The files as they are now, to compare with those that were read.
#[derive(Clone)]
pub struct Looked {
    /// Stands for the texts, and for why there are none.
    pub digest: u64,
    /// The main file and every file it includes, in the order of the document; behind them the files with certificates
    /// and networks that they name.
    pub files: Vec<PathBuf>,
    /// Folders in which there may be more.
    pub folders: Vec<PathBuf>,
    pub(in crate::config) texts: Arc<Result<Texts, Vec<Error>>>,
}

/// Looks at the files of the configuration at `path`, without checking them.
pub fn look(path: &Path, inputs: Inputs) -> Looked {
    let texts = read(path, inputs);
    let (digest, files, folders) = match &texts {
        Ok(texts) => {
            let named = texts.named.iter().map(|named| named.path.clone());
            (texts.digest(), texts.files.iter().cloned().chain(named).collect(), texts.folders.clone())
        }
        Err(errors) => (digest_of(&errors_of(errors)), vec![path.to_owned()], Vec::new()),
    };
    Looked { digest, files, folders, texts: Arc::new(texts) }
}

fn errors_of(errors: &[Error]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn digest_of(read: &impl Hash) -> u64 {
    // Two texts that are alike by chance are one change in 2^64 that is not seen.
    let mut hasher = DefaultHasher::new();
    read.hash(&mut hasher);
    hasher.finish()
}

/// The files of one configuration.
pub(in crate::config) struct Texts {
    /// The file itself, and behind it those that it includes, in the order in which they count.
    pub(in crate::config) texts: Vec<Text>,
    /// Where they are, with those that cannot be read.
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    named: Vec<Named>,
    /// The mistakes in `include`, each with its byte in the file itself.
    pub(in crate::config) mistakes: Vec<(usize, String)>,
    /// Why included files cannot be read.
    pub(in crate::config) errors: Vec<Error>,
    /// Notes: not mistakes, but worth reporting to an operator.
    pub(in crate::config) notes: Vec<String>,
}

impl Texts {
    /// Stands for what was read.
    pub(in crate::config) fn digest(&self) -> u64 {
        let texts: Vec<(&str, &str)> =
            self.texts.iter().map(|text| (text.file.as_str(), text.text.as_str())).collect();
        digest_of(&(texts, errors_of(&self.errors), &self.mistakes, &self.named))
    }
}

/// The file at `path` with all that it includes; fails only when the file itself cannot be read.
pub(in crate::config) fn read(path: &Path, inputs: Inputs) -> Result<Texts, Vec<Error>> {
    let main = file::read(path, 0, inputs).map_err(|error| vec![error])?;
    let mut texts = with_included(main, path.parent().unwrap_or_else(|| Path::new("")), inputs);
    texts.files.push(path.to_owned());
    Ok(texts)
}

/// `main`, which is in `folder`, with all that it includes.
pub(in crate::config) fn with_included(main: Text, folder: &Path, inputs: Inputs) -> Texts {
    let patterns = patterns(&main.text, inputs);
    let known = HashSet::from_iter(main.id);
    let texts = Texts {
        texts: vec![main],
        files: Vec::new(),
        folders: Vec::new(),
        named: Vec::new(),
        mistakes: Vec::new(),
        errors: Vec::new(),
        notes: Vec::new(),
    };
    let mut gathering = Gathering { folder, inputs, known, texts };
    for (byte, pattern) in patterns {
        let included = pattern.and_then(|pattern| gathering.include(&pattern));
        if let Err(what) = included {
            gathering.texts.mistakes.push((byte, format!("include: {what}")));
        }
    }
    let mut texts = gathering.texts;
    texts.named = named::read_all(&texts.texts, inputs);
    texts
}

/// The patterns of `include`, each with its place; without those that name a variable which is not set: it is reported
/// with the others of its kind.
fn patterns(text: &str, inputs: Inputs) -> Vec<(usize, Result<Include, String>)> {
    const EXPECTED: &str = "must be a list of files, write include = [\"conf.d/*.toml\"]";
    let wrong = |byte| vec![(byte, Err(EXPECTED.to_owned()))];
    let (document, errors) = DeTable::parse_recoverable(text);
    let value = document.get_ref().get("include").filter(|_| errors.is_empty());
    let Some(value) = value else { return Vec::new() };
    let DeValue::Array(elements) = value.get_ref() else { return wrong(value.span().start) };
    let pattern = |element: &toml::Spanned<DeValue<'_>>| {
        let byte = element.span().start;
        match element.get_ref().as_str() {
            Some(written) => {
                let pattern = variables::put_into_one(written, inputs)?;
                Some((byte, Ok(Include { written: written.to_owned(), pattern })))
            }
            None => Some((byte, Err(EXPECTED.to_owned()))),
        }
    };
    elements.iter().filter_map(pattern).collect()
}

struct Include {
    /// With its variables: messages repeat this and not what they hold.
    written: String,
    /// What the variables make of it.
    pattern: String,
}

struct Gathering<'a> {
    folder: &'a Path,
    inputs: Inputs,
    /// The files that are there, whatever they are called.
    known: HashSet<file::Id>,
    texts: Texts,
}

impl Gathering<'_> {
    fn include(&mut self, Include { written, pattern }: &Include) -> Result<(), String> {
        let path = self.folder.join(pattern);
        let is_folder = pattern.ends_with('/');
        let Some(name) = Path::new(pattern).file_name().and_then(OsStr::to_str).filter(|_| !is_folder) else {
            return Err(format!("must end with the name of a file, got {written:?}"));
        };
        if has_wildcard(pattern.strip_suffix(name).unwrap_or_default()) {
            return Err(format!("wildcards may be in the name of the file only, got {written:?}"));
        }
        if !has_wildcard(name) {
            if self.add(&path, written)? {
                return Ok(());
            }
            return Err(format!("{written:?} is there already, as this file or as one that it includes"));
        }
        let files = self.matching(&path, name, written)?;
        if files.is_empty() {
            self.texts.notes.push(format!("include: no file is called {written:?}"));
        }
        files.iter().try_for_each(|file| self.add(file, written).map(|_| ()))
    }

    /// The files of the folder of `path` with such a name, sorted.
    fn matching(&mut self, path: &Path, name: &str, written: &str) -> Result<Vec<PathBuf>, String> {
        // Names with a leading dot are scratch files of editors and of Kubernetes, unless the pattern has the dot.
        const OPTIONS: MatchOptions = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let pattern = Pattern::new(name).map_err(|error| {
            let written = written.rsplit('/').next().unwrap_or(written);
            format!("{written:?}: {}", error.msg)
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        self.texts.folders.push(folder.to_owned());
        let names = (self.inputs.list)(folder);
        let names = names.map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
        let fits = |name: &OsString| pattern.matches_with(&name.to_string_lossy(), OPTIONS);
        let mut names: Vec<OsString> = names.into_iter().filter(fits).collect();
        names.sort_unstable();
        Ok(names.into_iter().map(|name| path.with_file_name(name)).collect())
    }

    /// Returns whether the file is another than those that are there.
    fn add(&mut self, path: &Path, written: &str) -> Result<bool, String> {
        if self.texts.texts.len() > INCLUDED_FILES_MAX {
            return Err(format!("more than {INCLUDED_FILES_MAX} files, with those of {written:?}"));
        }
        self.texts.files.push(path.to_owned());
        let start = self.texts.texts.last().map_or(0, Text::end);
        match file::read(path, start, self.inputs) {
            Ok(text) if text.id.is_some_and(|id| !self.known.insert(id)) => return Ok(false),
            Ok(text) => self.texts.texts.push(text),
            Err(error) => self.texts.errors.push(error),
        }
        Ok(true)
    }
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '['])
}
