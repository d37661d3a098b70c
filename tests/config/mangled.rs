//! Text that is no configuration: it brings up errors of one line each, and never a panic. Case 97.

use l4lb::config::{self, BackendFlag};
use proptest::prelude::*;

use super::{lines_of, parse};

/// Whatever the text: a configuration, or errors of one line each.
fn never_panics(text: &str) {
    match parse(text) {
        Ok(config) => assert!(!config.to_string().is_empty()),
        Err(errors) => {
            assert!(!errors.is_empty());
            assert!(lines_of(&errors).iter().all(|line| !line.contains('\n')), "{errors:?}");
        }
    }
}

/// The full file with every key set; a check that is off may have the keys of every type, and an agent those of HTTP.
fn full_file() -> String {
    let every_key = include_str!("../../config/l4lb.toml").replace("\n#", "\n").replace("\n ", "\n# ");
    let unchecked = every_key.replacen("type = \"tcp\"", "type = \"off\"", 1);
    let of_tcp = "send = \"{backend}\\n\"\n";
    assert!(unchecked.contains(of_tcp), "it has the key of an agent over TCP");
    // As long as the ttl of what is announced.
    let unchecked = unchecked.replace("shutdown_delay = \"0s\"", "shutdown_delay = \"1s\"");
    unchecked.replace("type = \"tcp\"", "type = \"http\"").replace(of_tcp, "")
}

#[test]
fn the_file_to_mangle_is_good() {
    assert_eq!(parse(&full_file()).err(), None);
}

/// What replaces a piece of a good file: pieces of other files, odd values, anything.
fn fragment() -> impl Strategy<Value = String> {
    let lines: Vec<String> = full_file().lines().map(str::to_string).collect();
    let odd = [
        "",
        "\n",
        "=",
        "[[",
        "]]",
        "{",
        "}",
        "\"",
        "0",
        "-1",
        "99999999999999999999",
        "1e999",
        "nan",
        "\"0s\"",
        "[]",
        "[[[]]]",
        "{a = {}}",
        "1979-05-27",
        "true",
        "\"\\u0000\"",
        "\\",
        "\u{feff}",
        "\"[::]:80\"",
        "\"99999999999999h\"",
    ];
    prop_oneof![
        proptest::sample::select(lines),
        proptest::sample::select(odd.map(str::to_string).to_vec()),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        never_panics(&text);
    }

    #[test]
    fn arbitrary_values_of_flags_never_panic(text in prop_oneof![any::<String>(), "[0-9a-z:.,=\\[\\]]{0,24}"]) {
        let backend: Result<BackendFlag, _> = text.parse();
        let errors = [
            backend.err(),
            config::parse_bind(&text).err(),
            config::parse_workers(&text).err(),
            config::parse_sessions(&text).err(),
            config::parse_timeout(&text).err(),
        ];
        prop_assert!(errors.iter().flatten().all(|error| !error.to_string().is_empty()));
    }

    #[test]
    fn a_mangled_file_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, fragment()), 1..6)
    ) {
        let mut text: Vec<char> = full_file().chars().collect();
        for (start, len, fragment) in edits {
            let start = start.index(text.len() + 1);
            let end = (start + len).min(text.len());
            text.splice(start..end, fragment.chars());
        }
        never_panics(&text.into_iter().collect::<String>());
    }

    #[test]
    fn a_file_with_odd_values_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), fragment()), 1..8)
    ) {
        let mut lines: Vec<String> = full_file().lines().map(str::to_string).collect();
        for (index, fragment) in edits {
            let index = index.index(lines.len());
            let key = lines[index].split('=').next().unwrap_or_default().to_string();
            lines[index] = format!("{key}= {fragment}");
        }
        never_panics(&lines.join("\n"));
    }
}
