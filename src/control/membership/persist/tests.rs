//! What a restart keeps, and what no longer fits.

use super::*;
use crate::config::{self, Overrides};
use crate::control::membership::origin::Discovery;
use crate::control::membership::remembered::REMEMBERED_MAX;
use crate::messages::discovery::Found;

const CONFIG: &str = "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\nbackend = [\
     { name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"127.0.0.1:2\", weight = 5 }]\n";

fn config(text: &str) -> Config {
    let no_names = &mut |_: &str| Ok(Vec::new());
    config::parse(text, "test", &Overrides::default(), no_names).expect("a good config")
}

fn wall(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(seconds)
}

fn registered(name: &str, port: u16, lease: Option<i64>) -> SavedBackend {
    let registration = SavedRegistration {
        address: ([127, 0, 0, 1], port).into(),
        priority: 0,
        who: "uid 7".into(),
        lease: lease.map(wall),
        holders: Vec::new(),
    };
    SavedBackend { registered: Some(registration), ..changed(name, 1) }
}

fn held(holder: &str, lease: i64) -> SavedHolder {
    SavedHolder { holder: holder.into(), known: true, weight: 1, priority: 0, lease: wall(lease) }
}

#[test]
fn a_holder_whose_lease_has_ended_meanwhile_is_left_out() {
    let mut leased = registered("c", 3, Some(60));
    leased.registered.as_mut().unwrap().holders = vec![held("one", -1), held("two", 60)];
    let restored = restore_all(vec![leased]);
    let (_, known) = restored.registrations.iter().next().unwrap();
    let holders: Vec<&str> = known.holds.iter().map(|hold| hold.holder.as_str()).collect();
    assert_eq!((holders, known.lease()), (vec!["two"], Some(at(60))));
}

#[test]
fn a_lease_saved_by_a_version_without_holders_continues() {
    let restored = restore_all(vec![registered("c", 3, Some(60))]);
    let (_, known) = restored.registrations.iter().next().unwrap();
    assert_eq!((known.holds.len(), known.holds[0].is_known), (1, false));
}

/// A backend of the configuration in drain, with `weight` as its configured weight.
fn changed(name: &str, weight: u16) -> SavedBackend {
    SavedBackend {
        pool: "web".into(),
        name: name.into(),
        weight,
        weight_set: None,
        admin: api::Admin::Drain,
        admin_set: None,
        health: OverrideTo::Down,
        registered: None,
    }
}

fn restore_all(backends: Vec<SavedBackend>) -> Restored {
    restore(backends, Vec::new(), &[], &config(CONFIG), (at(0), wall(0)))
}

#[test]
fn saved_backends_serve_after_a_restart() {
    let weight = SavedBackend { weight_set: Some(9), ..changed("b", 5) };
    let restored = restore_all(vec![registered("c", 3, Some(60)), weight, registered("d", 4, None)]);
    assert_eq!(restored.left_out, Vec::<String>::new());
    let pool = &restored.snapshot.pools[0];
    let rows: Vec<_> = pool.backends.iter().map(|b| (b.name.as_str(), b.weight(), b.admin())).collect();
    let (ready, drain) = (Admin::Ready, Admin::Drain);
    assert_eq!(rows, [("a", 1, ready), ("b", 9, drain), ("c", 1, drain), ("d", 1, drain)]);
    assert_eq!(pool.backends[1].health_override(), Some(HealthState::Down));
    assert_eq!(
        pool.shares().iter().map(|share| share.slots > 0).collect::<Vec<_>>(),
        [true, false, false, false]
    );
    let lease = |place: usize| restored.registrations.get(pool.backends[place].id).map(Registration::lease);
    assert_eq!([lease(0), lease(1), lease(2), lease(3)], [None, None, Some(Some(at(60))), Some(None)]);
}

#[test]
fn every_collected_setting_is_restored() {
    let mut leased = registered("c", 3, Some(60));
    leased.registered.as_mut().unwrap().holders = vec![held("one", 30), held("two", 60)];
    let all = vec![SavedBackend { weight_set: Some(0), ..changed("b", 5) }, leased];
    let restored = restore_all(all.clone());
    let config = config(CONFIG);
    let again = collect(
        &restored.snapshot,
        &config,
        &restored.registrations,
        &Authors::default(),
        (at(20), wall(20)),
    );
    assert_eq!(again, all);
    let untouched = Snapshot::new(&config);
    assert_eq!(
        collect(&untouched, &config, &Registrations::default(), &Authors::default(), (at(0), wall(0))),
        []
    );
}

