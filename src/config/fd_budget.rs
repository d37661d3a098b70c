//! Computes how many sessions the open-files limit allows, and how many pipes of which size the user may have. Pure:
//! the limits are parameters, only sys/ asks the kernel for them.

use std::fmt;

use super::discover::{Discover, HOSTS_ASKED};
use super::model::{Check, Config, Pool, Relay};
use super::ranges::SESSIONS_MAX;

/// The budget of the process's file descriptors, at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdBudget {
    /// The limit that everything must fit into.
    pub nofile: u64,
    /// One socket per listener and worker.
    pub listeners: u64,
    /// The loops: epoll and waker of each worker.
    pub loops: u64,
    /// Descriptors reserved for health checks and exchanges with agents in flight.
    pub checks: u64,
    /// Limit on health checks in flight per worker.
    pub checks_per_worker: u64,
    /// Pipes of all workers: each has two ends.
    pub pipes: u64,
    /// Requested capacity of each pipe in bytes.
    pub pipe_len: usize,
    /// Logs, resolver, control thread, checks for operators, and a margin.
    pub reserve: u64,
    /// Sessions that fit: each has two sockets.
    pub sessions: usize,
}

const FDS_PER_LOOP: u64 = 2;
const FDS_PER_SESSION: u64 = 2;
/// One in this many descriptors may be used for health checks. With fewer at a time, silent backends are checked later.
const CHECKS_SHARE: u64 = 8;
/// Bounds on the health checks in flight per worker, whatever the limit.
const CHECKS_PER_WORKER_MIN: u64 = 16;
const CHECKS_PER_WORKER_MAX: u64 = 1_024;
/// A worker may have one exchange with an agent in flight for this many checks.
const AGENTS_SHARE: usize = 4;
const RESERVE: u64 = 32;
/// At most this many programs of checks run at once; the others wait in order.
pub const PROGRAMS_MAX: usize = 16;
/// Its process, and the pipe for what it prints; while it starts, both ends of that.
const FDS_PER_PROGRAM: u64 = 4;
/// At most so many backends are checked for operators at once.
pub const OPERATOR_CHECKS_MAX: usize = 4;
/// Its socket, and the two that it waits with.
const FDS_PER_OPERATOR_CHECK: u64 = 3;
const FDS_PER_PIPE: u64 = 2;
/// Hosts of a service that are asked for at a time, and what its thread waits with.
const FDS_PER_SOURCE: u64 = 20;
/// A host name that is resolved: one socket, and another where an answer was truncated.
const FDS_PER_HOST: u64 = 2;
/// The requested capacity of a pipe without any shortage. The processor time per byte is then 0.57 of that of a copy,
/// and 0.60, 0.68, 0.78 and 1.03 of it with 256, 64, 16 and 8 KiB (loopback, Linux 6.18).
pub const PIPE_LEN_MAX: usize = 1 << 20;
/// The least capacity for which a pipe is worth its descriptors. It is also Linux's default unless it denies more.
pub const PIPE_LEN_MIN: usize = 64 << 10;
/// Most pipes per worker: one for each spliced direction with a slow sink.
const PIPES_PER_WORKER_MAX: u64 = 128;
/// One in this many descriptors may be used for pipes. Without a pipe bytes are copied, without a descriptor a client
/// is not served.
const PIPES_SHARE: u64 = 16;
/// The percentage of a user's limit on pipes that is planned with: the user may have other processes.
const PIPE_BYTES_PERCENT: u64 = 80;

/// Explains why the open-files limit is too low.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error(
        "nofile: the limit of {nofile} open files leaves no room for sessions, raise it to {needed} or more"
    )]
    /// The limit is too low for one session beside everything else.
    NoRoom {
        /// The limit of open files, RLIMIT_NOFILE.
        nofile: u64,
        /// The need of one session.
        needed: u64,
    },
    /// Fewer sessions fit than configured.
    #[error(
        "max_sessions: {configured} sessions need {needed} open files, the limit of {nofile} allows {sessions}: \
         raise the limit or lower max_sessions"
    )]
    TooMany {
        /// The value of `max_sessions` in the configuration.
        configured: usize,
        /// The need of all of them.
        needed: u64,
        /// The limit of open files, RLIMIT_NOFILE.
        nofile: u64,
        /// The most sessions that fit below that limit.
        sessions: usize,
    },
}

