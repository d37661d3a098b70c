//! Answers of agents: the network cuts them anywhere, and the line is the same.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::mem::Discriminant;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use l4lb::base::address::Address;
use l4lb::config::agent::{Agent, AgentQuestion, OnLost};
use l4lb::health::{AgentExchange, AgentFault, LINE_LEN_MAX, Said, Step};

use super::config::expect_one_line;

const TARGET: Address = Address::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80));
const LIMIT: Duration = Duration::from_secs(1);
/// Reports that one exchange may take: the answer is cut into fewer pieces.
const REPORTS_MAX: usize = 1_000;
const PIECES_MAX: usize = 32;
/// A sentence quotes 64 bytes, escaped.
const SENTENCE_MAX: usize = 400;

/// What follows the last byte of an answer.
#[derive(Clone, Copy)]
enum Ending {
    Eof,
    Reset,
    Silence,
}

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
    let count = choices.int_in_range(0..=7)?;
    let cuts = (0..count).map(|_| choices.int_in_range(1..=255)).collect::<Result<_>>()?;
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
        let mut pieces = self.pieces(cuts).into_iter();
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

    /// The answer in pieces of these lengths; what is left after [`PIECES_MAX`] of them is the last.
    fn pieces(&self, cuts: &[usize]) -> Vec<&[u8]> {
        let repeated = cuts.iter().copied().chain(cuts.last().copied().into_iter().cycle());
        let (mut pieces, mut answer) = (Vec::new(), self.answer.as_slice());
        for length in repeated.take(PIECES_MAX) {
            let (piece, rest) = answer.split_at(length.min(answer.len()));
            pieces.push(piece);
            answer = rest;
        }
        pieces.push(answer);
        pieces
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
