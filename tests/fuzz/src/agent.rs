//! Answers of agents: the network cuts them anywhere, and the line is the same.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::mem::Discriminant;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use l4lb::config::agent::{Agent, AgentQuestion, OnLost};
use l4lb::health::{AgentExchange, AgentFault, Conversation, LINE_LEN_MAX, Said, Step};

use super::answer::{Ending, TARGET, cut, lengths};
use super::config::expect_one_line;

const LIMIT: Duration = Duration::from_secs(1);
/// Reports that one exchange may take: the answer is cut into fewer pieces.
const REPORTS_MAX: usize = 1_000;
/// A sentence quotes 64 bytes, escaped.
const SENTENCE_MAX: usize = 400;

type Outcome = std::result::Result<Said, Discriminant<AgentFault>>;

pub fn check(data: &[u8]) {
    // An input that is too short is no script.
    if let Ok(script) = script(&mut Unstructured::new(data)) {
        let whole = script.converse(&[]);
        assert_eq!(script.converse(&script.cuts), whole, "the cuts decide");
        script.expect_right(&whole);
    }
}

struct Script {
    is_http: bool,
    /// Where the answer is cut, the last length repeated.
    cuts: Vec<usize>,
    ending: Ending,
    answer: Vec<u8>,
}

fn script(choices: &mut Unstructured) -> Result<Script> {
    let is_http = choices.ratio(1, 3)?;
    let cuts = lengths(choices)?;
    let ending = *choices.choose(&[Ending::Eof, Ending::Reset, Ending::Silence])?;
    // Answers beyond the bound are made, not carried.
    let (filler, count): (u8, usize) = (choices.arbitrary()?, choices.int_in_range(0..=LINE_LEN_MAX + 200)?);
    let mut answer = if is_http { b"HTTP/1.1 200 OK\r\n".to_vec() } else { Vec::new() };
    answer.extend(vec![filler; if choices.ratio(1, 8)? { count } else { 0 }]);
    answer.extend_from_slice(choices.peek_bytes(choices.len()).unwrap_or_default());
    Ok(Script { is_http, cuts, ending, answer })
}

impl Script {
    /// The result of an exchange whose answer comes in pieces of these lengths.
    fn converse(&self, cuts: &[usize]) -> Outcome {
        let question = if self.is_http {
            AgentQuestion::Http { path: "/".into(), host: None }
        } else {
            AgentQuestion::Tcp { send: String::new() }
        };
        let agent = Agent {
            question,
            written: BTreeMap::new(),
            address: None,
            port: 80,
            interval: LIMIT,
            timeout: LIMIT,
            on_lost: OnLost::Keep,
        };
        let mut exchange = AgentExchange::new(&agent, "a", &TARGET);
        let mut pieces = cut(&self.answer, cuts).into_iter();
        for _ in 0..REPORTS_MAX {
            match exchange.next_step() {
                Step::Dial => exchange.on_connected(),
                Step::Send(rest) => {
                    let all = rest.len();
                    exchange.on_sent(all);
                }
                Step::Receive => match (pieces.next(), self.ending) {
                    (Some(piece), _) => exchange.on_received(piece),
                    (None, Ending::Eof) => exchange.on_eof(),
                    (None, Ending::Reset) => exchange.on_failed(ErrorKind::ConnectionReset),
                    (None, Ending::Silence) => exchange.on_timeout(LIMIT),
                },
                Step::Finished(_) => return outcome(&exchange),
            }
        }
        panic!("no result after {REPORTS_MAX} reports");
    }

    /// Compares with what the answer says to somebody who has it all.
    fn expect_right(&self, outcome: &Outcome) {
        if self.is_http {
            return;
        }
        let seen = &self.answer[..self.answer.len().min(LINE_LEN_MAX)];
        let end = seen.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        assert_eq!(outcome.as_ref().ok().cloned(), end.map(|end| Said::parse(&seen[..end])));
    }
}

fn outcome(exchange: &AgentExchange) -> Outcome {
    match exchange.outcome().expect("it is finished") {
        Ok(said) => {
            let sentences =
                [said.note.as_ref().map(ToString::to_string), said.mistake.as_ref().map(ToString::to_string)];
            sentences.into_iter().flatten().for_each(|sentence| expect_good(&sentence));
            let weight = said.advice.weight;
            assert!(weight.is_none_or(|weight| weight.over(256) <= 256), "{weight:?}");
            Ok(said.clone())
        }
        Err(fault) => {
            expect_good(&fault.to_string());
            Err(std::mem::discriminant(fault))
        }
    }
}

fn expect_good(sentence: &str) {
    expect_one_line(sentence);
    assert!(sentence.is_ascii() && sentence.len() <= SENTENCE_MAX, "{sentence}");
}
