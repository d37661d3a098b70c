//! One `[[pool]]`: its algorithm, its sockets, its timeouts, its backends.

use std::time::Duration;

use toml::Spanned;

use super::agent;
use super::discover;
use super::health;
use super::names::{Found, HostDraft, Names};
use super::proxy;
use super::reader::{Reader, spot_of, spot_of_table, str_of};
use crate::balance::Algorithm;
use crate::config::address::Target;
use crate::config::error::Invalid;
use crate::config::model::{
    Backend, BackendCheck, Check, Keepalive, OnRemove, Pool, Relay, Resolved, Tcp, Timeouts, UNRESOLVED,
    WhenAllDown,
};
use crate::config::overrides::{BackendFlag, Overrides};
use crate::config::parse::label::label;
use crate::config::parse::raw::{
    RawBackend, RawKeepalive, RawListenerTimeouts, RawPool, RawTcp, RawTimeouts, Table,
};
use crate::config::parse::report::{Placed, Report, Scope, Spot};
use crate::config::priority::priority_of;
use crate::config::ranges::{
    DRAIN_TIMEOUT, KEEPALIVE, KEEPALIVE_COUNT_MAX, PRIORITY_MAX, RETRIES_MAX, TIMEOUT, USER_TIMEOUT,
    WEIGHT_MAX,
};
use crate::config::units::show_duration;

pub(super) const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    idle: Duration::from_hours(1),
    half_close: Duration::from_secs(30),
};

const ALGORITHMS: [(&str, Algorithm); 5] = {
    let [a, b, c, d, e] = Algorithm::ALL;
    [(a.as_str(), a), (b.as_str(), b), (c.as_str(), c), (d.as_str(), d), (e.as_str(), e)]
};

