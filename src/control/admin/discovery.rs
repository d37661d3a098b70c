//! Sources of backends: how they do, and what they say now.

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::context::Context;
use super::extract::{Answer, Json, Path};
use super::problem::Problem;
use super::rows;
use crate::api;
use crate::base::time::Instant;
use crate::config::discover::Discover;
use crate::config::model::UNRESOLVED;
use crate::control::discovery::kinds;
use crate::control::discovery::state::SourceState;
use crate::control::membership::origin::Origin;
use crate::control::status::ControlState;
use crate::messages::discovery::{Found, Outcome};

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(sources)).routes(routes!(look))
}

/// Sources of backends, and how asking them goes
#[utoipa::path(get, path = "/v1/discovery", responses((status = OK, body = [api::Discovery])))]
async fn sources(State(context): State<Context>) -> Json<Vec<api::Discovery>> {
    let now = context.view.clock.now();
    Json(context.view.state().sources.iter().map(|source| row(source, now)).collect())
}

/// What the sources of a pool say now; changes nothing
#[utoipa::path(
    get, path = "/v1/pools/{pool}/discover", params(("pool" = String, Path)),
    responses((status = OK, body = [api::Discovered]), (status = NOT_FOUND, body = api::Problem)),
)]
async fn look(State(context): State<Context>, Path(pool): Path<String>) -> Answer<Vec<api::Discovered>> {
    let sources = rows::pool_named(&context.view.state(), &pool)?.settings.discover.clone();
    let asked: Vec<_> = sources
        .into_iter()
        .map(|settings| tokio::spawn(async move { (kinds::look(&settings).await, settings) }))
        .collect();
    let mut answers = Vec::with_capacity(asked.len());
    for asked in asked {
        let gave_up = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the process is stopping");
        let (answer, source) = asked.await.map_err(gave_up)?;
        answers.push(compared(&context.view.state(), &pool, &source, answer));
    }
    Ok(Json(answers))
}

/// An answer beside what the pool has of its source.
fn compared(
    state: &ControlState,
    pool: &str,
    source: &Discover,
    answer: Result<(Vec<Found>, Vec<String>), String>,
) -> api::Discovered {
    let label = source.label();
    let of_source = |id| {
        let origin = state.notes.get(&id).map(|note| &note.origin);
        matches!(origin, Some(Origin::Discovered(known)) if *known.source == *label)
    };
    let pool = state.snapshot.pool_named(pool);
    let there: Vec<Found> = pool
        .into_iter()
        .flat_map(|pool| pool.settings.backends.iter().zip(&pool.backends))
        .filter(|(_, backend)| backend.is_resolved() && of_source(backend.id))
        .map(|(settings, backend)| {
            // As the source has listed it, wherever an operator has placed it.
            let placed = state.notes.get(&backend.id).and_then(|note| note.placed.as_ref());
            let moved = placed.filter(|placed| placed.address.is_some()).map(|placed| &placed.says.address);
            let tier = placed.filter(|placed| placed.priority.is_some()).map(|placed| placed.says.priority);
            Found {
                name: backend.name.clone(),
                address: moved.unwrap_or(&backend.address).clone(),
                weight: backend.weight(),
                priority: tier.unwrap_or(settings.priority),
            }
        })
        .collect();
    let (found, notes, error) = match answer {
        Ok((found, notes)) => (found, notes, None),
        Err(error) => {
            return api::Discovered {
                source: label,
                error: Some(error),
                notes: Vec::new(),
                backends: Vec::new(),
            };
        }
    };
    let found: Vec<Found> = found.into_iter().filter(|found| found.address != UNRESOLVED).collect();
    let known: std::collections::HashSet<_> = there.iter().map(|backend| &backend.address).collect();
    let listed: std::collections::HashSet<_> = found.iter().map(|backend| &backend.address).collect();
    let state = |is_there: bool| if is_there { "there" } else { "new" };
    let listed_rows =
        found.iter().map(|backend| backend_row(backend, state(known.contains(&backend.address))));
    let gone = there.iter().filter(|backend| !listed.contains(&backend.address));
    let backends = listed_rows.chain(gone.map(|backend| backend_row(backend, "gone"))).collect();
    api::Discovered { source: label, error, notes, backends }
}

fn backend_row(found: &Found, state: &str) -> api::DiscoveredBackend {
    api::DiscoveredBackend {
        name: found.name.clone(),
        address: found.address.to_string(),
        weight: found.weight,
        priority: found.priority,
        state: state.to_owned(),
    }
}

fn row(source: &SourceState, now: Instant) -> api::Discovery {
    let SourceState {
        pool,
        source,
        outcome,
        since,
        began: _,
        answered,
        next,
        counts: _,
        backends,
        note,
        left_out,
    } = source.clone();
    api::Discovery {
        pool,
        source,
        state: outcome.map_or("waiting", Outcome::as_str).to_owned(),
        since,
        age: answered.map(|answered| (now - answered).as_secs_f64()),
        next: next.map(|next| (next - now).as_secs_f64()),
        backends,
        note,
        left_out,
    }
}
