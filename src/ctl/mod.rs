//! The client of the admin API: `l4lb ctl`, `l4lb register` and the requests of `l4lb top`.
//!
//! `args` has the flags, `target` finds the API, `client` asks, `routes` names the paths, `show` turns answers into
//! text. `change` changes backends, `access` shows what lists of networks
//! say, `settings` reads KEY=VALUE, `check` runs their checks, `drain` waits until they have
//! no session left, `stop` until the process has ended;
//! `register` keeps a backend registered; `names` is for shells that complete them.

mod access;
mod args;
mod change;
mod check;
mod client;
mod codes;
mod discovery;
mod drain;
mod failure;
pub(crate) mod figures;
mod fleet;
mod fleet_change;
mod messages;
mod names;
mod register;
pub(crate) mod routes;
mod settings;
mod show;
mod stop;
mod table;
pub(crate) mod target;

use std::io::{self, ErrorKind, Write};

use axum::http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api;
use crate::base::glob;
use crate::config::one_line;
use crate::sys::timestamp;

pub(crate) use args::CtlArgs;
pub use client::{Answer, Client, ClientError, Messages, Target};
pub(crate) use failure::Failure;
pub use messages::Message;
pub(crate) use names::{Kind as NameKind, names};
pub(crate) use register::{RegisterArgs, register};
pub(crate) use settings::KEYS as SETTING_KEYS;
pub(crate) use show::{stage_word, state_words};
pub(crate) use target::At;

use args::{AclAction, Action, CountersAction, SessionArgs, Verb};

/// Sends the request of `args` and prints the answer.
pub(crate) fn run(args: &CtlArgs) -> Result<(), Failure> {
    if let Action::Explain { codes: true, .. } = args.action {
        return if args.json() {
            Err(Failure::Usage("--codes: not available as JSON".into()))
        } else {
            print(&codes::codes())
        };
    }
    let mut client = match (args.at().client(), &args.action) {
        (Err(failure), Action::Check { .. }) => return Err(failure.without_result()),
        (client, _) => client?,
    };
    if matches!(args.action, Action::Reload { .. } | Action::Acl { action: AclAction::Reload }) {
        client = client.with_patience(api::RELOAD_ANSWER_MAX + client::ANSWER_TIMEOUT);
    }
    let ctl = Ctl { client, json: args.json() };
    if args.fleet() { ctl.act_on_fleet(&args.action) } else { ctl.act(&args.action) }
}

/// Writes to standard output, unbuffered.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe { Failure::NoReader } else { Failure::Unwritten(error) }
    })
}

const NOTHING: Option<&()> = None;

struct Ctl {
    client: Client,
    json: bool,
}

