//! Prints a configuration as `l4lb check` does, in the words of the file.

use std::collections::BTreeMap;
use std::fmt;

use super::error::one_line;
use super::model::{
    AccessLog, Account, Admin, AdminSocket, Backend, BackendCheck, Check, CheckTls, Config, Expect,
    FurtherCheck, Global, Health, Listener, LogTarget, OnRefuse, Pool, Resolve, ScriptStep, SessionLines,
    Syslog, Tcp, Timeouts,
};
use super::routing::Routing;
use super::units::show_duration;
use crate::admission::{Access, Rule};
use crate::tls::Verify;

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.global)?;
        writeln!(f, "{}", self.admin)?;
        write!(f, "{}", OfFleet(self))
    }
}

/// The settings that several machines may share: all but `[global]` and `[admin]`.
pub(super) struct OfFleet<'c>(pub(super) &'c Config);

impl fmt::Display for OfFleet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(config) = self;
        if let Some(announce) = &config.announce {
            writeln!(f, "{announce}")?;
        }
        if let Some(fleet) = &config.fleet {
            writeln!(f, "{fleet}")?;
        }
        for listener in &config.listeners {
            let pool = config.pool_name(listener.pool);
            writeln!(f, "listener {}: pool={pool} {listener}", listener.name)?;
            let routes =
                listener.routing.iter().flat_map(|routing| routing.show(|pool| config.pool_name(pool)));
            for route in routes {
                writeln!(f, "  route: {route}")?;
            }
        }
        for pool in &config.pools {
            write!(f, "{pool}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Global {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.log_format.as_str();
        let level = self.log_level.as_str().to_ascii_lowercase();
        let [busy_poll, drain_timeout, shutdown_delay, reload_timeout] =
            [self.busy_poll, self.drain_timeout, self.shutdown_delay, self.reload_timeout].map(show_duration);
        let Self { workers, pin, splice, .. } = self;
        write!(f, "global: workers={workers} pin={pin} splice={splice} busy_poll={busy_poll}")?;
        write!(f, " drain_timeout={drain_timeout} shutdown_delay={shutdown_delay}")?;
        write!(f, " reload_timeout={reload_timeout}")?;
        if self.watch {
            write!(f, " watch=true")?;
        }
        if self.resolve != Resolve::KeepTrying {
            write!(f, " resolve={}", self.resolve.as_str())?;
        }
        if let Some(max) = self.max_sessions {
            write!(f, " max_sessions={max}")?;
        }
        write!(f, " log={level},{format}")?;
        if let LogTarget::Syslog(Syslog { socket, facility, app_name, header }) = &self.log_target {
            write!(
                f,
                " log_target=syslog,{},{}",
                one_line(&socket.display().to_string()),
                facility.as_str()
            )?;
            write!(f, ",{app_name},{}", header.as_str())?;
        }
        if let Some(fields) = &self.log_fields {
            write!(f, " log_fields={}", fields.join(","))?;
        }
        if let Some(AccessLog { path, format }) = &self.access_log {
            write!(f, " access_log={},{}", one_line(&path.display().to_string()), format.as_str())?;
        }
        if self.session_lines != SessionLines::default() {
            write!(f, " access_log_at={}", self.session_lines.at())?;
        }
        if let Some(every) = self.session_lines.every {
            write!(f, " access_log_every={}", show_duration(every))?;
        }
        if let Some(Account { user, group }) = &self.user {
            write!(f, " user={user}")?;
            if let Some(group) = group {
                write!(f, " group={group}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "admin: socket={}", self.socket)?;
        let addresses = [("listen", self.listen), ("metrics", self.metrics)];
        for (key, address) in addresses {
            address.map_or(Ok(()), |address| write!(f, " {key}={address}"))?;
        }
        let files = [
            ("token_file", &self.token_file),
            ("read_token_file", &self.read_token_file),
            ("state_file", &self.state_file),
        ];
        for (key, path) in files {
            path.as_ref()
                .map_or(Ok(()), |path| write!(f, " {key}={}", one_line(&path.display().to_string())))?;
        }
        Ok(())
    }
}

impl fmt::Display for AdminSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::At(path) => f.write_str(&one_line(&path.display().to_string())),
            Self::Off => write!(f, "false"),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bind, backlog, timeouts, .. } = self;
        let accept = self.accept.as_str();
        write!(f, "bind={bind} {timeouts} backlog={backlog} accept={accept}")?;
        if let Some(max) = self.max_sessions {
            write!(f, " max_sessions={max}")?;
        }
        for rule in [Rule::Allow, Rule::Deny] {
            shown_list(self.access.as_deref(), rule)
                .map_or(Ok(()), |list| write!(f, " {}={list}", rule.as_str()))?;
        }
        if self.access.is_some() || self.on_refuse != OnRefuse::Reset {
            write!(f, " on_refuse={}", self.on_refuse.as_str())?;
        }
        if let Some(proxy) = &self.proxy_protocol {
            write!(f, " proxy_protocol={proxy}")?;
        }
        let words = self.routing.as_ref().and_then(Routing::words);
        if let Some((tls, on_no_sni)) = words {
            write!(f, " tls={tls} on_no_sni={on_no_sni}")?;
        }
        if self.proxy_protocol.is_some() || words.is_some() {
            write!(f, " preread={}", show_duration(self.preread))?;
        }
        Ok(())
    }
}

