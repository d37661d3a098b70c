//! `allow` and `deny` of a listener, with the files that they name.

use std::path::PathBuf;
use std::sync::Arc;

use super::reader::{Reader, quote};
use crate::admission::access::FILE;
use crate::admission::{Access, Item, ListFile, Rule};
use crate::base::network::{EXPECTED, Network, NoNetwork};
use crate::config::error::Error;
use crate::config::model::Config;
use crate::config::parse::file::{self, Inputs};
use crate::config::parse::label::label;
use crate::config::parse::raw::{Key, RawListener};
use crate::config::parse::report::{Report, Scope};
use crate::config::ranges::{ACCESS_ITEMS_MAX, LIST_MISTAKES_MAX};

/// Returns the lists of a listener; `None` when they have no value.
pub(super) fn check(
    raw: &RawListener,
    scope: &Scope,
    inputs: Inputs,
    report: &mut Report,
) -> Option<Arc<Access>> {
    let mut read = Reader { report, scope };
    let allow = items(&mut read, "allow", &raw.allow, inputs);
    let deny = items(&mut read, "deny", &raw.deny, inputs);
    let has_any = !allow.is_empty() || !deny.is_empty();
    has_any.then(|| Arc::new(Access::new(allow, deny)))
}

/// A value of a list, before its file is read.
enum Named {
    Network(Network),
    File(PathBuf),
}

/// Returns the values of a list; none for a wrong one.
fn items(read: &mut Reader<'_>, name: &str, key: &Key, inputs: Inputs) -> Vec<Item> {
    let is_empty = |value: &toml::Value| value.as_array().is_some_and(Vec::is_empty);
    if key.as_ref().is_some_and(|value| is_empty(value.get_ref())) {
        return Vec::new();
    }
    let named = |text: &str| match text.strip_prefix(FILE) {
        Some("") => Err(format!("must have a path behind {FILE:?}")),
        Some(path) => Ok(Named::File(path.into())),
        None => text.parse().map(Named::Network).map_err(|error: NoNetwork| error.to_string()),
    };
    let named = read.list(name, key, ACCESS_ITEMS_MAX, "networks and files", named).unwrap_or_default();
    let mut items = Vec::new();
    for value in named {
        match value {
            Named::Network(network) => items.push(Item::Network(network)),
            Named::File(path) => items.extend(file(read, name, key, path, inputs).map(Item::File)),
        }
    }
    items
}

/// Returns the networks of a file; reports why it has none, and each line that is wrong.
fn file(read: &mut Reader<'_>, name: &str, key: &Key, path: PathBuf, inputs: Inputs) -> Option<ListFile> {
    let path = read.folder(key).join(path);
    let scope = format!("{}: {name}", read.scope.name);
    match read_list(path, &scope, inputs) {
        Ok(list) => Some(list),
        Err(Wrong::Unreadable(error)) => {
            read.wrong(name, key, error);
            None
        }
        Err(Wrong::Lines(errors)) => {
            errors.into_iter().for_each(|error| read.report.add_unreadable(error));
            None
        }
    }
}

/// Why a file is no list.
enum Wrong {
    Unreadable(Error),
    Lines(Vec<Error>),
}

/// Returns the networks of a file, or what is wrong with it: its first mistakes, for the list that `scope` names.
fn read_list(path: PathBuf, scope: &str, inputs: Inputs) -> Result<ListFile, Wrong> {
    let text = file::read(&path, 0, inputs).map_err(Wrong::Unreadable)?;
    let (mut networks, mut errors, mut more) = (Vec::new(), Vec::new(), 0);
    for (line, number) in text.text.lines().zip(1..) {
        let line = line.split_once('#').map_or(line, |(before, _)| before).trim();
        match line.parse() {
            Ok(network) => networks.push((number, network)),
            Err(_) if line.is_empty() => {}
            Err(NoNetwork { .. }) if errors.len() < LIST_MISTAKES_MAX => {
                let what = format!("{scope}: {EXPECTED}, got {}", quote(line));
                errors.push(Error::Line { file: text.file.clone(), line: number as usize, what });
            }
            Err(NoNetwork { .. }) => more += 1,
        }
    }
    if more > 0 {
        errors.push(Error::File {
            file: text.file,
            what: format!("{scope}: {more} more lines are no networks"),
        });
    }
    if errors.is_empty() { Ok(ListFile::new(path, networks)) } else { Err(Wrong::Lines(errors)) }
}