impl FdBudget {
    /// Returns the budget of `config` under a limit of `nofile` open files and of `pipe_bytes` in pipes, if there is
    /// one.
    pub fn of(config: &Config, nofile: u64, pipe_bytes: Option<u64>) -> Self {
        let workers = count(config.global.workers.get());
        let checked = config.pools.iter().filter(|pool| pool.health.check != Check::Off);
        // The number that a source lists is not known in advance.
        let of_pool = |pool: &Pool| {
            if pool.discover.is_empty() { count(pool.backends.len()) } else { u64::MAX }
        };
        let checked = checked.map(of_pool).fold(0, u64::saturating_add);
        let asked = config.pools.iter().filter(|pool| pool.agent.is_some());
        let asked = asked.map(of_pool).fold(0, u64::saturating_add);
        let all = config.pools.iter().flat_map(|pool| &pool.discover);
        let (hosts, others): (Vec<&Discover>, Vec<&Discover>) =
            all.partition(|source| source.as_host().is_some());
        let hosts_asked = count(hosts.len().min(HOSTS_ASKED)).saturating_mul(FDS_PER_HOST);
        // All hosts wait on one thread.
        let sources = count(others.len() + usize::from(!hosts.is_empty())).saturating_mul(FDS_PER_SOURCE);
        let runs_programs = config
            .pools
            .iter()
            .any(|pool| pool.health.checks().any(|check| matches!(check.check, Check::Command(_))));
        let (pipes, pipe_len) = pipes(config, nofile, pipe_bytes);
        let checks_per_worker =
            (nofile / CHECKS_SHARE / workers).clamp(CHECKS_PER_WORKER_MIN, CHECKS_PER_WORKER_MAX);
        let mut budget = Self {
            nofile,
            listeners: workers.saturating_mul(count(config.listeners.len())),
            loops: workers.saturating_mul(FDS_PER_LOOP),
            // Each backend is checked by one worker.
            checks: checked.min(workers.saturating_mul(checks_per_worker)).saturating_add(
                asked.min(workers.saturating_mul(count(agents_max(to_usize(checks_per_worker))))),
            ),
            checks_per_worker,
            pipes,
            pipe_len,
            reserve: RESERVE
                .saturating_add(count(OPERATOR_CHECKS_MAX) * FDS_PER_OPERATOR_CHECK)
                .saturating_add(sources)
                .saturating_add(hosts_asked)
                .saturating_add(if runs_programs { count(PROGRAMS_MAX) * FDS_PER_PROGRAM } else { 0 }),
            sessions: 0,
        };
        let fitting = nofile.saturating_sub(budget.need()) / FDS_PER_SESSION;
        budget.sessions = usize::try_from(fitting).unwrap_or(usize::MAX).min(SESSIONS_MAX);
        budget
    }

    /// Returns the descriptors for everything but sessions.
    pub fn need(&self) -> u64 {
        let pipes = self.pipes.saturating_mul(FDS_PER_PIPE);
        [self.listeners, self.loops, self.checks, pipes, self.reserve]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// Returns the most sessions at a time: `max_sessions` of the config, or as many as fit. Fails when the limit is
    /// too low.
    pub fn sessions_max(&self, config: &Config) -> Result<usize, LimitError> {
        let needed = |sessions| self.need().saturating_add(FDS_PER_SESSION.saturating_mul(count(sessions)));
        if self.sessions == 0 {
            return Err(LimitError::NoRoom { nofile: self.nofile, needed: needed(1) });
        }
        match config.global.max_sessions.map(std::num::NonZeroUsize::get) {
            None => Ok(self.sessions),
            Some(configured) if configured <= self.sessions => Ok(configured),
            Some(configured) => Err(LimitError::TooMany {
                configured,
                needed: needed(configured),
                nofile: self.nofile,
                sessions: self.sessions,
            }),
        }
    }
}

impl fmt::Display for FdBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nofile, listeners, loops, checks, pipes, reserve, sessions, .. } = self;
        let pipe_kib = self.pipe_len >> 10;
        write!(
            f,
            "{nofile} open files: {listeners} for listeners, {loops} for loops, {checks} for checks, \
             two for each of {pipes} pipes of {pipe_kib} KiB, {reserve} in reserve, two for each of {sessions} sessions"
        )
    }
}

