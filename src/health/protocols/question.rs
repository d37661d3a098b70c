//! One question and its answer: bytes that the configuration has, or an HTTP request.

use std::net::SocketAddr;

use crate::base::address::Address;
use crate::config::model::Expect;
use crate::health::answer::{Answer, Wanted};
use crate::health::cause::Cause;
use crate::health::exchange::{Exchange, Progress};
use crate::health::expected::Expected;

#[derive(Debug)]
pub(super) struct Question {
    request: Vec<u8>,
    answer: Answer,
}

impl Question {
    /// Returns the question `send`, which may be empty.
    pub(super) fn plain(send: &[u8], expect: &Expect) -> Self {
        let wanted = match expect {
            Expect::Prefix(bytes) => Wanted::Prefix(bytes.clone()),
            Expect::Contains(bytes) => Wanted::Contains(bytes.clone()),
        };
        Self { request: send.to_vec(), answer: Answer::new(wanted) }
    }

    /// Returns a GET, to be answered with `status`.
    pub(super) fn http(path: &str, host: Option<&str>, status: u16, target: &Address) -> Self {
        let request = get(path, host, target).into_bytes();
        Self { request, answer: Answer::new(Wanted::Status(status)) }
    }
}

impl Exchange for Question {
    fn start(&mut self, out: &mut Vec<u8>) -> Progress {
        out.append(&mut self.request);
        Progress::More
    }

    fn on_bytes(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> Progress {
        self.answer.push(bytes).map_or(Progress::More, Progress::from)
    }

    fn on_eof(&self) -> Cause {
        self.answer.end()
    }

    fn expected(&self) -> Option<Expected> {
        Some(self.answer.expected())
    }
}

fn get(path: &str, host: Option<&str>, target: &Address) -> String {
    let address = authority(target);
    let host = host.unwrap_or(&address);
    let agent = concat!("l4lb/", env!("CARGO_PKG_VERSION"));
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n")
}

/// Returns the address as requests name it: a scope such as %eth0 means nothing to the backend.
pub(super) fn authority(target: &Address) -> String {
    let Address::Ip(target) = target;
    SocketAddr::new(target.ip(), target.port()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_names_an_address_without_its_interface() {
        let target = "[fe80::1%3]:80".parse::<SocketAddr>().unwrap().into();
        assert!(get("/", None, &target).contains("Host: [fe80::1]:80\r\n"));
    }
}
