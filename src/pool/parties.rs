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
