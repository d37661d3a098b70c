//! Aligned columns. Nothing is cut or wrapped to the width of a terminal: a name is worth more than a tidy edge.

use std::env;

use comfy_table::{CellAlignment, Table, presets};

use crate::config::one_line;

pub(super) use comfy_table::{Cell, Color};

const GAP: u16 = 2;

/// A column: its heading and its alignment.
#[derive(Clone, Copy)]
pub(super) enum Column {
    /// Text, aligned left.
    Text(&'static str),
    /// Figures, aligned right.
    Figure(&'static str),
}

impl Column {
    const fn heading(self) -> &'static str {
        match self {
            Self::Text(heading) | Self::Figure(heading) => heading,
        }
    }

    const fn alignment(self) -> CellAlignment {
        match self {
            Self::Text(_) => CellAlignment::Left,
            Self::Figure(_) => CellAlignment::Right,
        }
    }
}

/// Returns rows below headings; coloured on a terminal only, and not with NO_COLOR set (no-color.org).
pub(super) fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<Cell>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().map(|column| column.heading()));
    table.style_text_only();
    if env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        table.force_no_tty();
    }
    for (column, settings) in columns.iter().zip(table.column_iter_mut()) {
        settings.set_cell_alignment(column.alignment());
        settings.set_padding((0, GAP));
    }
    for row in rows {
        table.add_row(row);
    }
    table.trim_fmt() + "\n"
}

/// Returns names in front of values.
pub(super) fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in rows {
        table.add_row([cell(name), cell(value)]);
    }
    for settings in table.column_iter_mut() {
        settings.set_padding((0, GAP));
    }
    table.trim_fmt() + "\n"
}

/// Returns a cell; control characters are escaped.
#[expect(clippy::needless_pass_by_value, reason = "figures and names are given alike")]
pub(super) fn cell(content: impl ToString) -> Cell {
    Cell::new(one_line(&content.to_string()))
}

/// Returns a cell that is `-` without content.
pub(super) fn maybe(content: Option<impl ToString>) -> Cell {
    content.map_or_else(|| Cell::new("-"), cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_names_stay_whole() {
        let name = "n".repeat(200);
        let rows = [vec![cell(&name), cell(7)], vec![cell("b\u{1b}[2J"), cell(1234)]];
        let text = table(&[Column::Text("NAME"), Column::Figure("SESSIONS")], rows);
        let line = |name: &str, figure: &str| format!("{name:<200}  {figure:>8}\n");
        let expected = line("NAME", "SESSIONS") + &line(&name, "7") + &line("b\\u{1b}[2J", "1234");
        assert_eq!(text, expected);
    }

    #[test]
    fn values_stand_in_one_column() {
        assert_eq!(pairs([("a", "1".into()), ("longer", "2".into())]), "a       1\nlonger  2\n");
    }
}
