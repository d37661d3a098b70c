//! Lists, explains and ends sessions. The workers own them, so the workers are asked; each answers between two turns.

use std::sync::Mutex;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::context::Context;
use super::explain::explanation;
use super::extract::{Answer, Json, Path, Query, check_limit};
use super::guard::Peer;
use super::problem::Problem;
use super::rows;
use super::session_filter::{Known, filter_of, keep_first};
use crate::api::{self, EventKind};
use crate::control::events::Draft;
use crate::control::status::Pause;
use crate::control::{Member, audit};
use crate::messages::command::Command;
use crate::messages::query::{self, Filter, Reply, SessionId, Target};
use crate::messages::request::Named;

/// Limit for a worker to answer: it does so in its next turn.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Most answers that make up one page: workers with more sessions are asked for their next places.
const ASKS_PER_PAGE: usize = 64;
/// Most answers that are sorted together: some million sessions.
const SORTED_ASKS_MAX: usize = 8192;

/// Open sessions, a page at a time, or the latest ended ones
#[utoipa::path(
    get, path = "/v1/sessions", params(api::SessionFilter),
    responses(
        (status = OK, body = api::SessionPage),
        (status = NOT_FOUND, body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn sessions(
    State(context): State<Context>,
    Query(wanted): Query<api::SessionFilter>,
) -> Answer<api::SessionPage> {
    let limit = check_limit(wanted.limit)?;
    let now = context.view.clock.now();
    let known = Known::of(&context.view.state());
    let filter = filter_of(&known, &wanted, now)?;
    if wanted.ended == Some(true) {
        return ended(&context, filter, wanted.sort, limit).await.map(Json);
    }
    if let Some(sort) = wanted.sort {
        return sorted(&context, &filter, sort, limit).await.map(Json);
    }
    let (first, mut from) = wanted.from.as_deref().map_or(Ok((0, 0)), place_of)?;
    let mut page = api::SessionPage { sessions: Vec::new(), next: None, has_older: false };
    let members = by_id(&context);
    let mut asks = 0;
    for member in members.iter().filter(|member| member.id.0 >= first) {
        let worker = member.id.0;
        from = if worker == first { from } else { 0 };
        loop {
            if page.sessions.len() >= limit || asks == ASKS_PER_PAGE {
                page.next = Some(format!("{worker}.{from}"));
                return Ok(Json(page));
            }
            asks += 1;
            let answer = ask(member, query::Query::Live { from, filter: filter.clone() }).await?;
            // The worker has stopped: its sessions have ended.
            let Some(query::Answer::Page { mut rows, next }) = answer else { break };
            let room = limit - page.sessions.len();
            let is_cut = rows.len() > room;
            rows.truncate(room);
            let behind_last = rows.last().map_or(from, |row| row.id.key.index + 1);
            let now = context.view.clock.now();
            page.sessions.extend(rows.iter().map(|row| rows::session(row, now)));
            match next {
                _ if is_cut => from = behind_last,
                Some(next) => from = next,
                None => break,
            }
        }
    }
    Ok(Json(page))
}

/// Returns the latest ended sessions, newest first. A worker remembers a bounded number, and is asked a bounded number
/// of times.
async fn ended(
    context: &Context,
    filter: Filter,
    sort: Option<api::SessionSort>,
    limit: usize,
) -> Result<api::SessionPage, Problem> {
    let mut rows = Vec::new();
    for member in &by_id(context) {
        let (mut before, mut taken) = (None, 0);
        // The worker has stopped, and remembers nothing.
        while let Some(query::Answer::Ended { rows: some, next }) =
            ask(member, query::Query::Ended { before, filter: filter.clone() }).await?
        {
            taken += some.len();
            rows.extend(some);
            before = next;
            if next.is_none() || (taken > limit && sort.is_none()) {
                break;
            }
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.ended()));
    let has_older = match sort {
        Some(sort) => keep_first(&mut rows, sort, limit),
        None => rows.len() > limit,
    };
    rows.truncate(limit);
    Ok(page_of(context, &rows, has_older))
}

/// Returns the first open sessions in an order. Each worker is asked for all that match, a bounded number between two
/// of its turns; of those that have arrived only the first are kept.
async fn sorted(
    context: &Context,
    filter: &Filter,
    sort: api::SessionSort,
    limit: usize,
) -> Result<api::SessionPage, Problem> {
    let (mut first, mut is_cut, mut asks) = (Vec::new(), false, 0);
    for member in &by_id(context) {
        let mut from = Some(0);
        while let Some(place) = from {
            if asks == SORTED_ASKS_MAX {
                let what =
                    "sort: there are too many sessions: ask for those of a pool, a backend or a client";
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, what));
            }
            asks += 1;
            let query = query::Query::Live { from: place, filter: filter.clone() };
            // The worker has stopped: its sessions have ended.
            let Some(query::Answer::Page { rows, next }) = ask(member, query).await? else { break };
            first.extend(rows);
            is_cut |= keep_first(&mut first, sort, limit);
            from = next;
        }
    }
    Ok(page_of(context, &first, is_cut))
}

/// Returns a page that no other follows.
fn page_of(context: &Context, rows: &[query::Row], has_older: bool) -> api::SessionPage {
    let now = context.view.clock.now();
    let sessions = rows.iter().map(|row| rows::session(row, now)).collect();
    api::SessionPage { sessions, next: None, has_older }
}

