//! Lines as syslog messages: RFC 5424, or the shorter one that syslog(3) sends to the daemon of its machine, which is
//! all that journald reads, and rsyslog without settings. The crates of this format bring a transport and threads of their own, and the
//! format itself is one line.
//!
//! The message has no byte order mark, although RFC 5424 wants one in front of UTF-8: rsyslog writes it to its files as
//! it is, and journald shows it. There is no structured data, because both keep `key=value` in the message as it is and
//! journald keeps nothing else.

use std::fmt::Write;

use jiff::Timestamp;
use log::Level;

use crate::base::AUDIT;
use crate::config::model::{Syslog, SyslogHeader};
use crate::logging::format::{SESSIONS, priority};

/// RFC 5424, 6.2.4.
const HOST_LEN_MAX: usize = 255;

/// The parts of a message that are the same in each.
#[derive(Clone, Debug)]
pub(super) struct Header {
    facility: u8,
    kind: SyslogHeader,
    /// Host name, application and process; of a local header the last two.
    origin: String,
}

impl Header {
    pub(super) fn new(settings: &Syslog, host: Option<&str>, pid: u32) -> Self {
        let is_host = |host: &&str| {
            (1..=HOST_LEN_MAX).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let host = host.filter(is_host).unwrap_or("-");
        let (kind, app) = (settings.header, &settings.app_name);
        let origin = match kind {
            SyslogHeader::Rfc5424 => format!("{host} {app} {pid}"),
            SyslogHeader::Local => format!("{app}[{pid}]"),
        };
        Self { facility: settings.facility.number(), kind, origin }
    }

    /// Returns a message without an end of line in it.
    pub(super) fn message(&self, level: Level, time: Timestamp, kind: &str, words: &str) -> String {
        let priority = self.facility * 8 + priority(level);
        let origin = &self.origin;
        let mut message = match self.kind {
            SyslogHeader::Rfc5424 => format!("<{priority}>1 {time:.6} {origin} {kind} - "),
            // Without a time: syslog(3) writes that of the local zone, which daemons replace by their own.
            SyslogHeader::Local => format!("<{priority}>{origin}: "),
        };
        for c in words.chars() {
            if c.is_control() {
                // Writing to a string never fails.
                let _done = write!(message, "{}", c.escape_default());
            } else {
                message.push(c);
            }
        }
        message
    }
}

/// Returns the MSGID of a line: what a rule of a syslog daemon may select.
pub(super) fn kind_of(target: &str) -> &'static str {
    match target {
        SESSIONS => "session",
        AUDIT => "audit",
        _ => "process",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Facility;

    fn settings(facility: Facility) -> Syslog {
        Syslog { socket: "/dev/log".into(), facility, app_name: "l4lb".into(), header: SyslogHeader::Rfc5424 }
    }

    /// The parts of a message: PRI, TIMESTAMP, HOSTNAME, APP-NAME, PROCID, MSGID and MSG, as RFC 5424 reads them.
    fn parse(message: &str) -> Option<(u8, Timestamp, [&str; 4], &str)> {
        let (priority, rest) = message.strip_prefix('<')?.split_once(">1 ")?;
        let mut parts = rest.splitn(7, ' ');
        let time = parts.next()?;
        let [host, app, process, kind] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let is_printable = |part: &str, max: usize| {
            (1..=max).contains(&part.len()) && part.bytes().all(|byte| (33..=126).contains(&byte))
        };
        let is_valid = is_printable(host, 255)
            && is_printable(app, 48)
            && is_printable(process, 128)
            && is_printable(kind, 32)
            && parts.next()? == "-"
            && time.len() == "2026-01-02T03:04:05.000006Z".len()
            && time.ends_with('Z');
        let words = parts.next().unwrap_or_default();
        let is_valid = is_valid && !words.chars().any(char::is_control);
        is_valid.then_some((priority.parse().ok()?, time.parse().ok()?, [host, app, process, kind], words))
    }

    proptest! {
        #[test]
        fn any_words_make_a_valid_message(words in any::<String>(), facility in 0..20_usize, level in 0..5_usize,
            micros in 0..4_000_000_000_000_000_i64, host in any::<Option<String>>()) {
            let facility = Facility::named()[facility].1;
            let level = Level::iter().nth(level).unwrap();
            let time = Timestamp::from_microsecond(micros).unwrap();
            let message = Header::new(&settings(facility), host.as_deref(), 7).message(level, time, "session", &words);
            let parsed = parse(&message);
            let (number, at, [_, app, process, kind], shown) = parsed.ok_or_else(|| TestCaseError::fail(message.clone()))?;
            prop_assert_eq!(number, facility.number() * 8 + priority(level));
            prop_assert_eq!(at, time);
            prop_assert_eq!((app, process, kind), ("l4lb", "7", "session"));
            let printable: String = words.chars().filter(|c| !c.is_control()).collect();
            prop_assert!(printable == words || shown.contains('\\'), "{}", shown);
            prop_assert!(printable != words || shown == words, "{}", shown);
        }
    }

    #[test]
    fn a_message_is_as_in_rfc_5424() {
        let header = Header::new(&settings(Facility::DAEMON), Some("lb1"), 42);
        let time: Timestamp = "2026-01-02T03:04:05.6789Z".parse().unwrap();
        assert_eq!(
            header.message(Level::Warn, time, kind_of("l4lb::control"), "two\nlines \u{1b}[31m and é"),
            "<28>1 2026-01-02T03:04:05.678900Z lb1 l4lb 42 process - two\\nlines \\u{1b}[31m and é"
        );
        let local =
            Header::new(&Syslog { header: SyslogHeader::Local, ..settings(Facility::DAEMON) }, None, 42);
        assert_eq!(local.message(Level::Info, time, "session", "a\tb"), "<30>l4lb[42]: a\\tb");
        for host in [None, Some(""), Some("a b"), Some("é")] {
            let message =
                Header::new(&settings(Facility::DAEMON), host, 42).message(Level::Info, time, "x", "");
            assert!(message.contains("Z - l4lb 42 x - "), "{message}");
        }
    }
}
