//! Operator, origin and agent of a backend, and what comes of their words. Beside `backend`, because tests/loom.rs compiles
//! that file over atomics which need a model around each test.

use super::*;
use crate::config::model::{self, HealthState};

fn backend(weight: u16) -> Backend {
    let settings = model::Backend {
        name: "a".into(),
        address: ([10, 0, 0, 1], 80).into(),
        weight,
        priority: 0,
        check: model::BackendCheck::default(),
    };
    Backend::new(BackendId(0), PoolId(0), &settings, HealthState::Unknown, 1)
}

#[test]
fn of_the_operator_and_the_agent_the_strictest_decides() {
    let backend = backend(1);
    for operator in Admin::ALL {
        backend.set_admin(operator);
        for agent in Admin::ALL {
            backend.set_agent(Advice { admin: Some(agent), ..Advice::NONE }, false);
            assert_eq!(backend.admin(), operator.max(agent), "{operator:?} and {agent:?}");
            assert_eq!(backend.operator_admin(), operator, "an agent sets nothing of an operator");
        }
        backend.set_agent(Advice::NONE, false);
        assert_eq!(backend.admin(), operator);
    }
}

#[test]
fn the_weight_of_an_agent_is_over_that_of_the_origin_and_below_that_of_an_operator() {
    let backend = backend(100);
    let says = |weight| backend.set_agent(Advice { weight: Some(weight), ..Advice::NONE }, false);
    says(AgentWeight::Percent(75));
    assert_eq!((backend.weight(), backend.plain_weight()), (75, 100));
    says(AgentWeight::Absolute(30));
    assert_eq!(backend.weight(), 30);
    backend.set_weight(40);
    backend.hold_weight(true);
    assert_eq!(backend.weight(), 40, "an operator has set it");
    says(AgentWeight::Percent(50));
    assert_eq!(backend.weight(), 20, "a part of what the operator has set");
    backend.set_weight(0);
    backend.hold_weight(true);
    says(AgentWeight::Absolute(30));
    assert_eq!(backend.weight(), 0);
    backend.set_weight(100);
    assert_eq!(backend.weight(), 30, "its origin says another weight now");
}

#[test]
fn an_agent_takes_a_backend_down_and_brings_it_up_only_where_nothing_checks_it() {
    use HealthState::{Down, Unknown, Up};
    let backend = backend(1);
    for (operator, agent, is_alone, checked, expected) in [
        (None, None, false, Up, Up),
        (None, Some(Down), false, Up, Down),
        (None, Some(Up), false, Down, Down),
        (None, Some(Up), false, Unknown, Unknown),
        (None, Some(Up), true, Down, Up),
        (None, Some(Up), true, Unknown, Up),
        (None, Some(Down), true, Up, Down),
        (None, None, true, Down, Down),
        (Some(Up), Some(Down), true, Down, Up),
        (Some(Down), Some(Up), true, Up, Down),
    ] {
        backend.set_health(checked);
        backend.override_health(operator);
        backend.set_agent(Advice { health: agent, ..Advice::NONE }, is_alone);
        let case = format!("{operator:?}, agent {agent:?}, alone {is_alone}, checks {checked:?}");
        assert_eq!(backend.health(), expected, "{case}");
        assert_eq!((backend.checked_health(), backend.health_override()), (checked, operator), "{case}");
    }
}

#[test]
fn what_a_setting_would_do_is_what_it_does() {
    use HealthState::{Down, Unknown, Up};
    let all = [
        Setting::default(),
        Setting { weight: Some(0), ..Setting::default() },
        Setting { weight: Some(5), admin: Some(Admin::Drain), ..Setting::default() },
        Setting { admin: Some(Admin::Ready), health: Some(Down), ..Setting::default() },
        Setting { health: Some(Up), ..Setting::default() },
        Setting { health: Some(Unknown), ..Setting::default() },
    ];
    let advices = [
        Advice::NONE,
        Advice { weight: Some(AgentWeight::Percent(0)), ..Advice::NONE },
        Advice { weight: Some(AgentWeight::Absolute(9)), ..Advice::NONE },
        Advice { admin: Some(Admin::Maint), health: Some(Down), ..Advice::NONE },
    ];
    for first in all {
        for then in all {
            for advice in advices {
                let backend = backend(1);
                backend.set_agent(advice, false);
                put(&backend, first);
                let (expected, changes) = (backend.is_eligible_after(then), backend.changes_by(then));
                let before = (backend.plain_weight(), backend.operator_admin(), backend.health_override());
                put(&backend, then);
                assert_eq!(backend.is_eligible(), expected, "{first:?}, {then:?}, {advice:?}");
                let after = (backend.plain_weight(), backend.operator_admin(), backend.health_override());
                assert!(before == after || !changes.is_empty(), "{first:?}, {then:?}: {changes:?}");
                assert!(backend.changes_by(then).is_empty(), "{then:?} is put on already");
            }
        }
    }
}

fn put(backend: &Backend, setting: Setting) {
    let Setting { weight, admin, health } = setting;
    if let Some(weight) = weight {
        backend.set_weight(weight);
        backend.hold_weight(true);
    }
    admin.into_iter().for_each(|admin| backend.set_admin(admin));
    let health = health.map(|health| (health != HealthState::Unknown).then_some(health));
    health.into_iter().for_each(|health| backend.override_health(health));
}
