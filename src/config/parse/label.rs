//! The names of listeners, pools and backends in messages.

use toml::de::DeTable;

/// Returns the name of a listener, pool or backend in messages: its name, else its address, else its position among the
/// others.
pub(in crate::config) fn label(
    noun: &str,
    name: Option<&str>,
    address: Option<&str>,
    index: usize,
) -> String {
    match (name, address) {
        (Some(name), _) => format!("{noun} {name:?}"),
        (None, Some(address)) => format!("{noun} {address}"),
        (None, None) => format!("{noun} #{}", index + 1),
    }
}

/// Returns the name of the `index`-th `[[key]]` in messages.
pub(super) fn label_of(key: &str, table: &DeTable, index: usize) -> String {
    let text = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str());
    label(key, text("name"), text("bind").or(text("address")), index)
}