impl Ctl {
    fn act(&self, action: &Action) -> Result<(), Failure> {
        let now = timestamp();
        match action {
            Action::Status => self.get("/v1/status", |status| show::status(status, now)),
            Action::Listeners => self.get("/v1/listeners", |rows: &Vec<_>| show::listeners(rows)),
            Action::Listener { name, verb } => {
                let change = api::ListenerChange { paused: *verb == Verb::Pause };
                let path = routes::path(&["listeners", name]);
                self.ask(Method::PATCH, &path, Some(&change), show::listener)
            }
            Action::Pools => self.get("/v1/pools", |rows: &Vec<_>| show::pools(rows)),
            Action::Backends { pool } => {
                let path = routes::query("/v1/backends", &[("pool", pool.clone())]);
                self.get(&path, |rows: &Vec<_>| show::backends(rows, now))
            }
            Action::Sessions(args) => self.sessions(args),
            Action::Events { follow, audit, after, limit } => self.events(*follow, *audit, *after, *limit),
            Action::Discover { pool: None } => {
                self.get("/v1/discovery", |rows: &Vec<_>| discovery::sources(rows, now))
            }
            Action::Discover { pool: Some(pool) } => {
                let path = routes::path(&["pools", pool, "discover"]);
                self.get(&path, |rows: &Vec<_>| discovery::discovered(rows))
            }
            Action::Fleet => self.get("/v1/fleet", fleet::fleet),
            Action::Topology => self.get("/v1/topology", show::topology),
            Action::Add { server, pool, name, weight, priority, backup, ttl, holder, replace } => {
                let new = api::NewBackend {
                    address: server.clone(),
                    name: name.clone(),
                    weight: *weight,
                    priority: *priority,
                    backup: backup.then_some(true),
                    ttl: ttl.clone(),
                    holder: holder.clone(),
                    new_holder: None,
                    replace: *replace,
                };
                let pool = match pool {
                    Some(pool) => pool.clone(),
                    None => self.only_pool("--pool")?,
                };
                let path = routes::path(&["pools", &pool, "backends"]);
                self.ask(Method::POST, &path, Some(&new), show::registered)
            }
            Action::Remove { backend, holder } => {
                let named = self.named(backend)?;
                let path = routes::query(&named.path(), &[("holder", holder.clone())]);
                self.ask(Method::DELETE, &path, NOTHING, |removed: &api::Removed| {
                    let sessions = figures::count(removed.sessions, "session");
                    match removed.removed {
                        true => format!("{named}: removed, has {sessions} left\n"),
                        false => format!("{named}: stays, held by others, has {sessions}\n"),
                    }
                })
            }
            Action::Drain { chosen, wait, timeout } => {
                let change = admin_change(api::Admin::Drain);
                if *wait {
                    return self.drain(chosen, &change, *timeout);
                }
                self.change(chosen, &change)
            }
            Action::Ready(chosen) => self.change(chosen, &admin_change(api::Admin::Ready)),
            Action::Maint(chosen) => self.change(chosen, &admin_change(api::Admin::Maint)),
            Action::Weight { chosen, weight } => self.change(
                chosen,
                &api::BackendsChange { weight: Some(*weight), ..api::BackendsChange::default() },
            ),
            Action::Set(words) => self.set(words),
            Action::Health { chosen, health } => {
                let health = Some((*health).into());
                self.change(chosen, &api::BackendsChange { health, ..api::BackendsChange::default() })
            }
            Action::Check { backends } => self.check(backends),
            Action::Kill { session, backend } => self.kill(session.as_deref(), backend.as_deref()),
            Action::Reload { dry_run: true } => {
                self.ask(Method::POST, "/v1/config/diff", NOTHING, show::reload)
            }
            Action::Reload { dry_run: false } => {
                self.ask(Method::POST, "/v1/config/reload", NOTHING, show::reload)
            }
            Action::Acl { action: AclAction::Reload } => {
                self.ask(Method::POST, "/v1/acl/reload", NOTHING, show::reload)
            }
            Action::Acl { action: AclAction::Test { client, listener } } => {
                let query = [("address", Some(client.to_string())), ("listener", listener.clone())];
                let path = routes::query("/v1/acl", &query);
                self.get(&path, |rows: &Vec<_>| access::decisions(rows))
            }
            Action::Explain { session, .. } => {
                let session = session.as_deref().unwrap_or_default();
                self.get(&routes::path(&["sessions", session, "explanation"]), show::explanation)
            }
            Action::LogLevel { level } => {
                let show = |shown: &api::LogLevel| format!("{}\n", shown.level);
                let path = "/v1/log-level";
                match level {
                    None => self.get(path, show),
                    Some(level) => {
                        let wanted = api::LogLevel { level: level.clone() };
                        self.ask(Method::PUT, path, Some(&wanted), show)
                    }
                }
            }
            Action::ReadyFail { fail } => {
                let show = |shown: &api::ReadyFail| format!("{}\n", if shown.fail { "on" } else { "off" });
                let path = "/v1/ready-fail";
                match fail {
                    None => self.get(path, show),
                    Some(fail) => {
                        let wanted = api::ReadyFail { fail: fail == "on" };
                        self.ask(Method::PUT, path, Some(&wanted), show)
                    }
                }
            }
            Action::Counters { action: CountersAction::Clear { what } } => {
                let (pool, backend) = match what.as_ref().and_then(|what| what.split_once('/')) {
                    Some((pool, backend)) => (Some(pool.to_owned()), Some(backend.to_owned())),
                    None => (what.clone(), None),
                };
                let scope = api::ClearScope { pool, backend };
                self.ask(Method::POST, "/v1/counters/clear", Some(&scope), |done: &api::CountersCleared| {
                    let backends = figures::count(done.backends, "backend");
                    format!("{}: {backends}, shown from now on\n", what.as_deref().unwrap_or("all"))
                })
            }
            Action::Stop { now, wait, timeout } => {
                let body = api::Stop { now: *now };
                let answer = self.client.answer(Method::POST, "/v1/stop", Some(&body))?;
                let began: api::Stopping = answer.read()?;
                if *wait {
                    stop::wait(&self.client, &began, *timeout)?;
                }
                print(&if self.json { json_line(&answer.body) } else { stop::stopping(&began, *wait) })
            }
            Action::Drains => self.get("/v1/drains", show::drains),
            Action::Config { toml: false } => self.get("/v1/config", show::config),
            Action::Config { toml: true } => {
                self.get("/v1/config/toml", |file: &api::ConfigToml| file.toml.clone())
            }
        }
    }

