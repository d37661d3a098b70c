//! Changes of backends: of one by its own route, of several names and patterns by the route of sets.

use std::collections::HashSet;
use std::time::Duration;

use axum::http::Method;

use crate::api;
use crate::base::glob;
use crate::ctl::args::Chosen;
use crate::ctl::{
    ClientError, Ctl, Failure, NOTHING, drain, json_line, print, routes, settings, show, warn_unless_saved,
};

impl Ctl {
    /// Changes the chosen backends, and prints them.
    pub(super) fn change(&self, chosen: &Chosen, change: &api::BackendsChange) -> Result<(), Failure> {
        let Some(only) = only_name(chosen) else {
            let change = wanted(chosen, change);
            return self.ask(Method::PATCH, "/v1/backends", Some(&change), show::changed_set);
        };
        let path = self.named(only)?.path();
        if let Some(health) = change.health {
            let health = api::HealthOverride { health };
            return self.ask(Method::POST, &format!("{path}/health"), Some(&health), show::changed);
        }
        let change = api::BackendChange { weight: change.weight, admin: change.admin };
        self.ask(Method::PATCH, &path, Some(&change), show::changed)
    }

    /// Sets what the words of `l4lb ctl set` say, and prints the backends.
    pub(super) fn set(&self, words: &Chosen) -> Result<(), Failure> {
        let (chosen, change) = settings::parse(words)?;
        let change = wanted(&chosen, &change);
        self.ask(Method::PATCH, "/v1/backends", Some(&change), show::changed_set)
    }

    /// Drains the chosen backends, and returns when they have no session left.
    pub(super) fn drain(
        &self,
        chosen: &Chosen,
        change: &api::BackendsChange,
        timeout: Option<Duration>,
    ) -> Result<(), Failure> {
        let Some(only) = only_name(chosen) else {
            let change = wanted(chosen, change);
            let answer = self.client.answer(Method::PATCH, "/v1/backends", Some(&change))?;
            let mut changed: api::BackendsChanged = answer.read()?;
            warn_unless_saved(&answer.body);
            let began: Vec<api::Backend> = changed.backends.iter().map(|one| one.backend.clone()).collect();
            let now = drain::wait(&began, timeout, || self.look(&began))?;
            for (one, now) in changed.backends.iter_mut().zip(now) {
                one.backend = now;
            }
            let json = || serde_json::to_vec(&changed).expect("API types serialize to JSON");
            return print(&if self.json { json_line(&json()) } else { show::changed_set(&changed) });
        };
        let path = self.named(only)?.path();
        let change = api::BackendChange { admin: change.admin, weight: None };
        let answer = self.client.answer(Method::PATCH, &path, Some(&change))?;
        let began: api::Backend = answer.read()?;
        warn_unless_saved(&answer.body);
        drain::wait(&[began], timeout, || self.client.get(&path).map(|backend| vec![backend]))?;
        self.ask(Method::GET, &path, NOTHING, show::changed)
    }
}

impl Ctl {
    /// Returns the backends of all pools as they are, and those of `wanted` that are host names.
    fn look(&self, wanted: &[api::Backend]) -> Result<Vec<api::Backend>, ClientError> {
        let mut found: Vec<api::Backend> = self.client.get("/v1/backends")?;
        let listed: HashSet<(String, String)> =
            found.iter().map(|backend| (backend.pool.clone(), backend.name.clone())).collect();
        for api::Backend { pool, name, .. } in wanted {
            if !listed.contains(&(pool.clone(), name.clone())) {
                found.push(self.client.get(&routes::backend(pool, name))?);
            }
        }
        Ok(found)
    }
}

/// Returns the name of the only backend that is chosen, if it is one by its name and nothing else is wanted.
fn only_name(chosen: &Chosen) -> Option<&str> {
    match chosen {
        Chosen { backends, dry_run: false, force: false } => match backends.as_slice() {
            [only] if !glob::is_pattern(only) => Some(only),
            _ => None,
        },
        Chosen { .. } => None,
    }
}

fn wanted(chosen: &Chosen, change: &api::BackendsChange) -> api::BackendsChange {
    let Chosen { backends, dry_run, force } = chosen.clone();
    api::BackendsChange { backends, dry_run, force, ..change.clone() }
}