/// Returns `config` with the files of all its lists as they are now. Fails with every mistake in them.
pub fn read_lists_again(config: &Config, inputs: Inputs) -> Result<Config, Vec<Error>> {
    let (mut config, mut errors) = (config.clone(), Vec::new());
    for listener in &mut config.listeners {
        let Some(access) = &listener.access else { continue };
        let scope = label("listener", Some(&listener.name), None, 0);
        let [allow, deny] = [Rule::Allow, Rule::Deny].map(|rule| {
            let scope = format!("{scope}: {}", rule.as_str());
            let read = |item: &Item| match item {
                Item::Network(network) => Some(Item::Network(*network)),
                Item::File(list) => match read_list(list.path.clone(), &scope, inputs) {
                    Ok(list) => Some(Item::File(list)),
                    Err(Wrong::Unreadable(error)) => {
                        errors.push(error);
                        None
                    }
                    Err(Wrong::Lines(lines)) => {
                        errors.extend(lines);
                        None
                    }
                },
            };
            access.items(rule).iter().filter_map(read).collect()
        });
        listener.access = Some(Arc::new(Access::new(allow, deny)));
    }
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use crate::admission::Rule;
    use crate::config::{Inputs, Overrides, load, look, read_lists_again, system_resolver, warnings};

    const FILES: Inputs = Inputs { open: |path| File::open(path), ..Inputs::NOTHING };

    /// A folder with these files, the first of which is the configuration.
    fn folder(keys: &str, list: Option<&str>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:9090\"\n{keys}\n\
             [[pool]]\nbackend = [{{ address = \"127.0.0.1:1\" }}]\n"
        );
        fs::write(folder.path().join("lb.toml"), text).unwrap();
        if let Some(list) = list {
            fs::write(folder.path().join("list"), list).unwrap();
        }
        folder
    }

    fn errors(keys: &str, list: Option<&str>) -> Vec<String> {
        let folder = folder(keys, list);
        let path = folder.path().join("lb.toml");
        let errors = load(Some(&path), &Overrides::default(), FILES, &mut system_resolver).unwrap_err();
        let root = format!("{}/", folder.path().display());
        errors.iter().map(|error| error.to_string().replace(&root, "")).collect()
    }

    #[test]
    fn a_file_has_a_network_per_line_with_comments() {
        let list = "# ours\n10.0.0.0/8\n\n  2001:db8::/32 # theirs\r\n192.0.2.7\n";
        let folder = folder("deny = [\"198.51.100.0/24\", \"file:list\"]", Some(list));
        let path = folder.path().join("lb.toml");
        let config = load(Some(&path), &Overrides::default(), FILES, &mut system_resolver).unwrap();
        let access = config.listeners[0].access.as_ref().unwrap();
        assert_eq!(access.networks(Rule::Deny), 4);
        let by = access.decide("2001:db8::1".parse().unwrap()).by.unwrap();
        assert_eq!(by.place, Some((folder.path().join("list").as_path(), 4)));
        assert_eq!(warnings(&config), [""; 0]);
    }

    #[test]
    fn mistakes_in_lists_name_the_file_and_the_line() {
        let network = "must be an IP address or a network like 10.0.0.0/8 or 2001:db8::/32";
        assert_eq!(
            errors("allow = [\"10.0.0.0/33\"]", None),
            [format!("lb.toml:4: listener \"in\": allow: {network}, got \"10.0.0.0/33\"")]
        );
        assert_eq!(
            errors("allow = [\"file:list\"]", Some("10.0.0.1\nhost.test\n10.0.0.2, 10.0.0.3\n")),
            [
                format!("list:2: listener \"in\": allow: {network}, got \"host.test\""),
                format!("list:3: listener \"in\": allow: {network}, got \"10.0.0.2, 10.0.0.3\""),
            ]
        );
        let missing = "list: cannot read it: No such file or directory (os error 2)";
        assert_eq!(
            errors("deny = [\"file:list\"]", None),
            [format!("lb.toml:4: listener \"in\": deny: {missing}")]
        );
        assert_eq!(
            errors("deny = [\"file:\"]", None),
            ["lb.toml:4: listener \"in\": deny: must have a path behind \"file:\""]
        );
        let many = errors("deny = [\"file:list\"]", Some(&"x\n".repeat(50)));
        assert_eq!(many.len(), 11);
        assert_eq!(many[10], "list: listener \"in\": deny: 40 more lines are no networks");
    }

    #[test]
    fn lists_without_a_value_are_none_and_a_file_without_a_network_is_a_warning() {
        let folder = folder("allow = []\ndeny = []", None);
        let path = folder.path().join("lb.toml");
        let load = || load(Some(&path), &Overrides::default(), FILES, &mut system_resolver).unwrap();
        assert_eq!(load().listeners[0].access, None);
        let text = fs::read_to_string(&path).unwrap().replace("allow = []", "allow = [\"file:list\"]");
        fs::write(&path, text).unwrap();
        fs::write(folder.path().join("list"), "# none yet\n").unwrap();
        let warning = "listener \"in\": allow: its files have no network: every client is refused";
        assert_eq!(warnings(&load()), [warning]);
    }

    #[test]
    fn another_list_in_a_file_is_another_configuration() {
        let folder = folder("deny = [\"192.0.2.1\", \"file:list\"]", Some("10.0.0.1\n"));
        let path = folder.path().join("lb.toml");
        let first = look(&path, FILES);
        assert_eq!(first.files, [path.clone(), folder.path().join("list")]);
        fs::write(folder.path().join("list"), "10.0.0.2\n").unwrap();
        assert_ne!(look(&path, FILES).digest, first.digest);
    }

    #[test]
    fn lists_are_read_again_whole_or_not_at_all() {
        let folder = folder("allow = [\"192.0.2.1\", \"file:list\"]", Some("10.0.0.1\n"));
        let path = folder.path().join("lb.toml");
        let config = load(Some(&path), &Overrides::default(), FILES, &mut system_resolver).unwrap();
        assert_eq!(read_lists_again(&config, FILES).unwrap(), config);
        let list = folder.path().join("list");
        fs::write(&list, "10.0.0.2\n10.0.0.3\n").unwrap();
        let again = read_lists_again(&config, FILES).unwrap();
        assert_eq!(again.listeners[0].access.as_ref().unwrap().networks(Rule::Allow), 3);
        fs::write(&list, "10.0.0.2\nx\n").unwrap();
        let errors = read_lists_again(&config, FILES).unwrap_err();
        assert!(
            errors[0].to_string().contains("list:2: listener \"in\": allow: must be an IP"),
            "{}",
            errors[0]
        );
        fs::remove_file(&list).unwrap();
        let errors = read_lists_again(&config, FILES).unwrap_err();
        assert!(errors[0].to_string().ends_with("No such file or directory (os error 2)"), "{}", errors[0]);
    }
}
