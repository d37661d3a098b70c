//! Formats the answers of the API as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;

use crate::api;
use crate::config::one_line;
use crate::ctl::figures::{age, bytes, count, percent, span, when};
use crate::ctl::table::Column::{Figure, Text};
use crate::ctl::table::{Cell, Color, cell, maybe, pairs, table};

pub(super) fn status(status: &api::Status, now: Timestamp) -> String {
    let api::Status {
        version,
        pid,
        started,
        uptime,
        stage,
        not_ready,
        announce,
        epoch,
        workers,
        totals,
        reload,
        restart_pending: pending,
        log_lines_dropped,
        state_file_failures,
        not_saved,
        cleared,
        may_change,
    } = status;
    let counted = cleared.as_ref().map(|cleared| cleared.rest(totals, workers));
    let (totals, workers) = counted.as_ref().map_or((totals, workers), |(totals, workers)| (totals, workers));
    let closed: Vec<String> =
        totals.closed.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let mut rows = vec![
        ("process", format!("{}, l4lb {version}, pid {pid}", stage_word(*stage))),
        ("up", format!("{}, since {}", span(*uptime), when(*started))),
        ("ready", not_ready.as_ref().map_or_else(|| "yes".into(), |why| format!("no, {why}"))),
    ];
    rows.extend(announce.as_ref().map(|announce| ("announced", announced(announce, now))));
    rows.push(("epoch", epoch.to_string()));
    rows.extend(cleared.as_ref().map(|cleared| ("counted since", when(cleared.since))));
    rows.extend([
        ("sessions", format!("{} open, {} accepted", totals.sessions, totals.accepted)),
        ("closed", if closed.is_empty() { "0".into() } else { closed.join(", ") }),
        (
            "bytes",
            format!("{} to backends, {} to clients", bytes(totals.to_backend), bytes(totals.to_client)),
        ),
        ("dials", format!("{}, {} failed", totals.dials, totals.dial_failures)),
        ("reloads", reloads(reload, now)),
    ]);
    rows.extend(reload.errors.iter().map(|error| ("refused for", error.clone())));
    let dismissed_by = reload.refused.as_ref().and_then(|refused| refused.dismissed_by.clone());
    rows.extend(dismissed_by.map(|who| ("dismissed by", who)));
    rows.extend((!may_change).then(|| ("token", "read-only".to_owned())));
    rows.extend(pending.as_ref().map(|pending| ("restart pending", restart_pending(pending))));
    rows.push(("log", format!("{} dropped", count(*log_lines_dropped, "line"))));
    if *state_file_failures > 0 {
        rows.push(("state file", format!("{state_file_failures} writes failed")));
    }
    if let Some(api::NotSaved { since, reason }) = not_saved {
        rows.push(("not saved", format!("since {}: {}", when(*since), one_line(reason))));
    }
    let columns = [
        Figure("WORKER"),
        Figure("SESSIONS"),
        Figure("ACCEPTED"),
        Figure("HANDED OVER"),
        Figure("ADOPTED"),
        Figure("TO BACKENDS"),
        Figure("TO CLIENTS"),
        Figure("PAUSES"),
    ];
    let workers = workers.iter().map(|worker| {
        vec![
            cell(worker.worker),
            cell(worker.sessions),
            cell(worker.accepted),
            cell(worker.handed_over),
            cell(worker.adopted),
            cell(bytes(worker.to_backend)),
            cell(bytes(worker.to_client)),
            cell(worker.accept_pauses),
        ]
    });
    format!("{}\n{}", pairs(rows), table(&columns, workers))
}

fn reloads(reload: &api::Reload, now: Timestamp) -> String {
    let last = reload.last.map(|last| format!(", the last {} ago", age(now, last))).unwrap_or_default();
    let reading =
        reload.reading_since.map(|since| format!(", reading for {}", age(now, since))).unwrap_or_default();
    format!("{} applied, {} refused{last}{reading}", reload.succeeded, reload.failed)
}

