//! The choice of a backend for one session.

use std::cell::Cell;
use std::net::IpAddr;

use crate::balance::{Members, Pick};
use crate::base::rng::Rng;
use crate::config::model::HealthState;
use crate::pool::explain::{Choice, SkipReason};
use crate::pool::tables::Tier;
use crate::pool::{Backend, BackendId, Lease, Pool};

/// The result of the choice of a backend for one session.
#[must_use = "a lease counts as a session until it is released"]
#[derive(Debug)]
pub enum Chosen {
    /// The session has this lease; the choice explains it.
    Leased(Lease, Choice),
    /// No backend is eligible for the session.
    NoBackend,
}

/// Returns a lease on a backend that may serve `client` and was not `tried` yet, if there is one.
/// A tier is asked only when no backend of an earlier one is left, unhealthy backends only where the pool tries anyway,
/// and those that an operator has taken out never.
pub fn choose(pool: &Pool, worker: usize, client: IpAddr, tried: &[BackendId], rng: &mut Rng) -> Chosen {
    let choice = Cell::new(Choice::default());
    for tier in &pool.tiers {
        let mut pick = Pick { cursor: &pool.cursor, worker, client, rng };
        if let Some(member) = tier.table.pick(&mut pick, &Candidates { pool, tier, tried, choice: &choice }) {
            let (lease, load) = pool.backends[tier.members[member]].lease_over_load(worker);
            return Chosen::Leased(lease, choice.get().of(tier.kind, load));
        }
    }
    Chosen::NoBackend
}

/// A tier as the balancer sees it.
struct Candidates<'a> {
    pool: &'a Pool,
    tier: &'a Tier,
    tried: &'a [BackendId],
    /// Records the backends passed over.
    choice: &'a Cell<Choice>,
}

impl Candidates<'_> {
    /// A function of its own, so that choices that pass over nothing stay short.
    #[cold]
    fn pass_over(&self, backend: &Backend) {
        let mut choice = self.choice.get();
        choice.pass_over(SkipReason::of(backend, self.tier.respects_health(), self.tried));
        self.choice.set(choice);
    }
}

