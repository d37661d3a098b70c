//! Another configuration in a running process: what it changes, what it leaves alone, and who notices.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use l4lb::config::Config;
use l4lb::config::model::{HealthState, OnRemove};
use l4lb::messages::reload::{Mode, ReloadReport};
use l4lb::pool::Admin;
use l4lb::session::CloseReason::{BackendRemoved, Done, IdleTimeout};
use l4lb::sys::Clock;

use crate::harness::backends::{Backends, Service, Visit, backends};
use crate::harness::peer::{SetOnDrop, until};

fn lines(report: &ReloadReport) -> Vec<String> {
    report.changes.iter().map(|touch| touch.change.to_string()).collect()
}

/// The file lists node 1 no more.
fn without_the_second(config: &mut Config) {
    config.pools[0].backends.remove(1);
}

/// A session on each of two nodes.
fn visits(service: &Service<'_>) -> [Visit; 2] {
    let mut visits = [service.enter(), service.enter()];
    visits.sort_by_key(|visit| visit.node);
    visits
}

/// Case 84.
#[test]
fn a_backend_comes_and_goes_and_its_sessions_finish() {
    let backends = backends(2);
    let service = backends.start();
    let [first, second] = visits(&service);
    let report = service.reload(without_the_second);
    assert_eq!(lines(&report), ["pool \"default\": backend \"n1\": removed"]);
    assert_eq!(report.changes[0].sessions, 1);
    assert_eq!(service.visits(10), [10, 0]);
    let removed = service.server.view().state().removed.clone();
    assert_eq!((removed.len(), removed[0].backend.name.as_str(), removed[0].sessions()), (1, "n1", 1));
    assert!(removed[0].deadline.is_some(), "it drains");
    assert_eq!(second.talks().leave(), 1);
    until("it has no session left", || service.server.view().state().removed.is_empty());

    let report = service.reload(|_| {});
    assert_eq!(lines(&report), ["pool \"default\": backend \"n1\": added"]);
    assert_eq!(service.visits(10), [5, 5]);
    let again = &service.server.backends()[1];
    assert_ne!(again.id, removed[0].backend.id, "who comes back is another one");
    assert_eq!(first.talks().leave(), 0);
    service.ends(&[(Done, 22)]);
}