/// Returns the keys that need a restart, since when, and their number.
pub(crate) fn restart_pending(pending: &api::RestartPending) -> String {
    let api::RestartPending { since, keys, changes: _ } = pending;
    format!("{} (since {}, {})", keys.join(", "), when(*since), count(keys.len() as u64, "key"))
}

pub(super) fn config(config: &api::Config) -> String {
    let file = config.file.as_deref().unwrap_or("none, only flags");
    let mut text = format!("# epoch {}, file: {file}\n", config.epoch);
    if let Some(pending) = &config.restart_pending {
        text += &format!("# restart pending: {}\n", restart_pending(pending));
        text.extend(pending.changes.iter().map(|change| format!("#   {}\n", one_line(change))));
    }
    text + &config.effective
}

pub(crate) const fn stage_word(stage: api::Stage) -> &'static str {
    match stage {
        api::Stage::Serving => "serving",
        api::Stage::Draining => "draining",
        api::Stage::Stopping => "stopping",
    }
}

/// Returns one listener in one line, shown after a change of it.
pub(super) fn listener(listener: &api::Listener) -> String {
    let api::Listener { name, address, sessions, .. } = listener;
    format!("{name}: {} at {address}, has {}\n", listening_word(listener), count(*sessions, "session"))
}

fn listening_word(listener: &api::Listener) -> &'static str {
    if listener.paused { "paused" } else { "listening" }
}

pub(super) fn listeners(listeners: &[api::Listener]) -> String {
    let columns =
        [Text("LISTENER"), Text("ADDRESS"), Text("POOL"), Text("STATE"), Figure("SESSIONS"), Figure("MAX")];
    let rows = listeners.iter().map(|listener| {
        vec![
            cell(&listener.name),
            cell(&listener.address),
            cell(&listener.pool),
            cell(listening_word(listener)),
            cell(listener.sessions),
            maybe(listener.max_sessions),
        ]
    });
    let sessions = listeners.iter().map(|listener| listener.sessions).sum();
    let total = format!("{}, {}", count(listeners.len() as u64, "listener"), count(sessions, "session"));
    table(&columns, rows) + &total + "\n"
}

pub(super) fn pools(pools: &[api::Pool]) -> String {
    let columns = [Text("POOL"), Text("BALANCE"), Figure("BACKENDS"), Figure("ELIGIBLE"), Figure("SESSIONS")];
    let rows = pools.iter().map(|pool| {
        let eligible = cell(pool.eligible);
        vec![
            cell(&pool.name),
            cell(&pool.balance),
            cell(pool.backends),
            if pool.eligible == 0 { eligible.fg(Color::Red) } else { eligible },
            cell(pool.sessions),
        ]
    });
    let sum = |of: fn(&api::Pool) -> u64| -> u64 { pools.iter().map(of).sum() };
    let total = format!(
        "{}, {}, {} eligible, {}\n",
        count(pools.len() as u64, "pool"),
        count(sum(|pool| pool.backends), "backend"),
        sum(|pool| pool.eligible),
        count(sum(|pool| pool.sessions), "session")
    );
    table(&columns, rows) + &total
}

/// Where the priority stands among the columns of a backend: behind its weight.
const PRIORITY_AT: usize = 3;

