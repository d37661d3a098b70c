//! Explains the two-letter end codes of sessions.

use crate::ctl::table::Column::Text;
use crate::ctl::table::{cell, table};
use crate::session::CloseReason;

/// The first letter: the cause.
const ENDED_BY: &[(char, &str)] = &[
    ('-', "both sides"),
    ('C', "the client"),
    ('B', "the backend"),
    ('T', "a timeout"),
    ('N', "no eligible backend"),
    ('R', "a resource that this machine had run out of"),
    ('S', "the end of the process, or of a drain"),
    ('K', "an operator"),
];

/// The second letter: the stage of the session.
const ENDED_WHILE: &[(char, &str)] = &[
    ('P', "the first bytes of the client were awaited"),
    ('C', "a backend was being connected"),
    ('D', "both sides could send"),
    ('H', "one side had ended, the other could send"),
    ('L', "the last bytes were passed on"),
];

/// Returns the table of the letters, with the words of logs and metrics.
pub(super) fn codes() -> String {
    let letters = |letters: &[(char, &str)]| -> Vec<_> {
        letters.iter().map(|(letter, meaning)| vec![cell(letter), cell(meaning)]).collect()
    };
    let reasons = CloseReason::ALL.map(CloseReason::as_str).join(", ");
    format!(
        "{}\n{}\nSo -L is a session that was done, and BC one whose backend refused it.\nIn words: {reasons}\n",
        table(&[Text("FIRST"), Text("ENDED BY")], letters(ENDED_BY)),
        table(&[Text("SECOND"), Text("WHILE")], letters(ENDED_WHILE))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_code_and_every_reason_is_explained() {
        let text = codes();
        for (letter, meaning) in ENDED_BY.iter().chain(ENDED_WHILE) {
            assert!(text.lines().any(|line| line.starts_with(*letter) && line.ends_with(meaning)), "{text}");
        }
        for reason in CloseReason::ALL {
            assert!(text.contains(reason.as_str()), "{text}");
        }
    }
}
