//! The words of an agent: a program beside a backend that says in one line what the backend should get.
//!
//! The protocol is HAProxy's agent check. The agent may be sent a text; it answers with one line, which the first CR or
//! LF ends. Its words are separated by blanks, tabs and commas, in either case: a weight (`75%`, `weight:75%`,
//! `weight:30`), `maxconn:30`, an administrative state (`ready`, `drain`, `maint`), a health (`up`, `down`, `fail`,
//! `stopped`). The last word of a category counts, what is not mentioned stays, and `#` begins a description.
//! `exchange` is the conversation, `answer` finds the line in its bytes.

mod answer;
mod exchange;

use std::fmt;

use crate::config::WEIGHT_MAX;
use crate::config::model::HealthState;
use crate::health::Quoted;
use crate::pool::{Admin, Advice, AgentWeight, PERCENT_MAX};

pub use answer::{AgentFault, LINE_LEN_MAX};
pub use exchange::{AgentExchange, agent_target};

/// The content of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The last word of each category.
    pub advice: Advice,
    /// The description behind `#`.
    pub note: Option<Quoted>,
    /// The first word that means nothing. The others count.
    pub mistake: Option<Mistake>,
}

/// A word of an agent that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// It belongs to no category.
    Unknown(Quoted),
    /// A weight that is none of 0..=256, or no percentage.
    Weight(Quoted),
    /// A limit that is no number.
    Maxconn(Quoted),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "unknown word {word}"),
            Self::Weight(word) => write!(f, "a weight must be 0..={WEIGHT_MAX} or a percentage, got {word}"),
            Self::Maxconn(word) => write!(f, "maxconn must be a number, got {word}"),
        }
    }
}

/// A word with a meaning.
enum Word {
    Weight(AgentWeight),
    Maxconn(u32),
    Admin(Admin),
    Health(HealthState),
}

const WORDS: [(&str, Word); 7] = [
    ("up", Word::Health(HealthState::Up)),
    ("down", Word::Health(HealthState::Down)),
    ("fail", Word::Health(HealthState::Down)),
    ("stopped", Word::Health(HealthState::Down)),
    ("ready", Word::Admin(Admin::Ready)),
    ("drain", Word::Admin(Admin::Drain)),
    ("maint", Word::Admin(Admin::Maint)),
];

impl Said {
    /// Returns the meaning of `line`, without the CR or LF that ends it.
    pub fn parse(line: &[u8]) -> Self {
        let mut parts = line.splitn(2, |&byte| byte == b'#');
        let words = parts.next().unwrap_or_default();
        let note = parts.next().map(<[u8]>::trim_ascii).filter(|note| !note.is_empty());
        let mut said = Self { note: note.map(Into::into), ..Self::default() };
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
        for word in words.split(is_blank).filter(|word| !word.is_empty()) {
            match meaning(word) {
                Ok(Word::Weight(weight)) => said.advice.weight = Some(weight),
                Ok(Word::Maxconn(maxconn)) => said.advice.maxconn = Some(maxconn),
                Ok(Word::Admin(admin)) => said.advice.admin = Some(admin),
                Ok(Word::Health(health)) => said.advice.health = Some(health),
                Err(mistake) => said.mistake = said.mistake.or(Some(mistake)),
            }
        }
        said
    }
}

fn meaning(word: &[u8]) -> Result<Word, Mistake> {
    let known = WORDS.into_iter().find(|(known, _)| word.eq_ignore_ascii_case(known.as_bytes()));
    if let Some((_, meaning)) = known {
        return Ok(meaning);
    }
    if let Some(number) = after(word, b"maxconn:") {
        let maxconn = number_of(number).and_then(|number| u32::try_from(number).ok());
        return maxconn.map(Word::Maxconn).ok_or_else(|| Mistake::Maxconn(word.into()));
    }
    let named = after(word, b"weight:");
    let value = named.unwrap_or(word);
    let weight = match value.strip_suffix(b"%") {
        Some(percent) => number_of(percent).map(|percent| {
            let percent = u16::try_from(percent).unwrap_or(u16::MAX);
            AgentWeight::Percent(percent.min(PERCENT_MAX))
        }),
        None => named.and_then(number_of).and_then(|weight| {
            let weight = u16::try_from(weight).ok().filter(|&weight| weight <= WEIGHT_MAX);
            weight.map(AgentWeight::Absolute)
        }),
    };
    let is_meant = named.is_some() || value.first().is_some_and(u8::is_ascii_digit) && value.contains(&b'%');
    weight
        .map(Word::Weight)
        .ok_or_else(|| if is_meant { Mistake::Weight(word.into()) } else { Mistake::Unknown(word.into()) })
}

