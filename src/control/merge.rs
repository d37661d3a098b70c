//! What the file says against what operators have changed while the process runs. One rule: what was changed at run time
//! stays as long as the file says of it what it said before; where the file says something else, the file wins. Each
//! case is said.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::config::model::{self, Pool};
use crate::pool::{self, Admin, Backend, Snapshot};

/// What to run of the configuration `new` behind `old`, in place of what runs now, and what is said of it.
pub(super) fn merge(old: &Config, new: &Config, running: &Snapshot) -> (Config, Vec<String>) {
    let (mut merged, mut notes) = (new.clone(), Vec::new());
    for pool in &mut merged.pools {
        let now = running.pool_named(&pool.name);
        let before = old.pools.iter().find(|before| before.name == pool.name);
        if let (Some(now), Some(before)) = (now, before) {
            merge_pool(before, pool, now, &mut notes);
        }
    }
    (merged, notes)
}

/// What a backend is known by within its pool.
type Name<'a> = (&'a str, SocketAddr);

fn name_of(backend: &model::Backend) -> Name<'_> {
    (backend.name.as_str(), backend.address)
}

fn merge_pool(before: &Pool, pool: &mut Pool, now: &pool::Pool, notes: &mut Vec<String>) {
    let mut tell = |backend: &str, what: String| {
        notes.push(format!("pool {:?}: backend {backend:?}: {what}", before.name));
    };
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
            Some(_) => {}
            None => tell(&listed.name, "was registered at run time and is listed now: file wins".into()),
        }
        if backend.admin() != Admin::Ready {
            let admin = backend.admin().as_str();
            tell(&listed.name, format!("is in {admin} and stays so: run-time wins"));
        }
        true
    });
    for (settings, backend) in now.settings.backends.iter().zip(&now.backends) {
        let is_registered = !listed_before.contains_key(&name_of(settings));
        let is_listed = pool.backends.iter().any(|listed| name_of(listed) == name_of(settings));
        if !is_registered || is_listed {
            continue;
        }
        let in_its_way = pool
            .backends
            .iter()
            .find(|listed| listed.name == settings.name || listed.address == settings.address);
        match in_its_way {
            Some(listed) => {
                let (name, address) = name_of(listed);
                let what = format!("was registered at run time at {}", settings.address);
                tell(&settings.name, format!("{what}, and the file lists {name:?} at {address}: file wins"));
            }
            None => {
                tell(&settings.name, "was registered at run time and stays: run-time wins".into());
                pool.backends.push(model::Backend { weight: backend.weight(), ..settings.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let (merged, notes) = merge(old, new, &running);
        let show = |backend: &model::Backend| format!("{}@{}", backend.name, backend.weight);
        let prefix = "pool \"default\": backend ";
        let notes = notes.iter().map(|note| note.strip_prefix(prefix).expect("of that pool").to_owned());
        (merged.pools[0].backends.iter().map(show).collect(), notes.collect())
    }

    fn nothing(running: &Snapshot) -> Snapshot {
        running.refreshed(&[])
    }

    fn edited(edit: fn(&mut Vec<model::Backend>)) -> Config {
        let mut config = config("");
        edit(&mut config.pools[0].backends);
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

    fn with_weight(running: &Snapshot) -> Snapshot {
        running.pools[0].backends[0].set_weight(5);
        running.refreshed(&[])
    }

    #[test]
    fn one_rule_decides_each_case_and_each_is_told() {
        type Case = (fn(&Snapshot) -> Snapshot, Config, &'static [&'static str], &'static [&'static str]);
        let cases: [Case; 11] = [
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
        let (merged, notes) = merge(&old, &config("name = \"other\""), &running);
        assert_eq!((merged.pools[0].backends.len(), notes.len()), (2, 0));
    }
}
