//! Writes a listener with its routes.

use std::time::Duration;

use super::clusters::literal;
use crate::admission::Rule;
use crate::config::model::{Config, Listener, Timeouts};
use crate::config::routing::Routing;
use crate::config::units::show_duration;
use crate::config::written;
use crate::preread::routes::Conditions;

impl Config {
    pub(super) fn listener(&self, listener: &Listener) -> written::Listener {
        let Listener { name, bind, pool, backlog, accept, max_sessions, .. } = listener;
        let Listener { preread, access, on_refuse, proxy_protocol, routing, .. } = listener;
        let bind = bind.to_string();
        let list = |rule| {
            let items = access.iter().flat_map(|access| access.items(rule));
            items.map(|item| literal(&item.written())).collect()
        };
        written::Listener {
            name: literal(name),
            pool: self.pool_name(*pool).to_owned(),
            bind,
            backlog: Some(*backlog),
            accept: Some(accept.as_str()),
            max_sessions: max_sessions.map(|max| max.get() as u64),
            allow: list(Rule::Allow),
            deny: list(Rule::Deny),
            on_refuse: Some(on_refuse.as_str()),
            proxy_protocol: proxy_protocol.as_ref().map(|proxy| written::ProxyIn {
                from: proxy.from.iter().map(ToString::to_string).collect(),
                others: Some(proxy.others.as_str()),
            }),
            timeouts: written::Timeouts {
                preread: Some(show_duration(*preread)),
                ..self.own_timeouts(listener)
            },
            tls: routing.as_ref().and_then(Routing::words).map(|(tls, _)| tls),
            on_no_sni: routing.as_ref().and_then(Routing::words).map(|(_, on_no_sni)| on_no_sni),
            route: routing.iter().flat_map(|routing| self.routes(routing)).collect(),
        }
    }

    /// Returns the timeouts that are not those of the pools of the listener, which a key of its own would override for all
    /// of its routes.
    fn own_timeouts(&self, listener: &Listener) -> written::Timeouts {
        let targets = listener.routing.iter().flat_map(|routing| &routing.targets);
        let all = targets.map(|target| (target.pool, &target.timeouts));
        let all: Vec<_> = all.chain([(listener.pool, &listener.timeouts)]).collect();
        let own = |get: fn(&Timeouts) -> Duration| {
            let is_own = all.iter().any(|&(pool, used)| get(used) != get(&self.pools[pool].timeouts));
            is_own.then(|| show_duration(get(&listener.timeouts)))
        };
        let (connect, idle) = (own(|timeouts| timeouts.connect), own(|timeouts| timeouts.idle));
        written::Timeouts { connect, idle, half_close: own(|timeouts| timeouts.half_close), preread: None }
    }

    fn routes(&self, routing: &Routing) -> Vec<written::Route> {
        let routes = routing.table.all().iter().zip(&routing.targets);
        let routes = routes.map(|(conditions, target)| {
            let Conditions { sni, alpn, client } = conditions;
            written::Route {
                sni: sni.iter().map(ToString::to_string).collect(),
                alpn: alpn.iter().map(|protocol| literal(&String::from_utf8_lossy(protocol))).collect(),
                client: client.iter().map(ToString::to_string).collect(),
                pool: self.pool_name(target.pool).to_owned(),
            }
        });
        routes.collect()
    }
}
