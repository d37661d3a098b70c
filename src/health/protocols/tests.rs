//! What each exchange sends, and what it makes of answers, wherever the network cuts them.

use std::iter::from_fn;
use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::config::model::ScriptStep;
use crate::health::answer::ANSWER_MAX;
use crate::health::exchange::Progress;

fn start(check: &Check) -> (Box<dyn Exchange>, Vec<u8>) {
    let target = "10.0.0.1:80".parse::<SocketAddr>().unwrap().into();
    let (mut exchange, mut out) = (exchange_of(check, &target, None).unwrap(), Vec::new());
    assert_eq!(exchange.start(&mut out), Progress::More);
    (exchange, out)
}

/// The result of an answer in these pieces, in words, and all that was sent.
fn outcome<'a>(check: &Check, pieces: impl IntoIterator<Item = &'a [u8]>) -> (String, Vec<u8>) {
    let (mut exchange, mut out) = start(check);
    for piece in pieces {
        match exchange.on_bytes(piece, &mut out) {
            Progress::More => {}
            Progress::Passed => return ("ok".into(), out),
            Progress::Failed(cause) => return (cause.to_string(), out),
        }
    }
    (exchange.on_eof().to_string(), out)
}

/// The result apart from the bytes that it quotes: how many have arrived depends on the cuts.
fn apart_from_quote((sentence, out): (String, Vec<u8>)) -> (String, Vec<u8>) {
    let sentence = sentence.split(": got").next().unwrap_or_default().to_owned();
    (sentence, out)
}

/// Panics unless the answer has this result, and the same at every cut and byte by byte.
fn expect(check: &Check, answer: &[u8], sentence: &str) -> Vec<u8> {
    let whole = outcome(check, [answer]);
    assert_eq!(whole.0, sentence, "{}", answer.escape_ascii());
    let short = apart_from_quote(whole.clone());
    for cut in 0..answer.len() {
        let (first, second) = answer.split_at(cut);
        assert_eq!(apart_from_quote(outcome(check, [first, second])), short, "cut at {cut}");
    }
    assert_eq!(apart_from_quote(outcome(check, answer.chunks(1))), short, "byte by byte");
    whole.1
}

fn script(steps: &[(&str, &str)]) -> Check {
    let step = |&(send, expect): &(&str, &str)| ScriptStep { send: send.into(), expect: expect.into() };
    Check::Script(steps.iter().map(step).collect())
}

fn postgres() -> Check {
    Check::Postgres { user: "l4lb".into() }
}

fn mysql(user: Option<&str>) -> Check {
    Check::Mysql { user: user.map(str::to_owned) }
}

fn smtp() -> Check {
    Check::Smtp { domain: "lb.example".into() }
}

fn grpc() -> Check {
    Check::Grpc { service: "shop".into(), host: None }
}

fn mqtt(client_id: &str) -> Check {
    Check::Mqtt { client_id: client_id.into() }
}

#[test]
fn a_script_sends_its_steps_one_after_the_other() {
    let login = script(&[("", "220 "), ("EHLO x\r\n", "250 "), ("QUIT\r\n", "")]);
    assert_eq!(expect(&login, b"220 hi\r\n250-a\r\n250 b\r\n", "ok"), b"EHLO x\r\nQUIT\r\n");
    let sent = expect(
        &login,
        b"220 hi\r\n550 no\r\n",
        r#"step 2 of 3: answer does not contain "250 ": got "hi\r\n550 no\r\n""#,
    );
    assert_eq!(sent, b"EHLO x\r\n");
    expect(&login, b"", "step 1 of 3: closed before the answer was complete: got nothing");
    let two = script(&[("a", ""), ("b", "c")]);
    assert_eq!(start(&two).1, b"ab", "a step that expects nothing is over at once");
}

#[test]
fn a_step_does_not_find_what_the_step_before_has_found() {
    let twice = script(&[("", "ok"), ("", "ok")]);
    expect(&twice, b"ok", "step 2 of 2: closed before the answer was complete: got nothing");
    expect(&twice, b"okok", "ok");
    expect(&script(&[("", "aab")]), b"aaab", "ok");
}

