//! The checks of a backend at once, as an operator wants to see them.
//!
//! A POST, and for the token that permits changes: it connects to a backend, or runs a program on this machine, as often
//! as it is asked, and shows what the backend says.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::StatusCode;

use super::checkers::TIME_MAX;
use super::context::Context;
use super::extract::{Answer, Json, Path};
use super::guard::Peer;
use super::problem::Problem;
use super::rows;
use crate::api;
use crate::config::model::{Check, FIRST_CHECK};
use crate::messages::check_now::{Act, ActKind, Finding, Found, Subject};
use crate::messages::request::Named;

/// Runs all checks of a backend now, and shows the exchange
///
/// It changes nothing: neither the health of the backend nor its last results. A backend in maintenance can be checked
/// too. It needs the token that permits changes, because it connects to a backend or runs a program.
#[utoipa::path(
    post, path = "/v1/pools/{pool}/backends/{backend}/check",
    params(("pool" = String, Path), ("backend" = String, Path)),
    responses(
        (status = OK, description = "The checks have run; `passed` says how.", body = api::CheckRun),
        (status = NOT_FOUND, body = api::Problem),
        (status = CONFLICT, description = "Its checks are off, or it has no address yet.", body = api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "Too many run already, or this machine lacks something.", body = api::Problem),
    ),
)]
pub(super) async fn check(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Path((pool, backend)): Path<(String, String)>,
) -> Answer<api::CheckRun> {
    let named = Named { pool, backend };
    let subject = subject(&context, &named)?;
    let found = context.checkers.check(subject).await?;
    let checks: Vec<api::CheckDone> = found.into_iter().map(row).collect();
    let passed = api::CheckRun::passed(&checks);
    log::info!(pool:% = named.pool, backend:% = named.backend, who:%, passed:?; "checked for an operator");
    // It may have left its pool meanwhile.
    let Json(backend) = context.backend(&named)?;
    Ok(Json(api::CheckRun {
        pool: named.pool,
        backend: named.backend,
        passed,
        health: backend.health,
        checks,
    }))
}

/// Returns what is checked; fails where that is nothing.
fn subject(context: &Context, named: &Named) -> Result<Subject, Problem> {
    let conflict = |what: String| Problem::new(StatusCode::CONFLICT, what);
    // A host name is a backend too; an unknown name fails with a hint.
    context.backend(named)?;
    let state = context.view.state();
    let pool = rows::pool_named(&state, &named.pool)?;
    if pool.settings.health.check == Check::Off {
        return Err(conflict(format!("pool {:?} has no checks: their type is \"off\"", named.pool)));
    }
    let Some(backend) = pool.backend_named(&named.backend) else {
        return Err(conflict(format!("{named} is a host name: check one of its addresses")));
    };
    if !backend.is_resolved() {
        return Err(conflict(format!("{named} has no address yet")));
    }
    Ok(Subject {
        pool: Arc::clone(&pool.settings),
        backend: backend.name.clone(),
        address: backend.address.clone(),
        own: pool.own_check(backend).unwrap_or_default(),
        reports: context.reports.clone(),
        until: context.view.clock.now() + TIME_MAX,
    })
}

fn row(found: Found) -> api::CheckDone {
    let Found { name, kind, target, finding, took, limit, certificate, acts, left_out } = found;
    let (passed, reason) = match finding {
        Finding::Passed => (Some(true), None),
        Finding::Failed(reason) => (Some(false), Some(reason)),
        Finding::Undecided(reason) => (None, Some(reason)),
    };
    api::CheckDone {
        name: name.unwrap_or_else(|| FIRST_CHECK.to_owned()),
        kind: kind.to_owned(),
        address: target.to_string(),
        passed,
        reason,
        took: took.as_secs_f64(),
        limit: limit.as_secs_f64(),
        certificate: certificate.as_ref().map(rows::certificate),
        exchange: acts.into_iter().map(act_row).collect(),
        left_out: left_out as u64,
    }
}

fn act_row(Act { at, kind, text, len, is_cut }: Act) -> api::Act {
    let kind = match kind {
        ActKind::Connected => api::ActKind::Connected,
        ActKind::Header => api::ActKind::Header,
        ActKind::Secured => api::ActKind::Secured,
        ActKind::Sent => api::ActKind::Sent,
        ActKind::Received => api::ActKind::Received,
        ActKind::Expected => api::ActKind::Expected,
        ActKind::Ran => api::ActKind::Ran,
        ActKind::Printed => api::ActKind::Printed,
    };
    api::Act { at: at.as_secs_f64(), kind, text, len, is_cut }
}
