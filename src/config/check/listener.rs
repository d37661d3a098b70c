//! One `[[listener]]`: where it accepts, how many, and for which pool.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use toml::Spanned;

use super::access;
use super::pool::{self, PoolDraft, TIMEOUTS};
use super::pool_names::named_pool;
use super::proxy;
use super::reader::{Reader, spot_of, spot_of_table, str_of};
use super::routing;
use crate::config::address::parse_bind;
use crate::config::error::Invalid;
use crate::config::model::{Accept, Listener, OnRefuse, Timeouts};
use crate::config::overrides::Overrides;
use crate::config::parse::file::Inputs;
use crate::config::parse::label::label;
use crate::config::parse::raw::{Key, RawListener, RawListenerTimeouts, Table};
use crate::config::parse::report::{Placed, Report, Scope, Spot};
use crate::config::ranges::{BACKLOG_MAX, SESSIONS_MAX, TIMEOUT};

/// Default length of the accept queue, per worker; the kernel caps it at net.core.somaxconn.
pub const BACKLOG: u32 = 4096;

/// Default of the time in which a client must have sent its header, and its hello.
const PREREAD: Duration = Duration::from_secs(3);

const ACCEPTS: [(&str, Accept); 2] = {
    let [a, b] = Accept::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

const ON_REFUSE: [(&str, OnRefuse); 2] = {
    let [a, b] = OnRefuse::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

/// The `index`-th listener of the file, unless it has no address.
pub(super) fn check(
    raw: &Spanned<Table<RawListener>>,
    index: usize,
    overrides: &Overrides,
    inputs: Inputs,
    (pools, pool_indices): (&[PoolDraft], &HashMap<&str, usize>),
    report: &mut Report,
) -> Option<Placed<Listener>> {
    let spot = Spot::Byte(raw.span().start);
    let raw = raw.get_ref();
    let scope = Scope::new(spot, label("listener", str_of(&raw.name), str_of(&raw.bind), index));
    let mut read = Reader { report, scope: &scope };
    let name = read.name(&raw.name).map(str::to_string);
    let bind = bind(&mut read, &raw.bind);
    let pool = pool_of(&mut read, &raw.pool, pools.len(), pool_indices);
    let backlog = read.whole("backlog", &raw.backlog, 1..=BACKLOG_MAX).unwrap_or(BACKLOG);
    let accept = read.choice("accept", &raw.accept, &ACCEPTS).unwrap_or(Accept::Reuseport);
    let on_refuse = read.choice("on_refuse", &raw.on_refuse, &ON_REFUSE).unwrap_or(OnRefuse::Reset);
    let max_sessions = read.count("max_sessions", &raw.max_sessions, SESSIONS_MAX);
    let inherited = pools.get(pool).map_or(TIMEOUTS, |pool| pool.pool.timeouts);
    let timeouts = pool::timeouts_of_listener(raw.timeouts.as_ref(), &scope, inherited, overrides, report);
    let preread = preread(raw.timeouts.as_ref(), &scope, report);
    let access = access::check(raw, &scope, inputs, report);
    let proxy_protocol = proxy::check_in(raw.proxy_protocol.as_ref(), &scope, report);
    let routing = routing::check(raw, &scope, timeouts, pools, pool_indices, report);
    let bind = bind?;
    let name = name.unwrap_or_else(|| if raw.name.is_none() { bind.to_string() } else { String::new() });
    Some(Placed {
        item: Listener {
            name,
            bind,
            pool,
            backlog,
            accept,
            max_sessions,
            timeouts,
            preread,
            access,
            on_refuse,
            proxy_protocol,
            routing,
        },
        name_at: spot_of(&raw.name).unwrap_or_else(|| scope.spot.clone()),
        address_at: spot_of(&raw.bind).unwrap_or_else(|| scope.spot.clone()),
        scope,
    })
}

/// The listener of the `index`-th flag, which serves the only pool.
pub(super) fn of_flag(index: usize, bind: SocketAddr, timeouts: Timeouts) -> Placed<Listener> {
    let spot = Spot::Flag(format!("--listen {bind}"));
    // The kernel chooses a port for each 0: such listeners may share their address, but not their name.
    let name = if bind.port() == 0 { format!("{bind}-{index}") } else { bind.to_string() };
    Placed {
        item: Listener {
            name,
            bind,
            pool: 0,
            backlog: BACKLOG,
            accept: Accept::Reuseport,
            max_sessions: None,
            timeouts,
            preread: PREREAD,
            access: None,
            on_refuse: OnRefuse::Reset,
            proxy_protocol: None,
            routing: None,
        },
        scope: Scope::new(spot.clone(), format!("listener {bind}")),
        name_at: spot.clone(),
        address_at: spot,
    }
}

/// Returns the key of `timeouts` that only listeners have.
fn preread(
    raw: Option<&Spanned<Table<RawListenerTimeouts>>>,
    parent: &Scope,
    report: &mut Report,
) -> Duration {
    let scope = parent.part(spot_of_table(raw), "timeouts");
    let key = raw.and_then(|raw| raw.get_ref().preread.clone());
    Reader { report, scope: &scope }.duration("preread", &key, TIMEOUT, None).unwrap_or(PREREAD)
}

fn bind(read: &mut Reader, key: &Key) -> Option<SocketAddr> {
    if key.is_none() {
        read.wrong("bind", key, "missing, write bind = \"ADDR:PORT\"");
    }
    match parse_bind(read.text("bind", key)?) {
        Ok(bind) => Some(bind),
        Err(Invalid(what)) => {
            read.wrong("bind", key, what);
            None
        }
    }
}

/// Returns the index of the pool that a listener names; without a name, the only one. 0 stands in for a wrong one.
fn pool_of(read: &mut Reader, key: &Key, pools: usize, pool_indices: &HashMap<&str, usize>) -> usize {
    if key.is_none() && pools > 1 {
        read.wrong("pool", key, format_args!("missing: the file has {pools} pools, name the one to serve"));
    }
    named_pool(read, key, pool_indices).unwrap_or(0)
}
