//! What the file says against what operators have changed while the process runs. One rule: what was changed at run time
//! stays as long as the file says of it what it said before; where the file says something else, the file wins. Each
//! case is said.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::config::model::{self, OwnSocket, Pool};
use crate::control::circles::circle_with;
use crate::control::membership::leases::Registrations;
use crate::pool::{self, Admin, Backend, Snapshot};

/// What to run of the configuration `new` behind `old`, in place of what runs now, and what is said of it.
pub(in crate::control) fn merge(
    old: &Config,
    new: &Config,
    running: &Snapshot,
    registrations: &Registrations,
) -> (Config, Vec<String>) {
    let (mut merged, mut notes) = (new.clone(), Vec::new());
    let sockets: Vec<OwnSocket> = new.own_sockets().collect();
    for pool in &mut merged.pools {
        let now = running.pool_named(&pool.name);
        let before = old.pools.iter().find(|before| before.name == pool.name);
        if let (Some(now), Some(before)) = (now, before) {
            let mut tell = |backend: &str, what: String| {
                notes.push(format!("pool {:?}: backend {backend:?}: {what}", before.name));
            };
            keep_changes(before, pool, now, registrations, &mut tell);
            keep_registered(pool, now, registrations, &sockets, &mut tell);
        }
    }
    (merged, notes)
}

/// What a backend is known by within its pool.
type Name<'a> = (&'a str, SocketAddr);

fn name_of(backend: &model::Backend) -> Name<'_> {
    (backend.name.as_str(), backend.address)
}

/// What was done at run time to the backends that `pool` lists.
fn keep_changes(
    before: &Pool,
    pool: &mut Pool,
    now: &pool::Pool,
    registrations: &Registrations,
    tell: &mut impl FnMut(&str, String),
) {
    let listed_before: HashMap<Name<'_>, &model::Backend> =
        before.backends.iter().map(|backend| (name_of(backend), backend)).collect();
    let runs: HashMap<Name<'_>, &Arc<Backend>> =
        now.backends.iter().map(|backend| ((backend.name.as_str(), backend.address), backend)).collect();

    pool.backends.retain_mut(|listed| {
        let was = listed_before.get(&name_of(listed)).copied();
        let Some(backend) = runs.get(&name_of(listed)).copied() else {
            let was_removed = was.is_some();
            if was_removed && was == Some(listed) {
                tell(&listed.name, "was removed at run time and stays removed: run-time wins".into());
                return false;
            }
            if was_removed {
                tell(&listed.name, "was removed at run time and is back: file wins".into());
            }
            return true;
        };
        let (runs_with, says) = (backend.weight(), listed.weight);
        match was {
            Some(was) if runs_with != was.weight && was.weight == says => {
                let what = format!("weight {runs_with} was set at run time and stays: run-time wins");
                tell(&listed.name, format!("{what} (the file says {says})"));
                listed.weight = runs_with;
            }
            Some(was) if runs_with != was.weight && runs_with != says => {
                let what = format!("weight {runs_with} was set at run time and is {says} now");
                tell(&listed.name, format!("{what}: file wins"));
            }
            Some(_) if registrations.get(backend.id).is_some() => {
                tell(&listed.name, "was registered at run time and stays so: run-time wins".into());
            }
            Some(_) => {}
            None => tell(&listed.name, "was registered at run time and is listed now: file wins".into()),
        }
        if backend.admin() != Admin::Ready {
            let admin = backend.admin().as_str();
            tell(&listed.name, format!("is in {admin} and stays so: run-time wins"));
        }
        true
    });
}

/// Backends that were registered at run time, and that `pool` does not list.
fn keep_registered(
    pool: &mut Pool,
    now: &pool::Pool,
    registrations: &Registrations,
    sockets: &[OwnSocket],
    tell: &mut impl FnMut(&str, String),
) {
    let mut kept = Vec::new();
    {
        let listed = &pool.backends;
        let by_name: HashMap<&str, Name<'_>> =
            listed.iter().map(|backend| (backend.name.as_str(), name_of(backend))).collect();
        let by_address: HashMap<SocketAddr, Name<'_>> =
            listed.iter().map(|backend| (backend.address, name_of(backend))).collect();
        for (settings, backend) in now.settings.backends.iter().zip(&now.backends) {
            let (name, address) = name_of(settings);
            let in_its_way = by_name.get(name).or_else(|| by_address.get(&address));
            if registrations.get(backend.id).is_none() || in_its_way == Some(&(name, address)) {
                continue;
            }
            if let Some((listed, at)) = in_its_way {
                let what = format!("was registered at run time at {address}");
                tell(name, format!("{what}, and the file lists {listed:?} at {at}: file wins"));
            } else if let Some(socket) = circle_with(address, sockets.iter().copied()) {
                let what = format!("was registered at run time, and {address} is {socket} now");
                tell(name, format!("{what}: file wins"));
            } else {
                tell(name, "was registered at run time and stays: run-time wins".into());
                kept.push(model::Backend { weight: backend.weight(), ..settings.clone() });
            }
        }
    }
    pool.backends.extend(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::membership::leases::Registration;
    use crate::control::tests::config;
    use crate::pool::PoolId;

    /// What comes of a file that says `new` behind one that said `old`, where operators have done `change` in between:
    /// the backends with their weights, and what is said.
    fn merged(
        old: &Config,
        new: &Config,
        change: impl Fn(&Snapshot) -> Snapshot,
    ) -> (Vec<String>, Vec<String>) {
        let running = change(&Snapshot::new(old));
        let (merged, notes) = merge(old, new, &running, &registered_in(&running));
        let show = |backend: &model::Backend| format!("{}@{}", backend.name, backend.weight);
        let prefix = "pool \"default\": backend ";
        let notes = notes.iter().map(|note| note.strip_prefix(prefix).expect("of that pool").to_owned());
        (merged.pools[0].backends.iter().map(show).collect(), notes.collect())
    }

    /// Those that have come behind the two of the file.
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
        model::Backend { name: name.into(), address: ([127, 0, 0, 1], port).into(), weight: 1, backup: false }
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
    fn one_rule_decides_each_case_and_each_is_told() {
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
                edited_all(|config| config.listeners[0].bind = new_one("c", 3).address),
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
    fn what_an_operator_has_taken_out_stays_out() {
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
        let (merged, notes) = merge(&old, &config("name = \"other\""), &running, &registered_in(&running));
        assert_eq!((merged.pools[0].backends.len(), notes.len()), (2, 0));
    }
}
