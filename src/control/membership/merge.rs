//! Puts the backends of a pool together: those that the file lists, with what operators have set of them, and behind
//! them those that were registered, as far as they fit. The order between them is that of `origin`: what was changed at
//! run time stays as long as the file says of it what it said before; where the file says something else, the file
//! wins. Each such decision of a reload is logged.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::base::address::Address;
use crate::config::Config;
use crate::config::discover::Discover;
use crate::config::model::{self, OwnSocket, Pool};
use crate::control::circles::{OwnAddresses, circle_at};
use crate::control::membership::leases::Registrations;
use crate::control::membership::origin::{Origin, RuntimeOverrides};
use crate::control::membership::placement::Placed;
use crate::pool::{self, Admin, Backend, Snapshot};

/// The configuration to run, in place of one that was read.
pub(in crate::control) struct Merged {
    pub(in crate::control) config: Config,
    /// What differs from the file, one line each.
    pub(in crate::control) notes: Vec<String>,
    /// Pool and name of those that run at an address that was set and cannot be used any more: they are elsewhere in
    /// `config`.
    pub(in crate::control) giving_way: Vec<(String, String)>,
}

/// Returns the configuration to run for `new` after `old`, given the present state.
pub(in crate::control) fn merge(
    old: &Config,
    new: &Placed<'_>,
    running: &Snapshot,
    registrations: &Registrations,
) -> Merged {
    let mut merged = Merged { config: Config::clone(&new.config), notes: Vec::new(), giving_way: Vec::new() };
    let sockets: Vec<OwnSocket> = new.config.own_sockets().collect();
    for pool in &mut merged.config.pools {
        let now = running.pool_named(&pool.name);
        let before = old.pools.iter().find(|before| before.name == pool.name);
        if let (Some(now), Some(before)) = (now, before) {
            let mut report_change = |backend: &str, what: String| {
                merged.notes.push(format!("pool {:?}: backend {backend:?}: {what}", before.name));
            };
            let from_file: HashSet<String> = now
                .backends
                .iter()
                .map(|backend| backend.name.clone())
                .filter(|name| new.gives_way(&before.name, name))
                .collect();
            keep_changes(before, pool, now, &from_file, registrations, &mut report_change);
            let others = keep_registered(pool, now, registrations, &sockets, &mut report_change);
            let giving_way = from_file.into_iter().chain(others);
            merged.giving_way.extend(giving_way.map(|name| (before.name.clone(), name)));
        }
    }
    merged
}

/// The backends of one pool as they are put together: no two of one name or at one address, and none that is ourselves.
pub(super) struct Membership<'s> {
    backends: Vec<model::Backend>,
    by_name: HashMap<String, Address>,
    by_address: HashMap<Address, String>,
    sockets: &'s [OwnSocket],
    own: OwnAddresses,
}

/// Why a backend cannot be in a pool beside what is configured.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Another has its name or its address.
    Member { name: String, address: Address },
    /// Its address is ours: each session would open the next.
    OwnSocket(OwnSocket),
}

impl<'s> Membership<'s> {
    /// Those that a configuration lists in a pool, which has these `sockets`.
    pub(super) fn listed(backends: Vec<model::Backend>, sockets: &'s [OwnSocket]) -> Self {
        let by_name =
            backends.iter().map(|backend| (backend.name.clone(), backend.address.clone())).collect();
        let resolved = backends.iter().filter(|backend| backend.is_resolved());
        let by_address = resolved.map(|backend| (backend.address.clone(), backend.name.clone())).collect();
        Self { backends, by_name, by_address, sockets, own: OwnAddresses::default() }
    }

    /// Puts one behind them that was registered, if it fits.
    pub(super) fn add(&mut self, backend: model::Backend) -> Result<(), Obstacle> {
        let model::Backend { name, address, .. } = &backend;
        let is_resolved = backend.is_resolved();
        let named = self.by_name.get_key_value(name);
        if let Some((name, address)) =
            named.or_else(|| self.by_address.get(address).map(|name| (name, address)))
        {
            return Err(Obstacle::Member { name: name.clone(), address: address.clone() });
        }
        let circle = || circle_at(address, self.sockets.iter().copied(), &self.own);
        if let Some(socket) = is_resolved.then(circle).flatten() {
            return Err(Obstacle::OwnSocket(socket));
        }
        self.by_name.insert(name.clone(), address.clone());
        // Any number of host names may have no address.
        if is_resolved {
            self.by_address.insert(address.clone(), name.clone());
        }
        self.backends.push(backend);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.backends.len()
    }

