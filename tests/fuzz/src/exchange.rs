//! Checks that speak a protocol: the network cuts their answers anywhere, and the result and what is sent are the same.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use l4lb::config::model::{Check, CheckTls, ScriptStep};
use l4lb::health::{Conversation, Probe, Step};
use l4lb::tls::{Authorities, Client, Verify};

use super::answer::{TARGET, cut, lengths};
use super::config::expect_one_line;

/// All that one check may send, answers to the backend's pings included.
const SENT_MAX: usize = 16 * 1024;
/// A sentence quotes twice 64 bytes, escaped.
const SENTENCE_MAX: usize = 700;

pub fn check(data: &[u8]) {
    let mut choices = Unstructured::new(data);
    // An input that is too short is no script.
    let Ok((check, cuts)) = script(&mut choices) else { return };
    let answer = choices.peek_bytes(choices.len()).unwrap_or_default();
    // A hello has random bytes in it, so only its length is the same each time.
    let is_random = check.tls().is_some();
    let outcome = |cuts: &[usize]| {
        let (sentence, sent) = converse(&check, answer, cuts);
        (sentence, sent.len(), if is_random { Vec::new() } else { sent })
    };
    let whole = outcome(&[usize::MAX]);
    assert_eq!(outcome(&cuts), whole, "the cuts decide");
    assert_eq!(outcome(&[1]), whole, "the cuts decide");
}

fn script(choices: &mut Unstructured) -> Result<(Check, Vec<usize>)> {
    let step = |send: &[u8], expect: &[u8]| ScriptStep { send: send.to_vec(), expect: expect.to_vec() };
    let check = match choices.int_in_range(0..=8)? {
        0 => Check::Script(vec![step(b"", b"220"), step(b"EHLO\r\n", b"250 "), step(b"QUIT\r\n", b"")]),
        1 => Check::Redis,
        2 => Check::Postgres { user: "l4lb".into() },
        3 => Check::Mysql { user: None },
        4 => Check::Mysql { user: Some("l4lb".into()) },
        5 => Check::Smtp { domain: "localhost".into() },
        6 => Check::Grpc { service: "shop".into(), host: None },
        7 => Check::Mqtt { client_id: String::new() },
        _ => {
            let client = Client::new(Authorities::nobody(), Verify::None, &["h2".to_owned()]);
            let tls = CheckTls { server_name: None, ca_file: None, expires_within: Duration::ZERO, client };
            let inside = Check::Http { path: "/".into(), host: None, status: 200 };
            Check::Tls { tls: Box::new(tls), inside: Box::new(inside) }
        }
    };
    Ok((check, lengths(choices)?))
}

/// The result of a check whose answer comes in pieces of these lengths, and all that it sends.
fn converse(check: &Check, answer: &[u8], cuts: &[usize]) -> (String, Vec<u8>) {
    let mut probe = Probe::new(check, &TARGET).expect("a check that is not off");
    let (mut pieces, mut sent) = (cut(answer, cuts).into_iter(), Vec::new());
    loop {
        match probe.next_step() {
            Step::Dial => probe.on_connected(),
            Step::Send(bytes) => {
                sent.extend_from_slice(bytes);
                let len = bytes.len();
                probe.on_sent(len);
            }
            Step::Receive => match pieces.next() {
                Some(piece) => probe.on_received(piece),
                None => probe.on_eof(),
            },
            Step::Finished(Ok(())) => return ("ok".into(), sent),
            Step::Finished(Err(cause)) => return (apart_from_quote(&cause.to_string()), sent),
        }
        assert!(sent.len() <= SENT_MAX, "a check sends too much");
    }
}

/// How many bytes are quoted depends on the cuts.
fn apart_from_quote(sentence: &str) -> String {
    expect_one_line(sentence);
    assert!(sentence.is_ascii() && sentence.len() <= SENTENCE_MAX, "{sentence}");
    sentence.split(": got").next().unwrap_or_default().to_owned()
}
