//! The table of backends, with as many columns as there is room for.

use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Text;
use ratatui::widgets::{Cell, Row, Table, Widget};

use crate::api;
use crate::config::one_line;
use crate::ctl::figures::age;
use crate::ctl::state_words;
use crate::top::app::{App, Column};
use crate::top::rates::{self, Rates, bytes_rate, rate};

const GAP: u16 = 2;
/// The column of reasons is left out when narrower than this.
const WHY_MIN: u16 = 16;
/// The heading of that column.
const WHY: &str = "WHY";

/// Columns by importance: the last one goes first.
const WORTH: [Column; 10] = [
    Column::Backend,
    Column::State,
    Column::Sessions,
    Column::New,
    Column::ToClient,
    Column::ToBackend,
    Column::Failures,
    Column::Priority,
    Column::Weight,
    Column::Address,
];

/// The part of the table on the screen.
pub(super) struct Shown {
    /// The first row, starting at 1; 0 without rows.
    pub(super) first: usize,
    pub(super) last: usize,
    /// The number of all rows.
    pub(super) rows: usize,
    pub(super) selected: Option<api::Backend>,
}

/// Draws the page with the selected row; returns what it shows.
pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) -> Shown {
    let rows = app.rows();
    let selected = app.selected_in(&rows);
    let page = usize::from(area.height.saturating_sub(1)).max(1);
    let first = selected / page * page;
    let shown = &rows[first..rows.len().min(first + page)];
    let columns = Columns::that_fit(app, &rows, area.width);
    let drawn = shown.iter().enumerate().map(|(index, row)| {
        let mut cells: Vec<Cell> = columns.shown.iter().map(|(column, _)| cell(*column, row)).collect();
        if columns.why > 0 {
            cells.push(Cell::new(one_line(&why(app, &row.backend).unwrap_or_default())));
        }
        let is_selected = first + index == selected && !app.printed;
        let style = if is_selected { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        Row::new(cells).style(style)
    });
    let table = Table::new(drawn, columns.constraints()).header(columns.header(app)).column_spacing(GAP);
    Widget::render(table, area, buffer);
    Shown {
        first: if shown.is_empty() { 0 } else { first + 1 },
        last: first + shown.len(),
        rows: rows.len(),
        selected: rows.get(selected).map(|row| row.backend.clone()),
    }
}

/// Returns since when the backend is in its state, and the finding of its checks.
pub(super) fn why(app: &App, backend: &api::Backend) -> Option<String> {
    let now = app.sample.as_ref()?.time;
    let since = backend.health_since.map(|since| format!("for {}", age(now, since)));
    let agent = backend.agent.as_ref().and_then(api::Agent::words);
    let placed = backend.placed.as_ref().map(api::Placed::words);
    let parts = backend.kept_out().into_iter().chain(since).chain(backend.findings());
    let parts: Vec<String> = parts.chain(placed).chain(agent).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The columns, from left to right, each with its width; and the width left for reasons.
struct Columns {
    shown: Vec<(Column, u16)>,
    why: u16,
}

impl Columns {
    fn that_fit(app: &App, rows: &[&rates::Row], width: u16) -> Self {
        let needed = |column: Column| {
            let widest = rows.iter().map(|row| Text::raw(words(column, row)).width()).max().unwrap_or(0);
            // Room for the arrow that shows the order.
            let needed = u16::try_from(widest.max(heading(column).len() + 1)).unwrap_or(u16::MAX);
            // One long name must not push everything else out.
            if column == Column::Backend { needed.min((width / 3).max(12)) } else { needed }
        };
        // The column that rows are sorted by is never left out.
        let has_tiers = rows.iter().any(|row| row.backend.priority > 0);
        let is_of_use = |column: &Column| has_tiers || *column != Column::Priority;
        let by_worth = [Column::Backend, app.column].into_iter().chain(WORTH.into_iter().filter(is_of_use));
        let mut left = width.saturating_add(GAP);
        let mut chosen: Vec<(Column, u16)> = Vec::new();
        for column in by_worth {
            let needed = needed(column);
            let is_new = chosen.iter().all(|(known, _)| *known != column);
            if is_new && (needed.saturating_add(GAP) <= left || chosen.is_empty()) {
                left = left.saturating_sub(needed.saturating_add(GAP));
                chosen.push((column, needed));
            }
        }
        chosen.sort_by_key(|(column, _)| Column::ALL.iter().position(|known| known == column));
        let why = left.saturating_sub(GAP);
        Self { shown: chosen, why: if why < WHY_MIN { 0 } else { why } }
    }

    fn constraints(&self) -> Vec<Constraint> {
        let widths = self.shown.iter().map(|(_, width)| *width);
        widths.chain((self.why > 0).then_some(self.why)).map(Constraint::Length).collect()
    }

    fn header(&self, app: &App) -> Row<'static> {
        let cells = self.shown.iter().map(|(column, _)| {
            let arrow = if app.reversed { '\u{2191}' } else { '\u{2193}' };
            let is_sorted = *column == app.column;
            let heading = heading(*column);
            let words = if is_sorted { format!("{heading}{arrow}") } else { heading.to_owned() };
            let style = if is_sorted { Style::new().fg(Color::Cyan) } else { Style::new() };
            Cell::new(Text::raw(words).alignment(alignment(*column))).style(style)
        });
        let why = (self.why > 0).then(|| Cell::new(WHY));
        Row::new(cells.chain(why)).style(Style::new().add_modifier(Modifier::BOLD))
    }
}

const fn heading(column: Column) -> &'static str {
    match column {
        Column::Backend => "BACKEND",
        Column::Address => "ADDRESS",
        Column::State => "STATE",
        Column::Priority => "PRI",
        Column::Weight => "WGT",
        Column::Sessions => "SESS",
        Column::New => "CONN/S",
        Column::ToBackend => "IN/S",
        Column::ToClient => "OUT/S",
        Column::Failures => "FAIL/S",
    }
}