    pub(super) fn into_backends(self) -> Vec<model::Backend> {
        self.backends
    }
}

const DISCOVERED: &str = "was discovered";

/// Identifies a backend within its pool.
type Name<'a> = (&'a str, &'a Address);

fn name_of(backend: &model::Backend) -> Name<'_> {
    (backend.name.as_str(), &backend.address)
}

/// Applies the run-time changes of the backends that `pool` lists. Those in `giving_way` run elsewhere.
fn keep_changes(
    before: &Pool,
    pool: &mut Pool,
    now: &pool::Pool,
    giving_way: &HashSet<String>,
    registrations: &Registrations,
    report_change: &mut impl FnMut(&str, String),
) {
    let listed_before: HashMap<Name<'_>, &model::Backend> =
        before.backends.iter().map(|backend| (name_of(backend), backend)).collect();
    let runs: HashMap<Name<'_>, &Arc<Backend>> =
        now.backends.iter().map(|backend| ((backend.name.as_str(), &backend.address), backend)).collect();

    pool.backends.retain_mut(|listed| {
        let (was, runs) = if giving_way.contains(&listed.name) {
            let was = before.backends.iter().find(|before| before.name == listed.name);
            (was, now.backend_named(&listed.name))
        } else {
            (listed_before.get(&name_of(listed)).copied(), runs.get(&name_of(listed)).copied())
        };
        let Some(backend) = runs else {
            let was_removed = was.is_some();
            if was_removed && was == Some(listed) {
                report_change(
                    &listed.name,
                    "was removed at run time and stays removed: run-time wins".into(),
                );
                return false;
            }
            if was_removed {
                report_change(&listed.name, "was removed at run time and is back: file wins".into());
            }
            return true;
        };
        let says = listed.weight;
        let said = was.map_or(says, |was| was.weight);
        let overrides = RuntimeOverrides::of(backend, said);
        let kept = overrides.kept(said, says);
        match (was, overrides.weight, kept.weight) {
            (None, ..) => {
                let was = match registrations.origin_of(backend.id) {
                    Origin::Discovered(_) => DISCOVERED,
                    Origin::File | Origin::Registered(_) => "was registered at run time",
                };
                report_change(&listed.name, format!("{was} and is listed now: file wins"));
            }
            (Some(_), Some(_), Some(weight)) if weight != says => {
                let what = format!("weight {weight} was set at run time and stays: run-time wins");
                report_change(&listed.name, format!("{what} (the file says {says})"));
                listed.weight = weight;
            }
            (Some(_), Some(weight), None) if weight != says => {
                let what = format!("weight {weight} was set at run time and is {says} now");
                report_change(&listed.name, format!("{what}: file wins"));
            }
            (Some(_), ..) => match registrations.origin_of(backend.id) {
                Origin::File | Origin::Discovered(_) => {}
                Origin::Registered(_) => {
                    report_change(
                        &listed.name,
                        "was registered at run time and stays so: run-time wins".into(),
                    );
                }
            },
        }
        if kept.admin != Admin::Ready {
            let admin = kept.admin.as_str();
            report_change(&listed.name, format!("is in {admin} and stays so: run-time wins"));
        }
        true
    });
}

