//! The admin API: HTTP on a thread of its own, beside the control thread. It reads the state that the control thread
//! publishes and asks it for changes; no session and no health check ever waits for it.
//!
//! `socket` opens the unix socket, `serve` bounds what clients can hold, `guard` controls access, `routes` has the
//! routes, `rows` turns state into JSON, `sampler` measures durations, `stream` sends events as they happen, `page` is
//! the dashboard. `check_now` shows checks to operators, `checkers` runs them.

mod access;
mod changes;
mod check_now;
mod checkers;
mod context;
mod counters;
mod discovery;
mod error;
mod explain;
mod extract;
mod farewell;
mod fleet;
mod guard;
mod listeners;
mod monitoring;
mod page;
mod problem;
mod reloads;
mod resolve;
mod routes;
mod rows;
mod running;
mod sampler;
mod scrape;
mod serve;
mod session_filter;
mod sessions;
mod socket;
mod stop;
mod stream;
mod token;
mod wanted;
mod work;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use crate::config::model::{Account, Admin, AdminSocket, OwnSocket};
use crate::config::{NO_DEFAULT_ADMIN_SOCKET, default_admin_socket};
use crate::control::View;
use crate::messages::report::Reports;
use crate::sys;

pub use checkers::RunChecks;
pub use error::AdminError;
pub use guard::names_this_machine;
pub(crate) use listeners::{AdminListeners, Swap};
pub use routes::openapi;
pub use wanted::Wanted;

use checkers::Checkers;
use context::Context;
use farewell::Farewells;
use listeners::tcp;
use resolve::Resolvers;
use scrape::Scraper;
use serve::Place;
use socket::Unix;
use token::Tokens;

/// The open sockets, before any client is answered.
pub(crate) struct Opened {
    unix: Option<Unix>,
    listen: Option<(std::net::TcpListener, Tokens)>,
    metrics: Option<std::net::TcpListener>,
}

/// The addresses of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub(crate) socket: Option<PathBuf>,
    /// The address of the API over TCP, with the port that it was given.
    pub listen: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
}

impl Addresses {
    /// Returns the TCP sockets among them.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = OwnSocket> {
        self.listen.map(OwnSocket::Admin).into_iter().chain(self.metrics.map(OwnSocket::Metrics))
    }
}

/// Opens what `settings` name, and answers no client yet.
pub(crate) fn open(settings: &Admin) -> Result<Opened, AdminError> {
    let failed = |what: String| move |error| AdminError { what, error };
    let unix = match &settings.socket {
        AdminSocket::Off => None,
        AdminSocket::At(path) => {
            Some(Unix::open(path).map_err(failed(format!("listen on {}", path.display())))?)
        }
        AdminSocket::Default => {
            match default_admin_socket(sys::is_root()).map(|path| (Unix::open_with_folder(&path), path)) {
                None => {
                    log::warn!(reason = NO_DEFAULT_ADMIN_SOCKET; "no admin socket: set [admin] socket or --admin");
                    None
                }
                Some((Ok(unix), _)) => Some(unix),
                Some((Err(error), path)) => {
                    log::warn!(path:% = path.display(), error:%; "no admin socket: set [admin] socket or --admin");
                    None
                }
            }
        }
    };
    let listen = settings.listen.map(|address| {
        let tokens = Tokens::read(settings).map_err(failed("read a token".into()))?;
        let listener = tcp(address).map_err(failed(format!("listen on {address}")))?;
        Ok((listener, tokens))
    });
    let metrics = settings
        .metrics
        .map(|address| tcp(address).map_err(failed(format!("listen on {address} for metrics"))));
    Ok(Opened { unix, listen: listen.transpose()?, metrics: metrics.transpose()? })
}

/// Fails when a token file that `settings` name cannot be used.
pub(crate) fn check_tokens(settings: &Admin) -> io::Result<()> {
    Tokens::read(settings).map(|_| ())
}

impl Opened {
    /// Makes `account` the owner of the unix socket, so that it can also remove it. TCP listeners have no owner.
    pub(crate) fn give_to(&self, account: &Account) -> Result<(), AdminError> {
        let Some(unix) = &self.unix else { return Ok(()) };
        unix.files().try_for_each(|path| {
            let what = format!("give {} to user {:?}", path.display(), account.user);
            sys::give_to(account, path).map_err(|error| AdminError { what, error })
        })
    }

    pub(crate) fn addresses(&self) -> Addresses {
        let address = |listener: &std::net::TcpListener| listener.local_addr().ok();
        Addresses {
            socket: self.unix.as_ref().map(|unix| unix.path().to_owned()),
            listen: self.listen.as_ref().and_then(|(listener, _)| address(listener)),
            metrics: self.metrics.as_ref().and_then(address),
        }
    }

    /// Answers until the process ends; `settings` must be those it was opened for. Returns the listeners, which apply
    /// later settings.
    pub(crate) fn start(
        self,
        settings: &Admin,
        view: Arc<View>,
        reports: Reports,
        run_checks: RunChecks,
    ) -> Result<AdminListeners, AdminError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error| AdminError { what, error }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(failed("start its runtime"))?;
        let streams = Arc::new(tokio::sync::Semaphore::new(stream::STREAMS_MAX));
        let scraper = Scraper::start(Arc::clone(&view)).map_err(failed("start the thread of its scrapes"))?;
        let resolvers = Resolvers::start().map_err(failed("start the threads that resolve names"))?;
        let checkers = Checkers::start(run_checks).map_err(failed("start the threads that run checks"))?;
        let (scraper, farewells) = (Arc::new(scraper), Farewells::default());
        let context = Context { view, scraper, reports, streams, resolvers, checkers, farewells };
        let (listen, tokens) = self.listen.unzip();
        let socket_file = self.unix.as_ref().map(|unix| unix.file.clone());
        let (listeners, swaps) = AdminListeners::new(settings, context, tokens, socket_file);
        let mut open = Vec::new();
        {
            // The runtime must be entered to register sockets.
            let _entered = runtime.enter();
            if let Some(socket) = self.unix {
                open.push((Place::Socket, listeners.socket(socket).map_err(failed("watch its socket"))?));
            }
            let watch = "watch its listener";
            if let Some(listener) = listen {
                open.push((Place::Listen, listeners.listen(listener).map_err(failed(watch))?));
            }
            if let Some(listener) = self.metrics {
                open.push((Place::Metrics, listeners.metrics(listener).map_err(failed(watch))?));
            }
        }
        thread::Builder::new()
            .name("l4lb-admin".into())
            .spawn(move || runtime.block_on(serve::serve_all(open, swaps)))
            .map_err(failed("start its thread"))?;
        Ok(listeners)
    }
}
