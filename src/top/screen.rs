//! Draws an [`App`] in the space available: the least important parts go first.

use std::time::Duration;

use jiff::fmt::strtime;
use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Sparkline, Widget};

use crate::api;
use crate::base::time::Instant;
use crate::config::one_line;
use crate::ctl::figures::{age, bytes, count, span};
use crate::ctl::{stage_word, state_words};
use crate::top::app::{App, Link, Mode, Panel};
use crate::top::panels;
use crate::top::rates::{History, Rates, bytes_rate, rate};
use crate::top::sources;
use crate::top::table;

/// Height of the lines about the process.
const HEAD_LINES: u16 = 2;
/// Charts and events appear from the first height on, and are taller from the second.
const TALL: u16 = 20;
const TALLER: u16 = 36;
/// Width of the help, with its frame.
const HELP_WIDTH: u16 = 66;

const READ_ONLY_KEYS: &str =
    "q quit  ? help  \u{2191}\u{2193} move  s sort  r reverse  / filter  v view below  read-only";
const KEYS: &str =
    "q quit  ? help  \u{2191}\u{2193} move  s sort  r reverse  / filter  d drain  y ready  m maint  v view";

const HELP: &str = "\
up, down, k, j   select a backend; PgUp, PgDn, Home, End too
s, right, left   sort by the next column, or by the one before
r                reverse the order
/                show only what has these letters in its name,
                 address or state; Esc shows all again
d, y, m          drain the selected backend, make it ready, or
                 put it into maintenance; Enter confirms
v                show events, listeners, open or ended sessions
                 or the last reload below
o                show the sessions with most bytes, the oldest,
                 or those that are silent for longest
x                dismiss a refused reload
q, Ctrl-C        quit

IN/S and OUT/S are bytes given to the backend and to clients,
FAIL/S dials that failed. Errors are sessions that failed: no
backend could be had, or it broke off. p99: of 100 connects to
backends 99 were faster.";

/// The layout of the screen.
struct Places {
    head: Rect,
    charts: Rect,
    table: Rect,
    detail: Rect,
    sources: Rect,
    refusal: Rect,
    panel: Rect,
    foot: Rect,
}

impl Places {
    fn of(app: &App, area: Rect, is_printed: bool) -> Self {
        let (charts, panel) = match area.height {
            0..TALL => (0, 0),
            TALL..TALLER => (4, 4),
            TALLER.. => (7, 9),
        };
        let sources = if area.height < TALL { 0 } else { sources::height(&app.sources) };
        let refusal = u16::from(app.refusal().is_some() && area.height > 6);
        let [head, charts, table, detail, sources, refusal, panel, foot] = Layout::vertical([
            Constraint::Length(HEAD_LINES),
            Constraint::Length(charts),
            Constraint::Min(0),
            Constraint::Length(u16::from(area.height > 6)),
            Constraint::Length(sources),
            Constraint::Length(refusal),
            Constraint::Length(panel),
            Constraint::Length(u16::from(!is_printed)),
        ])
        .areas(area);
        Self { head, charts, table, detail, sources, refusal, panel, foot }
    }
}

/// Returns how many backends a screen of this size has room for.
pub(super) fn rows_on(app: &App, area: Rect) -> usize {
    usize::from(Places::of(app, area, false).table.height.saturating_sub(1))
}

/// Returns the height of a screen with room for `backends` rows, and at least `at_least`.
pub(super) fn height_for(app: &App, backends: usize, at_least: u16) -> u16 {
    let area = Rect::new(0, 0, 1, at_least);
    let lacking = (backends + 1).saturating_sub(Places::of(app, area, true).table.height.into());
    at_least.saturating_add(u16::try_from(lacking).unwrap_or(u16::MAX))
}

pub(super) fn draw(app: &App, now: Instant, area: Rect, buffer: &mut Buffer) {
    let places = Places::of(app, area, app.printed);
    draw_head(app, now, places.head, buffer);
    draw_charts(app, places.charts, buffer);
    let shown = table::draw(app, places.table, buffer);
    detail(app, &shown).render(places.detail, buffer);
    if let Some(sample) = &app.sample {
        Paragraph::new(sources::lines(&app.sources, sample.time)).render(places.sources, buffer);
        if let (Some(refused), Some(status)) = (app.refusal(), &app.status) {
            panels::refusal(refused, &status.reload.errors, sample.time, app.may_change())
                .render(places.refusal, buffer);
        }
    }
    draw_panel(app, places.panel, buffer);
    foot(app, now).render(places.foot, buffer);
    if app.mode == Mode::Help {
        draw_help(area, buffer);
    }
}

