//! Shows what the lists of listeners say of an address.

use crate::api;
use crate::config::one_line;

/// Returns a line for each listener.
pub(super) fn decisions(decisions: &[api::AccessDecision]) -> String {
    decisions.iter().map(|decision| format!("{}: {}\n", decision.listener, verdict(decision))).collect()
}

fn verdict(decision: &api::AccessDecision) -> String {
    let verdict = if decision.admitted { "admitted" } else { "refused" };
    let reason = match (&decision.rule, &decision.network) {
        (Some(rule), Some(network)) => format!("{rule} {network}"),
        _ if !decision.has_lists => "it has no lists".into(),
        _ if decision.admitted => "no list has the address, and nothing is allowed in particular".into(),
        _ => "no list has the address, and others are allowed".into(),
    };
    let place = match (&decision.file, decision.line) {
        (Some(file), Some(line)) => format!(" ({}:{line})", one_line(file)),
        _ => String::new(),
    };
    format!("{verdict}, {reason}{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_names_the_network_and_its_place() {
        let decision = |admitted, has_lists, rule: Option<&str>, file: Option<&str>| api::AccessDecision {
            listener: "in".into(),
            admitted,
            has_lists,
            rule: rule.map(str::to_owned),
            network: rule.map(|_| "10.0.0.0/8".to_owned()),
            file: file.map(str::to_owned),
            line: file.map(|_| 7),
        };
        let all = [
            decision(true, true, Some("allow"), None),
            decision(false, true, Some("deny"), Some("/etc/a\nb")),
            decision(true, false, None, None),
            decision(true, true, None, None),
            decision(false, true, None, None),
        ];
        let expected = "in: admitted, allow 10.0.0.0/8\n\
            in: refused, deny 10.0.0.0/8 (/etc/a\\nb:7)\n\
            in: admitted, it has no lists\n\
            in: admitted, no list has the address, and nothing is allowed in particular\n\
            in: refused, no list has the address, and others are allowed\n";
        assert_eq!(decisions(&all), expected);
    }
}