const fn alignment(column: Column) -> Alignment {
    match column {
        Column::Backend | Column::Address | Column::State => Alignment::Left,
        Column::Priority | Column::Weight | Column::Sessions | Column::New => Alignment::Right,
        Column::ToBackend | Column::ToClient | Column::Failures => Alignment::Right,
    }
}

fn cell(column: Column, row: &rates::Row) -> Cell<'static> {
    let backend = &row.backend;
    let failing = row.rates.is_some_and(|rates| rates.failures > 0.0);
    let style = match column {
        Column::State => match (backend.eligible, backend.admin) {
            (true, _) => Style::new().fg(Color::Green),
            (false, api::Admin::Ready) => Style::new().fg(Color::Red),
            (false, api::Admin::Drain | api::Admin::Maint) => Style::new().fg(Color::Yellow),
        },
        Column::Failures if failing => Style::new().fg(Color::Red),
        Column::Backend | Column::Address | Column::Priority | Column::Weight => Style::new(),
        Column::Sessions | Column::New | Column::ToBackend | Column::ToClient | Column::Failures => {
            Style::new()
        }
    };
    Cell::new(Text::raw(words(column, row)).alignment(alignment(column))).style(style)
}

fn words(column: Column, row: &rates::Row) -> String {
    let backend = &row.backend;
    let rated = |show: fn(f64) -> String, of: fn(&Rates) -> f64| {
        row.rates.as_ref().map_or_else(|| "-".to_owned(), |rates| show(of(rates)))
    };
    match column {
        Column::Backend => one_line(&format!("{}/{}", backend.pool, backend.name)),
        Column::Address => one_line(&backend.address),
        Column::State => state_words(backend),
        Column::Priority => backend.priority.to_string(),
        Column::Weight => backend.weight.to_string(),
        Column::Sessions => backend.sessions.to_string(),
        Column::New => rated(rate, |rates| rates.sessions),
        Column::ToBackend => rated(bytes_rate, |rates| rates.to_backend),
        Column::ToClient => rated(bytes_rate, |rates| rates.to_client),
        Column::Failures => rated(rate, |rates| rates.failures),
    }
}
