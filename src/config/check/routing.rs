//! `tls`, `on_no_sni` and `route` of a listener.

use std::collections::HashMap;

use super::pool::{PoolDraft, TIMEOUTS};
use super::pool_names::named_pool;
use super::reader::{Reader, quote};
use crate::config::model::Timeouts;
use crate::config::parse::raw::{Key, RawListener, RawRoute};
use crate::config::parse::report::{Report, Scope, Spot};
use crate::config::ranges::{ALPN_LEN_MAX, ROUTE_VALUES_MAX, ROUTES_MAX};
use crate::config::routing::{OnNoSni, Reads, Routing, Target, Tls};
use crate::preread::ServerName;
use crate::preread::routes::{Conditions, Routes};

const TLS: [(&str, Tls); 2] = {
    let [a, b] = Tls::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

const ON_NO_SNI: [(&str, OnNoSni); 2] = {
    let [a, b] = OnNoSni::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

/// Returns the routes of a listener with these timeouts; `None` when it has none and reads nothing.
pub(super) fn check(
    raw: &RawListener,
    scope: &Scope,
    own: Timeouts,
    pools: &[PoolDraft],
    pool_indices: &HashMap<&str, usize>,
    report: &mut Report,
) -> Option<Routing> {
    let mut read = Reader { report, scope };
    let tls = read.choice("tls", &raw.tls, &TLS);
    let on_no_sni = read.choice("on_no_sni", &raw.on_no_sni, &ON_NO_SNI);
    if raw.on_no_sni.is_some() && raw.tls.is_none() {
        read.wrong("on_no_sni", &raw.on_no_sni, NEEDS_TLS);
    }
    if raw.route.len() > ROUTES_MAX {
        let len = raw.route.len();
        read.wrong("route", &None, format_args!("must be 1..={ROUTES_MAX} routes, got {len}"));
        return None;
    }
    let (mut table, mut targets) = (Vec::new(), Vec::new());
    for (route, number) in raw.route.iter().zip(1..) {
        let scope = scope.part(Spot::Byte(route.span().start), &format!("route #{number}"));
        let route = route.get_ref();
        let mut read = Reader { report, scope: &scope };
        table.push(conditions(&mut read, route, raw.tls.is_some()));
        if route.pool.is_none() {
            read.wrong("pool", &route.pool, "missing, name the pool to serve");
        }
        let pool = named_pool(&mut read, &route.pool, pool_indices).unwrap_or(0);
        let of_pool = pools.get(pool).map_or(TIMEOUTS, |pool| pool.pool.timeouts);
        targets.push(Target { pool, timeouts: timeouts(raw, own, of_pool) });
    }
    let reads = tls.map(|tls| Reads { tls, on_no_sni: on_no_sni.unwrap_or(OnNoSni::Default) });
    let has_any = reads.is_some() || !targets.is_empty();
    has_any.then(|| Routing { reads, table: Routes::new(table), targets })
}

const NEEDS_TLS: &str = "needs tls = \"passthrough\" or \"postgres\" beside it";

/// Returns what a route is for.
fn conditions(read: &mut Reader<'_>, raw: &RawRoute, reads_tls: bool) -> Conditions {
    let RawRoute { sni, alpn, client, pool: _ } = raw;
    if [sni, alpn, client].iter().all(|key| key.is_none()) {
        read.wrong("sni", sni, "missing, a route needs one of sni, alpn and client");
    }
    for (name, key) in [("sni", sni), ("alpn", alpn)] {
        if key.is_some() && !reads_tls {
            read.wrong(name, key, NEEDS_TLS);
        }
    }
    let name = |text: &str| text.parse::<ServerName>().map_err(|error| error.to_string());
    let protocol = |text: &str| {
        let fits = (1..=ALPN_LEN_MAX).contains(&text.len());
        let wrong = || format!("must be protocols of 1..={ALPN_LEN_MAX} bytes, got {}", quote(text));
        fits.then(|| text.as_bytes().into()).ok_or_else(wrong)
    };
    Conditions {
        sni: read.list("sni", sni, ROUTE_VALUES_MAX, "names", name).unwrap_or_default(),
        alpn: read.list("alpn", alpn, ROUTE_VALUES_MAX, "protocols", protocol).unwrap_or_default(),
        client: read.networks("client", client, ROUTE_VALUES_MAX).unwrap_or_default(),
    }
}

/// Returns those that the listener has itself, and else those of the pool of a route.
fn timeouts(raw: &RawListener, own: Timeouts, of_pool: Timeouts) -> Timeouts {
    let Some(raw) = raw.timeouts.as_ref().map(toml::Spanned::get_ref) else { return of_pool };
    let chosen = |key: &Key, own, of_pool| if key.is_some() { own } else { of_pool };
    Timeouts {
        connect: chosen(&raw.connect, own.connect, of_pool.connect),
        idle: chosen(&raw.idle, own.idle, of_pool.idle),
        half_close: chosen(&raw.half_close, own.half_close, of_pool.half_close),
    }
}