/// Explains why a session got its backend, and why it ended: an open one, or one of the last thousand of its worker
#[utoipa::path(
    get, path = "/v1/sessions/{id}/explanation",
    params(("id" = String, Path, pattern = r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$")),
    responses(
        (status = OK, body = api::Explanation),
        (status = NOT_FOUND, body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn explain(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Answer<api::Explanation> {
    let id: SessionId = id.parse().map_err(|error: query::NoSessionId| Problem::bad(error.to_string()))?;
    let explained = match ask_owner(&context, id, query::Query::Session(id)).await? {
        Some(query::Answer::Session(Some(explained))) => explained,
        _ => return Err(forgotten(id)),
    };
    let (pool, findings) = {
        let state = context.view.state();
        let pool = state.snapshot.pool_named(&explained.row.pool).cloned();
        let findings = pool.as_deref().map(|pool| rows::findings_of_down(&state, pool)).unwrap_or_default();
        (pool, findings)
    };
    let past = context.view.history().of(explained.pool, explained.epoch);
    let now = context.view.clock.now();
    let mut explanation = explanation(&explained, past, pool.as_deref(), &findings, now);
    if explained.row.ended().is_none()
        && let Some(pause) = context.view.state().pauses.get(&*explained.row.listener)
    {
        let Pause { by, since } = pause;
        explanation
            .story
            .push(format!("its listener is paused by {by} since {since:.0}: this session lives on"));
    }
    Ok(Json(explanation))
}

/// Ends a session at once, by a reset on both sides
#[utoipa::path(
    delete, path = "/v1/sessions/{id}",
    params(("id" = String, Path, pattern = r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$")),
    responses(
        (status = OK, body = api::Killed),
        (status = NOT_FOUND, body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn kill(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Path(id): Path<String>,
) -> Answer<api::Killed> {
    let id: SessionId = id.parse().map_err(|error: query::NoSessionId| Problem::bad(error.to_string()))?;
    match ask_owner(&context, id, query::Query::Cut(Target::Session(id))).await? {
        Some(query::Answer::Cut(1..)) => {
            let what = format!("session {id} was cut");
            let (who, session) = (who.to_string(), id.to_string());
            let fields = [("who", who.as_str().into()), ("session", session.as_str().into())];
            audit::write(format_args!("session cut"), &fields);
            context.view.events.push(Draft::new(EventKind::Sessions, what).who(&who));
            Ok(Json(api::Killed { sessions: 1 }))
        }
        _ => Err(forgotten(id)),
    }
}

/// Ends all sessions of a backend, or of all addresses of a host name, at once, by a reset on both sides; it may have new
/// ones right away
#[utoipa::path(
    delete, path = "/v1/pools/{pool}/backends/{backend}/sessions",
    params(("pool" = String, Path), ("backend" = String, Path)),
    responses(
        (status = OK, body = api::Killed),
        (status = NOT_FOUND, body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn kill_all(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Path((pool, backend)): Path<(String, String)>,
) -> Answer<api::Killed> {
    let named = Named { pool, backend };
    let known = Known::of(&context.view.state());
    let ids = known.named(&named.pool, &named.backend)?;
    let (mut sessions, mut failed) = (0, None);
    for member in &by_id(&context) {
        for &id in &*ids {
            match ask(member, query::Query::Cut(Target::Backend(id))).await {
                Ok(Some(query::Answer::Cut(cut))) => sessions += cut as u64,
                Ok(_) => {}
                // Still counts the sessions cut by the others, and asks this one no more: each answer may take long.
                Err(problem) => {
                    failed = Some(problem);
                    break;
                }
            }
        }
    }
    let who = who.to_string();
    let fields = [
        ("who", who.as_str().into()),
        ("pool", named.pool.as_str().into()),
        ("backend", named.backend.as_str().into()),
        ("sessions", sessions.into()),
    ];
    audit::write(format_args!("sessions of a backend cut"), &fields);
    let what = format!("{sessions} sessions were cut");
    let event = Draft::new(EventKind::Sessions, what).backend(&named).who(&who);
    context.view.events.push(event);
    failed.map_or(Ok(Json(api::Killed { sessions })), Err)
}

fn forgotten(id: SessionId) -> Problem {
    let what = format!("session {id} is neither open nor among the last {}", query::RECORDS_MAX);
    Problem::not_found(format!("{what} of its worker"))
}

/// Returns the workers in the order in which pages go through them.
fn by_id(context: &Context) -> Vec<Member> {
    let mut members = context.view.state().workers.members().to_vec();
    members.sort_unstable_by_key(|member| member.id.0);
    members
}

async fn ask_owner(
    context: &Context,
    id: SessionId,
    query: query::Query,
) -> Result<Option<query::Answer>, Problem> {
    match by_id(context).iter().find(|member| member.id.0 == id.worker) {
        Some(member) => ask(member, query).await,
        None => Ok(None),
    }
}

/// Queries a worker. Returns `None` when it has stopped.
async fn ask(member: &Member, query: query::Query) -> Result<Option<query::Answer>, Problem> {
    let (sender, answer) = oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let reply = Reply::new(move |answer| {
        if let Some(sender) = sender.lock().expect("lock not poisoned").take() {
            // The client may have given up.
            let _gone = sender.send(answer);
        }
    });
    let unavailable =
        |what: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("worker {} {what}", member.index));
    if !member.mailbox.post(Command::Ask(query, reply)) {
        return Err(unavailable("has too much to do"));
    }
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => Ok(answer.ok()),
        Err(_) => Err(unavailable("does not answer: is it stuck?")),
    }
}

/// Parses `worker.place`, as returned by an earlier page.
fn place_of(from: &str) -> Result<(u32, u32), Problem> {
    let place =
        from.split_once('.').and_then(|(worker, place)| Some((worker.parse().ok()?, place.parse().ok()?)));
    place.ok_or_else(|| Problem::bad("from: must be `next` of an earlier page"))
}