fn draw_head(app: &App, now: Instant, area: Rect, buffer: &mut Buffer) {
    let [first, second] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
    let process = process(app);
    let left = u16::try_from(process.width()).unwrap_or(u16::MAX);
    process.render(first, buffer);
    let place = Line::raw(format!("  {}", one_line(&app.place))).dim();
    if place.width() + usize::from(left) <= usize::from(first.width) {
        place.alignment(Alignment::Right).render(first, buffer);
    }
    figures(app, now).render(second, buffer);
}

/// Returns the line that identifies the process.
fn process(app: &App) -> Line<'static> {
    let Some(status) = &app.status else { return Line::from("l4lb".bold()) };
    let mut parts = vec![format!("l4lb {}", one_line(&status.version)).bold()];
    if let Some(sample) = &app.sample {
        let word = stage_word(sample.stage);
        parts.push(match sample.stage {
            api::Stage::Serving => format!("  {word}").green(),
            api::Stage::Draining | api::Stage::Stopping => format!("  {word}").yellow(),
        });
        // Both times are of that process.
        parts.push(format!("  up {}", age(sample.time, status.started)).into());
        parts.push(format!("  epoch {}", sample.epoch).into());
    }
    parts.push(format!("  pid {}", status.pid).into());
    Line::from(parts)
}

/// Returns the line of its figures, or why they are not known.
fn figures(app: &App, now: Instant) -> Line<'static> {
    if let Link::Lost(why) = &app.link {
        return Line::from(format!("not reached, trying again: {why}")).red().bold();
    }
    let Some(sample) = &app.sample else { return Line::raw("waiting for the first sample") };
    if let Some(silence) = app.silence(now) {
        let words = format!("no data for {}: it is stopped, or very busy", span(silence.as_secs_f64()));
        return Line::from(words).yellow().bold();
    }
    let rates = app.rates.as_ref();
    let bytes_of = |of: fn(&Rates) -> f64| rates.map_or("-".into(), |rates| bytes_rate(of(rates)));
    let errors = rates.map_or(0.0, |rates| rates.failures);
    let words = format!("errors {}/s", rates.map_or("-".into(), |_| rate(errors)));
    Line::from(vec![
        format!("sessions {}", sample.totals.sessions).bold(),
        format!("  conn {}/s", rates.map_or("-".into(), |rates| rate(rates.sessions))).into(),
        format!("  in {}/s", bytes_of(|rates| rates.to_backend)).into(),
        format!("  out {}/s", bytes_of(|rates| rates.to_client)).into(),
        Span::raw("  "),
        if errors > 0.0 { words.red().bold() } else { words.into() },
    ])
}

/// The title, the history, the format of a value, and the colour.
type Chart<'a> = (&'a str, &'a History, &'a dyn Fn(u64) -> String, Color);

fn draw_charts(app: &App, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let micros = |micros: u64| {
        let time = Duration::from_micros(micros);
        if micros < 10_000 { format!("{:.2}ms", time.as_secs_f64() * 1e3) } else { span(time.as_secs_f64()) }
    };
    let places: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).spacing(2).areas(area);
    let charts: [Chart; 3] = [
        ("conn/s", &app.sessions, &|value| value.to_string(), Color::Cyan),
        ("bytes/s", &app.bytes, &bytes, Color::Green),
        ("connect p99", &app.connect, &micros, Color::Magenta),
    ];
    for ((title, history, show, colour), area) in charts.into_iter().zip(places) {
        let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        let width = usize::from(body.width);
        let values: Vec<Option<u64>> = history.last(width).collect();
        let peak = values.iter().flatten().max().copied();
        let mut line =
            Line::from(vec![format!("{title} ").dim(), history.newest().map_or("-".into(), show).bold()]);
        let peak_words = peak.map(|peak| format!(", peak {}", show(peak))).unwrap_or_default();
        if line.width() + peak_words.len() <= width {
            line.push_span(peak_words.dim());
        }
        line.render(head, buffer);
        // The newest on the right, where the next one appears.
        let gap = std::iter::repeat_n(None, width - values.len());
        let bars: Vec<Option<u64>> = gap.chain(values).collect();
        Sparkline::default().data(bars).max(peak.unwrap_or(0).max(1)).style(colour).render(body, buffer);
    }
}

