//! The lists of networks of listeners: what they say of an address, and a reload of their files alone.

use std::net::IpAddr;

use axum::extract::{Extension, State};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::context::Context;
use super::extract::{Answer, Json, Query};
use super::guard::Peer;
use super::problem::Problem;
use super::reloads;
use crate::api;
use crate::base::nearest::did_you_mean;
use crate::messages::reload::Mode;
use crate::pool::Listener;

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(test)).routes(routes!(reload))
}

/// Decisions of the lists of listeners about an address
///
/// The address of the socket counts: behind a balancer with a PROXY header that is the balancer.
#[utoipa::path(
    get, path = "/v1/acl", params(api::AccessQuery),
    responses(
        (status = OK, body = [api::AccessDecision]),
        (status = NOT_FOUND, description = "The listener does not exist.", body = api::Problem),
    ),
)]
async fn test(
    State(context): State<Context>,
    Query(api::AccessQuery { address, listener: name }): Query<api::AccessQuery>,
) -> Answer<Vec<api::AccessDecision>> {
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(Problem::bad(format!("address: must be an IP address, got {address:?}")));
    };
    let snapshot = context.view.state().snapshot.clone();
    let named = |listener: &&std::sync::Arc<Listener>| {
        name.as_ref().is_none_or(|name| listener.settings.name == *name)
    };
    let decisions: Vec<_> =
        snapshot.listeners.iter().filter(named).map(|listener| decision(listener, address)).collect();
    match name.filter(|_| decisions.is_empty()) {
        None => Ok(Json(decisions)),
        Some(name) => {
            let known = snapshot.listeners.iter().map(|listener| listener.settings.name.as_str());
            let hint = did_you_mean(&name, known);
            Err(Problem::not_found(format!("there is no listener {name:?}{hint}")))
        }
    }
}

fn decision(listener: &Listener, address: IpAddr) -> api::AccessDecision {
    let access = listener.settings.access.as_ref();
    let decision = access.map(|access| access.decide(address));
    let by = decision.as_ref().and_then(|decision| decision.by);
    let place = by.and_then(|by| by.place);
    api::AccessDecision {
        listener: listener.settings.name.clone(),
        admitted: decision.as_ref().is_none_or(|decision| decision.is_admitted),
        has_lists: access.is_some(),
        rule: by.map(|by| by.rule.as_str().to_owned()),
        network: by.map(|by| by.network.to_string()),
        file: place.map(|(file, _)| file.display().to_string()),
        line: place.map(|(_, line)| line),
    }
}

/// Reads the files of all lists again, and nothing else; a mistake in one of them changes nothing
#[utoipa::path(
    post, path = "/v1/acl/reload",
    responses(
        (status = OK, body = api::ReloadReport),
        (status = UNPROCESSABLE_ENTITY, description = "What is wrong with the files.", body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
async fn reload(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
) -> Answer<api::ReloadReport> {
    reloads::request(&context, who, Mode::Lists).await
}
