//! Turns figures into findings. Reads nothing else.

use std::ops::RangeInclusive;

use crate::config::fd_budget::PIPE_LEN_MAX;
use crate::doctor::{Figures, Finding, Plan, Verdict};

/// A balancer should be able to hold at least this many sessions.
const SESSIONS_LOW: usize = 10_000;
/// Suggested LimitNOFILE=: room for half a million sessions, and the kernel's default maximum.
const NOFILE_GOOD: u64 = 1 << 20;
/// Descriptors, watches and tracked connections per session.
const PER_SESSION: u64 = 2;
/// The widest range of source ports: lower ports are for root.
const WIDEST: (u64, u64) = (1024, 65_535);
/// One in this many sessions may end at the same moment, with its last bytes unacknowledged.
const ENDING_SHARE: u64 = 4;

/// Returns the findings in order of importance.
pub(crate) fn judge(figures: &Figures, plan: &Plan) -> Vec<Finding> {
    let findings = [
        open_files(figures, plan),
        reuse_port(figures),
        splice(figures, plan),
        pipes(figures, plan),
        accept_queue(figures, plan),
        migration(figures, plan),
        source_ports(figures, plan),
        own_ports(figures, plan),
        workers(figures, plan),
        root(figures, plan),
        admin_socket(figures, plan),
        orphans(figures, plan),
        time_wait(figures),
        watches(figures, plan),
        conntrack(figures, plan),
    ];
    findings.into_iter().flatten().collect()
}

fn ok(name: &'static str, found: impl Into<String>) -> Finding {
    Finding { name, verdict: Verdict::Ok, found: found.into(), consequence: None, remedy: None }
}

fn bad(
    name: &'static str,
    verdict: Verdict,
    found: impl Into<String>,
    consequence: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    let (consequence, remedy) = (Some(consequence.into()), Some(remedy.into()));
    Finding { name, verdict, found: found.into(), consequence, remedy }
}

/// Returns the finding for a setting that cannot be read.
fn unknown(name: &'static str, setting: &str) -> Finding {
    let consequence = "cannot be checked inside a container";
    bad(name, Verdict::Warn, "unknown", consequence, format!("outside of the container: sysctl {setting}"))
}

fn open_files(figures: &Figures, plan: &Plan) -> Option<Finding> {
    let nofile = figures.nofile?;
    let remedy = || {
        let limit = NOFILE_GOOD.max(nofile.saturating_mul(2));
        format!("LimitNOFILE={limit} in the unit, or ulimit -Hn {limit}")
    };
    let found = format!("{nofile} of user {} in this process", figures.user);
    Some(match &plan.sessions {
        Err(error) => bad("open files", Verdict::Fail, found, error.clone(), remedy()),
        Ok(sessions) if *sessions < SESSIONS_LOW && nofile < NOFILE_GOOD => {
            let consequence =
                format!("at most {sessions} sessions at a time, further clients wait in the queue");
            bad("open files", Verdict::Warn, found, consequence, remedy())
        }
        Ok(sessions) => ok("open files", format!("{found}, room for {sessions} sessions")),
    })
}

fn reuse_port(figures: &Figures) -> Option<Finding> {
    Some(match &figures.reuse_port {
        Ok(()) => ok("SO_REUSEPORT", "two sockets share a port"),
        // Every listener sets it, even with a single worker.
        Err(error) => bad(
            "SO_REUSEPORT",
            Verdict::Fail,
            error,
            "no worker can listen, l4lb does not start",
            "allow setsockopt(2) in the sandbox, or another kernel",
        ),
    })
}

/// By `splice = false`, or because each pool has `relay = "copy"`.
const NOT_SPLICED: &str = "not used, everything is copied";

fn splice(figures: &Figures, plan: &Plan) -> Option<Finding> {
    Some(match &figures.splice {
        _ if !plan.splices => ok("splice", NOT_SPLICED),
        Ok(()) => ok("splice", "bytes went from socket to socket through a pipe"),
        Err(error) => {
            let verdict = if plan.must_splice { Verdict::Fail } else { Verdict::Warn };
            let consequence = "bytes are copied: up to twice the processor time for streams";
            bad(
                "splice",
                verdict,
                error,
                consequence,
                "allow splice(2) and pipe2(2) in the sandbox, or splice = false",
            )
        }
    })
}

