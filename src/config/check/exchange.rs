//! What a check sends and expects: its type, and the keys that belong to each.

use std::collections::BTreeMap;

use toml::Spanned;

use super::reader::{Reader, quote, str_of};
use super::tls::{self, Trust};
use crate::config::model::{Check, Expect, ScriptStep, Secret};
use crate::config::parse::raw::{Key, RawHealth, RawStep, Sections, Table};
use crate::config::parse::report::Variable;
use crate::config::ranges::{COMMAND_WORDS_MAX, IDENTIFIER_LEN_MAX, PAYLOAD_LEN_MAX, STEPS_MAX};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Off,
    Tcp,
    SendExpect,
    Http,
    Redis,
    Postgres,
    Mysql,
    Smtp,
    Grpc,
    Mqtt,
    Tls,
    Https,
    Command,
}

const KINDS: [(&str, Kind); 13] = [
    ("tcp", Kind::Tcp),
    ("send_expect", Kind::SendExpect),
    ("http", Kind::Http),
    ("redis", Kind::Redis),
    ("postgres", Kind::Postgres),
    ("mysql", Kind::Mysql),
    ("smtp", Kind::Smtp),
    ("grpc", Kind::Grpc),
    ("mqtt", Kind::Mqtt),
    ("tls", Kind::Tls),
    ("https", Kind::Https),
    ("command", Kind::Command),
    ("off", Kind::Off),
];

impl Kind {
    fn as_str(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

/// Returns the kind of a check. Of its keys in whose values the file names a variable, also what the file has, and the
/// content of those variables: it may be secret, and is not shown.
pub(super) fn check(
    read: &mut Reader,
    raw: &RawHealth,
    trust: &mut Trust,
) -> (Check, BTreeMap<&'static str, String>, Vec<Secret>) {
    let kind = match raw.kind {
        Some(_) => read.choice("type", &raw.kind, &KINDS),
        None => Some(Kind::Tcp),
    };
    // With a wrong type it is unknown which keys belong to it. A check that is off may keep its keys.
    if let Some(kind) = kind.filter(|kind| *kind != Kind::Off) {
        refuse_foreign_keys(read, raw, kind);
    }
    let send = payload(read, "send", &raw.send, 0).unwrap_or_default();
    let expect = payload(read, "expect", &raw.expect, 1);
    let contains = payload(read, "contains", &raw.contains, 1);
    let path = visible(read, "path", &raw.path, PAYLOAD_LEN_MAX).unwrap_or("/health").to_string();
    if !path.starts_with('/') {
        let got = read.got(&raw.path);
        read.wrong("path", &raw.path, format_args!("must start with /, got {got}"));
    }
    let host_len_max = if kind == Some(Kind::Grpc) { IDENTIFIER_LEN_MAX } else { PAYLOAD_LEN_MAX };
    let host = visible(read, "host", &raw.host, host_len_max).map(str::to_string);
    let status = read.whole("status", &raw.status, 100..=599).unwrap_or(200);
    let (steps, written_steps) = steps(read, &raw.steps);
    let user = identifier(read, "user", &raw.user);
    let domain = identifier(read, "domain", &raw.domain);
    let service = identifier(read, "service", &raw.service);
    let client_id = identifier(read, "client_id", &raw.client_id);
    let command = command(read, raw, kind);
    let mut written = written(read, raw);
    written.extend(written_steps.map(|steps| ("steps", steps)));
    let check = match kind {
        Some(Kind::Off) => Check::Off,
        Some(Kind::Tcp) | None if raw.steps.is_empty() => Check::Tcp,
        Some(Kind::Tcp) | None => Check::Script(steps),
        Some(Kind::Tls) => Check::Tcp,
        Some(Kind::Http | Kind::Https) => Check::Http { path, host, status },
        Some(Kind::SendExpect) => {
            if raw.expect.is_some() && raw.contains.is_some() {
                read.wrong("contains", &raw.contains, "expect is there too: keep one of them");
            }
            if raw.expect.is_none() && raw.contains.is_none() {
                read.wrong("expect", &raw.kind, "missing: write expect or contains = \"TEXT\"");
            }
            let expect = expect.map(Expect::Prefix).or(contains.map(Expect::Contains));
            Check::SendExpect { send, expect: expect.unwrap_or(Expect::Prefix(Vec::new())) }
        }
        Some(Kind::Redis) => Check::Redis,
        Some(Kind::Postgres) => Check::Postgres { user: user.unwrap_or_else(|| "postgres".to_owned()) },
        Some(Kind::Mysql) => Check::Mysql { user },
        Some(Kind::Smtp) => Check::Smtp { domain: domain.unwrap_or_else(|| "localhost".to_owned()) },
        Some(Kind::Grpc) => Check::Grpc { service: service.unwrap_or_default(), host },
        Some(Kind::Mqtt) => Check::Mqtt { client_id: client_id.unwrap_or_default() },
        Some(Kind::Command) => Check::Command(command.unwrap_or_default()),
    };
    let is_needed = matches!(kind, Some(Kind::Tls | Kind::Https));
    let tls = match check {
        Check::Off => None,
        Check::Command(_) => {
            if raw.tls.is_some() {
                read.wrong("tls", &raw.command, "a program has connections of its own: leave this out");
            }
            None
        }
        Check::Http { .. } => tls::check(read, raw.tls.as_ref(), is_needed, &["http/1.1"], trust),
        // Servers of gRPC demand it.
        Check::Grpc { .. } => tls::check(read, raw.tls.as_ref(), is_needed, &["h2"], trust),
        Check::Tcp
        | Check::SendExpect { .. }
        | Check::Script(_)
        | Check::Redis
        | Check::Postgres { .. }
        | Check::Mysql { .. }
        | Check::Smtp { .. }
        | Check::Mqtt { .. }
        | Check::Tls { .. } => tls::check(read, raw.tls.as_ref(), is_needed, &[], trust),
    };
    match tls {
        Some(tls) => {
            (Check::Tls { tls: Box::new(tls), inside: Box::new(check) }, written, secrets(read, raw))
        }
        None => (check, written, secrets(read, raw)),
    }
}

/// Returns what the file has for what a check sends and looks for, where that names a variable.
fn written(read: &Reader, raw: &RawHealth) -> BTreeMap<&'static str, String> {
    let keys = text_keys(raw);
    keys.into_iter().filter_map(|(name, key)| Some((name, read.written(key)?.to_owned()))).collect()
}

/// Returns the content of the variables in what a check sends and looks for, the longest first: one may contain
/// another.
fn secrets(read: &Reader, raw: &RawHealth) -> Vec<Secret> {
    let steps = raw.steps.iter().map(Spanned::get_ref).flat_map(|step| [&step.send, &step.expect]);
    let keys = text_keys(raw).into_iter().map(|(_, key)| key).chain(steps);
    let mut secrets: Vec<Secret> = keys.flat_map(|key| read.secrets(key)).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.value.len()));
    secrets.dedup();
    secrets
}

