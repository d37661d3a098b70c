//! The lines of the sources of backends.

use jiff::Timestamp;
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;

use crate::api;
use crate::config::one_line;
use crate::ctl::figures::{age, count, span};

/// Lines at most: of further sources the last line has the number.
const LINES_MAX: usize = 4;

/// Returns how many lines there are.
pub(super) fn height(sources: &[api::Discovery]) -> u16 {
    u16::try_from(sources.len().min(LINES_MAX)).unwrap_or(u16::MAX)
}

/// Returns a line for each source; those that do not find backends come first, the longest trouble on top.
pub(super) fn lines(sources: &[api::Discovery], now: Timestamp) -> Vec<Line<'static>> {
    let mut sorted: Vec<&api::Discovery> = sources.iter().collect();
    sorted.sort_by_key(|source| (source.state == "found", source.since));
    let shown = if sorted.len() > LINES_MAX { LINES_MAX - 1 } else { sorted.len() };
    let mut lines: Vec<Line> = sorted[..shown].iter().map(|source| line(source, now)).collect();
    if sorted.len() > shown {
        let failing = sorted[shown..].iter().filter(|source| source.state != "found").count();
        let words = format!("and {} more sources, {failing} of them not found", sorted.len() - shown);
        lines.push(Line::from(words).dim());
    }
    lines
}

fn line(source: &api::Discovery, now: Timestamp) -> Line<'static> {
    let colour = match source.state.as_str() {
        "found" => Color::Green,
        "failed" => Color::Red,
        _ => Color::Yellow,
    };
    let is_kept = source.state != "found" && source.backends > 0;
    let kept = if is_kept { ", last good list kept" } else { "" };
    let mut parts = vec![
        format!("{} for {}{kept}", source.state, age(now, source.since)),
        source.age.map_or_else(|| "no answer yet".to_owned(), |age| format!("answered {} ago", span(age))),
        count(source.backends, "backend"),
    ];
    parts.extend(source.next.map(|next| format!("next query in {}", span(next))));
    parts.extend((!source.left_out.is_empty()).then(|| format!("{} left out", source.left_out.len())));
    let name = one_line(&format!("{}  {}  ", source.pool, source.source));
    let mut line =
        Line::from(vec![name.bold(), parts.remove(0).fg(colour), format!(", {}", parts.join(", ")).into()]);
    if let Some(note) = &source.note {
        line.push_span(format!(": {}", one_line(note)).fg(colour));
    }
    line.style(Style::new())
}