fn pipes(figures: &Figures, plan: &Plan) -> Option<Finding> {
    const NAME: &str = "pipes";
    if !plan.splices {
        return Some(ok(NAME, NOT_SPLICED));
    }
    let (Some(bytes), Some(largest)) = (figures.pipe_bytes, figures.pipe_max_size) else {
        return Some(unknown(NAME, "fs.pipe-user-pages-soft fs.pipe-max-size"));
    };
    let wanted = PIPE_LEN_MAX as u64;
    if largest < wanted {
        let found = format!("{} KiB each at most", largest >> 10);
        let remedy = format!("sysctl -w fs.pipe-max-size={wanted}");
        return Some(bad(NAME, Verdict::Warn, found, "streams take more processor time", remedy));
    }
    let Some(bytes) = bytes else { return Some(ok(NAME, "as many as there are descriptors for")) };
    let found = format!("{} MiB for this user", bytes >> 20);
    let Some((pipes, len)) = plan.pipes else { return Some(ok(NAME, found)) };
    let found = format!("{found}: {pipes} pipes of {} KiB", len >> 10);
    let remedy = "sysctl -w fs.pipe-user-pages-soft=0";
    Some(match pipes {
        0 => bad(
            NAME,
            Verdict::Warn,
            found,
            "bytes are copied: up to twice the processor time for streams",
            remedy,
        ),
        _ if len < PIPE_LEN_MAX => bad(
            NAME,
            Verdict::Warn,
            found,
            "smaller pipes: streams take up to a third more processor time",
            remedy,
        ),
        _ => ok(NAME, found),
    })
}

fn accept_queue(figures: &Figures, plan: &Plan) -> Option<Finding> {
    const NAME: &str = "accept queue";
    let Some(most) = figures.somaxconn else { return Some(unknown(NAME, "net.core.somaxconn")) };
    let backlog = u64::from(plan.backlog);
    if most >= backlog {
        return Some(ok(NAME, format!("backlog {backlog} of net.core.somaxconn {most}")));
    }
    let found = format!("backlog {backlog}, but net.core.somaxconn {most}");
    let consequence =
        format!("only {most} clients can wait per worker; in a burst the others connect a second later");
    Some(bad(NAME, Verdict::Warn, found, consequence, format!("sysctl -w net.core.somaxconn={backlog}")))
}

fn migration(figures: &Figures, plan: &Plan) -> Option<Finding> {
    const NAME: &str = "queue migration";
    let found = match figures.migrate_req {
        _ if plan.workers == 1 => return Some(ok(NAME, "one worker, no migration needed")),
        Some(0) => "net.ipv4.tcp_migrate_req 0",
        Some(_) => return Some(ok(NAME, "net.ipv4.tcp_migrate_req 1")),
        // Linux 5.14 has it.
        None => "no net.ipv4.tcp_migrate_req",
    };
    let consequence =
        "clients in the queue of a socket that is closed are reset, as when a process of several dies";
    Some(bad(
        NAME,
        Verdict::Warn,
        found,
        consequence,
        "sysctl -w net.ipv4.tcp_migrate_req=1 (Linux 5.14 or newer)",
    ))
}

fn source_ports(figures: &Figures, plan: &Plan) -> Option<Finding> {
    const NAME: &str = "source ports";
    let Some((first, last)) = figures.port_range else {
        return Some(unknown(NAME, "net.ipv4.ip_local_port_range"));
    };
    let reserved = figures.reserved_ports.as_deref().unwrap_or_default();
    let ports = usable_ports((first, last), reserved);
    let possible = ports.saturating_mul(plan.backends as u64);
    let found = format!("{ports} from {first} to {last}, {} addresses to dial", plan.backends);
    let sessions = plan.sessions.as_ref().map_or(0, |&sessions| sessions as u64);
    let wanted = sessions.min(NOFILE_GOOD / PER_SESSION);
    if possible >= wanted {
        return Some(ok(NAME, found));
    }
    let consequence = format!("at most {possible} of {sessions} sessions at a time can be dialed");
    let remedy = widen(figures, plan, wanted)
        .unwrap_or_else(|| format!("more backend addresses, or max_sessions = {possible}"));
    Some(bad(NAME, Verdict::Warn, found, consequence, remedy))
}

