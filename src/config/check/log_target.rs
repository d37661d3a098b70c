//! `[global] log`: where lines go, and the fields of the lines of sessions.

use std::path::PathBuf;

use super::reader::{Reader, quote};
use crate::config::model::{Facility, LogTarget, SESSION_FIELDS, Syslog, SyslogHeader};
use crate::config::parse::raw::RawLog;

/// The socket that syslog(3) writes to.
const SOCKET: &str = "/dev/log";
/// unix(7): a path must leave room for its terminator in 108 bytes.
const SOCKET_LEN_MAX: usize = 107;
/// RFC 5424, 6.2.5.
const APP_NAME_LEN_MAX: usize = 48;

const HEADERS: [(&str, SyslogHeader); 2] = {
    let [a, b] = SyslogHeader::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

pub(super) fn target(read: &mut Reader, log: &RawLog) -> LogTarget {
    let is_syslog =
        read.choice("target", &log.target, &[("stderr", false), ("syslog", true)]).unwrap_or(false);
    let keys = [
        ("socket", &log.socket),
        ("facility", &log.facility),
        ("app_name", &log.app_name),
        ("header", &log.header),
    ];
    if !is_syslog {
        for (name, key) in keys.into_iter().filter(|(_, key)| key.is_some()) {
            read.wrong(name, key, "goes with target = \"syslog\"");
        }
        return LogTarget::StandardError;
    }
    let socket = read.text("socket", &log.socket).unwrap_or(SOCKET);
    if !socket.starts_with('/') || socket.contains('\0') || socket.len() > SOCKET_LEN_MAX {
        let what =
            format_args!("must be an absolute path of at most {SOCKET_LEN_MAX} bytes, got {}", quote(socket));
        read.wrong("socket", &log.socket, what);
    }
    let app_name = read.text("app_name", &log.app_name).unwrap_or("l4lb");
    let is_name = (1..=APP_NAME_LEN_MAX).contains(&app_name.len())
        && app_name.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_name {
        let what = format_args!(
            "must be 1..={APP_NAME_LEN_MAX} printable ASCII characters without a space, got {}",
            quote(app_name)
        );
        read.wrong("app_name", &log.app_name, what);
    }
    let header = read.choice("header", &log.header, &HEADERS).unwrap_or(SyslogHeader::Rfc5424);
    let facility = read.choice("facility", &log.facility, &Facility::named());
    LogTarget::Syslog(Syslog {
        socket: PathBuf::from(socket),
        facility: facility.unwrap_or(Facility::DAEMON),
        app_name: app_name.to_owned(),
        header,
    })
}

/// Returns the fields that lines of sessions have, in their order; `None` without the key.
pub(super) fn fields(read: &mut Reader, log: &RawLog) -> Option<Vec<&'static str>> {
    let fields = read.words("fields", &log.fields, &SESSION_FIELDS)?;
    if fields.is_empty() {
        read.wrong("fields", &log.fields, "an empty list: a line would say nothing; leave fields out");
    }
    let twice = fields.iter().enumerate().find(|(place, field)| fields[..*place].contains(field));
    if let Some((_, field)) = twice {
        read.wrong("fields", &log.fields, format_args!("{} is there twice", quote(field)));
    }
    Some(fields)
}