/// Returns the values of a list in one line, unless it has none.
pub(super) fn shown_list(access: Option<&Access>, rule: Rule) -> Option<String> {
    let items = access.map_or(&[][..], |access| access.items(rule));
    let items: Vec<String> = items.iter().map(|item| one_line(&item.to_string())).collect();
    (!items.is_empty()).then(|| items.join(","))
}

impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [connect, idle, half_close] = [self.connect, self.idle, self.half_close].map(show_duration);
        write!(f, "connect={connect} idle={idle} half_close={half_close}")
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, retries, timeouts, tcp, health, .. } = self;
        let [balance, when_all_down] = [self.balance.as_str(), self.when_all_down.as_str()];
        let [relay, on_remove] = [self.relay.as_str(), self.on_remove.as_str()];
        let drain_timeout = show_duration(self.drain_timeout);
        write!(f, "pool {name}: balance={balance} retries={retries} when_all_down={when_all_down}")?;
        write!(f, " relay={relay} on_remove={on_remove} drain_timeout={drain_timeout}")?;
        if let Some(proxy) = &self.proxy_protocol {
            write!(f, " proxy_protocol={proxy}")?;
        }
        writeln!(f)?;
        writeln!(f, "  timeouts: {timeouts}")?;
        writeln!(f, "  tcp: {tcp}")?;
        writeln!(f, "  health: {health}")?;
        if let Some(agent) = &self.agent {
            writeln!(f, "  agent: {agent}")?;
        }
        for check in &health.more {
            writeln!(f, "  check {check}")?;
        }
        for backend in &self.backends {
            writeln!(f, "  backend {backend}")?;
        }
        for source in &self.discover {
            match source.as_host() {
                Some(_) => writeln!(f, "  backend {source}")?,
                None => writeln!(f, "  discover {}: {source}", source.label())?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nodelay={} keepalive=", self.nodelay)?;
        match self.keepalive {
            Some(keepalive) => {
                let [idle, interval] = [keepalive.idle, keepalive.interval].map(show_duration);
                write!(f, "{idle}/{interval}/{}", keepalive.count)?;
            }
            None => write!(f, "false")?,
        }
        write!(f, " user_timeout={}", show_duration(self.user_timeout.unwrap_or_default()))
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_check(f, &self.check, &self.written)?;
        if self.check == Check::Off {
            return write!(f, " initial_state={}", self.initial_state.as_str());
        }
        let [interval, fast, timeout] = [self.interval, self.fast_interval, self.timeout].map(show_duration);
        let Self { rise, fall, jitter_percent, .. } = self;
        write!(f, " interval={interval} fast_interval={fast} timeout={timeout} rise={rise} fall={fall}")?;
        write!(f, " jitter_percent={jitter_percent} initial_state={}", self.initial_state.as_str())?;
        self.port.map_or(Ok(()), |port| write!(f, " port={port}"))
    }
}

impl fmt::Display for FurtherCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, check, written, port, secrets: _ } = self;
        write!(f, "{name}: ")?;
        write_check(f, check, written)?;
        port.map_or(Ok(()), |port| write!(f, " port={port}"))
    }
}

/// Writes the type of a check and its keys.
fn write_check(
    f: &mut fmt::Formatter<'_>,
    check: &Check,
    written: &BTreeMap<&'static str, String>,
) -> fmt::Result {
    let shown = |key: &str, value: String| written.get(key).map_or(value, |written| one_line(written));
    match check {
        Check::Http { path, host, status } => {
            write!(f, "type=http path={} status={status}", shown("path", path.clone()))?;
            host.as_ref().map_or(Ok(()), |host| write!(f, " host={}", shown("host", host.clone())))
        }
        Check::SendExpect { send, expect } => {
            let (key, bytes) = match expect {
                Expect::Prefix(bytes) => ("expect", bytes),
                Expect::Contains(bytes) => ("contains", bytes),
            };
            let [send, bytes] = [("send", send), (key, bytes)]
                .map(|(key, bytes)| shown(key, bytes.escape_ascii().to_string()));
            write!(f, "type=send_expect send=\"{send}\" {key}=\"{bytes}\"")
        }
        Check::Off
        | Check::Tcp
        | Check::Script(_)
        | Check::Redis
        | Check::Postgres { .. }
        | Check::Mysql { .. }
        | Check::Smtp { .. }
        | Check::Grpc { .. }
        | Check::Mqtt { .. }
        | Check::Command(_)
        | Check::Tls { .. } => {
            let keys = check_keys(check, written).into_iter().filter_map(|(key, value)| Some((key, value?)));
            let keys = keys.map(|(key, value)| format!("{}={value}", key.trim_start_matches("health.")));
            f.write_str(&keys.collect::<Vec<_>>().join(" "))
        }
    }
}