/// Those that were there were forgotten, in favor of thousands that had left.
#[test]
fn of_too_many_those_that_are_there_outlast_a_restart() {
    let config =
        config(&format!("{CONFIG}[[pool.discover]]\ntype = \"dns\"\nname = \"web.test\"\nport = 80\n"));
    let restore = |saved| restore(saved, Vec::new(), &[], &config, (at(0), wall(0)));
    let gone = (0..REMEMBERED_MAX).map(|number| changed(&format!("gone-{number}"), 1));
    let mut restored = restore(gone.collect());
    let pool = Arc::clone(&restored.snapshot.pools[0]);
    let mut backends = pool.settings.backends.clone();
    let address = ([127, 0, 0, 1], 3).into();
    backends.push(model::Backend {
        name: "there".into(),
        address,
        weight: 1,
        priority: 0,
        check: model::BackendCheck::default(),
    });
    let running = restored.snapshot.with_backends(pool.id, &backends);
    let there = running.pools[0].backend_named("there").unwrap();
    there.set_admin(Admin::Drain);
    restored.registrations.put_discovery(there.id, Discovery { source: "web.test".into(), weight: 1 });
    let saved = collect(&running, &config, &restored.registrations, &Authors::default(), (at(0), wall(0)));
    assert_eq!(saved.len(), REMEMBERED_MAX + 1);
    let again = restore(saved).registrations;
    assert!(again.set_before("web", "there").is_some(), "it is there, and an operator has drained it");
    assert!(again.set_before("web", "gone-0").is_none() && again.set_before("web", "gone-1").is_some());
}

#[test]
fn saved_backends_that_do_not_fit_any_more_are_left_out_and_logged() {
    let other = |backend: SavedBackend| SavedBackend { pool: "gone".into(), ..backend };
    let weight = SavedBackend { weight_set: Some(9), ..changed("b", 4) };
    for (backend, expected) in [
        (registered("c", 3, Some(0)), "backend \"c\": its lease has ended meanwhile"),
        (registered("c", 3, Some(-60)), "backend \"c\": its lease has ended meanwhile"),
        (registered("a", 3, None), "backend \"a\": the pool has \"a\" at 127.0.0.1:1 already"),
        (registered("c", 2, None), "backend \"c\": the pool has \"b\" at 127.0.0.1:2 already"),
        (registered("c", 9090, None), "127.0.0.1:9090 is our own listener"),
        (changed("z", 1), "backend \"z\": the pool has no such backend"),
        (other(changed("a", 1)), "pool \"gone\": backend \"a\": there is no such pool"),
        (other(registered("c", 3, None)), "pool \"gone\": backend \"c\": there is no such pool"),
        (weight, "backend \"b\": its weight, because the configuration has another one now"),
    ] {
        let restored = restore_all(vec![backend]);
        assert_eq!(restored.left_out.len(), 1, "{expected}");
        assert!(restored.left_out[0].contains(expected), "{expected}: {:?}", restored.left_out);
        let weights: Vec<u16> = restored.snapshot.backends().map(|backend| backend.weight()).collect();
        assert_eq!(weights, [1, 5], "{expected}");
    }
}

/// Case 72.
#[test]
fn a_clock_that_was_set_back_gives_no_lease_for_years() {
    let restored = restore_all(vec![registered("c", 3, Some(100_000_000))]);
    let (_, known) = restored.registrations.iter().next().unwrap();
    assert_eq!(known.lease(), Some(at(0) + *api::TTL.end()));
}

/// It is not there before its source has answered.
#[test]
fn settings_of_a_discovered_backend_wait_for_it() {
    let text = "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\n[[pool.discover]]\n\
         type = \"dns\"\nname = \"web.test\"\nport = 80\n";
    let (config, now) = (config(text), (at(0), wall(0)));
    let saved = SavedBackend {
        pool: "web".into(),
        name: "10.0.0.1:80".into(),
        weight: 1,
        weight_set: Some(7),
        admin: api::Admin::Maint,
        admin_set: Some(SavedAuthor { who: "uid 7".into(), since: wall(-5) }),
        health: OverrideTo::Auto,
        registered: None,
    };
    let restored = restore(vec![saved.clone()], Vec::new(), &[], &config, now);
    assert!(restored.left_out.is_empty(), "{:?}", restored.left_out);
    let (said, set) = restored.registrations.set_before("web", "10.0.0.1:80").unwrap();
    assert_eq!((said, set.weight, set.admin), (1, Some(7), Admin::Maint));
    let again = collect(&restored.snapshot, &config, &restored.registrations, &Authors::default(), now);
    assert_eq!(again, [saved]);
}

