//! The fleet, as text for people.

use crate::api;
use crate::config::one_line;
use crate::ctl::figures::{count, span};
use crate::ctl::table::Column::{Figure, Text};
use crate::ctl::table::{Color, cell, table};

pub(super) fn fleet(fleet: &api::Fleet) -> String {
    let api::Fleet { name, published, failing, lost, balancers, wanted, disagreements, disagreements_total } =
        fleet;
    let columns = [
        Text("BALANCER"),
        Text("VERSION"),
        Text("STAGE"),
        Figure("SESSIONS"),
        Figure("NEW/S"),
        Figure("UP"),
        Figure("BACKENDS"),
        Text("CONFIG"),
        Figure("AGE"),
        Text("NOTE"),
    ];
    let rows = balancers.iter().map(|balancer| {
        let sum = |get: fn(&api::FleetPool) -> u64| balancer.pools.values().map(get).sum::<u64>();
        let (up, backends) = (sum(|pool| pool.up), sum(|pool| pool.backends));
        let is_this = (balancer.name == *name).then(|| "answers here".to_owned());
        let differs = balancer.differs.then(|| "another configuration than most".to_owned());
        let notes: Vec<String> = is_this
            .into_iter()
            .chain(differs)
            .chain(balancer.not_ready.clone())
            .chain(balancer.alone.clone())
            .collect();
        let mark = if balancer.differs { " !" } else { "" };
        let colour = |is_bad: bool| if is_bad { Color::Yellow } else { Color::Reset };
        vec![
            cell(&balancer.name),
            cell(&balancer.version),
            cell(&balancer.stage).fg(colour(balancer.stage != "serving")),
            cell(balancer.sessions),
            cell(format!("{:.1}", balancer.rate)),
            cell(up).fg(colour(up < backends)),
            cell(backends),
            cell(format!("{:.8}{mark}", balancer.config)).fg(colour(balancer.differs)),
            cell(span(balancer.age)),
            cell(if notes.is_empty() { "-".to_owned() } else { notes.join("; ") }),
        ]
    });
    let mut text = table(&columns, rows);
    let configs: std::collections::BTreeSet<&str> =
        balancers.iter().map(|balancer| balancer.config.as_str()).collect();
    text += &count(balancers.len() as u64, "balancer");
    if configs.len() > 1 {
        text += &format!(", {} configurations", configs.len());
    }
    text += "\n";
    for wanted in wanted {
        text += &(one_line(&progress(wanted)) + "\n");
    }
    for found in disagreements {
        let states = found.states.iter().map(|(state, names)| format!("{state} for {}", names.join(", ")));
        let states: Vec<String> = states.collect();
        text += &(one_line(&format!("{}/{}: {}", found.pool, found.backend, states.join("; "))) + "\n");
    }
    let listed = disagreements.len() as u64;
    if *disagreements_total > listed {
        text += &format!("{} more on which they disagree\n", disagreements_total - listed);
    }
    match failing {
        Some(failing) => text += &(one_line(&format!("{name} cannot publish: {}", failing.reason)) + "\n"),
        None if !published => text += &format!("{name} has not published yet\n"),
        None => {}
    }
    if let Some(lost) = lost {
        let what = format!("shown as of {:.0}: cannot read the others: {}", lost.since, lost.reason);
        text += &(one_line(&what) + "\n");
    }
    text
}

/// Returns what is wanted of a backend on all balancers, and where it is so.
pub(super) fn progress(wanted: &api::FleetWanted) -> String {
    let api::FleetWanted { pool, backend, admin, by, done, pending, .. } = wanted;
    let admin = admin.as_str();
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let left = if pending.is_empty() { String::new() } else { format!("; pending on {}", list(pending)) };
    format!("{pool}/{backend}: {admin} on {}{left} (wanted by {by})", list(done))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn balancer(name: &str, config: &str, differs: bool, up: u64) -> api::Balancer {
        api::Balancer {
            name: name.into(),
            version: "1.2.3".into(),
            started: Timestamp::UNIX_EPOCH,
            stage: "serving".into(),
            not_ready: None,
            alone: None,
            config: config.into(),
            differs,
            age: 2.5,
            sessions: 7,
            rate: 1.25,
            listeners: [("web".to_owned(), "10.0.0.1:80".to_owned())].into(),
            pools: [("web".to_owned(), api::FleetPool { backends: 3, up, eligible: up })].into(),
        }
    }

    #[test]
    fn another_configuration_and_other_views_are_marked() {
        let failing = api::Failing { since: Timestamp::UNIX_EPOCH, reason: "no\nanswer".into() };
        let shown = fleet(&api::Fleet {
            name: "lb1".into(),
            published: false,
            failing: Some(failing.clone()),
            lost: Some(failing),
            balancers: vec![
                balancer("lb1", "00000000aaaa", false, 3),
                balancer("lb2", "00000001bbbb", true, 2),
            ],
            wanted: vec![api::FleetWanted {
                pool: "web".into(),
                backend: "b".into(),
                admin: api::Admin::Drain,
                by: "uid 0 at lb1".into(),
                since: Timestamp::UNIX_EPOCH,
                done: vec!["lb1".into()],
                pending: vec!["lb2".into()],
            }],
            disagreements: vec![api::Disagreement {
                pool: "web".into(),
                backend: "a".into(),
                states: [
                    ("down".to_owned(), vec!["lb2".to_owned()]),
                    ("up".to_owned(), vec!["lb1".to_owned()]),
                ]
                .into(),
            }],
            disagreements_total: 3,
        });
        let lines: Vec<String> =
            shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "BALANCER VERSION STAGE SESSIONS NEW/S UP BACKENDS CONFIG AGE NOTE",
                "lb1 1.2.3 serving 7 1.2 3 3 00000000 2.5s answers here",
                "lb2 1.2.3 serving 7 1.2 2 3 00000001 ! 2.5s another configuration than most",
                "2 balancers, 2 configurations",
                "web/b: drain on lb1; pending on lb2 (wanted by uid 0 at lb1)",
                "web/a: down for lb2; up for lb1",
                "2 more on which they disagree",
                "lb1 cannot publish: no\\nanswer",
                "shown as of 1970-01-01T00:00:00Z: cannot read the others: no\\nanswer",
            ]
        );
    }
}
