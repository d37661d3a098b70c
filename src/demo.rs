//! The demo: the small HTTP server of the tutorial, alone, three of them behind the balancer, or a few that come and
//! go.

mod discovery;
mod name_server;
mod schedule;
mod visitors;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::sys;
use schedule::PLACES;

pub(crate) use discovery::Discovery;

/// The highest port that [`Ports::from_base`] accepts.
pub(crate) const PORT_BASE_MAX: u16 = u16::MAX - 8;

/// The ports of the demo, all on the loopback interface.
pub(crate) struct Ports {
    balancer: u16,
    /// The port of the admin API and its page.
    dashboard: u16,
    backends: [u16; 3],
    /// Those of the demo of discovery.
    discovered: [u16; PLACES],
    /// The port of its name server.
    name_server: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            balancer: 9090,
            dashboard: 9091,
            backends: [8081, 8082, 8083],
            discovered: [8081, 8082, 8083, 8084, 8085, 8086],
            name_server: 9092,
        }
    }
}

impl Ports {
    /// Returns consecutive ports, for when the usual ones are taken: five, or nine for the demo of discovery. `base`
    /// must not exceed [`PORT_BASE_MAX`].
    pub(crate) fn from_base(base: u16) -> Self {
        Self {
            balancer: base,
            dashboard: base + 1,
            backends: [base + 2, base + 3, base + 4],
            discovered: [base + 2, base + 3, base + 4, base + 5, base + 6, base + 7],
            name_server: base + 8,
        }
    }

    /// Returns the address for the admin API.
    pub(crate) fn dashboard(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.dashboard).into()
    }

    /// Returns the configuration: the pool `web` with the backends `a`, `b` and `c`, as in the manual.
    pub(crate) fn config(&self) -> String {
        let backends = ["a", "b", "c"].into_iter().zip(self.backends);
        let backends: String = backends
            .map(|(name, port)| format!("{{ name = \"{name}\", address = \"127.0.0.1:{port}\" }}, "))
            .collect();
        let balancer = self.balancer;
        format!(
            "[[listener]]\nbind = \"127.0.0.1:{balancer}\"\n[[pool]]\nname = \"web\"\nbackend = [{backends}]\n"
        )
    }
}

/// A bound server that does not serve yet.
pub(crate) struct HttpBackend {
    runtime: tokio::runtime::Runtime,
    listener: TcpListener,
    port: u16,
}

impl HttpBackend {
    /// Listens on `port` of the loopback interface; 0 takes any.
    pub(crate) fn bind(port: u16) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener =
            runtime.block_on(TcpListener::bind(address)).map_err(|error| refused(address, error))?;
        let port = listener.local_addr()?.port();
        Ok(Self { runtime, listener, port })
    }

    /// Returns the port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Prints commands to try once it serves.
    pub(crate) fn print_what_to_try(&self, to: &mut impl Write) -> io::Result<()> {
        let port = self.port;
        writeln!(
            to,
            "An HTTP backend answers on 127.0.0.1:{port}; try `curl -s 127.0.0.1:{port}`. Ctrl-C stops it."
        )
    }

    /// Answers every request with the port, and /health with OK. Does not return.
    pub(crate) fn serve(self) -> io::Result<()> {
        let routes = routes(self.port, Arc::default());
        self.runtime.block_on(async { axum::serve(self.listener, routes).await })
    }
}

/// Returns the answers of the backend on `port`, which counts `requests` that are no health checks.
fn routes(port: u16, requests: Arc<AtomicU64>) -> Router {
    let answer = format!("Received request on server running on port {port}\n");
    Router::new().route("/health", get(|| async { "OK" })).fallback(|| async move {
        requests.fetch_add(1, Ordering::Relaxed);
        answer.clone()
    })
}

fn refused(address: SocketAddr, error: io::Error) -> io::Error {
    let kind = error.kind();
    io::Error::new(kind, format!("cannot listen on {address}: {}", sys::name_holder(address, error)))
}

/// Starts the backends of the demo, each on its own thread.
pub(crate) fn start_backends(ports: &Ports) -> io::Result<()> {
    let bound: Vec<HttpBackend> =
        ports.backends.into_iter().map(HttpBackend::bind).collect::<io::Result<_>>()?;
    for backend in bound {
        thread::Builder::new().name(format!("backend-{}", backend.port())).spawn(move || {
            if let Err(error) = backend.serve() {
                log::error!(error:%; "demo backend failed");
            }
        })?;
    }
    Ok(())
}

/// A secret token, in a file that only the user of the demo may read.
pub(crate) struct Token {
    text: String,
    file: PathBuf,
}

impl Token {
    /// Creates a token. Its file is removed when this is dropped: l4lb reads it once, before it answers any request.
    pub(crate) fn make() -> io::Result<Self> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let text = format!("{:032x}", u128::from_ne_bytes(bytes));
        let file = std::env::temp_dir().join(format!("l4lb-demo-{}.token", std::process::id()));
        // An existing file, perhaps of another user, must not be written to.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)?
            .write_all(text.as_bytes())?;
        Ok(Self { text, file })
    }

    /// Returns the file that contains it.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file) {
            log::warn!(file:% = self.file.display(), error:%; "cannot remove the demo token");
        }
    }
}

/// Prints commands to try once everything runs.
pub(crate) fn print_what_to_try(ports: &Ports, token: &Token, to: &mut impl Write) -> io::Result<()> {
    let [a, b, c] = ports.backends;
    let balancer = format!("127.0.0.1:{}", ports.balancer);
    writeln!(
        to,
        "Three backends answer on 127.0.0.1:{a}, :{b} and :{c}; l4lb balances them on {balancer}.\n\n  \
           for i in 1 2 3 4 5 6; do curl -s {balancer}; done     each backend in turn\n  \
           wrk -t1 -c64 -d5 http://{balancer}/                   how fast it goes\n  \
           l4lb ctl backends; l4lb ctl drain web/a               how they do, and no new sessions for one\n\n\
         dashboard: http://{}/#token={}\n\n\
         Ctrl-C stops it.",
        ports.dashboard(),
        token.text
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_for_its_owner_alone_and_leaves_no_file() {
        let token = Token::make().unwrap();
        let file = token.file().to_owned();
        assert_eq!(fs::read_to_string(&file).unwrap(), token.text);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // An existing file is not overwritten.
        assert_eq!(Token::make().err().map(|error| error.kind()), Some(io::ErrorKind::AlreadyExists));
        drop(token);
        assert!(!file.exists());
    }
}