/// Returns the command that widens the range of source ports for `wanted` sessions, without the ports of listeners.
fn widen(figures: &Figures, plan: &Plan, wanted: u64) -> Option<String> {
    let reserved = figures.reserved_ports.as_deref()?;
    let own = exposed(plan, WIDEST, reserved);
    let together = with_ports(reserved, &own);
    let is_enough = usable_ports(WIDEST, &together).saturating_mul(plan.backends as u64) >= wanted;
    let reserve = if own.is_empty() { String::new() } else { format!("{} ", reserve(&together)) };
    let (first, last) = WIDEST;
    is_enough.then(|| format!("sysctl -w {reserve}net.ipv4.ip_local_port_range='{first} {last}'"))
}

/// Returns how many ports outgoing connections may use.
fn usable_ports((first, last): (u64, u64), reserved: &[RangeInclusive<u16>]) -> u64 {
    let within = |range: &RangeInclusive<u16>| {
        let (from, to) = (u64::from(*range.start()).max(first), u64::from(*range.end()).min(last));
        (to + 1).saturating_sub(from)
    };
    (last + 1).saturating_sub(first).saturating_sub(reserved.iter().map(within).sum())
}

/// Returns the ports of listeners that an outgoing connection may use.
fn exposed(plan: &Plan, (first, last): (u64, u64), reserved: &[RangeInclusive<u16>]) -> Vec<u16> {
    let is_source = |port: &u16| (first..=last).contains(&u64::from(*port));
    let is_reserved = |port: &u16| reserved.iter().any(|range| range.contains(port));
    plan.ports.iter().copied().filter(|port| is_source(port) && !is_reserved(port)).collect()
}

/// The setting is one list: existing reservations must stay in it.
fn with_ports(reserved: &[RangeInclusive<u16>], ports: &[u16]) -> Vec<RangeInclusive<u16>> {
    let mut together = reserved.to_vec();
    together.extend(ports.iter().map(|&port| port..=port));
    together.sort_unstable_by_key(|range| *range.start());
    together
}

fn reserve(ports: &[RangeInclusive<u16>]) -> String {
    let text = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let ports: Vec<String> = ports.iter().map(text).collect();
    format!("net.ipv4.ip_local_reserved_ports={}", ports.join(","))
}

fn own_ports(figures: &Figures, plan: &Plan) -> Option<Finding> {
    const NAME: &str = "own ports";
    let range = figures.port_range?;
    if plan.ports.is_empty() {
        return None;
    }
    if exposed(plan, range, &[]).is_empty() {
        return Some(ok(NAME, "outside of the source ports"));
    }
    let Some(reserved) = figures.reserved_ports.as_deref() else {
        return Some(unknown(NAME, "net.ipv4.ip_local_reserved_ports"));
    };
    let taken = exposed(plan, range, reserved);
    Some(if taken.is_empty() {
        ok(NAME, "reserved")
    } else {
        let ports = taken.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        let consequence = "an outgoing connection may have it when l4lb starts, which then fails";
        let remedy = format!("sysctl -w {}", reserve(&with_ports(reserved, &taken)));
        bad(NAME, Verdict::Warn, format!("{ports} among the source ports"), consequence, remedy)
    })
}

fn workers(figures: &Figures, plan: &Plan) -> Option<Finding> {
    let found = format!("{} on {} processors", plan.workers, figures.processors);
    Some(if plan.workers > figures.processors {
        let consequence = "workers compete for processors: latency without any gain";
        bad("workers", Verdict::Warn, found, consequence, "workers = \"auto\"")
    } else {
        ok("workers", found)
    })
}

fn root(figures: &Figures, plan: &Plan) -> Option<Finding> {
    Some(match (figures.is_root, plan.gives_up_root) {
        (true, false) => {
            let consequence = "a vulnerability in l4lb gives root access";
            bad(
                "user",
                Verdict::Warn,
                "root",
                consequence,
                "[global] user = \"l4lb\", or User=l4lb in the unit",
            )
        }
        (true, true) => ok("user", "root until it listens"),
        (false, _) => ok("user", "not root"),
    })
}