#[test]
fn a_step_reads_no_more_than_the_bound() {
    let wanted = script(&[("", "ok")]);
    let flood = |len: usize, tail: &str| [&vec![b'.'; len], tail.as_bytes()].concat();
    assert_eq!(outcome(&wanted, [flood(ANSWER_MAX - 2, "ok").as_slice()]).0, "ok");
    let (sentence, _) = outcome(&wanted, [flood(ANSWER_MAX - 1, "ok").as_slice()]);
    assert!(sentence.starts_with(r#"step 1 of 1: answer does not contain "ok": got "..."#), "{sentence}");
}

#[test]
fn redis_must_answer_a_ping() {
    assert_eq!(expect(&Check::Redis, b"+PONG\r\n", "ok"), b"*1\r\n$4\r\nPING\r\n");
    for (answer, sentence) in [
        ("-LOADING Redis is loading\r\n", r#"the backend reports "LOADING Redis is loading""#),
        ("-NOAUTH Authentication required.\r\n", r#"the backend reports "NOAUTH Authentication required.""#),
        ("+PON", r#"closed before the answer was complete: got "+PON""#),
        ("HTTP/1.1 400", r#"answer is not Redis: got "HTTP/1.1 400""#),
    ] {
        expect(&Check::Redis, answer.as_bytes(), sentence);
    }
}

fn authentication(kind: u32) -> Vec<u8> {
    [b"R\0\0\0\x08".as_slice(), &kind.to_be_bytes()].concat()
}

fn postgres_error(code: &str, message: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
    let len = u32::try_from(fields.len() + 4).unwrap();
    [b"E".as_slice(), &len.to_be_bytes(), fields.as_bytes()].concat()
}

const POSTGRES_READY: &[u8] = b"K\0\0\0\x0c12345678N\0\0\0\x04Z\0\0\0\x05I";

/// What a server sends that wants no password.
fn let_in(rest: &[u8]) -> Vec<u8> {
    [&authentication(0), b"S\0\0\0\x15TimeZone\0Etc/UTC\0".as_slice(), rest].concat()
}

#[test]
fn postgres_is_alive_when_it_asks_for_authentication() {
    let startup = b"\0\0\0\x29\0\x03\0\0user\0l4lb\0application_name\0l4lb\0\0";
    assert_eq!(startup.len(), 0x29, "the length is right");
    for kind in [3, 5, 10] {
        assert_eq!(expect(&postgres(), &authentication(kind), "ok"), startup);
    }
    let sent = expect(&postgres(), &let_in(POSTGRES_READY), "ok");
    assert_eq!(sent, [startup.as_slice(), b"X\0\0\0\x04"].concat(), "a session that has begun is ended");
    expect(&postgres(), &postgres_error("28000", "role \"l4lb\" does not exist"), "ok");
    for (answer, sentence) in [
        (
            postgres_error("57P03", "the database system is starting up"),
            r#"the backend reports "57P03 the database system is starting up""#,
        ),
        (
            postgres_error("53300", "sorry, too many clients already"),
            r#"the backend reports "53300 sorry, too many clients already""#,
        ),
        (b"HTTP/1.1 400".to_vec(), r#"answer is not PostgreSQL: got "HTTP/1.1 400""#),
        (
            b"R\xFF\0\0\x08\0\0\0\0".to_vec(),
            r#"answer is not PostgreSQL: got "R\xff\x00\x00\x08\x00\x00\x00\x00""#,
        ),
        (
            b"E\0\0\0\x20SFATAL".to_vec(),
            r#"closed before the answer was complete: got "E\x00\x00\x00 SFATAL""#,
        ),
    ] {
        expect(&postgres(), &answer, sentence);
    }
}

/// A server in trust mode counts its connections behind the message that lets the user in.
#[test]
fn postgres_that_lets_the_user_in_must_have_a_connection_left() {
    let full = let_in(&postgres_error("53300", "sorry, too many clients already"));
    let sent = expect(&postgres(), &full, r#"the backend reports "53300 sorry, too many clients already""#);
    assert!(!sent.ends_with(b"X\0\0\0\x04"), "there is no session to end");
    for (code, message) in [
        ("28000", "no pg_hba.conf entry"),
        ("3D000", "database \"l4lb\" does not exist"),
        ("42501", "permission denied for database \"l4lb\""),
    ] {
        expect(&postgres(), &let_in(&postgres_error(code, message)), "ok");
    }
    let undecided = r#"closed before the answer was complete: got nothing"#;
    expect(&postgres(), &authentication(0), undecided);
    expect(&postgres(), &let_in(b"K\0\0\0\x0c12345678"), undecided);
    let again = [authentication(0), authentication(0)].concat();
    let alien = r#"answer is not PostgreSQL: got "R\x00\x00\x00\x08\x00\x00\x00\x00""#;
    expect(&postgres(), &again, alien);
    expect(&postgres(), &let_in(b"S\0\0\0\x03"), r#"answer is not PostgreSQL: got "S\x00\x00\x00\x03""#);
}

fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    [&[u8::try_from(body.len()).unwrap(), 0, 0, sequence], body].concat()
}

fn greeting() -> Vec<u8> {
    let body = b"\x0A11.8.2-MariaDB\0\x01\0\0\0scramble\0\xFE\xF7\x21\x02\0\xFF\x81\x15\0\0\0\0\0\0\0\0\0\0scramble-two\0\
        mysql_native_password\0";
    packet(0, body)
}

fn mysql_error(sequence: u8, code: u16, text: &str) -> Vec<u8> {
    packet(sequence, &[&[0xFF], code.to_le_bytes().as_slice(), text.as_bytes()].concat())
}

fn login(user: &str) -> Vec<u8> {
    let body =
        [b"\0\x82\x08\0\0\0\0\x01\x21".as_slice(), &[0; 23], user.as_bytes(), b"\0\0mysql_native_password\0"];
    packet(1, &body.concat())
}

#[test]
fn mysql_is_logged_in_to_and_left() {
    let ok = packet(2, b"\0\0\0\x02\0\0\0");
    let (own, nobody) = (mysql(Some("check")), mysql(None));
    let quit: &[u8] = b"\x01\0\0\0\x01";
    let sent = expect(&own, &[greeting(), ok.clone()].concat(), "ok");
    assert_eq!(sent, [login("check").as_slice(), quit].concat());
    // The server wants another plugin: without an answer it would count a broken handshake.
    let replies =
        [("mysql_native_password", &b""[..]), ("caching_sha2_password", b"\0"), ("client_ed25519", &[0; 64])];
    for (plugin, reply) in replies {
        let switch = packet(2, &[b"\xFE", plugin.as_bytes(), b"\0scramble\0"].concat());
        let sent = expect(&own, &[greeting(), switch, packet(4, b"\0\0\0\x02\0\0\0")].concat(), "ok");
        assert_eq!(sent, [login("check"), packet(3, reply), quit.to_vec()].concat());
    }
    let denied = mysql_error(2, 1045, "#28000Access denied");
    let sentence = r#"login: the backend reports "1045 Access denied""#;
    expect(&own, &[greeting(), denied.clone()].concat(), sentence);
    assert_eq!(expect(&nobody, &[greeting(), denied].concat(), "ok"), login("l4lb"));
    for (answer, sentence) in [
        (
            mysql_error(0, 1040, "Too many connections"),
            r#"greeting: the backend reports "1040 Too many connections""#,
        ),
        (mysql_error(0, 1129, "Host is blocked"), r#"greeting: the backend reports "1129 Host is blocked""#),
        (packet(0, b"\x0A5.5"), r#"greeting: answer is not MySQL: got "\x04\x00\x00\x00\n5.5""#),
        (packet(0, b"\x09"), r#"greeting: answer is not MySQL: got "\x01\x00\x00\x00\t""#),
        (greeting(), "login: closed before the answer was complete: got nothing"),
        (b"SSH-2.0-x".to_vec(), r#"greeting: answer is not MySQL: got "SSH-2.0-x""#),
    ] {
        expect(&nobody, &answer, sentence);
    }
}

#[test]
fn smtp_is_greeted_and_left() {
    let sent = expect(&smtp(), b"220-mail\r\n220 ready\r\n250-mail\r\n250 SIZE\r\n", "ok");
    assert_eq!(sent, b"EHLO lb.example\r\nQUIT\r\n");
    let sent = expect(&smtp(), b"220 ready\r\n502 what?\r\n250 hi\r\n", "ok");
    assert_eq!(sent, b"EHLO lb.example\r\nHELO lb.example\r\nQUIT\r\n");
    for (answer, sentence) in [
        ("554 no\r\n", r#"greeting: the backend reports "554 no""#),
        ("220 x\r\n421 busy\r\n", r#"EHLO: the backend reports "421 busy""#),
        ("220 x\r\n500 \r\n550 no\r\n", r#"HELO: the backend reports "550 no""#),
        ("SSH-2.0-x\r\n", r#"greeting: answer is not SMTP: got "SSH-2.0-x\r\n""#),
        ("22\r\n", r#"greeting: answer is not SMTP: got "22\r\n""#),
        ("220", r#"greeting: closed before the answer was complete: got "220""#),
    ] {
        expect(&smtp(), answer.as_bytes(), sentence);
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream], payload].concat()
}

/// SETTINGS, HEADERS, and then this.
fn answered(frames: &[Vec<u8>]) -> Vec<u8> {
    [frame(4, 0, 0, b"\0\x03\0\0\0\x64"), frame(1, 4, 1, b"\x88"), frames.concat()].concat()
}

#[test]
fn grpc_must_say_that_it_serves() {
    let request = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, b""),
        frame(
            1,
            4,
            1,
            b"\x83\x86\x04\x1C/grpc.health.v1.Health/Check\x01\x0B10.0.0.1:80\
            \x0F\x10\x10application/grpc\0\x02te\x08trailers",
        ),
        frame(0, 1, 1, b"\0\0\0\0\x06\x0A\x04shop"),
    ];
    let (settings_ack, goaway) = (frame(4, 1, 0, b""), frame(7, 0, 0, &[0; 8]));
    let serving: &[u8] = b"\0\0\0\0\x02\x08\x01";
    let sent = expect(&grpc(), &answered(&[frame(0, 0, 1, serving)]), "ok");
    assert_eq!(sent, [request.concat(), settings_ack, goaway].concat());
    for (frames, sentence) in [
        (vec![frame(0, 8, 1, b"\x03\0\0\0\0\x02\x08\x01pad")], "ok"),
        (vec![frame(0, 0, 1, &serving[..3]), frame(8, 0, 0, &[0; 4]), frame(0, 0, 1, &serving[3..])], "ok"),
        (vec![frame(0, 0, 1, b"\0\0\0\0\x0D\x12\x01x\x1D1234\x20\x80\x01\x08\x01")], "ok"),
        (vec![frame(0, 0, 1, b"\0\0\0\0\x02\x08\x02")], r#"the backend reports "NOT_SERVING""#),
        (vec![frame(0, 0, 1, b"\0\0\0\0\0")], r#"the backend reports "UNKNOWN""#),
        (
            vec![frame(0, 0, 1, b"\x01\0\0\0\x02\x08\x01")],
            r#"answer is not gRPC: got "\x01\x00\x00\x00\x02\x08\x01""#,
        ),
        (vec![frame(0, 0, 1, b"\0\xFF\0\0\x02")], r#"answer is not gRPC: got "\x00\xff\x00\x00\x02""#),
        (vec![frame(0, 0, 1, b"\0\0\0\0\x01\x08")], r#"answer is not gRPC: got "\x00\x00\x00\x00\x01\x08""#),
        (
            vec![frame(1, 5, 1, b"trailers")],
            "the call ended without a health status: is the service registered?",
        ),
        (vec![frame(3, 0, 1, b"\0\0\0\x07")], r#"the backend reports "RST_STREAM 7""#),
        (
            vec![frame(7, 0, 0, b"\0\0\0\0\0\0\0\x0Bcalm down")],
            r#"the backend reports "GOAWAY 11 calm down""#,
        ),
        (vec![], "closed before the answer was complete: got nothing"),
    ] {
        expect(&grpc(), &answered(&frames), sentence);
    }
    let ping = answered(&[frame(6, 0, 0, b"12345678"), frame(0, 0, 1, serving)]);
    assert!(expect(&grpc(), &ping, "ok").windows(17).any(|sent| sent == frame(6, 1, 0, b"12345678")));
    expect(&grpc(), b"HTTP/1.1 400 Bad", r#"answer is not HTTP/2: got "HTTP/1.1 400 Bad""#);
    expect(
        &grpc(),
        &frame(0, 0, 1, serving),
        r#"answer is not HTTP/2: got "\x00\x00\x07\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x02\x08\x01""#,
    );
}

#[test]
fn mqtt_must_accept_the_connection() {
    let connect = b"\x10\x0F\0\x04MQTT\x04\x02\0\0\0\x03l4b";
    let sent = expect(&mqtt("l4b"), b"\x20\x02\0\0", "ok");
    assert_eq!(sent, [connect.as_slice(), b"\xE0\0"].concat());
    assert_eq!(start(&mqtt("")).1, b"\x10\x0C\0\x04MQTT\x04\x02\0\0\0\0");
    for (answer, sentence) in [
        (b"\x20\x02\0\x05".as_slice(), r#"the backend reports "code 5, not authorized""#),
        (b"\x20\x02\0\x09", r#"the backend reports "code 9""#),
        (b"\x20\x03", r#"answer is not MQTT: got " \x03""#),
        (b"\x20\x02\x02\0", r#"answer is not MQTT: got " \x02\x02\x00""#),
        (b"HTTP", r#"answer is not MQTT: got "HTTP""#),
        (b"\x20\x02\0", r#"closed before the answer was complete: got " \x02\x00""#),
    ] {
        expect(&mqtt(""), answer, sentence);
    }
}

#[test]
fn messages_that_decide_nothing_are_counted() {
    let endless = |message: &[u8]| message.repeat(2 * dialogue::MESSAGES_MAX);
    let frames = [frame(4, 0, 0, b""), endless(&frame(6, 0, 0, b"12345678"))].concat();
    expect(&grpc(), &frames, "undecided after 128 messages");
    expect(&smtp(), &endless(b"220-\r\n"), "greeting: undecided after 128 messages");
    let switch = packet(2, b"\xFEx\0");
    expect(&mysql(None), &[greeting(), endless(&switch)].concat(), "login: undecided after 128 messages");
}

#[test]
fn a_message_without_an_end_is_cut() {
    for (check, start) in [(Check::Redis, "-"), (smtp(), "220 ")] {
        let answer = [start.as_bytes(), &[b'x'; ANSWER_MAX]].concat();
        let (sentence, _) = outcome(&check, [answer.as_slice()]);
        assert!(sentence.contains("no end of the message within 8192 bytes: got"), "{sentence}");
        assert_eq!(outcome(&check, answer.chunks(7)).0, sentence);
    }
}

/// Pieces of answers of every protocol.
fn answers() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"+PONG\r\n".to_vec()),
        Just(b"-LOADING\r\n".to_vec()),
        Just(b"220 hi\r\n".to_vec()),
        Just(b"250-x\r\n".to_vec()),
        Just(b"250 x\r\n".to_vec()),
        Just(authentication(0)),
        Just(POSTGRES_READY.to_vec()),
        Just(postgres_error("28P01", "no")),
        Just(greeting()),
        Just(packet(2, b"\xFEcaching_sha2_password\0")),
        Just(packet(2, b"\0\0\0")),
        Just(mysql_error(2, 1045, "#28000no")),
        Just(answered(&[])),
        Just(frame(0, 0, 1, b"\0\0\0\0\x02\x08\x01")),
        Just(frame(0, 8, 1, b"\x09\0\0\0")),
        Just(frame(6, 0, 0, b"12345678")),
        Just(b"\x20\x02\0\0".to_vec()),
        Just(vec![b'x'; ANSWER_MAX / 2]),
        vec(any::<u8>(), 0..6),
    ];
    vec(part, 0..8).prop_map(|parts| parts.concat())
}

fn cut<'a>(mut answer: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().copied().cycle();
    from_fn(move || {
        let (piece, rest) = answer.split_at(lengths.next().unwrap_or(usize::MAX).min(answer.len()));
        answer = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

proptest! {
    #[test]
    fn where_the_network_cuts_an_answer_does_not_matter(answer in answers(), lengths in vec(1usize..40, 1..20)) {
        for check in [
            script(&[("a", "220"), ("b", "250")]),
            Check::Redis, postgres(), mysql(None), mysql(Some("x")), smtp(), grpc(), mqtt("x"),
        ] {
            let whole = apart_from_quote(outcome(&check, [answer.as_slice()]));
            prop_assert_eq!(apart_from_quote(outcome(&check, cut(&answer, &lengths))), whole, "{:?}", check);
        }
    }
}
