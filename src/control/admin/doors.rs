//! The doors over TCP of a running process, and how they follow another configuration: what is to answer is opened first, and
//! takes the place of what answered in one step.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::guard::Guard;
use super::serve::{Door, Swaps};
use super::token::Tokens;
use super::{AdminError, Context, monitoring, routes, tcp, watched};
use crate::config::model::Admin;
use crate::sys;

/// Which door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The API.
    Listen,
    /// The metrics alone.
    Metrics,
}

/// What opens a door, within the runtime; `None` where there is to be none any more.
pub(super) type Hang = Box<dyn FnOnce() -> io::Result<Option<Door>> + Send>;

/// The doors over TCP.
#[derive(Clone)]
pub struct Doors {
    context: Context,
    /// Those of the API, which a reload replaces.
    tokens: Arc<RwLock<Option<Tokens>>>,
    /// What they were opened for.
    settings: Arc<Mutex<Admin>>,
    swaps: UnboundedSender<(Place, Hang)>,
}

/// What was opened for another configuration. Dropped, it is closed again.
pub struct Swap {
    doors: Doors,
    settings: Admin,
    tokens: Option<Tokens>,
    /// What changes.
    listen: Option<Option<TcpListener>>,
    metrics: Option<Option<TcpListener>>,
}

impl Doors {
    /// Those of a process that has opened what `settings` name; and where what takes their place comes from.
    pub(super) fn new(settings: &Admin, context: Context, tokens: Option<Tokens>) -> (Self, Swaps) {
        let (swaps, arriving) = unbounded_channel();
        let (tokens, settings) = (Arc::new(RwLock::new(tokens)), Arc::new(Mutex::new(settings.clone())));
        (Self { context, tokens, settings, swaps }, arriving)
    }

    /// The door of the API.
    pub(super) fn listen(&self, listener: TcpListener) -> io::Result<Door> {
        let (listener, address) = watched(listener)?;
        log::info!(address:%; "admin API");
        let guard = Guard { tokens: Arc::clone(&self.tokens), view: Arc::clone(&self.context.view) };
        Ok(Door::tcp(listener, routes::all(self.context.clone(), Some(guard))))
    }

    /// The door of the metrics.
    pub(super) fn metrics(&self, listener: TcpListener) -> io::Result<Door> {
        let (listener, address) = watched(listener)?;
        log::info!(address:%; "metrics");
        Ok(Door::tcp(listener, monitoring::alone(self.context.clone(), address)))
    }

    /// Opens what `settings` name and the process has not open, and reads the tokens again. Uses none of it.
    pub fn open(&self, settings: &Admin) -> Result<Swap, AdminError> {
        let failed = |what: String| move |error| AdminError { what, error };
        let running = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bind = |address: Option<_>| {
            let bound = address.map(|address| tcp(address).map_err(failed(format!("listen on {address}"))));
            bound.transpose()
        };
        let listen = (settings.listen != running.listen).then(|| bind(settings.listen)).transpose()?;
        let metrics = (settings.metrics != running.metrics).then(|| bind(settings.metrics)).transpose()?;
        let tokens = match settings.listen.map(|_| Tokens::read(settings)) {
            None => None,
            Some(Ok(tokens)) => Some(tokens),
            // Read as root at the start; nothing but a new file of the same name is missed.
            Some(Err(error)) if is_out_of_reach(&error) && has_same_files(settings, &running) => {
                log::warn!(error:%; "tokens cannot be read again, the old ones are still accepted");
                self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
            }
            Some(Err(error)) => return Err(AdminError { what: "read a token".into(), error }),
        };
        Ok(Swap { doors: self.clone(), settings: settings.clone(), tokens, listen, metrics })
    }
}

fn is_out_of_reach(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && sys::has_given_up_root()
}

fn has_same_files(one: &Admin, other: &Admin) -> bool {
    (&one.token_file, &one.read_token_file) == (&other.token_file, &other.read_token_file)
}

impl Swap {
    /// Answers there from now on. Never waits.
    pub fn begin(self) {
        let Self { doors, settings, tokens, listen, metrics } = self;
        *doors.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        *doors.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
        if let Some(listener) = listen {
            let opener = doors.clone();
            doors.send(Place::Listen, move || listener.map(|listener| opener.listen(listener)).transpose());
        }
        if let Some(listener) = metrics {
            let opener = doors.clone();
            doors.send(Place::Metrics, move || listener.map(|listener| opener.metrics(listener)).transpose());
        }
    }
}

impl Doors {
    fn send(&self, place: Place, hang: impl FnOnce() -> io::Result<Option<Door>> + Send + 'static) {
        // Without the thread of the API the process ends.
        let _ends = self.swaps.send((place, Box::new(hang)));
    }
}