/// Backends that were registered at run time or discovered by a source that stays, and that `pool` does not list. Returns
/// the names of those that go where their origin has them, as they cannot stay where an operator has set them.
fn keep_registered(
    pool: &mut Pool,
    now: &pool::Pool,
    registrations: &Registrations,
    sockets: &[OwnSocket],
    report_change: &mut impl FnMut(&str, String),
) -> Vec<String> {
    let mut giving_way = Vec::new();
    let mut members = Membership::listed(std::mem::take(&mut pool.backends), sockets);
    let sources: HashSet<String> = pool.discover.iter().map(Discover::label).collect();
    for (settings, backend) in now.settings.backends.iter().zip(&now.backends) {
        let is_listed = members.by_name.get(&backend.name) == Some(&backend.address);
        let was = match registrations.origin_of(backend.id) {
            Origin::Registered(_) if !is_listed => "was registered at run time",
            Origin::Discovered(known) if !is_listed && sources.contains(&*known.source) => DISCOVERED,
            Origin::File | Origin::Registered(_) | Origin::Discovered(_) => continue,
        };
        let stays = model::Backend { weight: backend.plain_weight(), ..settings.clone() };
        let placed = registrations.placements.named(&pool.name, &backend.name);
        let origin = placed.filter(|set| set.address.as_ref() == Some(&backend.address));
        let origin = origin.map(|set| model::Backend { address: set.says.address.clone(), ..stays.clone() });
        let added = members.add(stays).or_else(|obstacle| {
            let elsewhere = origin.filter(model::Backend::is_resolved).map(|origin| members.add(origin));
            if elsewhere.is_none_or(|added| added.is_err()) {
                return Err(obstacle);
            }
            let why = match obstacle {
                Obstacle::Member { name, .. } => format!("{name:?} is there"),
                Obstacle::OwnSocket(socket) => format!("that is {socket}"),
            };
            let what = format!("address {} was set at run time, and {why}: file wins", backend.address);
            report_change(&backend.name, what);
            giving_way.push(backend.name.clone());
            Ok(())
        });
        let what = match added {
            // Not worth a note: the source still lists it.
            Ok(()) if was == DISCOVERED => continue,
            Ok(()) => format!("{was} and stays: run-time wins"),
            Err(Obstacle::Member { name, address }) => {
                format!("{was} at {}, and the file lists {name:?} at {address}: file wins", backend.address)
            }
            Err(Obstacle::OwnSocket(socket)) => {
                format!("{was}, and {} is {socket} now: file wins", backend.address)
            }
        };
        report_change(&backend.name, what);
    }
    pool.backends = members.into_backends();
    giving_way
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::membership::origin::Registration;
    use crate::control::membership::placement::Placements;
    use crate::control::tests::config;
    use crate::pool::PoolId;

    /// Returns the result of a file that changes from `old` to `new`, with `change` made at run time in between: the
    /// backends with their weights, and the notes.
    fn merged(
        old: &Config,
        new: &Config,
        change: impl Fn(&Snapshot) -> Snapshot,
    ) -> (Vec<String>, Vec<String>) {
        let running = change(&Snapshot::new(old));
        let placed = Placements::default().placed(new);
        let Merged { config: merged, notes, .. } = merge(old, &placed, &running, &registered_in(&running));
        let show = |backend: &model::Backend| format!("{}@{}", backend.name, backend.weight);
        let prefix = "pool \"default\": backend ";
        let notes = notes.iter().map(|note| note.strip_prefix(prefix).expect("of that pool").to_owned());
        (merged.pools[0].backends.iter().map(show).collect(), notes.collect())
    }

    /// Returns the registrations added to the two of the file.
    fn registered_in(running: &Snapshot) -> Registrations {
        let mut registrations = Registrations::default();
        for backend in running.backends().filter(|backend| backend.id.0 > 1) {
            registrations
                .put(backend.id, Registration { who: "a test".into(), weight: 1, holds: Vec::new() });
        }
        registrations
    }

    fn nothing(running: &Snapshot) -> Snapshot {
        running.refreshed(&[])
    }

    fn edited(edit: fn(&mut Vec<model::Backend>)) -> Config {
        let mut config = config("");
        edit(&mut config.pools[0].backends);
        config
    }

    fn edited_all(edit: fn(&mut Config)) -> Config {
        let mut config = config("");
        edit(&mut config);
        config
    }

    fn new_one(name: &str, port: u16) -> model::Backend {
        model::Backend {
            name: name.into(),
            address: ([127, 0, 0, 1], port).into(),
            weight: 1,
            priority: 0,
            check: model::BackendCheck::default(),
        }
    }

    /// With another backend, `c` on port 3.
    fn with_c(running: &Snapshot) -> Snapshot {
        let mut backends = running.pools[0].settings.backends.clone();
        backends.push(new_one("c", 3));
        running.with_backends(PoolId(0), &backends)
    }

    fn without_b(running: &Snapshot) -> Snapshot {
        let backends = running.pools[0].settings.backends[..1].to_vec();
        running.with_backends(PoolId(0), &backends)
    }

    /// `b` removed, and registered at another port.
    fn with_b_elsewhere(running: &Snapshot) -> Snapshot {
        let mut backends = without_b(running).pools[0].settings.backends.clone();
        backends.push(new_one("b", 3));
        without_b(running).with_backends(PoolId(0), &backends)
    }

    /// `b` removed, and registered where it was.
    fn with_b_again(running: &Snapshot) -> Snapshot {
        without_b(running).with_backends(PoolId(0), &running.pools[0].settings.backends)
    }

    fn with_weight(running: &Snapshot) -> Snapshot {
        running.pools[0].backends[0].set_weight(5);
        running.refreshed(&[])
    }

    #[test]
    fn one_rule_decides_each_case_and_each_is_reported() {
        type Case = (fn(&Snapshot) -> Snapshot, Config, &'static [&'static str], &'static [&'static str]);
        let cases: [Case; 16] = [
            (nothing, edited(|_| {}), &["a@1", "b@1"], &[]),
            (nothing, edited(|all| all[0].weight = 2), &["a@2", "b@1"], &[]),
            (
                with_weight,
                edited(|_| {}),
                &["a@5", "b@1"],
                &["\"a\": weight 5 was set at run time and stays: run-time wins (the file says 1)"],
            ),
            (
                with_weight,
                edited(|all| all[0].weight = 2),
                &["a@2", "b@1"],
                &["\"a\": weight 5 was set at run time and is 2 now: file wins"],
            ),
            (with_weight, edited(|all| all[0].weight = 5), &["a@5", "b@1"], &[]),
            (with_weight, edited(|all| _ = all.remove(0)), &["b@1"], &[]),
            (
                without_b,
                edited(|_| {}),
                &["a@1"],
                &["\"b\": was removed at run time and stays removed: run-time wins"],
            ),
            (
                without_b,
                edited(|all| all[1].weight = 2),
                &["a@1", "b@2"],
                &["\"b\": was removed at run time and is back: file wins"],
            ),
            (
                with_c,
                edited(|_| {}),
                &["a@1", "b@1", "c@1"],
                &["\"c\": was registered at run time and stays: run-time wins"],
            ),
            (
                with_c,
                edited(|all| all.push(new_one("c", 3))),
                &["a@1", "b@1", "c@1"],
                &["\"c\": was registered at run time and is listed now: file wins"],
            ),
            (
                with_c,
                edited(|all| all.push(new_one("c", 4))),
                &["a@1", "b@1", "c@1"],
                &[
                    "\"c\": was registered at run time at 127.0.0.1:3, and the file lists \"c\" at 127.0.0.1:4: \
                   file wins",
                ],
            ),
            (
                with_c,
                edited_all(|config| config.listeners[0].bind = ([127, 0, 0, 1], 3).into()),
                &["a@1", "b@1"],
                &["\"c\": was registered at run time, and 127.0.0.1:3 is our own listener 127.0.0.1:3 now: \
                   file wins"],
            ),
            (
                with_b_elsewhere,
                edited(|_| {}),
                &["a@1", "b@1"],
                &[
                    "\"b\": was removed at run time and stays removed: run-time wins",
                    "\"b\": was registered at run time and stays: run-time wins",
                ],
            ),
            (
                with_b_elsewhere,
                edited(|all| _ = all.remove(1)),
                &["a@1", "b@1"],
                &["\"b\": was registered at run time and stays: run-time wins"],
            ),
            (
                with_b_again,
                edited(|_| {}),
                &["a@1", "b@1"],
                &["\"b\": was registered at run time and stays so: run-time wins"],
            ),
            (
                with_b_again,
                edited(|all| _ = all.remove(1)),
                &["a@1", "b@1"],
                &["\"b\": was registered at run time and stays: run-time wins"],
            ),
        ];
        for (change, new, backends, notes) in cases {
            assert_eq!(
                merged(&config(""), &new, change),
                (
                    backends.iter().map(ToString::to_string).collect(),
                    notes.iter().map(ToString::to_string).collect()
                )
            );
        }
    }

    #[test]
    fn a_backend_that_an_operator_has_taken_out_stays_out() {
        let drained = |running: &Snapshot| {
            running.pools[0].backends[1].set_admin(Admin::Drain);
            running.refreshed(&[])
        };
        let (_, notes) = merged(&config(""), &config(""), drained);
        assert_eq!(notes, ["\"b\": is in drain and stays so: run-time wins"]);
    }

    #[test]
    fn a_pool_under_a_new_name_has_nothing_to_keep() {
        let old = config("");
        let running = with_c(&Snapshot::new(&old));
        let new = config("name = \"other\"");
        let new = Placements::default().placed(&new);
        let Merged { config: merged, notes, .. } = merge(&old, &new, &running, &registered_in(&running));
        assert_eq!((merged.pools[0].backends.len(), notes.len()), (2, 0));
    }
}