const WHEN_ALL_DOWN: [(&str, WhenAllDown); 2] = {
    let [a, b] = WhenAllDown::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

const ON_REMOVE: [(&str, OnRemove); 3] = {
    let [a, b, c] = OnRemove::ALL;
    [(a.as_str(), a), (b.as_str(), b), (c.as_str(), c)]
};

const RELAYS: [(&str, Relay); 3] = {
    let [a, b, c] = Relay::ALL;
    [(a.as_str(), a), (b.as_str(), b), (c.as_str(), c)]
};

/// The name of a pool without a name in the file, and of the pool that flags alone make.
const POOL_NAME: &str = "default";

/// A pool with the places of its backends in the file.
pub(super) struct PoolDraft {
    pub(super) pool: Pool,
    pub(super) scope: Scope,
    pub(super) name_at: Spot,
    pub(super) backends: Vec<Placed<Backend>>,
    pub(super) hosts: Vec<HostDraft>,
}

impl PoolDraft {
    /// Returns the pool without the places. Its host names come before its other sources, as the file counts more than
    /// those.
    pub(super) fn into_pool(self) -> Pool {
        let hosts = self.hosts.into_iter().map(|host| host.source);
        let backends = self.backends.into_iter().map(|backend| backend.item).collect();
        Pool { backends, discover: hosts.chain(self.pool.discover).collect(), ..self.pool }
    }

    /// Returns what was known of its host names.
    pub(super) fn resolved(&self) -> impl Iterator<Item = Resolved> {
        self.hosts.iter().map(|host| Resolved {
            pool: self.pool.name.clone(),
            source: host.source.label(),
            found: host.addresses.clone(),
        })
    }

    /// Adds the backends of flags.
    pub(super) fn add_flags(&mut self, flags: &[BackendFlag], names: &mut Names<'_>, report: &mut Report) {
        for flag in flags {
            let spot = Spot::Flag(format!("--backend {flag}"));
            match names.find(&flag.target) {
                Ok(found) => {
                    let name = flag.target.to_string();
                    let scope = Scope::new(spot.clone(), format!("backend {name}"));
                    let (weight, check) = (flag.weight, BackendCheck::default());
                    let item = Backend { name, address: UNRESOLVED, weight, priority: 0, check };
                    let placed = Placed { item, scope, name_at: spot.clone(), address_at: spot };
                    self.add(placed, found, report);
                }
                Err(Invalid(what)) => report.add_bare(&spot, what),
            }
        }
    }

    /// Adds a backend where it was found.
    fn add(&mut self, mut placed: Placed<Backend>, found: Found, report: &mut Report) {
        match found {
            Found::At(address) => {
                placed.item.address = address;
                self.backends.push(placed);
            }
            Found::Host { name, port, addresses } => {
                if let Err(why) = &addresses {
                    let scope = &placed.scope.name;
                    report.notes.push(format!("{scope}: {why}: it is down until its name resolves"));
                }
                self.hosts.push(HostDraft::new(placed, name, port, addresses));
            }
        }
    }
}

/// Returns the `index`-th pool of the file; the only one needs no name. `drain_timeout` is that of the process.
pub(super) fn check(
    raw: &Spanned<Table<RawPool>>,
    index: usize,
    is_only: bool,
    drain_timeout: Duration,
    overrides: &Overrides,
    names: &mut Names<'_>,
    report: &mut Report,
) -> PoolDraft {
    let spot = Spot::Byte(raw.span().start);
    let raw = raw.get_ref();
    let default_name = (is_only && raw.name.is_none()).then_some(POOL_NAME);
    let scope = Scope::new(spot, label("pool", str_of(&raw.name).or(default_name), None, index));
    let mut read = Reader { report, scope: &scope };
    let name = read.name(&raw.name).or(default_name);
    if raw.name.is_none() && !is_only {
        read.wrong("name", &raw.name, "missing: with several pools each needs one");
    }
    let balance = read.choice("balance", &raw.balance, &ALGORITHMS);
    let retries = read.whole("retries", &raw.retries, 0..=RETRIES_MAX);
    let when_all_down = read.choice("when_all_down", &raw.when_all_down, &WHEN_ALL_DOWN);
    let relay = read.choice("relay", &raw.relay, &RELAYS);
    let on_remove = read.choice("on_remove", &raw.on_remove, &ON_REMOVE);
    let own_drain_timeout = read.duration("drain_timeout", &raw.drain_timeout, DRAIN_TIMEOUT, None);
    let pool = Pool {
        name: name.unwrap_or_default().to_string(),
        balance: overrides.balance.or(balance).unwrap_or(Algorithm::RoundRobin),
        retries: retries.unwrap_or(2),
        timeouts: timeouts(raw.timeouts.as_ref(), &scope, TIMEOUTS, overrides, report),
        tcp: tcp(raw.tcp.as_ref(), &scope, report),
        health: {
            let (interval, trust) = (overrides.health_interval, &mut names.trust);
            health::check(raw.health.as_ref(), &raw.check, &scope, interval, trust, report)
        },
        when_all_down: when_all_down.unwrap_or(WhenAllDown::Close),
        relay: relay.unwrap_or(Relay::Auto),
        proxy_protocol: proxy::check(raw.proxy_protocol.as_ref(), &scope, report),
        on_remove: on_remove.unwrap_or(OnRemove::Drain),
        drain_timeout: own_drain_timeout.unwrap_or(drain_timeout),
        backends: Vec::new(),
        discover: discover::check(&raw.discover, &scope, &mut names.trust, report),
        agent: agent::check(raw.agent.as_ref(), &scope, report),
    };
    if pool.health.check == Check::Off {
        discover::refuse_unchecked(&raw.discover, &scope, report);
    }
    let mut draft = PoolDraft {
        name_at: spot_of(&raw.name).unwrap_or_else(|| scope.spot.clone()),
        backends: Vec::with_capacity(raw.backend.len()),
        hosts: Vec::new(),
        pool,
        scope,
    };
    for (index, raw) in raw.backend.iter().enumerate() {
        draft.backend(raw, index, names, report);
    }
    draft
}

/// Returns the timeouts of a pool: a flag wins over the table, the table over the `inherited` ones.
pub(super) fn timeouts(
    raw: Option<&Spanned<Table<RawTimeouts>>>,
    parent: &Scope,
    inherited: Timeouts,
    overrides: &Overrides,
    report: &mut Report,
) -> Timeouts {
    let absent = RawTimeouts::default();
    let scope = parent.part(spot_of_table(raw), "timeouts");
    let raw = raw.map_or(&absent, |raw| raw.get_ref());
    timeouts_of(raw, &scope, inherited, overrides, report)
}

/// The same for a listener, whose table has a key more.
pub(super) fn timeouts_of_listener(
    raw: Option<&Spanned<Table<RawListenerTimeouts>>>,
    parent: &Scope,
    inherited: Timeouts,
    overrides: &Overrides,
    report: &mut Report,
) -> Timeouts {
    let scope = parent.part(spot_of_table(raw), "timeouts");
    let raw = raw.map(|raw| {
        let RawListenerTimeouts { connect, idle, half_close, preread: _ } = &**raw.get_ref();
        RawTimeouts { connect: connect.clone(), idle: idle.clone(), half_close: half_close.clone() }
    });
    timeouts_of(&raw.unwrap_or_default(), &scope, inherited, overrides, report)
}

fn timeouts_of(
    raw: &RawTimeouts,
    scope: &Scope,
    inherited: Timeouts,
    overrides: &Overrides,
    report: &mut Report,
) -> Timeouts {
    let mut read = Reader { report, scope };
    let connect = read.duration("connect", &raw.connect, TIMEOUT, None);
    let idle = read.duration("idle", &raw.idle, TIMEOUT, None);
    let half_close = read.duration("half_close", &raw.half_close, TIMEOUT, None);
    Timeouts {
        connect: overrides.connect_timeout.or(connect).unwrap_or(inherited.connect),
        idle: overrides.idle_timeout.or(idle).unwrap_or(inherited.idle),
        half_close: half_close.unwrap_or(inherited.half_close),
    }
}

fn tcp(raw: Option<&Spanned<Table<RawTcp>>>, parent: &Scope, report: &mut Report) -> Tcp {
    let absent = RawTcp::default();
    let scope = parent.part(spot_of_table(raw), "tcp");
    let raw = raw.map_or(&absent, |raw| raw.get_ref());
    let mut read = Reader { report, scope: &scope };
    let nodelay = read.boolean("nodelay", &raw.nodelay);
    let kernel = Some("the kernel's own");
    let user_timeout = read.duration("user_timeout", &raw.user_timeout, USER_TIMEOUT, kernel);
    Tcp {
        nodelay: nodelay.unwrap_or(true),
        keepalive: keepalive(raw.keepalive.as_ref(), &scope, report),
        user_timeout: Some(user_timeout.unwrap_or(Duration::from_secs(30)))
            .filter(|timeout| !timeout.is_zero()),
    }
}

fn keepalive(raw: Option<&Spanned<RawKeepalive>>, parent: &Scope, report: &mut Report) -> Option<Keepalive> {
    let scope = parent.part(spot_of_table(raw), "keepalive");
    let default = Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(15), count: 4 };
    let figures = match raw.map(Spanned::get_ref) {
        None => return Some(default),
        Some(RawKeepalive::Off) => return None,
        Some(RawKeepalive::On(figures)) => figures,
    };
    let mut read = Reader { report, scope: &scope };
    let mut seconds = |name, key| {
        let duration = read.duration(name, key, KEEPALIVE, None)?;
        if duration.subsec_nanos() > 0 {
            let got = show_duration(duration);
            read.wrong(name, key, format_args!("must be in whole seconds, got {got}"));
        }
        Some(duration)
    };
    let idle = seconds("idle", &figures.idle).unwrap_or(default.idle);
    let interval = seconds("interval", &figures.interval).unwrap_or(default.interval);
    let count = read.whole("count", &figures.count, 1..=KEEPALIVE_COUNT_MAX).unwrap_or(default.count);
    Some(Keepalive { idle, interval, count })
}