    fn get<T: DeserializeOwned>(&self, path: &str, show: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        self.ask(Method::GET, path, NOTHING, show)
    }

    /// Prints the answer, as text or unchanged.
    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        show: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let answer = self.client.answer(method, path, body)?;
        let said = answer.read()?;
        print(&if self.json { json_line(&answer.body) } else { show(&said) })?;
        warn_unless_saved(&answer.body);
        Ok(())
    }

    fn kill(&self, session: Option<&str>, backend: Option<&str>) -> Result<(), Failure> {
        let path = match (session, backend) {
            (Some(session), _) => routes::path(&["sessions", session]),
            (None, backend) => {
                format!("{}/sessions", self.named(backend.unwrap_or_default())?.path())
            }
        };
        self.ask(Method::DELETE, &path, NOTHING, |killed: &api::Killed| {
            format!("{} cut\n", figures::count(killed.sessions, "session"))
        })
    }

    fn sessions(&self, args: &SessionArgs) -> Result<(), Failure> {
        let (pool, backend) = match &args.backend {
            // The server resolves it.
            Some(pattern) if glob::is_pattern(pattern) => (None, Some(pattern.clone())),
            Some(backend) => {
                let Named { pool, backend } = self.named(backend)?;
                (Some(pool), Some(backend))
            }
            None => (args.pool.clone(), None),
        };
        let mut from = args.from.clone();
        let mut all = api::SessionPage { sessions: Vec::new(), next: None, has_older: false };
        loop {
            let path = routes::query(
                "/v1/sessions",
                &[
                    ("pool", pool.clone()),
                    ("backend", backend.clone()),
                    ("client", args.client.map(|client| client.to_string())),
                    ("sort", args.sort.map(|sort| api::SessionSort::from(sort).as_str().to_owned())),
                    ("limit", args.limit.map(|limit| limit.to_string())),
                    ("from", from),
                    ("ended", args.ended.then(|| "true".to_owned())),
                    ("reason", args.reason.clone()),
                    ("since", args.since.map(|since| format!("{}ms", since.as_millis()))),
                ],
            );
            let answer = self.client.answer(Method::GET, &path, NOTHING)?;
            let page: api::SessionPage = answer.read()?;
            if self.json {
                print(&json_line(&answer.body))?;
            } else {
                all.has_older = page.has_older;
                all.sessions.extend(page.sessions);
            }
            match page.next {
                Some(next) if args.all => from = Some(next),
                next => {
                    all.next = next;
                    break;
                }
            }
        }
        if self.json {
            return Ok(());
        }
        if args.ended {
            return print(&show::ended(&all));
        }
        let more = all.next.as_ref().map(|next| format!("there are more: --from {next}, or --all\n"));
        let more = more
            .or_else(|| all.has_older.then(|| "there are more: a larger --limit prints them\n".to_owned()));
        print(&(show::sessions(&all) + &more.unwrap_or_default()))
    }

    fn events(
        &self,
        follow: bool,
        audit: bool,
        after: Option<u64>,
        limit: Option<u32>,
    ) -> Result<(), Failure> {
        let mut after = after;
        let mut limit = limit;
        loop {
            // Opened before the look back, so that no event falls between the two.
            let stream = if follow { Some(self.client.follow("/v1/events/stream")?) } else { None };
            let query = [
                ("after", after.map(|id| id.to_string())),
                ("limit", limit.map(|limit| limit.to_string())),
                ("audit", audit.then(|| "true".to_owned())),
            ];
            let path = routes::query("/v1/events", &query);
            let answer = self.client.answer(Method::GET, &path, NOTHING)?;
            let recent: Vec<api::Event> = answer.read()?;
            let Some(stream) = stream else {
                let text: String = recent.iter().map(show::event).collect();
                return print(&if self.json { json_line(&answer.body) } else { text });
            };
            for event in &recent {
                after = Some(event.id);
                let json = serde_json::to_string(event).expect("API types serialize to JSON");
                print(&if self.json { json_line(json.as_bytes()) } else { show::event(event) })?;
            }
            for message in stream {
                after = self.on_message(&message?, audit, after)?;
            }
            // The server ends each stream after a while; the events of the gap are wanted.
            limit = Some(api::PAGE_LEN_MAX);
        }
    }

    /// Prints a message of the stream of events; returns the last event printed.
    fn on_message(&self, message: &Message, audit: bool, after: Option<u64>) -> Result<Option<u64>, Failure> {
        if message.event != "event" {
            let missed = format!("{} events were missed: the reader was too slow", message.data);
            return if self.json { Ok(after) } else { print(&(missed + "\n")).map(|()| after) };
        }
        let event: api::Event = serde_json::from_str(&message.data)
            .map_err(|error| Failure::Failed(format!("invalid event: {error}")))?;
        if after.is_some_and(|after| event.id <= after) || (audit && event.who.is_none()) {
            return Ok(after);
        }
        print(&if self.json { json_line(message.data.as_bytes()) } else { show::event(&event) })?;
        Ok(Some(event.id))
    }

    /// Returns the backend named by `text`: POOL/BACKEND, or BACKEND when there is one pool.
    fn named(&self, text: &str) -> Result<Named, Failure> {
        let (pool, backend) = match text.split_once('/') {
            Some((pool, backend)) => (pool.to_owned(), backend.to_owned()),
            None => (self.only_pool(text)?, text.to_owned()),
        };
        if pool.is_empty() || backend.is_empty() {
            return Err(Failure::Usage(format!("{text}: a backend is named POOL/BACKEND")));
        }
        Ok(Named { pool, backend })
    }

    /// Returns the pool if there is only one; otherwise fails and asks for `what` to name it.
    fn only_pool(&self, what: &str) -> Result<String, Failure> {
        let pools: Vec<api::Pool> = self.client.get("/v1/pools")?;
        match <[api::Pool; 1]>::try_from(pools) {
            Ok([only]) => Ok(only.name),
            Err(pools) => {
                let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(Failure::Usage(format!("{what}: name the pool, there are several: {names}")))
            }
        }
    }
}

/// A backend by the names that people use.
struct Named {
    pool: String,
    backend: String,
}

impl Named {
    fn path(&self) -> String {
        routes::backend(&self.pool, &self.backend)
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pool, self.backend)
    }
}

fn admin_change(admin: api::Admin) -> api::BackendsChange {
    api::BackendsChange { admin: Some(admin), ..api::BackendsChange::default() }
}

/// Prints a warning to standard error when an answer contains why the change is not in the state file.
fn warn_unless_saved(body: &[u8]) {
    if let Some(reason) = not_saved(body) {
        eprintln!("not saved, and lost with the process: {}", one_line(&reason));
    }
}

/// Returns why the change is not in the state file, if the answer contains it.
fn not_saved(body: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    // In /v1/status it is an object and printed anyway.
    answer.get("not_saved")?.as_str().map(ToOwned::to_owned)
}

fn json_line(body: &[u8]) -> String {
    format!("{}\n", String::from_utf8_lossy(body).trim_end())
}
