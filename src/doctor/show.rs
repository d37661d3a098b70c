//! Prints findings as a table, or as JSON.

use std::fmt::Write;

use crate::doctor::{Finding, Verdict, worst};

/// Returns one line per finding; below a problem its consequence and remedy.
pub(crate) fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { name, verdict, found, consequence, remedy } in findings {
        let verdict = verdict.as_str();
        line(&mut text, format_args!("{verdict:<4}  {name:<width$}  {found}"));
        let below = [("->", consequence), ("do", remedy)];
        for (mark, what) in
            below.into_iter().filter_map(|(mark, what)| what.as_ref().map(|what| (mark, what)))
        {
            line(&mut text, format_args!("{:<4}  {:>width$}  {what}", "", mark));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (well, warned, failed) = (count(Verdict::Ok), count(Verdict::Warn), count(Verdict::Fail));
    line(&mut text, format_args!("{well} ok, {warned} to look at, {failed} failed"));
    text
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    writeln!(text, "{what}").expect("writing to a String never fails");
}

/// Returns the findings and the worst verdict, in one object.
pub(crate) fn json(findings: &[Finding]) -> String {
    let document = serde_json::json!({ "verdict": worst(findings), "findings": findings });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> [Finding; 2] {
        let well = Finding {
            name: "splice",
            verdict: Verdict::Ok,
            found: "works".into(),
            consequence: None,
            remedy: None,
        };
        let bad = Finding {
            name: "open files",
            verdict: Verdict::Fail,
            found: "64".into(),
            consequence: Some("no sessions".into()),
            remedy: Some("LimitNOFILE=1048576".into()),
        };
        [well, bad]
    }

    #[test]
    fn columns_are_aligned() {
        let expected = "\
ok    splice      works
FAIL  open files  64
              ->  no sessions
              do  LimitNOFILE=1048576
1 ok, 0 to look at, 1 failed
";
        assert_eq!(table(&findings()), expected);
    }

    #[test]
    fn json_has_the_verdict_and_every_finding() {
        let document: serde_json::Value = serde_json::from_str(&json(&findings())).unwrap();
        assert_eq!(document["verdict"], "fail");
        assert_eq!(document["findings"][1]["remedy"], "LimitNOFILE=1048576");
        assert!(document["findings"][0].get("remedy").is_none());
    }
}
