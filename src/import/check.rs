//! The health check of a backend section: `option …`, `tcp-check` and `http-check` lines.

use super::lines::{Line, Note};
use crate::config::ranges::STEPS_MAX;
use crate::config::written::{Health, Step};

/// The check that the lines of a section describe so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Check {
    kind: Kind,
    /// The `tcp-check` lines, in their order.
    script: Vec<Part>,
    /// One of them is not translated.
    is_partial: bool,
    user: Option<String>,
    domain: Option<String>,
    path: Option<String>,
    host: Option<String>,
    status: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Connect,
    Tcp,
    Http,
    Redis,
    Postgres,
    Mysql,
    Smtp,
}

#[derive(Clone, Debug)]
enum Part {
    Send(String),
    Expect(String),
}

impl Check {
    /// Takes an `option` line with the words behind `option`. Returns whether it is about a check.
    pub(super) fn option(&mut self, line: &Line, words: &[&str], notes: &mut Vec<Note>) -> bool {
        match words {
            ["tcp-check"] => self.kind = Kind::Tcp,
            ["httpchk", rest @ ..] => {
                self.kind = Kind::Http;
                let (method, path) = match rest {
                    [] => ("OPTIONS", "/"),
                    [path] => ("OPTIONS", *path),
                    [method, path, ..] => (*method, *path),
                };
                self.path = Some(path.to_owned());
                if method != "GET" {
                    notes.push(line.note("the check sends GET and expects status 200"));
                }
                if rest.len() > 3 {
                    notes.push(line.note("headers in the version are not sent: use http-check send"));
                }
            }
            ["redis-check"] => self.kind = Kind::Redis,
            ["pgsql-check", rest @ ..] => {
                (self.kind, self.user) = (Kind::Postgres, user_of(rest));
            }
            ["mysql-check", rest @ ..] => {
                (self.kind, self.user) = (Kind::Mysql, user_of(rest));
            }
            ["smtpchk", rest @ ..] => {
                self.kind = Kind::Smtp;
                self.domain = rest.get(1).map(|domain| (*domain).to_owned());
                if rest.first().is_some_and(|hello| *hello != "EHLO") {
                    notes.push(line.note("the check sends EHLO"));
                }
            }
            ["ldap-check" | "ssl-hello-chk" | "spop-check" | "external-check", ..] => {
                self.kind = Kind::Connect;
                notes.push(line.note("the check only connects"));
            }
            _ => return false,
        }
        true
    }
    pub(super) fn tcp_check(&mut self, line: &Line, notes: &mut Vec<Note>) {
        let words = line.words();
        let words = match words.as_slice() {
            [rest @ .., "comment", _] => rest,
            words => words,
        };
        let part = match words {
            [_, "connect"] | [_] => return,
            [_, "send", text] => Some(Part::Send(escaped(text))),
            [_, "expect", "string", text] => Some(Part::Expect(escaped(text))),
            [_, "send-binary", hex] => binary(hex).map(Part::Send),
            [_, "expect", "binary", hex] => binary(hex).map(Part::Expect),
            _ => None,
        };
        match part {
            Some(part) => self.script.push(part),
            None => {
                self.is_partial = true;
                let what = "only connect, send, send-binary, expect string and expect binary are translated";
                notes.push(line.note(what));
            }
        }
    }
    pub(super) fn http_check(&mut self, line: &Line, notes: &mut Vec<Note>) {
        match line.words().as_slice() {
            [_, "expect", "status", status] if status.parse::<u16>().is_ok() => {
                self.status = status.parse().ok();
            }
            [_, "send", rest @ ..] => {
                let mut words = rest.iter().copied();
                while let Some(word) = words.next() {
                    match (word, words.next()) {
                        ("meth", Some("GET")) | ("ver", Some(_)) => {}
                        ("uri", Some(path)) => self.path = Some(path.to_owned()),
                        ("hdr", Some(name)) if name.eq_ignore_ascii_case("host") => {
                            self.host = words.next().map(str::to_owned);
                        }
                        (word, _) => {
                            notes.push(line.note(format!(
                                "{word}: only meth GET, uri, ver and hdr host are translated"
                            )));
                            break;
                        }
                    }
                }
            }
            _ => notes.push(line.note("the check sends one GET and expects one status")),
        }
    }

    /// Returns the type of the check and its keys, and why it is a weaker one than before, if it is.
    pub(super) fn health(&self) -> (Health, Option<&'static str>) {
        let tcp = Health { kind: "tcp", ..Health::default() };
        let of = |kind, user: &Option<String>| Health { kind, user: user.clone(), ..Health::default() };
        match (self.kind, self.script.as_slice()) {
            (Kind::Connect, _) | (Kind::Tcp, []) => (tcp, None),
            (Kind::Tcp, _) if self.is_partial => {
                (tcp, Some("the check only connects: a line of its script is not translated"))
            }
            (Kind::Tcp, [Part::Expect(expected)]) => {
                (Health { kind: "send_expect", contains: Some(expected.clone()), ..Health::default() }, None)
            }
            (Kind::Tcp, [Part::Send(sent), Part::Expect(expected)]) => {
                let (send, contains) = (Some(sent.clone()), Some(expected.clone()));
                (Health { kind: "send_expect", send, contains, ..Health::default() }, None)
            }
            (Kind::Tcp, script) => {
                let steps = steps_of(script);
                if steps.len() > STEPS_MAX {
                    return (tcp, Some("the check only connects: its script has too many steps"));
                }
                (Health { steps, ..tcp }, None)
            }
            (Kind::Redis, _) => (of("redis", &None), None),
            (Kind::Postgres, _) => (of("postgres", &self.user), None),
            (Kind::Mysql, _) => (of("mysql", &self.user), None),
            (Kind::Smtp, _) => {
                let domain = self.domain.clone();
                (Health { kind: "smtp", domain, ..Health::default() }, None)
            }
            (Kind::Http, _) => {
                let (path, host, status) = (self.path.clone(), self.host.clone(), self.status);
                (Health { kind: "http", path, host, status, ..Health::default() }, None)
            }
        }
    }
}

/// Returns the name behind `user`.
fn user_of(words: &[&str]) -> Option<String> {
    match words {
        ["user", name, ..] => Some((*name).to_owned()),
        _ => None,
    }
}

/// Returns the steps of a script: what is expected belongs to what was sent last before.
fn steps_of(script: &[Part]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for part in script {
        match (part, steps.last_mut()) {
            (Part::Expect(text), Some(last)) if last.expect.is_none() => last.expect = Some(text.clone()),
            (Part::Expect(text), _) => steps.push(Step { send: None, expect: Some(text.clone()) }),
            (Part::Send(text), _) => steps.push(Step { send: Some(text.clone()), expect: None }),
        }
    }
    steps
}

/// Returns `text` as a key that has escapes and variables means it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace("${", "$${")
}

/// Returns the bytes of hexadecimal digits as escapes; `None` when they are none.
fn binary(hex: &str) -> Option<String> {
    let digits = hex.as_bytes();
    let is_hex = digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit);
    is_hex.then(|| digits.chunks(2).map(|pair| format!("\\x{}", String::from_utf8_lossy(pair))).collect())
}
