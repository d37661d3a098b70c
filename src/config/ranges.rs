//! Permitted values, for the file and the flags alike.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A backend takes some hundred bytes: room for far more than one process can check.
pub(super) const FILE_MIB_MAX: u64 = 16;
/// A list of backends, as a file or an HTTP server has it: as large as a file.
pub const LIST_LEN_MAX: usize = 16 << 20;
/// Files that one file includes: one for each of very many teams.
pub(super) const INCLUDED_FILES_MAX: usize = 1_000;
/// Bytes of environment variables that a file takes in: far more than it has values for, and no way to take all memory.
pub(super) const EXPANDED_LEN_MAX: usize = 1 << 20;
/// Each worker is a thread with its own listeners.
pub const WORKERS_MAX: usize = 256;
/// Far beyond what one process can open, small enough for every index.
pub const SESSIONS_MAX: usize = 10_000_000;
/// The argument of listen(2); the kernel caps it at net.core.somaxconn, which is 4096 since Linux 5.4.
pub const BACKLOG_MAX: u32 = 65_535;
/// A larger ratio than 256 to 1 should use separate pools.
pub const WEIGHT_MAX: u16 = 256;
/// The last tier of a pool, which `backup = true` means. More tiers than 16 are no plan that an operator can follow.
pub const PRIORITY_MAX: u8 = 15;
/// Networks of balancers in front of a listener: each connection is compared with all of them.
pub(super) const PROXY_FROM_MAX: usize = 256;
/// Values of `allow` and of `deny`: more belong into a file, of which each may have [`FILE_MIB_MAX`].
pub(super) const ACCESS_ITEMS_MAX: usize = 1024;
/// Mistakes in one file of networks that are reported.
pub(super) const LIST_MISTAKES_MAX: usize = 10;
/// Backends that one session may try, besides the first.
pub const RETRIES_MAX: u32 = 16;
/// Timeouts and intervals. At most a year: no sum of a few of these overflows.
pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(8760);
/// Sessions are searched for due lines at most once per second.
pub(super) const LINES_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
/// Like [`TIMEOUT`], but zero is permitted too.
pub(super) const DRAIN_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(8760);
/// For longer waits sleeping is as good: waking takes some microseconds.
pub(super) const BUSY_POLL: RangeInclusive<Duration> = Duration::from_micros(1)..=Duration::from_millis(1);
/// MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of the kernel's tcp.h are 32767 seconds, six minutes more.
pub(super) const KEEPALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(9);
/// MAX_TCP_KEEPCNT of the kernel's tcp.h.
pub(super) const KEEPALIVE_COUNT_MAX: u32 = 127;
/// TCP_USER_TIMEOUT is an int of milliseconds: 24 days would fit.
pub(super) const USER_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
/// Time between two checks of a backend where none is set.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The range of `rise` and `fall`, in consecutive checks.
pub const VERDICTS: RangeInclusive<u32> = 1..=100;
/// Sources of one pool: each asks on its own.
pub const SOURCES_MAX: usize = 16;
/// Name servers of one source; resolv.conf(5) has three at most.
pub(super) const RESOLVERS_MAX: usize = 8;
/// Members of one cluster; etcd itself advises seven at most.
pub const ENDPOINTS_MAX: usize = 8;
/// Bytes of a prefix of keys, and of the name of a user: they are part of messages.
pub(super) const ETCD_TEXT_LEN_MAX: usize = 256;
/// Addresses of this machine that clients dial.
pub(super) const ADDRESSES_MAX: usize = 8;
/// Records that a process keeps: one request compares all of them, of which etcd takes 128.
pub const RECORDS_MAX: usize = 100;
/// How long resolvers may keep a record.
pub(super) const RECORD_TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
/// How long records outlast the last renewal. etcd grants no less than two seconds.
pub(super) const LEASE: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_mins(10);
/// Time between the answers of a source. More than ten a second is what a name server calls an attack.
pub(super) const DISCOVER_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_hours(1);
/// How long backends outlast the last good answer, where that is not for ever.
pub(super) const STALE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(8760);
/// Answers that have to agree.
pub(super) const ANSWERS: RangeInclusive<u32> = 1..=100;
/// Answers that may lack a backend.
pub(super) const OBSOLETE_MAX: u32 = 100;
/// As many backends as a pool may have.
pub(super) const MIN_BACKENDS_MAX: usize = 65_536;
/// Backends of one list: as many.
pub const LISTED_MAX: usize = MIN_BACKENDS_MAX;
/// More would let one interval be three times the other.
pub const JITTER_PERCENT_MAX: u8 = 50;
/// Routes of a listener, and values of one condition.
pub(super) const ROUTES_MAX: usize = 1024;
pub(super) const ROUTE_VALUES_MAX: usize = 256;
/// Bytes that a check sends or looks for: they fit into one segment.
pub(super) const PAYLOAD_LEN_MAX: usize = 1024;
/// Further checks of one pool: each takes its turn within one interval.
pub(super) const CHECKS_MAX: usize = 8;
/// How long before the end of a certificate warnings begin: certificates of a week are renewed half-way.
pub(super) const EXPIRES_WITHIN: Duration = Duration::from_hours(7 * 24);
/// Protocols that a check offers, and bytes of the name of one, which TLS allows.
pub(super) const ALPN_MAX: usize = 8;
pub(super) const ALPN_LEN_MAX: usize = 255;
/// Steps of one check: more is a test of the backend, not a check.
pub const STEPS_MAX: usize = 32;
/// The path of the program of a check, and its arguments.
pub(super) const COMMAND_WORDS_MAX: usize = 32;
/// Bytes of a user, domain, service or client identifier of a check: in each of the protocols the length is one byte.
pub(super) const IDENTIFIER_LEN_MAX: usize = 100;
