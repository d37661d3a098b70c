//! Where log lines go, and the fields of the lines of sessions.

use std::path::PathBuf;

/// Where the lines of the log go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    #[default]
    StandardError,
    /// The syslog daemon of this machine.
    Syslog(Syslog),
}

impl LogTarget {
    /// Returns the word for it in config.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::StandardError => "stderr",
            Self::Syslog(_) => "syslog",
        }
    }

    /// Returns the syslog daemon, if that is the target.
    pub const fn syslog(&self) -> Option<&Syslog> {
        match self {
            Self::StandardError => None,
            Self::Syslog(syslog) => Some(syslog),
        }
    }
}

/// The syslog daemon, and what its lines say about their origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// The datagram socket that it reads.
    pub socket: PathBuf,
    /// The facility of each line.
    pub facility: Facility,
    /// The APP-NAME of each line.
    pub app_name: String,
    /// The beginning of each line.
    pub header: SyslogHeader,
}

/// The beginning of a line for the syslog daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyslogHeader {
    /// That of RFC 5424.
    Rfc5424,
    /// Priority, name and process id, which every daemon reads that serves syslog(3).
    Local,
}

impl SyslogHeader {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Rfc5424, Self::Local];

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rfc5424 => "rfc5424",
            Self::Local => "local",
        }
    }
}

/// A facility of RFC 5424, 6.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// The facility without a setting.
    pub const DAEMON: Self = Self(3);
    /// The names by number, as in syslog.conf(5). The others have none.
    const NAMES: [(u8, &'static str); 20] = [
        (0, "kern"),
        (1, "user"),
        (2, "mail"),
        (3, "daemon"),
        (4, "auth"),
        (5, "syslog"),
        (6, "lpr"),
        (7, "news"),
        (8, "uucp"),
        (9, "cron"),
        (10, "authpriv"),
        (11, "ftp"),
        (16, "local0"),
        (17, "local1"),
        (18, "local2"),
        (19, "local3"),
        (20, "local4"),
        (21, "local5"),
        (22, "local6"),
        (23, "local7"),
    ];

    /// Returns all facilities with a name.
    pub fn named() -> [(&'static str, Self); 20] {
        Self::NAMES.map(|(number, name)| (name, Self(number)))
    }

    /// Returns its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Returns the word for it in config.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(number, _)| *number == self.0).map_or("daemon", |(_, name)| name)
    }
}

/// The fields of the lines of a session, in the order that they have unless `log.fields` chooses.
pub const SESSION_FIELDS: [&str; 21] = [
    "session",
    "listener",
    "pool",
    "backend",
    "backend_address",
    "client",
    "peer",
    "sni",
    "alpn",
    "route",
    "source",
    "to_backend",
    "to_client",
    "connect_ms",
    "duration_ms",
    "retries",
    "state",
    "reason",
    "code",
    "reset_by",
    "half_closed_by",
];