pub(super) fn backends(backends: &[api::Backend], now: Timestamp) -> String {
    let backends: Vec<api::Backend> = backends.iter().map(api::Backend::since_cleared).collect();
    // Of no use where there is one tier.
    let has_tiers = backends.iter().any(|backend| backend.priority > 0);
    let mut columns = vec![
        Text("BACKEND"),
        Text("ADDRESS"),
        Figure("WEIGHT"),
        Text("STATE"),
        Figure("FOR"),
        Figure("SESSIONS"),
        Figure("EVER"),
        Figure("DIALS FAILED"),
        Figure("TO BACKEND"),
        Figure("TO CLIENTS"),
        Figure("LEASE"),
        Text("REASON"),
    ];
    if has_tiers {
        columns.insert(PRIORITY_AT, Figure("PRIORITY"));
    }
    let rows = backends.iter().map(|backend| {
        let mut cells = vec![
            cell(format!("{}/{}", backend.pool, backend.name)),
            cell(&backend.address),
            cell(backend.weight),
            state(backend),
            maybe(backend.health_since.map(|since| age(now, since))),
            cell(backend.sessions),
            cell(backend.sessions_total),
            cell(backend.dial_failures),
            cell(bytes(backend.to_backend)),
            cell(bytes(backend.to_client)),
            maybe(backend.lease_left.map(span)),
            maybe(reason(backend)),
        ];
        if has_tiers {
            cells.insert(PRIORITY_AT, cell(backend.priority));
        }
        cells
    });
    let sum = |of: fn(&api::Backend) -> u64| -> u64 { backends.iter().map(of).sum() };
    let total = format!(
        "{}, {} eligible, {}, {} to backends, {} to clients\n",
        count(backends.len() as u64, "backend"),
        sum(|backend| backend.eligible.into()),
        count(sum(|backend| backend.sessions), "session"),
        bytes(sum(|backend| backend.to_backend)),
        bytes(sum(|backend| backend.to_client))
    );
    table(&columns, rows) + &total + &counted_since(&backends)
}

/// Returns a line for each time at which counters of the backends were cleared.
fn counted_since(backends: &[api::Backend]) -> String {
    let mut times: BTreeMap<Timestamp, u64> = BTreeMap::new();
    for cleared in backends.iter().filter_map(|backend| backend.cleared.as_ref()) {
        *times.entry(cleared.since).or_default() += 1;
    }
    let lines = times
        .into_iter()
        .map(|(since, backends)| format!("{} counted since {}\n", count(backends, "backend"), when(since)));
    lines.collect()
}

