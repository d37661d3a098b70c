//! The files that values of a configuration name, with certificates (`ca_file`) or networks (`file:` in `allow` and
//! `deny`). Their content belongs to what was read: where it changes, a reload makes another configuration.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::file::{Inputs, Text};
use super::variables;
use crate::admission::Rule;
use crate::admission::access::FILE;
use crate::config::ranges::FILE_MIB_MAX;

/// The key of a file with certificates, in whichever table it is.
const KEY: &str = "ca_file";
/// The keys of lists of networks.
const LISTS: [&str; 2] = [Rule::Allow.as_str(), Rule::Deny.as_str()];

/// A file that a value names.
#[derive(Hash)]
pub(super) struct Named {
    pub(super) path: PathBuf,
    /// Its bytes, or why there are none.
    content: Result<Vec<u8>, String>,
}

/// Returns the files that `texts` name, each once, as they are now.
pub(super) fn read_all(texts: &[Text], inputs: Inputs) -> Vec<Named> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for Text { text, folder, .. } in texts.iter().filter(|text| has_any(text)) {
        // What is wrong in it is found when it is checked.
        let (document, _) = DeTable::parse_recoverable(text);
        let mut named = Vec::new();
        find(document.get_ref(), &mut named);
        let put = named.iter().filter_map(|written| variables::put_into_one(written, inputs));
        paths.extend(put.map(|path| folder.join(path)));
    }
    paths.sort_unstable();
    paths.dedup();
    let read = |path: PathBuf| {
        let content = read(&path, inputs).map_err(|error| error.to_string());
        Named { path, content }
    };
    paths.into_iter().map(read).collect()
}

/// Returns whether the text may name a file; most of them need no second look.
fn has_any(text: &Text) -> bool {
    text.text.contains(KEY) || text.text.contains(FILE)
}

/// Returns the bytes of a file, as many as a configuration may have.
fn read(path: &Path, inputs: Inputs) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (inputs.open)(path)?.take(FILE_MIB_MAX << 20).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Adds the paths in `table` and in all tables inside of it.
fn find(table: &DeTable<'_>, named: &mut Vec<String>) {
    for (key, value) in table {
        let (key, value) = (key.get_ref().as_ref(), value.get_ref());
        let text = value.as_str().filter(|_| key == KEY);
        named.extend(text.map(str::to_owned));
        if let Some(values) = value.as_array().filter(|_| LISTS.contains(&key)) {
            let values = values.iter().filter_map(|value| value.get_ref().as_str());
            named.extend(values.filter_map(|text| text.strip_prefix(FILE)).map(str::to_owned));
        }
        find_in(value, named);
    }
}

fn find_in(value: &DeValue<'_>, named: &mut Vec<String>) {
    match value {
        DeValue::Table(table) => find(table, named),
        DeValue::Array(elements) => elements.iter().for_each(|element| find_in(element.get_ref(), named)),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::include::look;

    const FILES: Inputs = Inputs { open: |path| std::fs::File::open(path), ..Inputs::NOTHING };

    #[test]
    fn another_certificate_in_a_file_that_is_named_anywhere_is_another_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let (main, first, second) =
            (folder.path().join("lb.toml"), folder.path().join("a.pem"), folder.path().join("b.pem"));
        let text = "[[pool]]\nhealth = { tls = { ca_file = \"a.pem\" } }\n\
            [[pool]]\ncheck = [{ tls = { ca_file = \"b.pem\" } }, { tls = { ca_file = \"a.pem\" } }]\n";
        std::fs::write(&main, text).unwrap();
        std::fs::write(&first, "one").unwrap();
        let without = look(&main, FILES);
        assert_eq!(without.files, [main.clone(), first.clone(), second.clone()]);
        assert_eq!(without.digest, look(&main, FILES).digest);
        let mut known = vec![without.digest];
        let contents = [(&second, b"two".as_slice()), (&first, b"\xff"), (&first, b"\xff\xff")];
        for (path, text) in contents {
            std::fs::write(path, text).unwrap();
            let digest = look(&main, FILES).digest;
            assert!(!known.contains(&digest), "{text:?}");
            known.push(digest);
        }
    }
}