fn text_keys(raw: &RawHealth) -> [(&'static str, &Key); 11] {
    let [server_name, ca_file] = tls::texts(raw.tls.as_ref());
    [
        server_name,
        ca_file,
        ("send", &raw.send),
        ("expect", &raw.expect),
        ("contains", &raw.contains),
        ("path", &raw.path),
        ("host", &raw.host),
        ("user", &raw.user),
        ("domain", &raw.domain),
        ("service", &raw.service),
        ("client_id", &raw.client_id),
    ]
}

/// Reports keys of another type.
fn refuse_foreign_keys(read: &mut Reader, raw: &RawHealth, kind: Kind) {
    let keys: [(&str, &Key, &[Kind]); 11] = [
        ("send", &raw.send, &[Kind::SendExpect]),
        ("expect", &raw.expect, &[Kind::SendExpect]),
        ("contains", &raw.contains, &[Kind::SendExpect]),
        ("path", &raw.path, &[Kind::Http, Kind::Https]),
        ("host", &raw.host, &[Kind::Http, Kind::Https, Kind::Grpc]),
        ("status", &raw.status, &[Kind::Http, Kind::Https]),
        ("user", &raw.user, &[Kind::Postgres, Kind::Mysql]),
        ("domain", &raw.domain, &[Kind::Smtp]),
        ("service", &raw.service, &[Kind::Grpc]),
        ("client_id", &raw.client_id, &[Kind::Mqtt]),
        ("command", &raw.command, &[Kind::Command]),
    ];
    let foreign = |owners: &[Kind]| {
        let owners: Vec<String> = owners.iter().map(|owner| quote(owner.as_str())).collect();
        format!("belongs to type = {}, but type is {:?}", owners.join(" or "), kind.as_str())
    };
    for (name, key, owners) in keys {
        if key.is_some() && !owners.contains(&kind) {
            read.wrong(name, key, foreign(owners));
        }
    }
    if !raw.steps.is_empty() && kind != Kind::Tcp {
        read.wrong("steps", &raw.kind, foreign(&[Kind::Tcp]));
    }
}

/// Returns the steps of a script; the text of them, if the file names a variable in one.
fn steps(read: &mut Reader, raw: &Sections<RawStep>) -> (Vec<ScriptStep>, Option<String>) {
    if raw.len() > STEPS_MAX {
        let got = raw.len();
        read.wrong("steps", &None, format_args!("must be at most {STEPS_MAX}, got {got}"));
    }
    if !raw.is_empty() && raw.iter().all(|step| step.get_ref().expect.is_none()) {
        read.wrong("steps", &None, "none of them expects an answer");
    }
    let has_variable = |step: &Spanned<Table<RawStep>>| {
        read.written(&step.get_ref().send).or(read.written(&step.get_ref().expect)).is_some()
    };
    let written = raw.iter().any(has_variable).then(|| {
        let shown: Vec<String> = raw.iter().map(|step| shown(read, step.get_ref())).collect();
        format!("[{}]", shown.join(", "))
    });
    let steps = raw.iter().zip(1..).map(|(step, number)| step_of(read, step.get_ref(), number)).collect();
    (steps, written)
}

fn shown(read: &Reader, step: &RawStep) -> String {
    let keys = [("send", &step.send), ("expect", &step.expect)];
    let keys = keys.into_iter().filter_map(|(name, key)| {
        let text = read.written(key).or(str_of(key))?;
        // TOML reads what JSON writes.
        Some(format!("{name} = {}", serde_json::Value::from(text)))
    });
    format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
}

fn step_of(read: &mut Reader, step: &RawStep, number: usize) -> ScriptStep {
    if step.send.is_none() && step.expect.is_none() {
        read.wrong(&format!("steps: step {number}"), &None, "has neither send nor expect");
    }
    let mut bytes = |name: &str, key: &Key, min: usize| {
        let name = format!("steps: step {number}: {name}");
        let text = read.text(&name, key)?;
        let bytes = match unescape(text, read.variables(key)) {
            Ok(bytes) => bytes,
            Err(escape) => {
                let known = "\\r, \\n, \\t, \\0, \\\\ and \\xHH";
                read.wrong(&name, key, format_args!("unknown escape {}, known are {known}", quote(&escape)));
                return None;
            }
        };
        if !(min..=PAYLOAD_LEN_MAX).contains(&bytes.len()) {
            let got = bytes.len();
            read.wrong(&name, key, format_args!("must be {min}..={PAYLOAD_LEN_MAX} bytes, got {got}"));
            return None;
        }
        Some(bytes)
    };
    ScriptStep {
        send: bytes("send", &step.send, 0).unwrap_or_default(),
        expect: bytes("expect", &step.expect, 1).unwrap_or_default(),
    }
}

/// Returns the bytes that a text with escapes stands for, or the first escape that is none. The content of variables
/// stands for itself: a password may have a backslash.
fn unescape(text: &str, variables: &[Variable]) -> Result<Vec<u8>, String> {
    let (mut bytes, mut read) = (Vec::with_capacity(text.len()), 0);
    for Variable { place, .. } in variables {
        unescape_written(&text[read..place.start], &mut bytes)?;
        bytes.extend_from_slice(text[place.clone()].as_bytes());
        read = place.end;
    }
    unescape_written(&text[read..], &mut bytes)?;
    Ok(bytes)
}

fn unescape_written(mut rest: &str, bytes: &mut Vec<u8>) -> Result<(), String> {
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let hex = || u8::from_str_radix(escape.get(1..3)?, 16).ok();
        let (byte, len) = match escape.as_bytes().first() {
            Some(b'r') => (Some(b'\r'), 1),
            Some(b'n') => (Some(b'\n'), 1),
            Some(b't') => (Some(b'\t'), 1),
            Some(b'0') => (Some(0), 1),
            Some(b'\\') => (Some(b'\\'), 1),
            Some(b'x') if escape.get(1..3).is_some_and(is_hex) => (hex(), 3),
            Some(_) | None => (None, 0),
        };
        let Some(byte) = byte else {
            return Err(format!("\\{}", escape.chars().take(3).collect::<String>()));
        };
        bytes.push(byte);
        rest = &escape[len..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(())
}

/// Without a sign, which a number could have.
fn is_hex(digits: &str) -> bool {
    digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}
fn payload(read: &mut Reader, name: &str, key: &Key, min: usize) -> Option<Vec<u8>> {
    let bytes = read.text(name, key)?.as_bytes();
    if !(min..=PAYLOAD_LEN_MAX).contains(&bytes.len()) {
        let got = bytes.len();
        read.wrong(name, key, format_args!("must be {min}..={PAYLOAD_LEN_MAX} bytes, got {got}"));
        return None;
    }
    Some(bytes.to_vec())
}

/// Returns the path of a program and its arguments.
fn command(read: &mut Reader, raw: &RawHealth, kind: Option<Kind>) -> Option<Vec<String>> {
    let key = &raw.command;
    let Some(value) = key else {
        if kind == Some(Kind::Command) {
            read.wrong("command", &raw.kind, "missing: write command = [\"/path/of/program\", \"argument\"]");
        }
        return None;
    };
    let texts: Option<Vec<String>> = value
        .get_ref()
        .as_array()
        .and_then(|list| list.iter().map(|element| element.as_str().map(str::to_owned)).collect());
    let Some(texts) = texts else {
        let got = read.got(key);
        read.wrong("command", key, format_args!("must be a list of texts, got {got}"));
        return None;
    };
    if read.has_variable_within(key) {
        // proc(5), cmdline.
        let why = "any user of this machine may read the arguments of a program";
        read.wrong("command", key, format_args!("must have no ${{variable}}: {why}"));
        return None;
    }
    let is_path = texts.first().is_some_and(|path| path.starts_with('/'));
    let is_bounded = texts.len() <= COMMAND_WORDS_MAX
        && texts.iter().all(|text| text.len() <= PAYLOAD_LEN_MAX && !text.contains('\0'));
    if !is_path {
        read.wrong("command", key, "must begin with the path of the program, from / on");
    } else if !is_bounded {
        let most = format!("must be at most {COMMAND_WORDS_MAX} texts of at most {PAYLOAD_LEN_MAX} bytes");
        read.wrong("command", key, format_args!("{most}, without a null byte"));
    }
    Some(texts)
}

fn identifier(read: &mut Reader, name: &str, key: &Key) -> Option<String> {
    visible(read, name, key, IDENTIFIER_LEN_MAX).map(str::to_owned)
}

/// Returns text that fits into a request line or a header.
pub(super) fn visible<'k>(read: &mut Reader, name: &str, key: &'k Key, len_max: usize) -> Option<&'k str> {
    let text = read.text(name, key)?;
    let is_visible = (1..=len_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_visible {
        let expected = format!("must be 1..={len_max} visible ASCII characters");
        let got = read.got(key);
        read.wrong(name, key, format_args!("{expected}, got {got}"));
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::{Variable, unescape};

    #[test]
    fn escapes_stand_for_any_byte() {
        let cases: [(&str, &[u8]); 6] = [
            ("", b""),
            ("PING\r\n", b"PING\r\n"),
            (r"PING\r\n", b"PING\r\n"),
            (r"\x00\xfF\t\0\\x00", b"\x00\xFF\t\0\\x00"),
            (r"é\x20", "é ".as_bytes()),
            (r"\\", b"\\"),
        ];
        for (text, bytes) in cases {
            assert_eq!(unescape(text, &[]).as_deref(), Ok(bytes), "{text:?}");
        }
        for (text, escape) in
            [(r"a\q", r"\q"), (r"\x1", r"\x1"), (r"\x+1", r"\x+1"), ("\\", "\\"), (r"\xé", r"\xé")]
        {
            assert_eq!(unescape(text, &[]), Err(escape.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn the_content_of_a_variable_stands_for_itself() {
        let variable = |place| Variable { name: "PASSWORD".into(), place };
        let text = r"AUTH a\nb\x\r\n";
        assert_eq!(unescape(text, &[variable(5..11)]).as_deref(), Ok(b"AUTH a\\nb\\x\r\n".as_slice()));
        assert_eq!(unescape(text, &[variable(5..9)]), Err(r"\x\r".to_owned()), "behind the variable");
        assert_eq!(unescape(r"\xff", &[variable(2..4)]), Err(r"\x".to_owned()), "no escape ends in one");
    }
}