fn admin_socket(figures: &Figures, plan: &Plan) -> Option<Finding> {
    let (path, result) = figures.admin_socket.as_ref()?;
    let path = path.display();
    Some(match result {
        Ok(()) => ok("admin socket", format!("{path} can be made")),
        Err(error) => {
            let (verdict, consequence) = if plan.must_open_admin_socket {
                (Verdict::Fail, "[admin] socket cannot be created: l4lb does not start")
            } else {
                (Verdict::Warn, "no admin socket: l4lb ctl and l4lb top cannot connect")
            };
            let remedy = "RuntimeDirectory=l4lb in the unit, or [admin] socket in a folder of this user";
            bad("admin socket", verdict, format!("{path}: {error}"), consequence, remedy)
        }
    })
}

fn orphans(figures: &Figures, plan: &Plan) -> Option<Finding> {
    // A setting of the whole machine, absent in a container.
    let most = figures.max_orphans?;
    let ending = plan.sessions.as_ref().map_or(0, |&sessions| sessions as u64).min(NOFILE_GOOD / PER_SESSION)
        / ENDING_SHARE;
    let found = format!("net.ipv4.tcp_max_orphans {most}");
    Some(if most < ending {
        let consequence =
            format!("when more than {most} sessions end in one moment, clients lose their last bytes");
        bad(
            "orphans",
            Verdict::Warn,
            found,
            consequence,
            format!("sysctl -w net.ipv4.tcp_max_orphans={ending}"),
        )
    } else {
        ok("orphans", found)
    })
}

fn time_wait(figures: &Figures) -> Option<Finding> {
    let (most, (first, last)) = (figures.max_time_wait?, figures.port_range?);
    let ports = (last + 1).saturating_sub(first);
    let found = format!("net.ipv4.tcp_max_tw_buckets {most}");
    Some(if most < ports {
        let consequence = "connections are forgotten early: a late segment of an old one may meet a new one";
        let remedy = format!("sysctl -w net.ipv4.tcp_max_tw_buckets={}", ports * PER_SESSION);
        bad("time wait", Verdict::Warn, found, consequence, remedy)
    } else {
        ok("time wait", found)
    })
}

fn watches(figures: &Figures, plan: &Plan) -> Option<Finding> {
    let (most, sessions) = (figures.max_watches?, *plan.sessions.as_ref().ok()? as u64);
    let found = format!("fs.epoll.max_user_watches {most}");
    Some(if most / PER_SESSION < sessions.min(NOFILE_GOOD / PER_SESSION) {
        let consequence =
            format!("at most {} sessions at a time, further ones end with local_limit", most / PER_SESSION);
        let remedy = format!("sysctl -w fs.epoll.max_user_watches={}", sessions.saturating_mul(PER_SESSION));
        bad("epoll watches", Verdict::Warn, found, consequence, remedy)
    } else {
        ok("epoll watches", found)
    })
}

