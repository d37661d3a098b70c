//! The open listeners of the admin API, and how those over TCP follow a new configuration: new listeners are opened
//! first and replace the old ones in one step. The unix socket stays until a restart; a reload only creates its file
//! again if it was removed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::context::Context;
use super::error::AdminError;
use super::guard::Guard;
use super::serve::{AdminListener, OpenListener, Place, Swaps};
use super::socket::{SocketFile, Unix};
use super::token::Tokens;
use super::{monitoring, routes};
use crate::config::model::{Admin, AdminSocket};
use crate::sys;

/// Limit on the wait for the last answers at the end of the process.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// The listeners of the admin API: unix socket, TCP and metrics.
#[derive(Clone)]
pub(crate) struct AdminListeners {
    context: Context,
    /// The tokens of the API, which a reload replaces.
    tokens: Arc<RwLock<Option<Tokens>>>,
    /// The settings that they were opened for.
    settings: Arc<Mutex<Admin>>,
    /// The file of the unix socket, if there is one.
    socket: Arc<Mutex<Option<SocketFile>>>,
    swaps: UnboundedSender<(Place, OpenListener)>,
}

/// The listeners opened for a new configuration. Dropping it closes them.
pub(crate) struct Swap {
    listeners: AdminListeners,
    settings: Admin,
    tokens: Option<Tokens>,
    /// The listener that replaces the present one, if it changes.
    listen: Option<Option<TcpListener>>,
    metrics: Option<Option<TcpListener>>,
}

impl AdminListeners {
    /// Returns the listeners opened for `settings`; their replacements are sent through `swaps`.
    pub(super) fn new(
        settings: &Admin,
        context: Context,
        tokens: Option<Tokens>,
        socket: Option<SocketFile>,
    ) -> (Self, Swaps) {
        let (swaps, arriving) = unbounded_channel();
        let (tokens, settings) = (Arc::new(RwLock::new(tokens)), Arc::new(Mutex::new(settings.clone())));
        let socket = Arc::new(Mutex::new(socket));
        (Self { context, tokens, settings, socket, swaps }, arriving)
    }

    /// Returns the listener of the unix socket.
    pub(super) fn socket(&self, unix: Unix) -> io::Result<AdminListener> {
        log::info!(socket:% = unix.path().display(); "admin API");
        AdminListener::unix(unix, routes::all(self.context.clone(), None))
    }

    /// Opens the unix socket again when its file has gone, or an unused file is in its place. That is independent of
    /// the configuration, so it answers at once. May wait for a process that does the same.
    fn make_socket_again(&self, settings: &Admin) {
        let mut file = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = &*file else { return };
        let socket = before.path().display().to_string();
        let opened = match before.is_there() {
            Ok(true) => return,
            Ok(false) => before.open_again(settings.socket == AdminSocket::Default),
            Err(error) => Err(error),
        };
        match opened {
            Ok(unix) => {
                log::warn!(socket; "admin socket file was removed: created again");
                *file = Some(unix.file.clone());
                let opener = self.clone();
                self.send(Place::Socket, move || opener.socket(unix).map(Some));
            }
            Err(error) => {
                log::warn!(socket, error:%; "admin socket file was removed, and cannot be created again");
            }
        }
    }

    /// Waits until the answers to requests that end the process are written, unless their clients do not read them.
    pub(crate) fn finish_answers(&self) {
        self.context.farewells.wait(FAREWELL_TIMEOUT);
    }

    /// Removes the file of the unix socket, unless another process has replaced it.
    pub(crate) fn remove_socket_file(&self) -> io::Result<()> {
        let file = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        file.map_or(Ok(()), |file| file.remove())
    }

    /// Returns the listener of the API.
    pub(super) fn listen(&self, listener: TcpListener) -> io::Result<AdminListener> {
        let (listener, address) = watched(listener)?;
        log::info!(address:%; "admin API");
        let guard = Guard { tokens: Arc::clone(&self.tokens), view: Arc::clone(&self.context.view) };
        Ok(AdminListener::tcp(listener, routes::all(self.context.clone(), Some(guard))))
    }

    /// Returns the listener of the metrics.
    pub(super) fn metrics(&self, listener: TcpListener) -> io::Result<AdminListener> {
        let (listener, address) = watched(listener)?;
        log::info!(address:%; "metrics");
        Ok(AdminListener::tcp(listener, monitoring::alone(self.context.clone(), address)))
    }

    /// Opens what `settings` name and is not open yet, and reads the tokens again. Uses none of it.
    pub(crate) fn open(&self, settings: &Admin) -> Result<Swap, AdminError> {
        let failed = |what: String| move |error| AdminError { what, error };
        let running = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.make_socket_again(&running);
        let bind = |address: Option<_>| {
            let bound = address.map(|address| tcp(address).map_err(failed(format!("listen on {address}"))));
            bound.transpose()
        };
        let listen = (settings.listen != running.listen).then(|| bind(settings.listen)).transpose()?;
        let metrics = (settings.metrics != running.metrics).then(|| bind(settings.metrics)).transpose()?;
        let tokens = match settings.listen.map(|_| Tokens::read(settings)) {
            None => None,
            Some(Ok(tokens)) => Some(tokens),
            // They were read as root at the start; only a new file of the same name is missed.
            Some(Err(error)) if is_out_of_reach(&error) && has_same_files(settings, &running) => {
                log::warn!(error:%; "tokens cannot be read again, the old ones are still accepted");
                self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
            }
            Some(Err(error)) => return Err(AdminError { what: "read a token".into(), error }),
        };
        Ok(Swap { listeners: self.clone(), settings: settings.clone(), tokens, listen, metrics })
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
    pub(crate) fn begin(self) {
        let Self { listeners, settings, tokens, listen, metrics } = self;
        *listeners.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        *listeners.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
        if let Some(listener) = listen {
            let opener = listeners.clone();
            listeners
                .send(Place::Listen, move || listener.map(|listener| opener.listen(listener)).transpose());
        }
        if let Some(listener) = metrics {
            let opener = listeners.clone();
            listeners
                .send(Place::Metrics, move || listener.map(|listener| opener.metrics(listener)).transpose());
        }
    }
}

impl AdminListeners {
    fn send(&self, place: Place, open: impl FnOnce() -> io::Result<Option<AdminListener>> + Send + 'static) {
        // Without the thread of the API the process ends.
        let _ends = self.swaps.send((place, Box::new(open)));
    }
}

/// Returns a listener that does not block.
pub(super) fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| sys::name_holder(address, error))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Registers a listener with the runtime, which must be entered; returns it and its address.
fn watched(listener: TcpListener) -> io::Result<(tokio::net::TcpListener, SocketAddr)> {
    let address = listener.local_addr()?;
    Ok((tokio::net::TcpListener::from_std(listener)?, address))
}