/// Returns why a backend is in its state: the request or the check that has brought it there, and what its agent says.
fn reason(backend: &api::Backend) -> Option<String> {
    let cause = backend.kept_out().or_else(|| backend.findings());
    let agent = backend.agent.as_ref().and_then(api::Agent::words);
    let certificates = backend.checks.iter().filter_map(|check| check.certificate.as_ref());
    let certificates = certificates.map(api::Certificate::words);
    let placed = backend.placed.as_ref().map(api::Placed::words);
    let parts: Vec<String> = cause.into_iter().chain(placed).chain(certificates).chain(agent).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns the state of a backend and why, green when it serves.
fn state(backend: &api::Backend) -> Cell {
    let colour = match (backend.eligible, backend.admin) {
        (true, _) => Color::Green,
        (false, api::Admin::Ready) => Color::Red,
        (false, api::Admin::Drain | api::Admin::Maint) => Color::Yellow,
    };
    cell(state_words(backend)).fg(colour)
}

pub(crate) fn state_words(backend: &api::Backend) -> String {
    let health = backend.health.as_str();
    let mut words = match backend.admin {
        api::Admin::Ready => vec![health],
        api::Admin::Drain => vec!["drain", health],
        api::Admin::Maint => vec!["maint", health],
    };
    if backend.health_override {
        words.push("override");
    }
    words.join(",")
}

/// Returns one backend in one line, shown after a change of it.
pub(super) fn changed(backend: &api::Backend) -> String {
    let lease = backend.lease_left.map(|left| format!(", its lease ends in {}", span(left)));
    let priority = Some(backend.priority).filter(|&priority| priority > 0);
    let priority = priority.map(|priority| format!("priority {priority}, ")).unwrap_or_default();
    let serves = if backend.eligible { "may have new sessions" } else { "gets no new sessions" };
    // A request to bring it back does not end what its agent wants.
    let by_agent = backend.admin_by.as_deref() == Some("agent");
    let kept_out = backend.kept_out().filter(|_| by_agent).map(|why| format!(", {why}"));
    format!(
        "{}/{}: {}, weight {}, {priority}{serves}, has {}{}{}\n",
        backend.pool,
        backend.name,
        state_words(backend),
        backend.weight,
        count(backend.sessions, "session"),
        lease.unwrap_or_default(),
        kept_out.unwrap_or_default()
    )
}

/// Returns one line for each backend of a set, with what has changed of it.
pub(super) fn changed_set(set: &api::BackendsChanged) -> String {
    let here = set.backends.iter().map(|one| (changed(&one.backend).trim_end().to_owned(), &one.changes));
    let gone =
        set.gone.iter().map(|one| (format!("{}/{}: in no list now", one.pool, one.name), &one.changes));
    let all: Vec<(String, &Vec<String>)> = here.chain(gone).collect();
    let mut text = String::new();
    for (backend, changes) in &all {
        let what = match (changes.is_empty(), set.applied) {
            (true, _) => "as it was".to_owned(),
            (false, true) => changes.join(", "),
            (false, false) => format!("would change: {}", changes.join(", ")),
        };
        text += &one_line(&format!("{backend}; {what}"));
        text.push('\n');
    }
    let many = count(all.len() as u64, "backend");
    let touched = all.iter().filter(|(_, changes)| !changes.is_empty()).count();
    let verb = if set.applied { "changed" } else { "would change" };
    text + &format!("{many}, {touched} {verb}\n")
}

/// Returns the same line with the holder of its lease.
pub(super) fn registered(registered: &api::Registered) -> String {
    let api::Registered { backend, holder, .. } = registered;
    let holder = holder.as_ref().map(|holder| format!("holder {holder}\n"));
    changed(backend) + &holder.unwrap_or_default()
}

pub(super) fn sessions(page: &api::SessionPage) -> String {
    let columns = [
        Text("ID"),
        Text("CLIENT"),
        Text("LISTENER"),
        Text("BACKEND"),
        Text("SOURCE"),
        Text("STATE"),
        Figure("AGE"),
        Figure("IDLE"),
        Figure("TO BACKEND"),
        Figure("TO CLIENT"),
    ];
    let rows = page.sessions.iter().map(|session| {
        session_row(session, [cell(&session.state), cell(span(session.age)), cell(span(session.idle))])
    });
    let sum = |of: fn(&api::Session) -> u64| bytes(page.sessions.iter().map(of).sum());
    let total = format!(
        "{}, {} to backends, {} to clients\n",
        count(page.sessions.len() as u64, "session"),
        sum(|session| session.to_backend),
        sum(|session| session.to_client)
    );
    table(&columns, rows) + &total
}

/// Returns the list of ended sessions.
pub(super) fn ended(page: &api::SessionPage) -> String {
    let columns = [
        Text("ID"),
        Text("CLIENT"),
        Text("LISTENER"),
        Text("BACKEND"),
        Text("SOURCE"),
        Text("REASON"),
        Figure("ENDED"),
        Figure("LASTED"),
        Figure("TO BACKEND"),
        Figure("TO CLIENT"),
    ];
    let rows = page.sessions.iter().map(|session| {
        let ended = session.ended_ago.map_or_else(|| "-".to_owned(), |ago| format!("{} ago", span(ago)));
        let reason = session.reason.as_deref().unwrap_or("-");
        session_row(session, [cell(reason), cell(ended), cell(span(session.age))])
    });
    let total = count(page.sessions.len() as u64, "session");
    let older = if page.has_older { ", and older ones: see --limit, --since and --reason" } else { "" };
    table(&columns, rows) + &format!("{total}{older}\n")
}

/// Returns the cells common to all lists of sessions, around `besides`.
fn session_row(session: &api::Session, besides: [Cell; 3]) -> Vec<Cell> {
    let backend = session.backend.as_deref().unwrap_or("-");
    let via = session.peer.as_ref().map(|peer| format!(" via {peer}")).unwrap_or_default();
    let server = session.sni.as_ref().map(|sni| format!(" to {sni}")).unwrap_or_default();
    let client = format!("{}{via}{server}", session.client);
    let mut row = vec![
        cell(&session.id),
        cell(client),
        cell(&session.listener),
        cell(format!("{}/{backend}", session.pool)),
        cell(session.source.as_deref().unwrap_or("-")),
    ];
    row.extend(besides);
    row.extend([cell(bytes(session.to_backend)), cell(bytes(session.to_client))]);
    row
}

fn announced(announce: &api::Announce, now: Timestamp) -> String {
    let api::Announce { domain, name, state, since, note, records, listeners } = announce;
    let since = since.map(|since| format!(" for {}", age(now, since))).unwrap_or_default();
    let what = match (state.as_str(), note) {
        ("kept", _) => format!("{} below {domain} as {name}", count(*records, "record")),
        (_, Some(note)) => format!("failing{since}: {note}"),
        (_, None) => format!("no{since}"),
    };
    let why_not = listeners.iter().filter_map(|listener| {
        let why = listener.why_not.as_ref()?;
        Some(format!("; not {:?}: {why}", listener.listener))
    });
    what + &why_not.collect::<String>()
}

/// Returns one line per event, so that later lines roughly align with earlier ones.
pub(super) fn event(event: &api::Event) -> String {
    let kind = match event.kind {
        api::EventKind::Health => "health",
        api::EventKind::Eligibility => "eligibility",
        api::EventKind::Agent => "agent",
        api::EventKind::Certificate => "certificate",
        api::EventKind::Backend => "backend",
        api::EventKind::Reload => "reload",
        api::EventKind::Announce => "announce",
        api::EventKind::Fleet => "fleet",
        api::EventKind::Process => "process",
        api::EventKind::Sessions => "sessions",
    };
    let place = match (&event.pool, &event.backend) {
        (Some(pool), Some(backend)) => format!("{pool}/{backend}: "),
        (Some(pool), None) => format!("{pool}: "),
        (None, _) => String::new(),
    };
    let who = event.who.as_ref().map(|who| format!(" ({who})")).unwrap_or_default();
    let text = format!("{}  {:>5}  {kind:<11}  {place}{}{who}", when(event.time), event.id, event.message);
    one_line(&text) + "\n"
}

pub(super) fn topology(topology: &api::Topology) -> String {
    let columns = [
        Text("BACKEND"),
        Text("ADDRESS"),
        Figure("SLOTS"),
        Figure("SHARE"),
        Figure("BY WEIGHT"),
        Figure("OFF BY"),
    ];
    let mut text = String::new();
    for pool in &topology.pools {
        let slots = if pool.slots == 0 { "no table".into() } else { count(pool.slots, "slot") };
        let line = format!("{}: {}, {slots}", pool.pool, pool.balance);
        if !text.is_empty() {
            text.push('\n');
        }
        text += &(one_line(&line) + "\n");
        text += &table(
            &columns,
            pool.backends.iter().map(|share| {
                vec![
                    cell(format!("{}/{}", pool.pool, share.backend)),
                    cell(&share.address),
                    cell(share.slots),
                    cell(percent(share.share)),
                    cell(percent(share.expected)),
                    cell(format!("{:+.1}%", (share.share - share.expected) * 100.0)),
                ]
            }),
        );
    }
    text
}

pub(super) fn drains(drains: &api::Drains) -> String {
    let columns = [
        Text("WHAT"),
        Text("ADDRESS"),
        Text("STATE"),
        Figure("SESSIONS"),
        Figure("AT START"),
        Figure("FOR"),
        Figure("CUT IN"),
        Figure("DONE IN"),
    ];
    let row = |drain: &api::Drain| {
        let what = match (&drain.pool, &drain.backend) {
            (Some(pool), Some(backend)) => format!("{pool}/{backend}"),
            (Some(pool), None) => pool.clone(),
            (None, _) => "process".to_owned(),
        };
        vec![
            cell(what),
            maybe(drain.address.as_ref()),
            cell(if drain.removed { "removed" } else { "draining" }),
            cell(drain.sessions),
            cell(drain.sessions_at_start),
            cell(span(drain.age)),
            maybe(drain.deadline.map(span)),
            maybe(drain.eta.map(span)),
        ]
    };
    let all: Vec<&api::Drain> = drains.process.iter().chain(&drains.backends).collect();
    if all.is_empty() {
        return "nothing is being drained\n".to_owned();
    }
    let left = count(drains.backends.iter().map(|drain| drain.sessions).sum(), "session");
    let total = format!("{}, {left} left\n", count(drains.backends.len() as u64, "backend"));
    table(&columns, all.into_iter().map(row)) + &total
}

pub(super) fn reload(report: &api::ReloadReport) -> String {
    let api::ReloadReport { applied, epoch, changes, notes } = report;
    let touched = count(changes.iter().map(|change| change.sessions).sum(), "session");
    let waiting = changes.iter().filter(|change| change.needs_restart).count();
    let mut text = match (applied, changes.is_empty()) {
        (_, true) => format!("nothing to change, epoch {epoch}\n"),
        (true, false) => {
            let many = count((changes.len() - waiting) as u64, "change");
            let waits = match waiting {
                0 => String::new(),
                1 => ", 1 waits for a restart".into(),
                many => format!(", {many} wait for a restart"),
            };
            format!("{many} applied, {touched} touched{waits}, epoch {epoch}\n")
        }
        (false, false) => {
            let many = count(changes.len() as u64, "change");
            let waits =
                if waiting > 0 { format!(", {waiting} would wait for a restart") } else { String::new() };
            format!("{many} to apply, {touched} would be touched{waits}, epoch {epoch} still runs\n")
        }
    };
    for change in changes {
        let mut line = format!("  {}", change.what);
        if change.sessions > 0 {
            write!(line, " ({})", count(change.sessions, "session"))
                .expect("writing to a String never fails");
        }
        text += &(one_line(&line) + "\n");
    }
    for note in notes {
        text += &(one_line(&format!("note: {note}")) + "\n");
    }
    text
}

pub(super) fn explanation(explanation: &api::Explanation) -> String {
    let api::Explanation { session, story, candidates, as_of_choice, end_code, end } = explanation;
    let place = session.backend.as_ref().map(|backend| format!(" on {}/{backend}", session.pool));
    let mut text = one_line(&format!(
        "session {}: {} through {}{}",
        session.id,
        session.client,
        session.listener,
        place.unwrap_or_default()
    )) + "\n";
    for (line, number) in story.iter().zip(1..) {
        text += &(one_line(&format!("{number:>3}. {line}")) + "\n");
    }
    let has_tiers = candidates.iter().any(|candidate| candidate.priority > 0);
    let mut columns = vec![Text("CANDIDATE"), Figure("WEIGHT"), Text("VERDICT"), Text("SINCE THEN")];
    if has_tiers {
        columns.insert(2, Figure("PRIORITY"));
    }
    let has_agents = candidates.iter().any(|candidate| candidate.agent.is_some());
    if has_agents {
        columns.push(Text("AGENT NOW"));
    }
    if !candidates.is_empty() {
        text += if *as_of_choice {
            "\nthe pool when it chose:\n"
        } else {
            "\nthe pool as of now; how it was when it chose is not known any more:\n"
        };
        text += &table(
            &columns,
            candidates.iter().map(|candidate| {
                let verdict = match (candidate.chosen, &candidate.skipped) {
                    (true, _) => cell("chosen").fg(Color::Green),
                    (false, Some(why)) => cell(format!("skipped: {why}")),
                    (false, None) => cell("eligible"),
                };
                let since = cell(candidate.since.as_deref().unwrap_or("-"));
                let name = cell(format!("{}/{}", session.pool, candidate.backend));
                let priority = has_tiers.then(|| cell(candidate.priority));
                let figures = [cell(candidate.weight)].into_iter().chain(priority);
                let agent = has_agents.then(|| maybe(candidate.agent.as_deref()));
                [name].into_iter().chain(figures).chain([verdict, since]).chain(agent).collect()
            }),
        );
    }
    text += "\n";
    text += &match (end_code, end) {
        (Some(code), Some(words)) => one_line(&format!("ended {code}: {words}")),
        (Some(code), None) => one_line(&format!("ended {code}: see `l4lb ctl explain --codes`")),
        (None, _) => {
            let (state, age, idle) = (&session.state, span(session.age), span(session.idle));
            one_line(&format!("runs: {state}, {age} old, idle for {idle}"))
        }
    };
    text + "\n"
}

#[cfg(test)]
mod tests;
