//! The health check of a backend section: `option …`, `tcp-check` and `http-check` lines.

use super::file::Health;
use super::lines::{Line, Note};

/// The check that the lines of a section describe so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Check {
    kind: Kind,
    sent: Vec<String>,
    expected: Vec<String>,
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
            [
                "redis-check" | "mysql-check" | "pgsql-check" | "smtpchk" | "ldap-check" | "ssl-hello-chk"
                | "spop-check" | "external-check",
                ..,
            ] => {
                self.kind = Kind::Connect;
                notes.push(line.note("the check only connects"));
            }
            _ => return false,
        }
        true
    }
    pub(super) fn tcp_check(&mut self, line: &Line, notes: &mut Vec<Note>) {
        match line.words().as_slice() {
            [_, "connect"] | [_, "comment", ..] => {}
            [_, "send", text] | [_, "send", text, "comment", _] => self.sent.push((*text).to_owned()),
            [_, "expect", "string", text] | [_, "expect", "string", text, "comment", _] => {
                self.expected.push((*text).to_owned());
            }
            _ => notes.push(line.note("only connect, send TEXT and expect string TEXT are translated")),
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
        match (self.kind, self.sent.as_slice(), self.expected.as_slice()) {
            (Kind::Connect, ..) | (Kind::Tcp, [], []) => (tcp, None),
            (Kind::Tcp, sent @ ([] | [_]), [expected]) => {
                let (send, contains) = (sent.first().cloned(), Some(expected.clone()));
                (Health { kind: "send_expect", send, contains, ..Health::default() }, None)
            }
            (Kind::Tcp, ..) => (tcp, Some("the check only connects: one send and one expect are translated")),
            (Kind::Http, ..) => {
                let (path, host, status) = (self.path.clone(), self.host.clone(), self.status);
                (Health { kind: "http", path, host, status, ..Health::default() }, None)
            }
        }
    }
}
