//! Readiness: whether a balancer in front, an orchestrator or DNS should send clients here.

use crate::api;
use crate::config::model::WhenAllDown;
use crate::control::ControlState;
use crate::control::pauses::all_paused;
use crate::pool::Pool;

/// Returns why no client should be sent here, if none should; for `pool` alone if given, else for all pools that
/// listeners serve.
pub(crate) fn why_not_ready(state: &ControlState, pool: Option<&Pool>) -> Option<String> {
    match state.stage {
        api::Stage::Draining => return Some("draining: accepting has ended".into()),
        api::Stage::Stopping => return Some("stopping".into()),
        api::Stage::Serving => {}
    }
    if state.is_leaving {
        return Some("draining soon: it accepts until shutdown_delay has passed".into());
    }
    if let Some(who) = &state.ready_fail {
        return Some(format!("ready-fail is on, by {who}"));
    }
    let resets = |pool: &Pool| {
        let serves = pool.backends.iter().any(|backend| backend.is_eligible());
        let tries = pool.settings.when_all_down == WhenAllDown::TryAnyway
            && pool.backends.iter().any(|backend| backend.admits());
        !serves && !tries
    };
    match pool {
        Some(pool) => {
            let name = &pool.settings.name;
            let paused = || all_paused(state, Some(pool.id));
            let paused =
                || paused().map(|names| format!("pool {name:?}: all its listeners are paused: {names}"));
            resets(pool).then(|| format!("pool {name:?}: no backend is eligible")).or_else(paused)
        }
        None => {
            if let Some(names) = all_paused(state, None) {
                return Some(format!("all listeners are paused: {names}"));
            }
            let snapshot = &state.snapshot;
            let listening = |name: &str| !state.pauses.contains_key(name);
            let listening = snapshot.listeners.iter().filter(|listener| listening(&listener.settings.name));
            let mut served = listening.flat_map(|listener| listener.pools()).map(|pool| snapshot.pool(pool));
            let all = served.all(|pool| resets(pool));
            all.then(|| "no pool has an eligible backend".into())
        }
    }
}