/// The pool was empty until the first answer, and what an operator had set of a backend waited with it.
#[test]
fn what_a_source_listed_is_there_from_the_start_as_operators_have_set_it() {
    let source = "[[pool.discover]]\ntype = \"dns\"\nname = \"web.test\"\nport = 80\n";
    let (config, now) = (config(&format!("{CONFIG}{source}")), (at(0), wall(0)));
    let found = |last: u8, weight| {
        let address = std::net::SocketAddr::from(([10, 0, 0, last], 80));
        Found { name: address.to_string(), address: address.into(), weight, priority: 2 }
    };
    let list = vec![found(1, 4), found(2, 1)];
    let age = Duration::ZERO;
    let listed = Listed { pool: "web".into(), source: "dns:web.test:80".into(), list, age };
    let author = SavedAuthor { who: "uid 7".into(), since: wall(-5) };
    let set = SavedBackend {
        name: "10.0.0.1:80".into(),
        weight_set: Some(7),
        admin_set: Some(author.clone()),
        ..changed("", 4)
    };
    let restored = restore(vec![set.clone()], Vec::new(), &[listed], &config, now);
    assert!(restored.left_out.is_empty(), "{:?}", restored.left_out);
    let pool = &restored.snapshot.pools[0];
    let row = |backend: &Arc<Backend>| (backend.weight(), pool.priority_of(backend), backend.admin());
    let rows: Vec<_> = pool.backends[2..].iter().map(row).collect();
    assert_eq!(rows, [(7, 2, Admin::Drain), (1, 2, Admin::Ready)], "behind the file");
    let origin = restored.registrations.origin_of(pool.backends[2].id);
    assert!(matches!(origin, Origin::Discovered(known) if known.weight == 4), "as the source says");
    assert_eq!(restored.authors.get(&pool.backends[2].id), Some(&author));
    assert_eq!(collect(&restored.snapshot, &config, &restored.registrations, &restored.authors, now), [set]);
}

/// The author was lost with the process.
#[test]
fn who_has_drained_a_backend_is_known_after_a_restart() {
    let author = SavedAuthor { who: "uid 0 pid 7".into(), since: wall(-60) };
    let drained = SavedBackend { admin_set: Some(author.clone()), ..changed("b", 5) };
    let leased = SavedBackend { admin_set: Some(author.clone()), ..registered("c", 3, Some(60)) };
    let restored = restore_all(vec![drained, leased, registered("d", 4, None)]);
    let ids: Vec<BackendId> = restored.snapshot.pools[0].backends.iter().map(|backend| backend.id).collect();
    let of = |place: usize| restored.authors.get(&ids[place]);
    assert_eq!([of(0), of(1), of(2), of(3)], [None, Some(&author), Some(&author), None]);
    let again = collect(
        &restored.snapshot,
        &config(CONFIG),
        &restored.registrations,
        &restored.authors,
        (at(0), wall(0)),
    );
    let saved = |name: &str| again.iter().find(|saved| saved.name == name).unwrap().admin_set.clone();
    assert_eq!([saved("b"), saved("c"), saved("d")], [Some(author.clone()), Some(author), None]);
}

/// The agent had the weight again, because one equal to that of the file was not remembered.
#[test]
fn a_weight_of_an_operator_is_over_that_of_an_agent_after_a_restart_also_if_it_is_that_of_the_file() {
    let with_agent = config(&format!("{CONFIG}[pool.agent]\nport = 9707\n"));
    for (config, kept) in [(with_agent, true), (config(CONFIG), false)] {
        let running = Snapshot::new(&config);
        let backend = &running.pools[0].backends[1];
        backend.set_weight(5);
        backend.hold_weight(true);
        let none = (Registrations::default(), Authors::default());
        let saved = collect(&running, &config, &none.0, &none.1, (at(0), wall(0)));
        assert_eq!(saved.len(), usize::from(kept), "{saved:?}");
        let restored = restore(saved, Vec::new(), &[], &config, (at(0), wall(0)));
        let backend = &restored.snapshot.pools[0].backends[1];
        assert_eq!((backend.plain_weight(), backend.holds_weight()), (5, kept));
        assert_eq!(restored.left_out, Vec::<String>::new());
    }
}