/// Returns all keys of any check, in one order.
pub(super) fn check_keys(
    check: &Check,
    written: &BTreeMap<&'static str, String>,
) -> [(&'static str, Option<String>); 14] {
    let shown = |key: &str, value: String| {
        Some(written.get(key).map_or(value, |written| format!("\"{}\"", written.escape_debug())))
    };
    let (mut sent, mut prefix, mut contained) = (None, None, None);
    let (mut target, mut named, mut expected) = (None, None, None);
    let (mut script, mut login, mut greeter, mut asked, mut client) = (None, None, None, None, None);
    let mut program = None;
    let quoted = |key: &str, bytes: &[u8]| shown(key, format!("\"{}\"", bytes.escape_ascii()));
    match check {
        Check::Off | Check::Tcp | Check::Redis => {}
        Check::SendExpect { send, expect } => {
            sent = quoted("send", send);
            match expect {
                Expect::Prefix(bytes) => prefix = quoted("expect", bytes),
                Expect::Contains(bytes) => contained = quoted("contains", bytes),
            }
        }
        Check::Http { path, host, status } => {
            target = shown("path", path.clone());
            named = host.clone().and_then(|host| shown("host", host));
            expected = Some(status.to_string());
        }
        Check::Script(steps) => {
            script =
                Some(written.get("steps").map_or_else(|| show_steps(steps), |written| one_line(written)));
        }
        Check::Postgres { user } => {
            login = shown("user", user.clone());
        }
        Check::Mysql { user } => {
            login = user.clone().and_then(|user| shown("user", user));
        }
        Check::Smtp { domain } => {
            greeter = shown("domain", domain.clone());
        }
        Check::Grpc { service, host } => {
            asked = shown("service", service.clone()).filter(|service| !service.is_empty());
            named = host.clone().and_then(|host| shown("host", host));
        }
        Check::Mqtt { client_id } => {
            client = shown("client_id", client_id.clone()).filter(|id| !id.is_empty());
        }
        Check::Tls { tls, inside } => {
            let mut keys = check_keys(inside, written);
            for (key, value) in &mut keys {
                match *key {
                    "health.type" => *value = Some(check.type_name().to_owned()),
                    "health.tls" => *value = Some(show_tls(tls, written)),
                    _ => {}
                }
            }
            return keys;
        }
        Check::Command(command) => program = Some(one_line(&format!("{command:?}"))),
    }
    [
        ("health.type", Some(check.type_name().to_owned())),
        ("health.send", sent),
        ("health.expect", prefix),
        ("health.contains", contained),
        ("health.path", target),
        ("health.host", named),
        ("health.status", expected),
        ("health.steps", script),
        ("health.user", login),
        ("health.domain", greeter),
        ("health.service", asked),
        ("health.client_id", client),
        ("health.tls", None),
        ("health.command", program),
    ]
}

/// Writes a table. What the authorities are is shown too: a file may have others under the same name.
fn show_tls(tls: &CheckTls, written: &BTreeMap<&'static str, String>) -> String {
    let CheckTls { server_name, ca_file, expires_within, client } = tls;
    let quoted = |key: &str, value: String| {
        format!("\"{}\"", written.get(key).map_or(value, |written| written.escape_debug().to_string()))
    };
    let mut keys = Vec::new();
    keys.extend(
        server_name
            .as_ref()
            .map(|name| format!("server_name = {}", quoted("tls.server_name", name.to_str().into_owned()))),
    );
    keys.push(format!("verify = {}", client.verify().as_str()));
    keys.extend(ca_file.as_ref().map(|path| {
        format!("ca_file = {}", quoted("tls.ca_file", path.display().to_string().escape_debug().to_string()))
    }));
    if client.verify() != Verify::None {
        let authorities = client.authorities();
        keys.push(format!("authorities = {} ({:08x})", authorities.count(), authorities.digest()));
    }
    let alpn: Vec<String> = client.alpn().map(|name| format!("{name:?}")).collect();
    if !alpn.is_empty() {
        keys.push(format!("alpn = [{}]", alpn.join(", ")));
    }
    keys.push(format!("expires_within = {}", show_duration(*expires_within)));
    format!("{{ {} }}", keys.join(", "))
}

fn show_steps(steps: &[ScriptStep]) -> String {
    let steps = steps.iter().map(|ScriptStep { send, expect }| {
        let keys = [("send", send), ("expect", expect)].into_iter().filter(|(_, bytes)| !bytes.is_empty());
        let keys: Vec<String> =
            keys.map(|(key, bytes)| format!("{key} = \"{}\"", bytes.escape_ascii())).collect();
        format!("{{ {} }}", keys.join(", "))
    });
    format!("[{}]", steps.collect::<Vec<_>>().join(", "))
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            address,
            weight,
            priority,
            check: BackendCheck { address: checked, port, interval },
        } = self;
        write!(f, "{name}: address={address} weight={weight}")?;
        if *priority > 0 {
            write!(f, " priority={priority}")?;
        }
        checked.map_or(Ok(()), |address| write!(f, " check_address={address}"))?;
        port.map_or(Ok(()), |port| write!(f, " check_port={port}"))?;
        interval.map_or(Ok(()), |interval| write!(f, " check_interval={}", show_duration(interval)))
    }
}
