//! Where a backend comes from, what operators have set of it, and which of both decides.
//!
//! An operator is over the agent that has registered a backend, that over the file, and the file over a source that
//! lists it, each for as long as what it is over says what it said then: where the origin of a backend says something
//! else, that holds. `merge` puts a pool together by this order, `persist` keeps it over a restart, and `drain` over
//! the time in which a backend is in no pool.

use std::sync::Arc;

use crate::base::time::Instant;
use crate::config::model::HealthState;
use crate::pool::{Admin, Backend};

/// Most leases of one backend.
pub(in crate::control) const HOLDERS_MAX: usize = 16;

/// Where a backend comes from.
#[derive(Clone, Debug, Default)]
pub enum Origin {
    /// The running configuration lists the backend.
    #[default]
    File,
    /// Registered at run time: by which holder, and until when.
    Registered(Arc<Registration>),
    /// A source of the pool lists the backend.
    Discovered(Discovery),
}

/// The settings that a source has given a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Which source, see [`label`](crate::config::discover::Discover::label).
    pub source: Arc<str>,
    /// Its weight there. An operator may have set another since.
    pub weight: u16,
}

impl Origin {
    /// When it is removed from its pool unless its origin renews it before.
    pub fn lease(&self) -> Option<Instant> {
        match self {
            Self::File | Self::Discovered(_) => None,
            Self::Registered(registration) => registration.lease(),
        }
    }
}

/// The state of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The sender of the latest request.
    pub who: String,
    /// The weight that was last requested. An operator may have set another since.
    pub weight: u16,
    /// The leases; without any it is permanent.
    pub holds: Vec<Hold>,
}

/// One lease of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The name that requests give as `holder`; unique per backend.
    pub holder: String,
    /// Whether the client knows its name, because it chose or sent it. An unknown lease is never renewed, only followed
    /// by another: so do clients that do not use names.
    pub is_known: bool,
    /// The weight of its last request.
    pub weight: u16,
    /// The priority in its last request.
    pub priority: u8,
    /// When it ends unless renewed.
    pub end: Instant,
}

impl Registration {
    /// Returns the end of the last lease; `None` for a permanent registration.
    pub fn lease(&self) -> Option<Instant> {
        self.holds.iter().map(|hold| hold.end).max()
    }

    /// Returns the lease of that holder, unless it has ended.
    pub(in crate::control) fn hold_of(&self, holder: &str, now: Instant) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.holder == holder && hold.end > now)
    }

    /// Adds a lease, or renews that of the same holder; returns false if there are [`HOLDERS_MAX`] others.
    pub(in crate::control) fn hold(&mut self, hold: Hold, now: Instant) -> bool {
        self.holds.retain(|known| known.end > now && known.holder != hold.holder);
        if self.holds.len() >= HOLDERS_MAX {
            let unknown = (0..self.holds.len()).filter(|&place| !self.holds[place].is_known);
            let Some(first) = unknown.min_by_key(|&place| self.holds[place].end) else { return false };
            self.holds.remove(first);
        }
        self.holds.push(hold);
        true
    }

    /// Ends the lease of one holder; returns how many others there are.
    pub(in crate::control) fn leave(&mut self, holder: &str, now: Instant) -> usize {
        self.holds.retain(|hold| hold.end > now && hold.holder != holder);
        self.holds.len()
    }
}

/// The settings that operators have made of one backend at run time, whatever its origin says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeOverrides {
    /// A weight set by an operator: another than that of its origin, or the same, over that of an agent.
    pub weight: Option<u16>,
    /// The state that an operator has set: ready, drain or maint.
    pub admin: Admin,
    /// The health set by an operator, whatever its checks report.
    pub health: Option<HealthState>,
}

impl Default for RuntimeOverrides {
    fn default() -> Self {
        Self { weight: None, admin: Admin::Ready, health: None }
    }
}

impl RuntimeOverrides {
    /// Returns what operators have set of `backend`; its origin says weight `says`.
    pub(in crate::control) fn of(backend: &Backend, says: u16) -> Self {
        Self {
            weight: Some(backend.plain_weight()).filter(|&weight| weight != says || backend.holds_weight()),
            admin: backend.operator_admin(),
            health: backend.health_override(),
        }
    }

    /// What of it holds where the origin says a weight of `says` now, and has `said` another one or the same before.
    #[must_use]
    pub(super) fn kept(self, said: u16, says: u16) -> Self {
        Self { weight: self.weight.filter(|_| said == says), ..self }
    }

    /// Returns the weight that runs where the origin says `says`.
    pub(super) fn weight_over(self, says: u16) -> u16 {
        self.weight.unwrap_or(says)
    }

    /// Sets what needs no table of `backend`. The weight comes with the settings by which the table is built.
    pub(in crate::control) fn put_on(self, backend: &Backend) {
        backend.set_admin(self.admin);
        backend.override_health(self.health);
        backend.hold_weight(self.weight.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operators_setting_holds_until_its_origin_changes() {
        let set = |weight| RuntimeOverrides { weight, ..RuntimeOverrides::default() };
        for (weight, said, says, runs_with) in [
            (None, 1, 1, 1),
            (None, 1, 2, 2),
            (Some(5), 1, 1, 5),
            (Some(5), 1, 2, 2),
            (Some(5), 1, 5, 5),
            (Some(0), 1, 1, 0),
            (Some(1), 1, 1, 1),
        ] {
            let kept = set(weight).kept(said, says);
            assert_eq!(kept.weight_over(says), runs_with, "{weight:?} over {said}, then {says}");
        }
        let down = RuntimeOverrides { admin: Admin::Maint, health: Some(HealthState::Down), weight: Some(5) };
        assert_eq!(down.kept(1, 2), RuntimeOverrides { weight: None, ..down }, "no origin speaks of those");
    }

    #[test]
    fn a_weight_equal_to_that_of_the_origin_is_not_an_override() {
        let settings = crate::control::tests::config("").pools[0].backends[0].clone();
        let (id, pool) = (crate::pool::BackendId(0), crate::pool::PoolId(0));
        let backend = Backend::new(id, pool, &settings, HealthState::Unknown, 1);
        assert_eq!(RuntimeOverrides::of(&backend, settings.weight), RuntimeOverrides::default());
        backend.set_weight(7);
        assert_eq!(RuntimeOverrides::of(&backend, settings.weight).weight, Some(7));
        assert_eq!(RuntimeOverrides::of(&backend, 7), RuntimeOverrides::default());
        // An agent may say another one.
        backend.hold_weight(true);
        assert_eq!(RuntimeOverrides::of(&backend, 7).weight, Some(7));
    }
}
