//! Changes of backends: of one by its path, and of many by names and patterns.

use std::collections::HashMap;

use axum::extract::{Extension, State};

use super::context::Context;
use super::extract::{Answer, Json, Path};
use super::guard::Peer;
use super::problem::Problem;
use super::rows;
use super::wanted::{check_priority, check_weight};
use crate::api;
use crate::base::glob;
use crate::config::model::HealthState;
use crate::config::{Invalid, Target};
use crate::messages::reload::Listening;
use crate::messages::request::{ChangeSet, Changed, Done, Named, Placing, Request, Wish};
use crate::pool::Setting;

/// Sets the weight or the administrative state
#[utoipa::path(
    patch, path = "/v1/pools/{pool}/backends/{backend}", params(("pool" = String, Path), ("backend" = String, Path)),
    request_body = api::BackendChange,
    responses(
        (status = OK, body = api::Changed),
        (status = NOT_FOUND, body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn change(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Path((pool, backend)): Path<(String, String)>,
    Json(change): Json<api::BackendChange>,
) -> Answer<api::Changed> {
    let named = Named { pool, backend };
    change.weight.map_or(Ok(()), check_weight).map_err(Problem::bad)?;
    let (weight, admin) = (change.weight, change.admin.map(rows::admin_of));
    let backend = named.clone();
    let done = context.ask(who, |reply| Request::Change { backend, weight, admin, reply }).await?;
    context.changed(&named, done.not_saved)
}

/// Sets a backend's health, overriding its checks
#[utoipa::path(
    post, path = "/v1/pools/{pool}/backends/{backend}/health",
    params(("pool" = String, Path), ("backend" = String, Path)), request_body = api::HealthOverride,
    responses(
        (status = OK, body = api::Changed),
        (status = NOT_FOUND, body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn override_health(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Path((pool, backend)): Path<(String, String)>,
    Json(wanted): Json<api::HealthOverride>,
) -> Answer<api::Changed> {
    let named = Named { pool, backend };
    let health = Some(health_of(wanted.health)).filter(|&health| health != HealthState::Unknown);
    let backend = named.clone();
    let done = context.ask(who, |reply| Request::OverrideHealth { backend, health, reply }).await?;
    context.changed(&named, done.not_saved)
}

/// Pauses a listener, or makes it listen again
///
/// The sockets of a paused listener are closed: connections in its queue are served, its sessions live on, and new
/// clients are refused. A reload leaves it paused; a restart does not.
#[utoipa::path(
    patch, path = "/v1/listeners/{listener}", params(("listener" = String, Path)), request_body = api::ListenerChange,
    responses(
        (status = OK, body = api::Listener),
        (status = NOT_FOUND, body = api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "Its address cannot be had now, or the process drains.", body = api::Problem),
    ),
)]
pub(super) async fn listen(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Path(listener): Path<String>,
    Json(wanted): Json<api::ListenerChange>,
) -> Answer<api::Listener> {
    let listening = Listening { listener: listener.clone(), is_paused: wanted.paused };
    context.ask(who, |reply| Request::Listen { listening, reply }).await?;
    let rows = rows::listeners(&context.view.state());
    let row = rows.into_iter().find(|row| row.name == listener);
    row.map(Json).ok_or_else(|| Problem::not_found(format!("there is no listener {listener:?} any more")))
}

/// Changes all backends that names and patterns select, in one step; or none
#[utoipa::path(
    patch, path = "/v1/backends", request_body = api::BackendsChange,
    responses(
        (status = OK, body = api::BackendsChanged),
        (status = NOT_FOUND, description = "A name is unknown, or a pattern matches nothing.", body = api::Problem),
        (status = CONFLICT, description = "A pool would lose its last eligible backend, or another one has the address.", body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn change_set(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Json(wanted): Json<api::BackendsChange>,
) -> Answer<api::BackendsChanged> {
    let is_dry_run = wanted.dry_run;
    let (mut set, address) = set_of(wanted).map_err(Problem::bad)?;
    if let Some(target) = address {
        let address = match target {
            Target::Address(address) => address,
            target @ Target::Host { .. } => context.resolvers.resolve(target).await?,
        };
        set.placing.address = Some(Wish::To(address));
    }
    let done = context.ask(who, |reply| Request::ChangeSet { set, reply }).await?;
    let Done { result: changed, not_saved } = done;
    let (state, now) = (context.view.state(), context.view.clock.now());
    let rows = rows::backends(&state, now, None).into_iter();
    let mut rows: HashMap<(String, String), api::Backend> =
        rows.map(|backend| ((backend.pool.clone(), backend.name.clone()), backend)).collect();
    let (mut backends, mut gone) = (Vec::new(), Vec::new());
    for Changed { backend: Named { pool, backend }, changes } in changed {
        let key = (pool, backend);
        let host = || rows::host(&state, now, state.snapshot.pool_named(&key.0)?, &key.1);
        match rows.remove(&key).or_else(host) {
            Some(backend) => backends.push(api::BackendChanged { backend, changes }),
            // It has left its pool, before or since.
            None => gone.push(api::GoneChanged { pool: key.0, name: key.1, changes }),
        }
    }
    Ok(Json(api::BackendsChanged { applied: !is_dry_run, backends, gone, not_saved }))
}

/// Checks what can be checked without the running configuration; returns the address that is yet to be resolved beside.
pub(super) fn set_of(wanted: api::BackendsChange) -> Result<(ChangeSet, Option<Target>), String> {
    let api::BackendsChange {
        backends: names,
        weight,
        admin,
        health,
        address,
        priority,
        reset,
        force,
        dry_run,
    } = wanted;
    let (many, most) = (names.len(), api::NAMES_MAX);
    if !(1..=most).contains(&many) {
        return Err(format!("backends: must be 1..={most} names or patterns, got {many}"));
    }
    let (patterns, most) = (names.iter().filter(|name| glob::is_pattern(name)).count(), api::PATTERNS_MAX);
    if patterns > most {
        return Err(format!("backends: at most {most} of them may be patterns, got {patterns}"));
    }
    if let Some(long) = names.iter().find(|name| name.len() > api::PATTERN_LEN_MAX) {
        let (most, len) = (api::PATTERN_LEN_MAX, long.len());
        return Err(format!("backends: a name or pattern must be 1..={most} bytes, got one of {len}"));
    }
    weight.map_or(Ok(()), check_weight)?;
    let setting = Setting { weight, admin: admin.map(rows::admin_of), health: health.map(health_of) };
    let address =
        address.map(|text| Target::parse(&text).map_err(|Invalid(what)| format!("address: {what}")));
    let address = address.transpose()?;
    let priority = priority.map(|priority| check_priority(Some(priority), None)).transpose()?;
    let is_reset = |key| reset.contains(&key).then_some(());
    let unset = (is_reset(api::PlacingKey::Address), is_reset(api::PlacingKey::Priority));
    for (key, is_both) in [
        ("address", address.is_some() && unset.0.is_some()),
        ("priority", priority.is_some() && unset.1.is_some()),
    ] {
        if is_both {
            return Err(format!("{key}: not together with its reset"));
        }
    }
    let placing = Placing {
        address: unset.0.map(|()| Wish::Default),
        priority: unset.1.map(|()| Wish::Default).or(priority.map(Wish::To)),
    };
    if setting == Setting::default() && placing == Placing::default() && address.is_none() {
        let keys = "weight, admin, health, address, priority or reset";
        return Err(format!("{keys}: one of them has to be given"));
    }
    Ok((ChangeSet { names, setting, placing, is_forced: force, is_dry_run: dry_run }, address))
}

const fn health_of(wanted: api::OverrideTo) -> HealthState {
    match wanted {
        api::OverrideTo::Up => HealthState::Up,
        api::OverrideTo::Down => HealthState::Down,
        api::OverrideTo::Auto => HealthState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_selects_or_changes_nothing_is_refused_with_what_is_missing() {
        let drain = api::BackendsChange { admin: Some(api::Admin::Drain), ..api::BackendsChange::default() };
        let of = |backends: &[&str]| backends.iter().map(|&name| name.to_owned()).collect();
        let refused = |wanted| set_of(wanted).unwrap_err();
        assert_eq!(refused(drain.clone()), "backends: must be 1..=256 names or patterns, got 0");
        let many = vec!["a".to_owned(); 257];
        assert_eq!(
            refused(api::BackendsChange { backends: many, ..drain.clone() }),
            "backends: must be 1..=256 names or patterns, got 257"
        );
        let patterns = vec!["a*".to_owned(); 17];
        assert_eq!(
            refused(api::BackendsChange { backends: patterns, ..drain.clone() }),
            "backends: at most 16 of them may be patterns, got 17"
        );
        let long = "*".repeat(257);
        assert_eq!(
            refused(api::BackendsChange { backends: of(&[&long]), ..drain.clone() }),
            "backends: a name or pattern must be 1..=256 bytes, got one of 257"
        );
        let nothing = api::BackendsChange { backends: of(&["a"]), ..api::BackendsChange::default() };
        assert_eq!(
            refused(nothing.clone()),
            "weight, admin, health, address, priority or reset: one of them has to be given"
        );
        assert_eq!(
            refused(api::BackendsChange { weight: Some(257), ..nothing }),
            "weight: must be 0..=256, got 257"
        );
        assert!(set_of(api::BackendsChange { backends: of(&["a*"]), ..drain }).is_ok());
    }
}