/// Returns the number of pipes of all workers, the same for each, and the requested capacity of each. More pipes come
/// before larger ones: a copy costs more than a small pipe.
fn pipes(config: &Config, nofile: u64, pipe_bytes: Option<u64>) -> (u64, usize) {
    let splices = config.global.splice && config.pools.iter().any(|pool| pool.relay != Relay::Copy);
    let workers = count(config.global.workers.get());
    let planned = pipe_bytes.map_or(u64::MAX, |bytes| bytes / 100 * PIPE_BYTES_PERCENT);
    let fitting = (nofile / PIPES_SHARE / FDS_PER_PIPE).min(planned / count(PIPE_LEN_MIN));
    let pipes = (fitting / workers).min(PIPES_PER_WORKER_MAX) * workers;
    let mut len = PIPE_LEN_MAX;
    while len > PIPE_LEN_MIN && pipes * count(len) > planned {
        len /= 2;
    }
    (if splices { pipes } else { 0 }, len)
}

/// Returns the limit on exchanges with agents in flight of a worker that does `checks_max` checks at a time.
pub fn agents_max(checks_max: usize) -> usize {
    (checks_max / AGENTS_SHARE).max(1)
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load, parse_bind, parse_sessions, parse_workers};

    /// Two workers, one listener, three checked backends.
    fn tutorial(max_sessions: Option<&str>) -> Config {
        let overrides = Overrides {
            listen: vec![parse_bind(":9090").unwrap()],
            workers: Some(parse_workers("2").unwrap()),
            max_sessions: max_sessions.map(|text| parse_sessions(text).unwrap()),
            ..Overrides::default()
        };
        load(None, &overrides, crate::config::Inputs::NOTHING, &mut crate::config::system_resolver).unwrap()
    }

    #[test]
    fn the_remaining_descriptors_are_for_sessions() {
        let config = tutorial(None);
        let budget = FdBudget::of(&config, 1024, None);
        assert_eq!(budget.need(), 2 + 4 + 3 + 2 * 32 + 32 + 4 * 3);
        assert_eq!((budget.sessions, budget.sessions_max(&config)), (453, Ok(453)));
        assert_eq!(
            budget.to_string(),
            "1024 open files: 2 for listeners, 4 for loops, 3 for checks, two for each of 32 pipes of 1024 KiB, \
             44 in reserve, two for each of 453 sessions"
        );
    }

    #[test]
    fn a_configured_maximum_must_fit() {
        let (fits, exceeds) = (tutorial(Some("453")), tutorial(Some("454")));
        assert_eq!(FdBudget::of(&fits, 1024, None).sessions_max(&fits), Ok(453));
        assert_eq!(
            FdBudget::of(&exceeds, 1024, None).sessions_max(&exceeds).unwrap_err().to_string(),
            "max_sessions: 454 sessions need 1025 open files, the limit of 1024 allows 453: \
             raise the limit or lower max_sessions"
        );
    }

    #[test]
    fn pipes_take_a_part_of_the_limit_and_none_where_nothing_is_spliced() {
        let mut config = tutorial(None);
        let pipes = |config: &Config, nofile| FdBudget::of(config, nofile, None).pipes;
        assert_eq!(pipes(&config, 64), 2);
        assert_eq!(pipes(&config, 1 << 20), 2 * PIPES_PER_WORKER_MAX);
        config.global.splice = false;
        assert_eq!(pipes(&config, 1 << 20), 0);
        config.global.splice = true;
        config.pools[0].relay = Relay::Copy;
        assert_eq!(pipes(&config, 1 << 20), 0);
    }

    #[test]
    fn a_user_with_a_low_pipe_limit_gets_smaller_pipes_and_then_fewer() {
        let config = tutorial(None);
        // In pages of 4 KiB.
        let cases = [
            (None, (256, 1 << 20)),
            (Some(u64::MAX), (256, 1 << 20)),
            (Some(1 << 20), (256, 1 << 20)),
            // The default of Linux.
            (Some(16_384), (256, 128 << 10)),
            (Some(8_192), (256, 64 << 10)),
            (Some(4_096), (204, 64 << 10)),
            (Some(48), (2, 64 << 10)),
            (Some(32), (0, 1 << 20)),
        ];
        for (pages, (pipes, len)) in cases {
            let budget = FdBudget::of(&config, 1 << 20, pages.map(|pages: u64| pages.saturating_mul(4096)));
            assert_eq!((budget.pipes, budget.pipe_len), (pipes, len), "{pages:?} pages");
        }
    }

    #[test]
    fn checks_take_a_part_of_the_limit_and_some_are_always_possible() {
        let mut config = tutorial(None);
        let backend = config.pools[0].backends[0].clone();
        config.pools[0].backends = vec![backend; 10_000];
        for (nofile, checks) in [(64, 32), (1_024, 128), (8_192, 1_024), (1 << 20, 2_048)] {
            let budget = FdBudget::of(&config, nofile, None);
            assert_eq!((budget.checks, budget.checks_per_worker), (checks, checks / 2), "{nofile}");
        }
    }

    #[test]
    fn a_source_may_list_as_many_as_can_be_checked() {
        let mut config = tutorial(None);
        let text = "[[listener]]\nbind = \":1\"\n[[pool]]\n[[pool.discover]]\ntype = \"dns\"\nname = \"web\"\nport = 80\n";
        let no_names = &mut |_: &str| Ok(Vec::new());
        let sources = crate::config::parse(text, "test", &Overrides::default(), no_names).unwrap();
        let before = FdBudget::of(&config, 1_024, None);
        config.pools[0].discover.clone_from(&sources.pools[0].discover);
        let budget = FdBudget::of(&config, 1_024, None);
        assert_eq!((budget.checks, budget.reserve), (128, before.reserve + FDS_PER_SOURCE));
    }

    #[test]
    fn agents_take_a_quarter_of_what_checks_may_have() {
        let mut config = tutorial(None);
        let text = "[[listener]]\nbind = \":1\"\n[[pool]]\nbackend = [{ address = \":2\" }]\n[pool.agent]\nport = 3\n";
        let no_names = &mut |_: &str| Ok(Vec::new());
        let agents = crate::config::parse(text, "test", &Overrides::default(), no_names).unwrap();
        config.pools[0].agent.clone_from(&agents.pools[0].agent);
        assert_eq!(FdBudget::of(&config, 1_024, None).checks, 3 + 3, "one for each of three backends");
        let backend = config.pools[0].backends[0].clone();
        config.pools[0].backends = vec![backend; 10_000];
        assert_eq!(FdBudget::of(&config, 1_024, None).checks, 2 * (64 + 16));
        assert_eq!([0, 1, 16, 1_024].map(agents_max), [1, 1, 4, 256]);
    }

    #[test]
    fn no_limit_is_so_large_or_so_small_that_it_breaks_the_sums() {
        let config = tutorial(None);
        assert_eq!(FdBudget::of(&config, u64::MAX, None).sessions_max(&config), Ok(SESSIONS_MAX));
        for nofile in [0, 1, 53, 54] {
            assert_eq!(
                FdBudget::of(&config, nofile, None).sessions_max(&config),
                Err(LimitError::NoRoom { nofile, needed: 55 })
            );
        }
        assert_eq!(FdBudget::of(&config, 55, None).sessions_max(&config), Ok(1));
    }
}