/// The tier of a backend; 0 where its keys contradict each other, which is reported.
fn priority(raw: &RawBackend, read: &mut Reader<'_>) -> u8 {
    let priority = read.whole("priority", &raw.priority, 0..=PRIORITY_MAX);
    let backup = read.boolean("backup", &raw.backup);
    priority_of(priority, backup).unwrap_or_else(|Invalid(what)| {
        read.wrong("priority", &raw.priority, what);
        0
    })
}

impl PoolDraft {
    /// Adds the `index`-th backend of the file, unless it has no address.
    fn backend(
        &mut self,
        raw: &Spanned<Table<RawBackend>>,
        index: usize,
        names: &mut Names<'_>,
        report: &mut Report,
    ) {
        let spot = Spot::Byte(raw.span().start);
        let raw = raw.get_ref();
        let scope = self.scope.part(spot, &label("backend", str_of(&raw.name), str_of(&raw.address), index));
        let mut read = Reader { report, scope: &scope };
        let name = read.name(&raw.name);
        let weight = read.whole("weight", &raw.weight, 0..=WEIGHT_MAX).unwrap_or(1);
        let priority = priority(raw, &mut read);
        let check = health::check_of_backend(raw.check.as_ref(), &scope, report);
        let mut read = Reader { report, scope: &scope };
        if raw.address.is_none() {
            read.wrong("address", &raw.address, "missing, write address = \"ADDR:PORT\"");
        }
        let Some(text) = read.text("address", &raw.address) else { return };
        let placed = Target::parse(text).and_then(|target| Ok((names.find(&target)?, target)));
        let (found, target) = match placed {
            Ok(placed) => placed,
            Err(Invalid(what)) => return read.wrong("address", &raw.address, what),
        };
        let name = match raw.name {
            None => target.to_string(),
            Some(_) => name.unwrap_or_default().to_string(),
        };
        let placed = Placed {
            item: Backend { name, address: UNRESOLVED, weight, priority, check },
            name_at: spot_of(&raw.name).unwrap_or_else(|| scope.spot.clone()),
            address_at: spot_of(&raw.address).unwrap_or_else(|| scope.spot.clone()),
            scope,
        };
        self.add(placed, found, report);
    }
}