fn conntrack(figures: &Figures, plan: &Plan) -> Option<Finding> {
    let (most, sessions) = (figures.conntrack_max?, *plan.sessions.as_ref().ok()? as u64);
    let found = format!("net.netfilter.nf_conntrack_max {most}");
    let needed = sessions.min(NOFILE_GOOD / PER_SESSION).saturating_mul(PER_SESSION);
    Some(if most < needed {
        let consequence =
            format!("beyond {} sessions the firewall drops segments: connects time out", most / PER_SESSION);
        let remedy = format!("sysctl -w net.netfilter.nf_conntrack_max={needed}, or notrack for these ports");
        bad("connection tracking", Verdict::Warn, found, consequence, remedy)
    } else {
        ok("connection tracking", found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides, system_resolver};
    use crate::doctor::worst;

    fn good() -> Figures {
        Figures {
            nofile: Some(1 << 20),
            somaxconn: Some(4096),
            migrate_req: Some(1),
            port_range: Some((32_768, 60_999)),
            reserved_ports: Some(Vec::new()),
            pipe_bytes: Some(None),
            pipe_max_size: Some(1 << 20),
            max_orphans: Some(1 << 18),
            max_time_wait: Some(1 << 18),
            max_watches: Some(1 << 22),
            conntrack_max: None,
            splice: Ok(()),
            reuse_port: Ok(()),
            processors: 2,
            admin_socket: Some(("/run/l4lb/admin.sock".into(), Ok(()))),
            user: "l4lb".into(),
            is_root: false,
        }
    }

    /// Two workers, one listener on port 9090, two backends, 10,000 sessions.
    fn findings(figures: &Figures, keys: &str) -> Vec<Finding> {
        let text = format!(
            "global = {{ workers = 2, max_sessions = 10000, {keys} }}\nlistener = [{{ bind = \":9090\" }}]\n\
             pool = [{{ backend = [{{ address = \"10.0.0.1:80\" }}, {{ address = \"10.0.0.2:80\" }}] }}]"
        );
        let config = config::parse(&text, "x.toml", &Overrides::default(), &mut system_resolver).unwrap();
        judge(figures, &Plan::of(Some(&config), figures))
    }

    #[test]
    fn a_well_configured_machine_has_no_findings() {
        let found = findings(&good(), "");
        assert_eq!(worst(&found), Verdict::Ok, "{found:#?}");
        assert!(found.iter().all(|finding| finding.consequence.is_none() && finding.remedy.is_none()));
        let bare = judge(&good(), &Plan::of(None, &good()));
        let complaints: Vec<_> = bare.iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
        assert!(complaints.iter().all(|finding| finding.name == "source ports"), "{complaints:#?}");
    }

    /// Checks the finding on a machine that is good except for `change`.
    #[track_caller]
    fn check(name: &str, verdict: Verdict, remedy: &str, keys: &str, change: impl FnOnce(&mut Figures)) {
        let mut figures = good();
        change(&mut figures);
        let complaints: Vec<Finding> =
            findings(&figures, keys).into_iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
        let [finding] = &complaints[..] else { panic!("{name}: {complaints:#?}") };
        assert_eq!((finding.name, finding.verdict), (name, verdict), "{finding:?}");
        assert!(finding.remedy.as_ref().is_some_and(|text| text.contains(remedy)), "{finding:?}");
        assert!(finding.consequence.is_some());
    }

    #[test]
    fn each_shortage_has_its_remedy() {
        use Verdict::{Fail, Warn};
        check("open files", Fail, "LimitNOFILE=1048576", "", |f| f.nofile = Some(1024));
        check("SO_REUSEPORT", Fail, "allow setsockopt(2)", "", |f| f.reuse_port = Err("EPERM".into()));
        check("splice", Warn, "splice = false", "", |f| f.splice = Err("EPERM".into()));
        check("pipes", Warn, "fs.pipe-user-pages-soft=0", "", |f| f.pipe_bytes = Some(Some(64 << 20)));
        check("pipes", Warn, "fs.pipe-max-size=1048576", "", |f| f.pipe_max_size = Some(1 << 16));
        check("accept queue", Warn, "net.core.somaxconn=4096", "", |f| f.somaxconn = Some(128));
        check("queue migration", Warn, "tcp_migrate_req=1", "", |f| f.migrate_req = Some(0));
        check("queue migration", Warn, "tcp_migrate_req=1", "", |f| f.migrate_req = None);
        check("source ports", Warn, "ip_local_port_range", "", |f| f.port_range = Some((60_000, 60_999)));
        // One range that can be widened enough, and one that cannot.
        check(
            "source ports",
            Warn,
            "ip_local_reserved_ports=9000-9009,9090 net.ipv4.ip_local_port_range='1024 65535'",
            "",
            |f| {
                f.port_range = Some((60_000, 60_999));
                f.reserved_ports = Some(vec![9_000..=9_009]);
            },
        );
        check("source ports", Warn, "max_sessions = 2000", "", |f| {
            f.port_range = Some((60_000, 60_999));
            f.reserved_ports = Some(vec![1024..=59_999, 61_000..=64_999]);
        });
        check("own ports", Warn, "ip_local_reserved_ports=9090", "", |f| {
            f.port_range = Some((9_000, 60_999));
        });
        check("own ports", Warn, "ip_local_reserved_ports=80,9090,9100-9200", "", |f| {
            f.port_range = Some((9_000, 60_999));
            f.reserved_ports = Some(vec![80..=80, 9_100..=9_200]);
        });
        check("workers", Warn, "auto", "", |f| f.processors = 1);
        check("user", Warn, "user = \"l4lb\"", "", |f| f.is_root = true);
        check("admin socket", Warn, "RuntimeDirectory=l4lb", "", |f| {
            f.admin_socket = Some(("/run/l4lb/admin.sock".into(), Err("ENOENT".into())));
        });
        check("orphans", Warn, "tcp_max_orphans=2500", "", |f| f.max_orphans = Some(2_499));
        check("time wait", Warn, "tcp_max_tw_buckets=56464", "", |f| f.max_time_wait = Some(8_192));
        check("epoll watches", Warn, "max_user_watches=20000", "", |f| f.max_watches = Some(19_998));
        check("connection tracking", Warn, "nf_conntrack_max=20000", "", |f| f.conntrack_max = Some(19_999));
    }

    #[test]
    fn a_finding_that_prevents_the_start_is_a_failure() {
        let verdict_of = |name: &str, figures: &Figures, plan: &Plan| {
            judge(figures, plan)
                .into_iter()
                .find(|finding| finding.name == name)
                .map(|finding| finding.verdict)
        };
        let mut figures = good();
        figures.reuse_port = Err("EPERM".into());
        figures.admin_socket = Some(("/run/mine/admin.sock".into(), Err("ENOENT".into())));
        for workers in [1, 2] {
            for (must_open_admin_socket, expected) in [(true, Verdict::Fail), (false, Verdict::Warn)] {
                let plan = Plan { workers, must_open_admin_socket, ..Plan::of(None, &figures) };
                assert_eq!(verdict_of("SO_REUSEPORT", &figures, &plan), Some(Verdict::Fail));
                assert_eq!(verdict_of("admin socket", &figures, &plan), Some(expected));
            }
        }
    }

    #[test]
    fn an_admin_socket_with_a_place_of_its_own_has_to_be_there() {
        for (keys, expected) in
            [("socket = \"/run/mine/admin.sock\"", true), ("", false), ("socket = false", false)]
        {
            let text = format!(
                "listener = [{{ bind = \":9090\" }}]\npool = [{{ backend = [{{ address = \"10.0.0.1:80\" }}] }}]\n\
                 admin = {{ {keys} }}"
            );
            let config = config::parse(&text, "x.toml", &Overrides::default(), &mut system_resolver).unwrap();
            assert_eq!(Plan::of(Some(&config), &good()).must_open_admin_socket, expected, "{keys}");
        }
    }

    #[test]
    fn a_reserved_port_is_no_source_port() {
        let mut figures = Figures { port_range: Some((9_000, 60_999)), ..good() };
        figures.reserved_ports = Some(vec![9_080..=9_099]);
        assert_eq!(worst(&findings(&figures, "")), Verdict::Ok);
        assert_eq!(usable_ports((9_000, 9_999), &[1..=9_009, 9_500..=9_500, 9_990..=65_535]), 979);
        figures.reserved_ports = None;
        let unknown: Vec<_> =
            findings(&figures, "").into_iter().filter(|finding| finding.found == "unknown").collect();
        assert_eq!(unknown.iter().map(|finding| finding.name).collect::<Vec<_>>(), ["own ports"]);
    }

    #[test]
    fn a_limit_that_the_configuration_respects_is_no_finding() {
        let mut figures = good();
        figures.is_root = true;
        figures.pipe_bytes = Some(Some(0));
        figures.pipe_max_size = Some(1 << 16);
        figures.splice = Err("EPERM".into());
        assert_eq!(worst(&findings(&figures, "user = \"l4lb\", splice = false")), Verdict::Ok);
    }

    #[test]
    fn an_unreadable_setting_is_shown_as_unknown() {
        let blind = Figures { somaxconn: None, pipe_bytes: None, port_range: None, ..good() };
        let unknown: Vec<_> = findings(&blind, "")
            .into_iter()
            .filter(|finding| finding.found == "unknown")
            .map(|f| f.name)
            .collect();
        assert_eq!(unknown, ["pipes", "accept queue", "source ports"]);
    }
}