/// Returns the line with the range of rows shown and the details of the selected one.
fn detail(app: &App, shown: &table::Shown) -> Line<'static> {
    let (all, missing) = app.backends();
    let mut place = format!("{}-{} of {}", shown.first, shown.last, count(shown.rows as u64, "backend"));
    if !app.filter.is_empty() {
        place += &format!(" of {all} with \"{}\"", one_line(&app.filter));
    }
    if missing > 0 {
        place += &format!(", {missing} more in no sample");
    }
    let mut parts = vec![place.dim()];
    if let Some(backend) = &shown.selected
        && !app.printed
    {
        let state = state_words(backend);
        parts.push(format!("  {}/{} at {}", backend.pool, backend.name, backend.address).bold());
        parts.push(format!(", {state} {}", one_line(&table::why(app, backend).unwrap_or_default())).into());
        if let Some(left) = backend.lease_left {
            parts.push(format!(", its lease ends in {}", span(left)).into());
        }
    }
    Line::from(parts)
}

fn draw_panel(app: &App, area: Rect, buffer: &mut Buffer) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let now = app.sample.as_ref().map(|sample| sample.time);
    let (title, lines): (_, Vec<Line>) = match app.panel {
        Panel::Events => {
            let skipped = app.events.len().saturating_sub(body.height.into());
            ("events", app.events.iter().skip(skipped).map(event).collect())
        }
        Panel::Listeners => ("listeners", panels::listeners(&app.listeners)),
        Panel::Sessions => {
            let listed = app.listed.as_ref().filter(|(order, _)| *order == app.order);
            (
                panels::sessions_title(app.order),
                panels::sessions(listed.map(|(_, sessions)| sessions.as_slice())),
            )
        }
        Panel::Ended => (
            "ended sessions",
            app.sample.as_ref().map(|sample| panels::ended(&sample.totals)).unwrap_or_default(),
        ),
        Panel::Reload => {
            let status = app.status.as_ref().zip(now);
            (
                "last reload",
                status.map(|(status, now)| panels::reload(&status.reload, now)).unwrap_or_default(),
            )
        }
    };
    Line::from(title).bold().render(head, buffer);
    Paragraph::new(lines).render(body, buffer);
}

fn event(event: &api::Event) -> Line<'static> {
    let time = strtime::format("%H:%M:%SZ", event.time).unwrap_or_else(|_| event.time.to_string());
    let place = match (&event.pool, &event.backend) {
        (Some(pool), Some(backend)) => format!("{pool}/{backend}: "),
        (Some(pool), None) => format!("{pool}: "),
        (None, _) => String::new(),
    };
    let who = event.who.as_ref().map(|who| format!(" ({who})")).unwrap_or_default();
    Line::from(vec![format!("{time}  ").dim(), one_line(&format!("{place}{}{who}", event.message)).into()])
}

fn foot(app: &App, now: Instant) -> Line<'static> {
    match (&app.mode, app.notice(now)) {
        (Mode::Filter, _) => {
            let typed = format!("/{}", one_line(&app.filter));
            Line::from(vec![typed.bold(), "\u{2588}".into(), "  Enter keeps it, Esc shows all".dim()])
        }
        (Mode::Confirm(change), _) => {
            let name = format!("{}/{}", change.pool, change.backend);
            let rows = app.rows();
            let row = rows
                .iter()
                .find(|row| (&row.backend.pool, &row.backend.name) == (&change.pool, &change.backend));
            let has = row.map(|row| format!(", which has {}", count(row.backend.sessions, "session")));
            let words = format!("{} {name}{}?  Enter: yes  Esc: no", change.verb(), has.unwrap_or_default());
            Line::from(words).style(Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD))
        }
        (Mode::Table | Mode::Help, Some(notice)) => Line::from(notice.to_owned()).bold(),
        (Mode::Table | Mode::Help, None) if app.may_change() => Line::from(KEYS).dim(),
        (Mode::Table | Mode::Help, None) => Line::from(READ_ONLY_KEYS).dim(),
    }
}

fn draw_help(area: Rect, buffer: &mut Buffer) {
    let height = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX).saturating_add(2);
    let place = area.centered(Constraint::Max(HELP_WIDTH), Constraint::Max(height));
    Clear.render(place, buffer);
    let block = Block::bordered().title(" Keys ").title_bottom(" any key goes back ");
    Paragraph::new(HELP).block(block).render(place, buffer);
}

/// Returns the characters drawn, without blanks at the ends of lines and empty lines at the end.
pub(super) fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(buffer.area.width).max(1)) {
        let mut line = String::new();
        let mut hidden = 0;
        for cell in row {
            if hidden > 0 {
                hidden -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            // A wide character covers the cells behind it.
            hidden = Span::raw(cell.symbol()).width().saturating_sub(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}
