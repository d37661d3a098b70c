//! The part of the screen below the backends, apart from events: listeners, open and ended sessions, the last reload.

use jiff::Timestamp;
use ratatui::style::{Color, Stylize};
use ratatui::text::Line;

use crate::api;
use crate::config::one_line;
use crate::ctl::figures::{age, bytes, count, span};
use crate::session::CloseReason;

/// Returns a line for each listener, those with most sessions first.
pub(super) fn listeners(listeners: &[api::Listener]) -> Vec<Line<'static>> {
    let mut sorted: Vec<&api::Listener> = listeners.iter().collect();
    sorted.sort_by(|one, other| other.sessions.cmp(&one.sessions).then_with(|| one.name.cmp(&other.name)));
    sorted.into_iter().map(listener).collect()
}

fn listener(listener: &api::Listener) -> Line<'static> {
    let api::Listener {
        name, address, pool, sessions, accepted, failed, to_backend, to_client, paused, ..
    } = listener;
    let failed = format!("{failed} failed");
    let name = if name == address { one_line(name) } else { one_line(&format!("{name} at {address}")) };
    Line::from(vec![
        name.bold(),
        if *paused { " paused".yellow() } else { "".into() },
        format!(" -> {}: {}, {accepted} accepted, ", one_line(pool), count(*sessions, "session")).into(),
        if listener.failed > 0 { failed.yellow() } else { failed.into() },
        format!(", {} in, {} out", bytes(*to_backend), bytes(*to_client)).into(),
    ])
}

/// Returns the title of the panel of open sessions.
pub(super) const fn sessions_title(order: api::SessionSort) -> &'static str {
    match order {
        api::SessionSort::Bytes => "sessions with most bytes, o: the oldest",
        api::SessionSort::Age => "oldest sessions, o: the longest silent",
        api::SessionSort::Idle => "sessions silent for longest, o: most bytes",
        api::SessionSort::Backend => "sessions by backend, o: most bytes",
        api::SessionSort::Client => "sessions by client, o: most bytes",
    }
}

/// Returns a line for each of these sessions, as they come; `None` while they are not known.
pub(super) fn sessions(listed: Option<&[api::Session]>) -> Vec<Line<'static>> {
    match listed {
        None => vec![Line::from("asking for them").dim()],
        Some([]) => vec![Line::from("none is open")],
        Some(listed) => {
            let widest = listed.iter().map(|session| session.client.len()).max().unwrap_or(0);
            listed.iter().map(|session| self::session(session, widest)).collect()
        }
    }
}

fn session(session: &api::Session, width: usize) -> Line<'static> {
    let api::Session { id, pool, backend, client, age, idle, to_backend, to_client, state, .. } = session;
    let backend = backend.as_deref().unwrap_or("-");
    Line::from(vec![
        one_line(&format!("{client:<width$}")).bold(),
        one_line(&format!(" -> {pool}/{backend}: ")).into(),
        format!("{} in, {} out", bytes(*to_backend), bytes(*to_client)).into(),
        format!(", open for {}, silent for {}", span(*age), span(*idle)).into(),
        one_line(&format!(", {state}, {id}")).dim(),
    ])
}

/// Returns a line for each reason that sessions have ended for, the most frequent first.
pub(super) fn ended(totals: &api::Totals) -> Vec<Line<'static>> {
    let is_failure = |name: &str| {
        CloseReason::ALL.into_iter().any(|reason| reason.as_str() == name && reason.is_failure())
    };
    let mut sorted: Vec<(&String, &u64)> = totals.closed.iter().collect();
    sorted.sort_by(|one, other| other.1.cmp(one.1));
    let lines = sorted.into_iter().map(|(reason, count)| {
        let words = format!("{count:>12}  {}", one_line(reason));
        if is_failure(reason) { Line::from(words.fg(Color::Red)) } else { Line::from(words) }
    });
    lines.collect()
}

/// Returns what the last reload has changed, or why it was refused.
pub(super) fn reload(reload: &api::Reload, now: Timestamp) -> Vec<Line<'static>> {
    if let Some(refused) = &reload.refused {
        let by = refused.dismissed_by.as_ref().map(|by| format!(", dismissed by {by}")).unwrap_or_default();
        let words = format!("refused {} ago by {}{by}", age(now, refused.time), refused.who);
        let errors = reload.errors.iter().map(|error| Line::from(format!("  {}", one_line(error))));
        return std::iter::once(Line::from(one_line(&words).red())).chain(errors).collect();
    }
    let Some(applied) = &reload.applied else { return vec![Line::from("none since the start")] };
    let api::AppliedReload { time, who, epoch, changes, count: all } = applied;
    let words = format!("epoch {epoch} applied {} ago by {who}: {}", age(now, *time), count(*all, "change"));
    let changes = changes.iter().map(|change| Line::from(format!("  {}", one_line(&change.what))));
    std::iter::once(Line::from(one_line(&words).green())).chain(changes).collect()
}

/// Returns the line about a refused reload, which asks for attention.
pub(super) fn refusal(
    refused: &api::RefusedReload,
    errors: &[String],
    now: Timestamp,
    may_change: bool,
) -> Line<'static> {
    let first = errors.first().map_or_else(String::new, |error| format!(": {error}"));
    let more = errors.len().saturating_sub(1);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let key = if may_change { "x dismisses it: " } else { "" };
    let words = format!("{key}reload refused {} ago by {}{first}{more}", age(now, refused.time), refused.who);
    Line::from(one_line(&words).red().bold())
}
