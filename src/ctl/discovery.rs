//! Sources of backends, as text for people.

use jiff::Timestamp;

use crate::api;
use crate::config::one_line;
use crate::ctl::figures::{age, count, span};
use crate::ctl::table::Column::{Figure, Text};
use crate::ctl::table::{Color, cell, maybe, table};

pub(super) fn sources(sources: &[api::Discovery], now: Timestamp) -> String {
    let columns = [
        Text("POOL"),
        Text("SOURCE"),
        Text("STATE"),
        Figure("FOR"),
        Figure("LAST ANSWER"),
        Figure("NEXT"),
        Figure("BACKENDS"),
        Text("NOTE"),
    ];
    let rows = sources.iter().map(|source| {
        let colour = match source.state.as_str() {
            "found" => Color::Green,
            "failed" => Color::Red,
            _ => Color::Yellow,
        };
        let left_out = (!source.left_out.is_empty())
            .then(|| format!("{} left out: {}", source.left_out.len(), source.left_out[0]));
        let notes: Vec<String> = source.note.clone().into_iter().chain(left_out).collect();
        vec![
            cell(&source.pool),
            cell(&source.source),
            cell(&source.state).fg(colour),
            cell(age(now, source.since)),
            maybe(source.age.map(span)),
            maybe(source.next.map(span)),
            cell(source.backends),
            maybe((!notes.is_empty()).then(|| one_line(&notes.join("; ")))),
        ]
    });
    let backends = sources.iter().map(|source| source.backends).sum();
    let total = format!("{}, {}\n", count(sources.len() as u64, "source"), count(backends, "backend"));
    table(&columns, rows) + &total
}

pub(super) fn discovered(answers: &[api::Discovered]) -> String {
    let columns = [Text("BACKEND"), Text("ADDRESS"), Figure("WEIGHT"), Figure("PRIORITY"), Text("STATE")];
    let mut text = String::new();
    for answer in answers {
        let listed = answer.backends.iter().filter(|backend| backend.state != "gone").count() as u64;
        let said = match &answer.error {
            Some(error) => format!("no answer, what is known stays: {error}"),
            None => count(listed, "backend"),
        };
        text += &(one_line(&format!("{}: {said}", answer.source)) + "\n");
        for note in &answer.notes {
            text += &(one_line(&format!("  {note}")) + "\n");
        }
        if answer.backends.is_empty() {
            continue;
        }
        let rows = answer.backends.iter().map(|backend| {
            let colour = match backend.state.as_str() {
                "new" => Color::Green,
                "gone" => Color::Red,
                _ => Color::Reset,
            };
            vec![
                cell(&backend.name),
                cell(&backend.address),
                cell(backend.weight),
                cell(backend.priority),
                cell(&backend.state).fg(colour),
            ]
        });
        text += &table(&columns, rows);
    }
    if answers.is_empty() {
        text += "the pool has no [[pool.discover]]\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_source_is_shown_beside_the_pool() {
        let backend = |name: &str, state: &str| api::DiscoveredBackend {
            name: name.into(),
            address: name.into(),
            weight: 1,
            priority: 0,
            state: state.into(),
        };
        let good = api::Discovered {
            source: "dns:web:80".into(),
            error: None,
            notes: vec!["10.0.0.1:80 is listed twice, the first counts".into()],
            backends: vec![
                backend("10.0.0.1:80", "there"),
                backend("10.0.0.2:80", "new"),
                backend("10.0.0.3:80", "gone"),
            ],
        };
        let bad = api::Discovered {
            source: "dns-srv:_http._tcp.web".into(),
            error: Some("request timed out".into()),
            notes: Vec::new(),
            backends: Vec::new(),
        };
        let text = discovered(&[good, bad]);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], "dns:web:80: 2 backends");
        assert_eq!(lines[1], "  10.0.0.1:80 is listed twice, the first counts");
        assert!(lines[4].starts_with("10.0.0.2:80") && lines[4].ends_with("new"), "{text}");
        assert_eq!(
            lines.last(),
            Some(&"dns-srv:_http._tcp.web: no answer, what is known stays: request timed out")
        );
        assert_eq!(discovered(&[]), "the pool has no [[pool.discover]]\n");
    }
}
