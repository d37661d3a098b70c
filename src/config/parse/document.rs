//! The texts of a configuration as one document, in which each value has a place of its own: that of its text, counted
//! on from the ones before it.

use std::borrow::Cow;
use std::collections::HashSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::Text;
use super::report::{Report, Spot};

/// Returns the document of all `texts`, and whether it is complete: what is missing would be reported as further
/// mistakes. Returns `None` when one of them is not TOML.
pub(super) fn read<'t>(texts: &'t [Text], report: &mut Report) -> Option<(Spanned<DeTable<'t>>, bool)> {
    let mut documents = Vec::new();
    for text in texts {
        let (document, errors) = DeTable::parse_recoverable(&text.text);
        report_syntax(&errors, text.start, report);
        let span = document.span();
        documents.push(
            errors.is_empty().then(|| Spanned::new(span, moved_table(document.into_inner(), text.start))),
        );
    }
    // All that is not TOML is reported, whichever text it is in.
    let mut documents = documents.into_iter().collect::<Option<Vec<_>>>()?.into_iter();
    let mut all = documents.next()?;
    let mut is_whole = true;
    for included in documents {
        for (key, value) in included.into_inner() {
            is_whole &= add(all.get_mut(), key, value, report);
        }
    }
    Some((all, is_whole))
}

/// Adds what an included file has: lists go behind those that are there, and anything else is in one file only.
/// False when something is left out that others may refer to.
fn add<'t>(
    all: &mut DeTable<'t>,
    key: Spanned<Cow<'t, str>>,
    value: Spanned<DeValue<'t>>,
    report: &mut Report,
) -> bool {
    let (name, spot) = (key.get_ref().to_string(), Spot::Byte(key.span().start));
    if name == "include" {
        report.add_bare(&spot, "include: an included file includes no others");
        return true;
    }
    let Some(first) = all.get_key_value(name.as_str()).map(|(first, _)| first.span().start) else {
        all.insert(key, value);
        return true;
    };
    let is_list = matches!(name.as_str(), "listener" | "pool");
    if !is_list {
        let see = report.see(&Spot::Byte(first), &spot);
        report.add_bare(&spot, format_args!("{name}: is in another file too{see}"));
        return true;
    }
    // That the first of them is no list is reported like any key that does not fit.
    let Some(DeValue::Array(known)) = all.get_mut(name.as_str()).map(Spanned::get_mut) else { return false };
    let DeValue::Array(further) = value.into_inner() else {
        report.add_bare(&spot, format_args!("{name}: must be a list of tables, write [[{name}]]"));
        return false;
    };
    further.into_iter().for_each(|element| known.push(element));
    true
}

/// `table` with all places `by` further on.
fn moved_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    if by == 0 {
        return table;
    }
    let moved_key = |key: Spanned<_>| {
        let span = key.span();
        Spanned::new(span.start + by..span.end + by, key.into_inner())
    };
    table.into_iter().map(|(key, value)| (moved_key(key), moved(value, by))).collect()
}

fn moved(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(moved_table(table, by)),
        DeValue::Array(array) => {
            DeValue::Array(array.into_iter().map(|element| moved(element, by)).collect())
        }
        plain @ (DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)) => plain,
    };
    Spanned::new(span.start + by..span.end + by, value)
}

/// Reports the first error of each line: the parser's later ones are consequences.
fn report_syntax(errors: &[toml::de::Error], start: usize, report: &mut Report) {
    let mut lines = HashSet::new();
    for error in errors {
        let byte = start + error.span().map_or(0, |span| span.start);
        if lines.insert(report.line_start(byte)) {
            report.add_bare(&Spot::Byte(byte), format_args!("not TOML: {}", error.message()));
        }
    }
}
