//! Something to balance: the small HTTP server of the tutorial, alone or three of them with the balancer in front.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::sys;

/// Where the balancer of the demo listens.
pub const BALANCER: &str = "127.0.0.1:9090";
/// Where its admin API listens, and so its page.
pub const DASHBOARD: &str = "127.0.0.1:9091";
/// Where its backends listen.
pub const BACKENDS: [u16; 3] = [8081, 8082, 8083];

/// A server that is bound and not yet serving.
pub struct HttpBackend {
    runtime: tokio::runtime::Runtime,
    listener: TcpListener,
    port: u16,
}

impl HttpBackend {
    /// Listens on `port` of the loopback interface; 0 takes any.
    pub fn bind(port: u16) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener =
            runtime.block_on(TcpListener::bind(address)).map_err(|error| refused(address, &error))?;
        let port = listener.local_addr()?.port();
        Ok(Self { runtime, listener, port })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What to try, once it serves.
    pub fn print_what_to_try(&self, to: &mut impl Write) -> io::Result<()> {
        let port = self.port;
        writeln!(
            to,
            "An HTTP backend answers on 127.0.0.1:{port}; try `curl -s 127.0.0.1:{port}`. Ctrl-C stops it."
        )
    }

    /// Answers every request with the port, and /health with OK, for as long as the process lives.
    pub fn serve(self) -> io::Result<()> {
        let answer = format!("Received request on server running on port {}\n", self.port);
        let routes =
            Router::new().route("/health", get(|| async { "OK" })).fallback(|| async move { answer.clone() });
        self.runtime.block_on(async { axum::serve(self.listener, routes).await })
    }
}

fn refused(address: SocketAddr, error: &io::Error) -> io::Error {
    let reason = if error.kind() == io::ErrorKind::AddrInUse {
        format!("address in use, held by {}", sys::holder_of(address))
    } else {
        error.to_string()
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {reason}"))
}

/// Starts the backends of the demo, each on a thread of its own.
pub fn start_backends() -> io::Result<()> {
    let bound: Vec<HttpBackend> = BACKENDS.into_iter().map(HttpBackend::bind).collect::<io::Result<_>>()?;
    for backend in bound {
        thread::Builder::new().name(format!("backend-{}", backend.port())).spawn(move || {
            if let Err(error) = backend.serve() {
                log::error!(error:%; "a backend of the demo cannot go on");
            }
        })?;
    }
    Ok(())
}

/// A token that nobody knows but who starts the demo, in a file for as long as that takes.
pub struct Token {
    text: String,
    file: PathBuf,
}

impl Token {
    /// Makes one. Its file is gone when it is dropped: l4lb reads it once, before it answers anybody.
    pub fn make() -> io::Result<Self> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let text = format!("{:032x}", u128::from_ne_bytes(bytes));
        let file = std::env::temp_dir().join(format!("l4lb-demo-{}.token", std::process::id()));
        // A file that somebody else has put there is not written to.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)?
            .write_all(text.as_bytes())?;
        Ok(Self { text, file })
    }

    /// Where it can be read.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file) {
            log::warn!(file:% = self.file.display(), error:%; "the token of the demo stays behind");
        }
    }
}

/// What to try, once everything runs.
pub fn print_what_to_try(token: &Token, to: &mut impl Write) -> io::Result<()> {
    writeln!(
        to,
        "Three backends answer on 127.0.0.1:8081, :8082 and :8083; l4lb balances them on {BALANCER}.\n\n  \
           for i in 1 2 3 4 5 6; do curl -s {BALANCER}; done     each backend in turn\n  \
           wrk -t1 -c64 -d5 http://{BALANCER}/                   how fast it goes\n\n\
         dashboard: http://{DASHBOARD}/#token={}\n\n\
         Ctrl-C stops it.",
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
        // Nobody who was there before is overwritten.
        assert_eq!(Token::make().err().map(|error| error.kind()), Some(io::ErrorKind::AlreadyExists));
        drop(token);
        assert!(!file.exists());
    }
}