/// Returns what follows `name` in `word`, if it begins with it.
fn after<'w>(word: &'w [u8], name: &[u8]) -> Option<&'w [u8]> {
    let (start, rest) = word.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

/// Returns the number that these digits are, at most the largest one; `None` unless all are digits.
fn number_of(digits: &[u8]) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    all_digits.then(|| digits.iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Returns the meaning of a line in words.
    fn read(line: &str) -> String {
        let Said { advice, note, mistake } = Said::parse(line.as_bytes());
        let parts = [
            advice.weight.map(|weight| weight.to_string()),
            advice.maxconn.map(|maxconn| format!("maxconn {maxconn}")),
            advice.admin.map(|admin| admin.as_str().to_owned()),
            advice.health.map(|health| health.as_str().to_owned()),
            note.map(|note| format!("note {note}")),
            mistake.map(|mistake| format!("mistake: {mistake}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_word_has_its_meaning() {
        for (line, expected) in [
            ("", ""),
            ("75%,maxconn:30,maint,down", "75%, maxconn 30, maint, down"),
            ("up 50%", "50%, up"),
            ("UP", "up"),
            ("Ready\tDRAIN", "drain"),
            ("up,down", "down"),
            ("10% 20% weight:30", "weight:30"),
            ("weight:75%", "75%"),
            ("Weight:256", "weight:256"),
            ("0%", "0%"),
            ("99999999999999999999999%", "25600%"),
            ("fail", "down"),
            ("stopped", "down"),
            ("MAXCONN:0", "maxconn 0"),
            ("drain#rolling", "drain, note \"rolling\""),
            ("down # disk full, sorry", "down, note \"disk full, sorry\""),
            ("# only a comment", "note \"only a comment\""),
            ("up #", "up"),
            (" ,\t, up ,", "up"),
        ] {
            assert_eq!(read(line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_first_word_without_a_meaning_is_reported_and_the_rest_counts() {
        for (line, expected) in [
            (
                "weight:300 drain",
                "drain, mistake: a weight must be 0..=256 or a percentage, got \"weight:300\"",
            ),
            ("up failed broken", "up, mistake: unknown word \"failed\""),
            ("30", "mistake: unknown word \"30\""),
            ("-5%", "mistake: unknown word \"-5%\""),
            ("5%x up", "up, mistake: a weight must be 0..=256 or a percentage, got \"5%x\""),
            ("weight:", "mistake: a weight must be 0..=256 or a percentage, got \"weight:\""),
            ("weight:%", "mistake: a weight must be 0..=256 or a percentage, got \"weight:%\""),
            ("maxconn:many", "mistake: maxconn must be a number, got \"maxconn:many\""),
            ("maxconn:4294967296", "mistake: maxconn must be a number, got \"maxconn:4294967296\""),
            ("\u{fffd}\u{1b}[0m 5%", "5%, mistake: unknown word \"\\xef\\xbf\\xbd\\x1b[0m\""),
        ] {
            assert_eq!(read(line), expected, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics_and_no_advice_leaves_its_range(line in vec(any::<u8>(), 0..200)) {
            let weight = Said::parse(&line).advice.weight;
            prop_assert!(weight.is_none_or(|weight| weight.over(256) <= 256));
        }

        #[test]
        fn a_line_of_words_means_what_its_last_words_mean(
            words in vec(prop::sample::select(vec![
                "up", "down", "FAIL", "stopped", "ready", "Drain", "maint", "1%", "weight:7", "maxconn:3", "nonsense",
            ]), 0..12),
            blanks in vec(prop::sample::select(vec![" ", ",", "\t", ", ", " \t,"]), 12),
        ) {
            let line: String = words.iter().zip(&blanks).flat_map(|(word, blank)| [*word, *blank]).collect();
            let each = words.iter().map(|word| Said::parse(word.as_bytes()).advice);
            let expected = each.fold(Advice::NONE, Advice::followed_by);
            let said = Said::parse(line.as_bytes());
            prop_assert_eq!(said.advice, expected);
            prop_assert_eq!(said.mistake.is_some(), words.contains(&"nonsense"));
        }
    }
}