/// What becomes of a session whose backend is removed, until `then` has looked at it.
fn remove_with(policy: OnRemove, drain_timeout: Duration, then: impl Fn(&Backends, Service<'_>, Visit)) {
    let backends = backends(2);
    let service = backends.start();
    let [first, second] = visits(&service);
    service.reload(|config| {
        config.pools[0].on_remove = policy;
        config.pools[0].drain_timeout = drain_timeout;
        without_the_second(config);
    });
    assert_eq!(first.talks().leave(), 0);
    then(&backends, service, second);
}

#[test]
fn a_reset_on_removal_ends_the_sessions_at_once() {
    remove_with(OnRemove::Reset, Duration::from_secs(60), |_, service, second| {
        second.gets_cut();
        service.ends(&[(Done, 1), (BackendRemoved, 1)]);
    });
}

#[test]
fn a_session_that_outlasts_the_drain_of_its_backend_is_reset() {
    let drain = Duration::from_millis(500);
    let clock = Clock::start();
    let start = clock.now();
    remove_with(OnRemove::Drain, drain, |_, service, second| {
        second.gets_cut();
        assert!(clock.now() - start >= drain, "cut too early");
        service.ends(&[(Done, 1), (BackendRemoved, 1)]);
    });
}

#[test]
fn a_backend_that_keeps_its_sessions_has_no_deadline() {
    remove_with(OnRemove::Keep, Duration::ZERO, |_, service, second| {
        let removed = service.server.view().state().removed.clone();
        assert!(removed[0].deadline.is_none() && removed[0].sessions() == 1);
        assert_eq!(second.talks().leave(), 1);
        service.ends(&[(Done, 2)]);
    });
}

/// Case 105.
#[test]
fn an_unchanged_backend_is_not_touched() {
    let backends = backends(3);
    let service = backends.start();
    assert_eq!(service.visits(6), [2, 2, 2]);
    let [first, second, _] = [0, 1, 2].map(|node| service.backend(node));
    first.set_health(HealthState::Down);
    let report = service.reload(|config| {
        config.pools[0].backends.pop();
        config.pools[0].retries = 3;
    });
    assert_eq!(
        lines(&report),
        ["pool \"default\": retries 2 -> 3", "pool \"default\": backend \"n2\": removed"]
    );
    let [still, second_still] = [0, 1].map(|node| service.backend(node));
    assert!(Arc::ptr_eq(&first, &still) && Arc::ptr_eq(&second, &second_still));
    assert_eq!((still.health(), still.sessions()), (HealthState::Down, 2));
    assert_eq!(service.visits(4), [0, 4, 0]);
    service.ends(&[(Done, 10)]);
}

/// Case 88.
#[test]
fn a_bad_configuration_changes_nothing_and_is_remembered() {
    let backends = backends(2);
    let service = backends.start();
    let before = service.server.snapshot();
    let errors = service.read_from(|| Err(vec!["x.toml:1: wrong".into()]), Mode::Apply);
    assert_eq!(errors.unwrap_err(), ["x.toml:1: wrong"]);
    assert!(Arc::ptr_eq(&before, &service.server.snapshot()));
    let status = service.server.view().state().reload.clone();
    assert_eq!((status.succeeded, status.failed), (0, 1));
    assert!(status.last_failure.is_some() && status.last_success.is_none());
    assert_eq!(status.errors, ["x.toml:1: wrong"]);

    service.reload(|_| {});
    let status = service.server.view().state().reload.clone();
    assert_eq!((status.succeeded, status.failed, status.errors.len()), (1, 1, 0));
    assert_eq!(service.visits(2), [1, 1]);
    service.ends(&[(Done, 2)]);
}

#[test]
fn a_dry_run_reports_all_changes_and_makes_none() {
    let backends = backends(2);
    let service = backends.start();
    let [first, second] = visits(&service);
    let before = service.server.snapshot();
    let report = service.read_again(without_the_second, Mode::DryRun).unwrap();
    assert_eq!(lines(&report), ["pool \"default\": backend \"n1\": removed"]);
    assert_eq!((report.changes[0].sessions, report.mode), (1, Mode::DryRun));
    assert!(Arc::ptr_eq(&before, &service.server.snapshot()));
    assert_eq!(service.server.view().state().reload.succeeded, 0);
    assert_eq!((first.leave(), second.leave()), (0, 1));
    service.ends(&[(Done, 2)]);
}

#[test]
fn a_session_keeps_the_timeouts_of_the_listener_that_accepted_it() {
    let idle = Duration::from_secs(1);
    let backends = backends(1);
    let service = backends.start();
    let before = service.enter();
    service.reload(|config| config.listeners[0].timeouts.idle = idle);
    service.enter().gets_cut();
    assert_eq!(before.talks().leave(), 0);
    service.ends(&[(Done, 1), (IdleTimeout, 1)]);
}

#[test]
fn a_raised_session_limit_of_a_listener_holds_at_once() {
    let backends = backends(1).listeners(&["max_sessions = 1"]);
    let service = backends.start();
    let first = service.enter();
    let waits = service.client();
    service.reload(|config| config.listeners[0].max_sessions = NonZeroUsize::new(2));
    assert_eq!(Visit::greeted(waits).leave(), 0);
    assert_eq!(first.talks().leave(), 0);
    service.ends(&[(Done, 2)]);
}

#[test]
fn a_listener_goes_to_another_pool_and_the_old_one_is_forgotten_with_its_last_session() {
    let backends = backends(2);
    let service = backends.start();
    let second = |config: &mut Config| {
        config.pools[0].name = "other".into();
        config.pools[0].backends.remove(0);
    };
    let [first, other] = visits(&service);
    let report = service.reload(second);
    assert_eq!(
        lines(&report),
        ["listener \"l0\": pool default -> other", "pool \"default\": removed", "pool \"other\": added"]
    );
    assert_eq!(service.visits(4), [0, 4]);
    assert_eq!(service.server.snapshot().retired().len(), 1);
    assert_eq!((first.talks().leave(), other.talks().leave()), (0, 1));
    until("the pool is forgotten", || service.server.snapshot().retired().is_empty());
    until("its backends are", || service.server.view().state().removed.is_empty());
    service.ends(&[(Done, 6)]);
}

#[test]
fn a_change_at_run_time_stays_until_the_file_changes_that_key() {
    let backends = backends(2);
    let service = backends.start();
    let (first, second) = (service.backend(0), service.backend(1));
    first.set_weight(5);
    second.set_admin(Admin::Drain);
    let report = service.reload(|config| config.pools[0].retries = 1);
    assert_eq!(first.weight(), 5);
    assert_eq!(
        report.notes,
        [
            "pool \"default\": backend \"n0\": weight 5 was set at run time and stays: run-time wins (the file says 1)",
            "pool \"default\": backend \"n1\": is in drain and stays so: run-time wins",
        ]
    );
    assert_eq!(service.visits(4), [4, 0]);

    let report = service.reload(|config| config.pools[0].backends[0].weight = 3);
    assert_eq!(first.weight(), 3);
    let note = "pool \"default\": backend \"n0\": weight 5 was set at run time and is 3 now: file wins";
    assert!(report.notes.iter().any(|said| said == note), "{report:?}");
    service.ends(&[(Done, 4)]);
}

#[test]
fn the_process_reads_its_file_again_at_sighup() {
    let backends = backends(2);
    let service = backends.start_daemon("info,l4lb::session=off");
    service.server.reload("nonsense");
    let line = service.server.wait_for_line(&["reload error="]);
    assert!(line.contains("nonsense") || line.contains("TOML"), "{line}");
    service.server.wait_for_line(&["configuration refused"]);
    assert_eq!(service.visits(2), [1, 1]);
    service
        .server
        .reload(&backends.toml().replace("retries", "").replace("backend = [", "retries = 7\nbackend = ["));
    service.server.wait_for_line(&["retries 2 -> 7"]);
    service.server.wait_for_line(&["configuration applied"]);
    assert_eq!(service.visits(2), [1, 1]);
    service.stops();
}

#[test]
fn no_session_notices_that_backends_are_added_and_removed() {
    let backends = backends(3).workers(2);
    let service = backends.start();
    let is_over = AtomicBool::new(false);
    let visited = thread::scope(|scope| {
        let over = SetOnDrop(&is_over);
        let visitors: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut visited = 0;
                    while !is_over.load(Ordering::Acquire) {
                        service.visit();
                        visited += 1;
                    }
                    visited
                })
            })
            .collect();
        for round in 0..100 {
            service.reload(|config| {
                config.pools[0].backends.remove(round % 3);
                config.pools[0].retries = u32::try_from(round % 2).expect("small");
            });
        }
        drop(over);
        visitors.into_iter().map(|visitor| visitor.join().expect("no visit fails")).sum::<u64>()
    });
    assert!(visited > 0);
    service.ends(&[(Done, visited)]);
}
