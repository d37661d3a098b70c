//! `ca_file`: the files with certificates that the texts of a configuration name. Their content belongs to what was read:
//! where it changes, a reload makes another configuration.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::file::{self, Inputs, Text};
use super::variables;

/// The key, in whichever table it is.
const KEY: &str = "ca_file";

/// A file with certificates.
#[derive(Hash)]
pub(super) struct Trusted {
    pub(super) path: PathBuf,
    /// Its text, or why there is none.
    content: Result<String, String>,
}

/// Returns the files that `texts` name, each once, as they are now.
pub(super) fn read_all(texts: &[Text], inputs: Inputs) -> Vec<Trusted> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for Text { text, folder, .. } in texts.iter().filter(|text| text.text.contains(KEY)) {
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
        let text = file::read(&path, 0, inputs);
        Trusted { path, content: text.map(|text| text.text).map_err(|error| error.to_string()) }
    };
    paths.into_iter().map(read).collect()
}

/// Adds the values of the key in `table` and in all tables inside of it.
fn find(table: &DeTable<'_>, named: &mut Vec<String>) {
    for (key, value) in table {
        match value.get_ref().as_str() {
            Some(text) if key.get_ref() == KEY => named.push(text.to_owned()),
            Some(_) | None => find_in(value.get_ref(), named),
        }
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
        for (path, text) in [(&second, "two"), (&first, "three"), (&second, "four")] {
            std::fs::write(path, text).unwrap();
            let digest = look(&main, FILES).digest;
            assert!(!known.contains(&digest), "{text}");
            known.push(digest);
        }
    }
}