impl Members for Candidates<'_> {
    fn is_eligible(&self, member: usize) -> bool {
        let backend = &self.pool.backends[self.tier.members[member]];
        // The table is as old as its epoch; health and administrative state are current.
        let healthy = !self.tier.respects_health() || backend.health() != HealthState::Down;
        let is_eligible = healthy && backend.admits() && !self.tried.contains(&backend.id);
        if !is_eligible {
            self.pass_over(backend);
        }
        is_eligible
    }

    fn load(&self, member: usize) -> u32 {
        self.pool.backends[self.tier.members[member]].active()
    }

    fn stamp(&self, member: usize) -> u64 {
        self.pool.backends[self.tier.members[member]].stamp()
    }

    fn claim(&self, member: usize, seen: u64, next: u64) -> bool {
        self.pool.backends[self.tier.members[member]].claim(seen, next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::{self, Overrides};
    use crate::pool::{Admin, PoolId, Snapshot, Why};

    /// Three primaries, one of them with weight 0, and a backup.
    fn snapshot(options: &str) -> Snapshot {
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\n{options}\nbackend = [\
             {{ name = \"a\", address = \"127.0.0.1:1\" }}, {{ name = \"b\", address = \"127.0.0.1:2\" }}, \
             {{ name = \"none\", address = \"127.0.0.1:3\", weight = 0 }}, \
             {{ name = \"spare\", address = \"127.0.0.1:4\", backup = true }}]"
        );
        let no_names = &mut |_: &str| Ok(Vec::new());
        Snapshot::new(&config::parse(&text, "test", &Overrides::default(), no_names).expect("a good config"))
    }

    fn backend<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Backend {
        snapshot.backends().find(|backend| backend.name == name).expect("a backend of that name")
    }

    fn set_health(snapshot: &Snapshot, name: &str, health: HealthState) {
        backend(snapshot, name).set_health(health);
    }

    /// Returns how often each backend is chosen in `sessions` sessions that end at once, each from another client.
    fn chosen(snapshot: &Snapshot, sessions: u32) -> BTreeMap<String, u32> {
        let pool = snapshot.pool(PoolId(0));
        let mut rng = Rng::new(1);
        let mut counts = BTreeMap::new();
        for client in 0..sessions {
            if let Chosen::Leased(lease, _) = choose(pool, 0, Ipv4Addr::from(client).into(), &[], &mut rng) {
                *counts.entry(lease.backend().name.clone()).or_default() += 1;
                lease.release();
            }
        }
        counts
    }

    fn counts<const N: usize>(expected: [(&str, u32); N]) -> BTreeMap<String, u32> {
        expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn primaries_serve_while_one_of_them_is_up() {
        let snapshot = snapshot("");
        assert_eq!(chosen(&snapshot, 10), counts([("a", 5), ("b", 5)]));
        set_health(&snapshot, "a", HealthState::Down);
        assert_eq!(chosen(&snapshot, 10), counts([("b", 10)]), "the table of the old epoch still has a");
        assert_eq!(chosen(&snapshot.refreshed(&[PoolId(0)]), 10), counts([("b", 10)]));
    }

    #[test]
    fn a_backup_serves_when_no_primary_does() {
        let snapshot = snapshot("");
        set_health(&snapshot, "a", HealthState::Down);
        set_health(&snapshot, "b", HealthState::Down);
        assert_eq!(chosen(&snapshot, 4), counts([("spare", 4)]));
        assert_eq!(chosen(&snapshot.refreshed(&[PoolId(0)]), 4), counts([("spare", 4)]));
    }

    /// Backends of these priorities, the first one "0".
    fn tiers(options: &str, priorities: &[u8]) -> Snapshot {
        let backends: Vec<String> = (0..)
            .zip(priorities)
            .map(|(place, priority)| {
                let port = 1 + place;
                format!("{{ name = \"{place}\", address = \"127.0.0.1:{port}\", priority = {priority} }}")
            })
            .collect();
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\n{options}\nbackend = [{}]",
            backends.join(", ")
        );
        let no_names = &mut |_: &str| Ok(Vec::new());
        Snapshot::new(&config::parse(&text, "test", &Overrides::default(), no_names).expect("a good config"))
    }

    #[test]
    fn the_lowest_number_with_an_eligible_backend_serves_whatever_the_order_of_the_file() {
        for balance in ["round_robin", "least_connections", "power_of_two", "source_hash", "random"] {
            let mut snapshot = tiers(&format!("balance = \"{balance}\""), &[15, 2, 0, 7]);
            for (down, serves) in [("", "2"), ("2", "1"), ("1", "3"), ("3", "0")] {
                if !down.is_empty() {
                    set_health(&snapshot, down, HealthState::Down);
                }
                for when in ["at once", "in the next epoch"] {
                    assert_eq!(
                        chosen(&snapshot, 4),
                        counts([(serves, 4)]),
                        "{balance}, {down} is down, {when}"
                    );
                    snapshot = snapshot.refreshed(&[PoolId(0)]);
                }
            }
            set_health(&snapshot, "1", HealthState::Up);
            assert_eq!(chosen(&snapshot.refreshed(&[PoolId(0)]), 4), counts([("1", 4)]), "{balance}: back");
        }
    }

    #[test]
    fn a_retry_continues_in_the_next_tier_when_the_first_has_no_other() {
        let snapshot = tiers("", &[0, 1, 1, 2]);
        let (pool, mut rng) = (snapshot.pool(PoolId(0)), Rng::new(1));
        let mut tried = Vec::new();
        let mut names = Vec::new();
        while let Chosen::Leased(lease, _) = choose(pool, 0, Ipv4Addr::LOCALHOST.into(), &tried, &mut rng) {
            tried.push(lease.backend().id);
            names.push(lease.backend().name.clone());
            lease.release();
        }
        assert_eq!((&names[0], &names[3]), (&"0".to_owned(), &"3".to_owned()), "{names:?}");
    }

    /// Returns how often each of three equal backends is chosen while one of them goes down and up, each time with its
    /// own epoch, after this many choices.
    fn chosen_while_one_flaps(
        balance: &str,
        flapping: &str,
        (up, down): (u32, u32),
        choices: u32,
    ) -> Vec<u32> {
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nbalance = \"{balance}\"\nbackend = [\
             {{ name = \"a\", address = \"127.0.0.1:1\" }}, {{ name = \"b\", address = \"127.0.0.1:2\" }}, \
             {{ name = \"c\", address = \"127.0.0.1:3\" }}]"
        );
        let no_names = &mut |_: &str| Ok(Vec::new());
        let config = config::parse(&text, "test", &Overrides::default(), no_names).expect("a good config");
        let mut snapshot = Snapshot::new(&config);
        let mut counts = BTreeMap::from(["a", "b", "c"].map(|name| (name.to_owned(), 0)));
        let periods = [(HealthState::Up, up), (HealthState::Down, down)].into_iter().cycle();
        let mut left = choices;
        for (health, period) in periods {
            set_health(&snapshot, flapping, health);
            snapshot = snapshot.refreshed(&[PoolId(0)]);
            let period = period.min(left);
            for (name, count) in chosen(&snapshot, period) {
                *counts.get_mut(&name).expect("one of the three") += count;
            }
            left -= period;
            if left == 0 {
                break;
            }
        }
        counts.remove(flapping);
        counts.into_values().collect()
    }

    /// Each epoch had a cycle of other members: of 200 sessions one of the others got 40 and one 160.
    #[test]
    fn a_backend_that_flaps_leaves_the_others_equal_shares() {
        for flapping in ["a", "b", "c"] {
            for period in (1..=7).flat_map(|up| (1..=7).map(move |down| (up, down))) {
                let counts = chosen_while_one_flaps("round_robin", flapping, period, 240);
                assert!(counts[0].abs_diff(counts[1]) <= 1, "{flapping} flaps {period:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn no_backend_serves_when_all_are_down_unless_the_pool_tries_anyway() {
        for (options, expected) in
            [("", counts([])), ("when_all_down = \"try_anyway\"", counts([("a", 2), ("b", 2), ("spare", 2)]))]
        {
            let snapshot = snapshot(options);
            for name in ["a", "b", "spare"] {
                set_health(&snapshot, name, HealthState::Down);
            }
            assert_eq!(chosen(&snapshot.refreshed(&[PoolId(0)]), 6), expected);
        }
    }

    #[test]
    fn a_backend_in_drain_or_maint_gets_no_session_and_ready_again_its_share() {
        for options in ["", "balance = \"source_hash\"", "when_all_down = \"try_anyway\""] {
            for admin in [Admin::Drain, Admin::Maint] {
                let snapshot = snapshot(options);
                let shares = chosen(&snapshot, 10);
                backend(&snapshot, "a").set_admin(admin);
                assert_eq!(chosen(&snapshot, 10), counts([("b", 10)]), "{options} {admin:?}: at once");
                let next = snapshot.refreshed(&[PoolId(0)]);
                assert_eq!(chosen(&next, 10), counts([("b", 10)]), "{options} {admin:?}: in the next epoch");
                backend(&snapshot, "a").set_admin(Admin::Ready);
                assert_eq!(chosen(&next.refreshed(&[PoolId(0)]), 10), shares, "{options} {admin:?}: again");
            }
        }
    }

    #[test]
    fn no_backend_serves_when_all_are_taken_out_even_where_the_pool_tries_anyway() {
        let snapshot = snapshot("when_all_down = \"try_anyway\"");
        for (name, admin) in [("a", Admin::Drain), ("b", Admin::Maint), ("spare", Admin::Drain)] {
            backend(&snapshot, name).set_admin(admin);
        }
        assert!(!snapshot.pool(PoolId(0)).has_eligible());
        assert_eq!(chosen(&snapshot, 6), counts([]));
        assert_eq!(chosen(&snapshot.refreshed(&[PoolId(0)]), 6), counts([]));
    }

    #[test]
    fn weight_0_counts_at_once_and_any_other_from_the_next_epoch_on() {
        let snapshot = snapshot("");
        backend(&snapshot, "a").set_weight(0);
        assert_eq!(chosen(&snapshot, 10), counts([("b", 10)]));
        backend(&snapshot, "a").set_weight(4);
        assert_eq!(chosen(&snapshot, 10), counts([("a", 5), ("b", 5)]), "the table of the old epoch");
        assert_eq!(chosen(&snapshot.refreshed(&[PoolId(0)]), 10), counts([("a", 8), ("b", 2)]));
    }

    #[test]
    fn a_hash_table_is_built_anew_for_other_weights() {
        let snapshot = snapshot("balance = \"source_hash\"");
        let share = |snapshot: &Snapshot| chosen(snapshot, 1_000)["b"];
        assert!((400..600).contains(&share(&snapshot)));
        backend(&snapshot, "b").set_weight(9);
        assert!((850..950).contains(&share(&snapshot.refreshed(&[PoolId(0)]))));
    }

    #[test]
    fn a_retry_goes_to_a_backend_that_was_not_tried() {
        let snapshot = snapshot("");
        let pool = snapshot.pool(PoolId(0));
        let (client, mut rng) = (Ipv4Addr::LOCALHOST.into(), Rng::new(1));
        let mut tried = Vec::new();
        while let Chosen::Leased(lease, _) = choose(pool, 0, client, &tried, &mut rng) {
            assert!(!tried.contains(&lease.backend().id));
            tried.push(lease.backend().id);
            lease.release();
        }
        assert_eq!(tried.len(), 3, "two primaries, then the backup, and never the one of weight 0");
    }

    #[test]
    fn a_backend_that_leaves_moves_its_own_clients_only() {
        let leaves: [fn(&Backend); 3] = [
            |backend| backend.set_health(HealthState::Down),
            |backend| backend.set_admin(Admin::Drain),
            |backend| backend.set_admin(Admin::Maint),
        ];
        leaves.into_iter().for_each(expect_only_its_own_clients_move);
    }

    fn expect_only_its_own_clients_move(leave: fn(&Backend)) {
        let snapshot = snapshot("balance = \"source_hash\"");
        let home = |snapshot: &Snapshot, client: u32| {
            let client = Ipv4Addr::from(client).into();
            match choose(snapshot.pool(PoolId(0)), 0, client, &[], &mut Rng::new(1)) {
                Chosen::Leased(lease, _) => Some(lease.backend().name.clone()),
                Chosen::NoBackend => None,
            }
        };
        let before: Vec<_> = (0..1_000).map(|client| home(&snapshot, client)).collect();
        leave(backend(&snapshot, "a"));
        let after = snapshot.refreshed(&[PoolId(0)]);
        for (client, before) in (0..).zip(before) {
            let now = home(&after, client);
            assert!(
                now == before || before.as_deref() == Some("a"),
                "client {client} moved from {before:?} to {now:?}"
            );
        }
    }

    /// The backend of each of 500 clients.
    fn homes(snapshot: &Snapshot) -> Vec<String> {
        let home = |client: u32| {
            let client = Ipv4Addr::from(0x0a00_0000 + client).into();
            match choose(snapshot.pool(PoolId(0)), 0, client, &[], &mut Rng::new(1)) {
                Chosen::Leased(lease, _) => lease.backend().name.clone(),
                Chosen::NoBackend => panic!("a backend serves"),
            }
        };
        (0..500).map(home).collect()
    }

    /// A client that comes back by another balancer, because its first one has ended, keeps its server.
    #[test]
    fn a_client_has_the_same_backend_on_all_balancers_whatever_has_come_and_gone_there() {
        let listed = |order: &[usize]| {
            let backend = |n: &usize| {
                let weight = 1 + n % 3;
                format!("{{ name = \"b{n}\", address = \"10.0.0.{n}:80\", weight = {weight} }}")
            };
            let text = format!(
                "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nbalance = \"source_hash\"\nbackend = [{}]",
                order.iter().map(backend).collect::<Vec<_>>().join(", ")
            );
            let no_names = &mut |_: &str| Ok(Vec::new());
            Snapshot::new(
                &config::parse(&text, "test", &Overrides::default(), no_names).expect("a good config"),
            )
        };
        let mut rng = Rng::new(7);
        let mut order: Vec<usize> = (1..=12).collect();
        let expected = homes(&listed(&order));
        for _ in 0..20 {
            for last in (1..order.len()).rev() {
                let other = usize::try_from(rng.below(last as u64 + 1)).expect("it is small");
                order.swap(last, other);
            }
            // Some are discovered later, others leave and come back.
            let all = listed(&order).pool(PoolId(0)).settings.backends.clone();
            let mut balancer = listed(&order[..8]);
            for discovered in [&all[4..], &all[2..10], &all[..]] {
                balancer = balancer.with_backends(PoolId(0), discovered);
            }
            assert_eq!(homes(&balancer), expected, "{order:?}");
            set_health(&balancer, "b1", HealthState::Down);
            let moved = homes(&balancer.refreshed(&[PoolId(0)]));
            let is_same = |(now, before): (&String, &String)| now == before || before == "b1";
            assert!(
                moved.iter().zip(&expected).all(is_same),
                "another health moves the clients of that backend only"
            );
        }
    }

    #[test]
    fn a_choice_records_its_algorithm_and_the_backends_it_skipped() {
        let client = Ipv4Addr::LOCALHOST.into();
        let why = |snapshot: &Snapshot| {
            let pool = snapshot.pool(PoolId(0));
            let Chosen::Leased(lease, choice) = choose(pool, 0, client, &[], &mut Rng::new(1)) else {
                panic!("no backend serves")
            };
            let why = Why::of(choice, pool, client, snapshot.epoch, true);
            (lease.backend().name.clone(), why.to_string())
        };
        let snapshot = snapshot("balance = \"least_connections\"");
        let start = "least_connections over 2 of 4 backends (priority 0) in epoch 0; it had 0 sessions";
        assert_eq!(why(&snapshot), ("a".into(), start.into()));
        set_health(&snapshot, "a", HealthState::Down);
        assert_eq!(why(&snapshot), ("b".into(), format!("{start}; passed over 1 times: down")));
        backend(&snapshot, "b").set_admin(Admin::Drain);
        let last = "least_connections over 1 of 4 backends (priority 15, as none of the 3 of lower priorities was \
                    eligible) in epoch 0; it had 0 sessions; passed over 2 times: down, in drain";
        assert_eq!(why(&snapshot), ("spare".into(), last.into()));
        let next = snapshot.refreshed(&[PoolId(0)]);
        let without_passing =
            last.replace("epoch 0", "epoch 1").replace("; passed over 2 times: down, in drain", "");
        assert_eq!(why(&next), ("spare".into(), without_passing));
    }

    #[test]
    fn a_choice_by_hash_names_the_backends_that_the_client_asks_for() {
        let snapshot = snapshot("balance = \"source_hash\"");
        let pool = snapshot.pool(PoolId(0));
        for client in 0..200 {
            let client = Ipv4Addr::from(client).into();
            set_health(&snapshot, "a", HealthState::Down);
            let Chosen::Leased(_, choice) = choose(pool, 0, client, &[], &mut Rng::new(1)) else {
                panic!("b does not serve")
            };
            let why = Why::of(choice, pool, client, 0, true);
            let (_, homes) = why.hash.expect("the client decides");
            let (last, before) = homes.split_last().expect("it has a home");
            assert!(last == "b" && before.iter().all(|home| home == "a"), "{homes:?}");
            assert_eq!(before.len(), usize::from(why.passed_over));
        }
    }

    #[test]
    fn a_lease_counts_until_it_is_released() {
        let snapshot = snapshot("");
        let backend = snapshot.backends().next().expect("four of them");
        let lease = backend.lease(1);
        assert_eq!((backend.active(), backend.sessions()), (1, 1));
        lease.release();
        assert_eq!((backend.active(), backend.sessions()), (0, 1));
    }
}
