//! Answers to health checks: the network cuts them anywhere, and the verdict is the same.

use std::io::ErrorKind;
use std::mem::Discriminant;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use l4lb::base::address::Address;
use l4lb::config::model::{Check, Expect};
use l4lb::health::{ANSWER_MAX, Cause, Conversation, Probe, Step};

use super::config::expect_one_line;

pub(super) const TARGET: Address = Address::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80));
/// Reports that one check may take: the answer is cut into fewer pieces.
const REPORTS_MAX: usize = 1_000;
const PIECES_MAX: usize = 32;
/// A sentence quotes twice 64 bytes, escaped.
const SENTENCE_MAX: usize = 700;

/// What follows the last byte of an answer.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    Eof,
    Reset,
    Silence,
}

struct Script {
    check: Check,
    /// Bytes of the request that each send takes, the last one repeated.
    sends: Vec<usize>,
    /// Where the answer is cut, the last length repeated.
    cuts: Vec<usize>,
    ending: Ending,
    answer: Vec<u8>,
}

type Verdict = std::result::Result<(), (Discriminant<Cause>, Option<u16>)>;

pub fn check(data: &[u8]) {
    // An input that is too short is no script.
    if let Ok(script) = script(&mut Unstructured::new(data)) {
        let whole = converse(&script, &[], &[]);
        assert_eq!(converse(&script, &script.sends, &script.cuts), whole, "the cuts decide");
        expect_right(&script, &whole);
    }
}

fn script(choices: &mut Unstructured) -> Result<Script> {
    let check = match choices.int_in_range(0..=2)? {
        0 => Check::SendExpect { send: bytes(choices)?, expect: Expect::Prefix(some_bytes(choices)?) },
        1 => Check::SendExpect { send: bytes(choices)?, expect: Expect::Contains(some_bytes(choices)?) },
        _ => Check::Http { path: "/".into(), host: None, status: choices.int_in_range(100..=599)? },
    };
    let sends = lengths(choices)?;
    let cuts = lengths(choices)?;
    let ending = *choices.choose(&[Ending::Eof, Ending::Reset, Ending::Silence])?;
    // Answers beyond the bound are made, not carried.
    let (filler, count) = (choices.arbitrary()?, choices.int_in_range(0..=ANSWER_MAX + 200)?);
    let mut answer = vec![filler; if choices.ratio(1, 4)? { count } else { 0 }];
    answer.extend_from_slice(choices.peek_bytes(choices.len()).unwrap_or_default());
    Ok(Script { check, sends, cuts, ending, answer })
}

fn bytes(choices: &mut Unstructured) -> Result<Vec<u8>> {
    let len = choices.int_in_range(0..=15)?;
    Ok(choices.bytes(len)?.to_vec())
}

/// A config never expects nothing.
fn some_bytes(choices: &mut Unstructured) -> Result<Vec<u8>> {
    let len = choices.int_in_range(1..=15)?;
    Ok(choices.bytes(len)?.to_vec())
}

pub(super) fn lengths(choices: &mut Unstructured) -> Result<Vec<usize>> {
    let count = choices.int_in_range(0..=7)?;
    (0..count).map(|_| choices.int_in_range(1..=255)).collect()
}

/// The result of a check whose request leaves and whose answer comes in pieces of these lengths.
fn converse(script: &Script, sends: &[usize], cuts: &[usize]) -> Verdict {
    let mut probe = Probe::new(&script.check, &TARGET).expect("a check that is not off");
    let (mut sends, mut pieces) = (repeating(sends), cut(&script.answer, cuts).into_iter());
    let mut received = 0;
    for _ in 0..REPORTS_MAX {
        match probe.next_step() {
            Step::Dial => probe.on_connected(),
            Step::Send(rest) => {
                let taken = rest.len().min(sends.next().unwrap_or(usize::MAX));
                probe.on_sent(taken);
            }
            Step::Receive => match (pieces.next(), script.ending) {
                (Some(piece), _) => {
                    assert!(received < ANSWER_MAX, "the bound decides");
                    received += piece.len();
                    probe.on_received(piece);
                }
                (None, Ending::Eof) => probe.on_eof(),
                (None, Ending::Reset) => probe.on_failed(ErrorKind::ConnectionReset),
                (None, Ending::Silence) => probe.on_timeout(Duration::from_secs(1)),
            },
            Step::Finished(result) => return verdict(result),
        }
    }
    panic!("no result after {REPORTS_MAX} reports");
}

fn verdict(result: std::result::Result<(), &Cause>) -> Verdict {
    result.map_err(|cause| {
        let sentence = cause.to_string();
        expect_one_line(&sentence);
        assert!(sentence.is_ascii() && sentence.len() <= SENTENCE_MAX, "{sentence}");
        let got = if let Cause::Status { got, .. } = cause { Some(*got) } else { None };
        (std::mem::discriminant(cause), got)
    })
}

fn repeating(lengths: &[usize]) -> impl Iterator<Item = usize> {
    lengths.iter().copied().chain(lengths.last().copied().into_iter().cycle())
}

/// The answer in pieces of these lengths; what is left after [`PIECES_MAX`] of them is the last.
pub(super) fn cut<'a>(mut answer: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for length in repeating(cuts).take(PIECES_MAX) {
        let (piece, rest) = answer.split_at(length.min(answer.len()));
        pieces.push(piece);
        answer = rest;
    }
    pieces.push(answer);
    pieces
}

/// Compares with what the answer says to somebody who has it all.
fn expect_right(script: &Script, verdict: &Verdict) {
    let seen = &script.answer[..script.answer.len().min(ANSWER_MAX)];
    match &script.check {
        Check::SendExpect { expect: Expect::Prefix(prefix), .. } => {
            assert_eq!(verdict.is_ok(), seen.starts_with(prefix));
        }
        Check::SendExpect { expect: Expect::Contains(needle), .. } => {
            assert_eq!(verdict.is_ok(), seen.windows(needle.len()).any(|window| window == needle));
        }
        Check::Http { status, .. } => {
            let status = if verdict.is_ok() { Some(*status) } else { verdict.err().and_then(|(_, got)| got) };
            let is_in = |status: u16| {
                let word = format!(" {status:03}");
                seen.windows(word.len()).any(|window| window == word.as_bytes())
            };
            assert!(status.is_none_or(is_in), "no status {status:?} in the answer");
        }
        Check::Off | Check::Tcp | Check::Command(_) => unreachable!("they wait for no answer"),
        Check::Script(_)
        | Check::Redis
        | Check::Postgres { .. }
        | Check::Mysql { .. }
        | Check::Smtp { .. }
        | Check::Grpc { .. }
        | Check::Mqtt { .. }
        | Check::Tls { .. } => unreachable!("`exchange` has them"),
    }
}
