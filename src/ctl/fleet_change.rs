//! Changes of backends on all balancers, which are waited for until they are in force.

use std::thread;
use std::time::Duration;

use axum::http::Method;

use crate::api;
use crate::config::one_line;
use crate::ctl::args::{Action, Chosen};
use crate::ctl::drain::PERIOD;
use crate::ctl::fleet::progress;
use crate::ctl::{Ctl, Failure, NOTHING, json_line, print};
use crate::sys::Clock;

/// How long a change of all balancers is waited for: each has it within some seconds, or is away.
const WAIT_MAX: Duration = Duration::from_secs(10);

impl Ctl {
    /// Makes a change on all balancers.
    pub(super) fn act_on_fleet(&self, action: &Action) -> Result<(), Failure> {
        if let Action::Drain { chosen, wait: false, .. } = action {
            self.fleet_change(chosen, api::Admin::Drain)
        } else if let Action::Ready(chosen) = action {
            self.fleet_change(chosen, api::Admin::Ready)
        } else if let Action::Maint(chosen) = action {
            self.fleet_change(chosen, api::Admin::Maint)
        } else {
            let what = "--fleet: goes with drain (without --wait), ready and maint only";
            Err(Failure::Usage(what.into()))
        }
    }

    /// Sets the administrative state of the chosen backends on all balancers, and waits until it is in force on all of them:
    /// for [`WAIT_MAX`] at most, and then it fails.
    fn fleet_change(&self, chosen: &Chosen, admin: api::Admin) -> Result<(), Failure> {
        if chosen.dry_run {
            return Err(Failure::Usage("--dry-run: not together with --fleet".into()));
        }
        let change = api::FleetChange { backends: chosen.backends.clone(), admin, force: chosen.force };
        let changed: api::FleetChanged =
            self.client.answer(Method::PATCH, "/v1/fleet", Some(&change))?.read()?;
        let clock = Clock::start();
        let deadline = clock.now() + WAIT_MAX;
        loop {
            let answer = self.client.answer(Method::GET, "/v1/fleet", NOTHING)?;
            let fleet: api::Fleet = answer.read()?;
            let is_meant = |wanted: &&api::FleetWanted| {
                changed.backends.contains(&format!("{}/{}", wanted.pool, wanted.backend))
            };
            let found: Vec<&api::FleetWanted> = fleet.wanted.iter().filter(is_meant).collect();
            let is_done = match admin {
                api::Admin::Ready => found.is_empty(),
                api::Admin::Drain | api::Admin::Maint => {
                    found.len() == changed.backends.len()
                        && found.iter().all(|wanted| wanted.admin == admin && wanted.pending.is_empty())
                }
            };
            let is_late = clock.now() >= deadline;
            if is_done || is_late {
                let lines = found.iter().map(|wanted| one_line(&progress(wanted)) + "\n");
                let ended =
                    |name: &String| format!("{name}: nothing is wanted of it on all balancers any more\n");
                let is_ended = is_done && admin == api::Admin::Ready;
                let text: String =
                    if is_ended { changed.backends.iter().map(ended).collect() } else { lines.collect() };
                print(&if self.json { json_line(&answer.body) } else { text })?;
            }
            match (is_done, is_late) {
                (true, _) => return Ok(()),
                (false, true) => {
                    let what =
                        "it is wanted, and not in force everywhere yet: l4lb ctl fleet shows the progress";
                    return Err(Failure::Failed(what.into()));
                }
                (false, false) => thread::park_timeout(PERIOD),
            }
        }
    }
}
