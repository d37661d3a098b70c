//! Undoes what operators have set of backends that no list has now: it would hold again once one does. Sets nothing.

use crate::config::model::HealthState;
use crate::control::control_loop::ControlLoop;
use crate::control::membership::changes::Selected;
use crate::control::membership::placement::Placement;
use crate::messages::request::{ChangeSet, Named, Placing, Refusal, Wish};
use crate::pool::{Admin, Setting};

impl ControlLoop {
    /// Returns `named`, which is in no pool, if `set` only undoes what was set of it. Fails as `missing` when nothing was
    /// set.
    pub(super) fn gone(&self, named: &Named, set: &ChangeSet, missing: Refusal) -> Result<Selected, Refusal> {
        let registrations = &self.control.kept.registrations;
        let said = registrations.set_of(&named.pool, &named.backend).map(|(said, _)| said);
        let is_known =
            said.is_some() || registrations.placements.named(&named.pool, &named.backend).is_some();
        let Some(pool) = self.control.snapshot.pool_named(&named.pool).filter(|_| is_known) else {
            return Err(missing);
        };
        if !undoes(set, said) {
            return Err(Refusal::NotFound(format!(
                "{named} is in no list now: what was set of it can only be undone until it is back (default, ready, \
                 auto, or the weight that its list said)"
            )));
        }
        Ok(Selected { named: named.clone(), pool: pool.clone(), backends: Vec::new(), host: None })
    }

    /// Undoes what `set` says of one that [`ControlLoop::gone`] has returned, unless that is a dry run; returns what that
    /// changes, in words.
    pub(super) fn undo(&mut self, named: &Named, set: &ChangeSet, who: &str) -> Vec<String> {
        let mut changes = self.undo_placing(named, &set.placing, set.is_dry_run, who);
        let registrations = &mut self.control.kept.registrations;
        let Some((said, before)) = registrations.set_of(&named.pool, &named.backend) else { return changes };
        let Setting { weight, admin, health } = set.setting;
        let mut next = before;
        if let Some(set) = before.weight.filter(|_| weight == Some(said)) {
            changes.push(format!("weight {set} is not set any more"));
            next.weight = None;
        }
        if admin == Some(Admin::Ready) && before.admin != Admin::Ready {
            changes.push(format!("admin state {} is not set any more", before.admin.as_str()));
            next.admin = Admin::Ready;
        }
        if let Some(forced) = before.health.filter(|_| health == Some(HealthState::Unknown)) {
            changes.push(format!("health {} is not set any more", forced.as_str()));
            next.health = None;
        }
        if next != before && !set.is_dry_run {
            registrations.set_again(&named.pool, &named.backend, said, next);
        }
        changes
    }

    fn undo_placing(&mut self, named: &Named, placing: &Placing, is_dry_run: bool, who: &str) -> Vec<String> {
        let placements = &mut self.control.kept.registrations.placements;
        let Some(before) = placements.named(&named.pool, &named.backend).cloned() else { return Vec::new() };
        let mut next = Placement { who: who.to_owned(), since: crate::sys::timestamp(), ..before };
        let address = next.address.take_if(|_| placing.address == Some(Wish::Default));
        let priority = next.priority.take_if(|_| placing.priority == Some(Wish::Default));
        let address = address.map(|address| format!("address {address} is not set any more"));
        let priority = priority.map(|priority| format!("priority {priority} is not set any more"));
        let changes: Vec<String> = address.into_iter().chain(priority).collect();
        if !changes.is_empty() && !is_dry_run {
            placements.put(&named.pool, &named.backend, next);
        }
        changes
    }
}

/// Returns whether `set` sets nothing of a backend of which its list `said` that weight.
fn undoes(set: &ChangeSet, said: Option<u16>) -> bool {
    let ChangeSet { setting: Setting { weight, admin, health }, placing, .. } = set;
    let Placing { address, priority } = placing;
    weight.is_none_or(|weight| said == Some(weight))
        && admin.is_none_or(|admin| admin == Admin::Ready)
        && health.is_none_or(|health| health == HealthState::Unknown)
        && matches!(address, None | Some(Wish::Default))
        && matches!(priority, None | Some(Wish::Default))
}
