//! Clients of the demo: a few that make one connection a request, at a slow pace, and count answers and failures.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::http::header::{CONNECTION, HOST};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use tokio::net::TcpStream;
const VISITORS: usize = 4;
/// Time between two requests of one of them.
const PAUSE: Duration = Duration::from_millis(20);
/// Limit for a request, from the connect to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_LEN_MAX: usize = 1 << 10;
/// Failures that are printed each; of more only the number is.
const FAILURES_SHOWN: u64 = 10;

/// The outcomes of the requests.
#[derive(Default)]
pub(crate) struct Visits {
    answered: AtomicU64,
    failed: AtomicU64,
    /// A signal ends the process: what fails from now on says nothing.
    is_over: Arc<AtomicBool>,
}

impl Visits {
    /// Returns counts of zero. From the first signal that ends the process on, nothing is counted any more.
    pub(super) fn until_a_signal() -> io::Result<Self> {
        let visits = Self::default();
        for signal in [SIGINT, SIGTERM, SIGQUIT] {
            signal_hook::flag::register(signal, Arc::clone(&visits.is_over))?;
        }
        Ok(visits)
    }

    fn count(&self, result: io::Result<()>) {
        let (is_over, answered) =
            (self.is_over.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed));
        match result {
            Ok(()) => _ = self.answered.fetch_add(1, Ordering::Relaxed),
            // Before the first answer there is no backend yet.
            Err(_) if is_over || answered == 0 => {}
            Err(error) => {
                if self.failed.fetch_add(1, Ordering::Relaxed) < FAILURES_SHOWN {
                    log::error!(error:%; "a request of the demo failed");
                }
            }
        }
    }
}

impl fmt::Display for Visits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [answered, failed] = [&self.answered, &self.failed].map(|count| count.load(Ordering::Relaxed));
        write!(f, "{answered} requests answered, {failed} failed")
    }
}

/// Starts the clients of `to` on the runtime that this is called on. They end with it, or with a signal.
pub(super) fn start(to: SocketAddr, visits: &Arc<Visits>) {
    for _ in 0..VISITORS {
        let visits = Arc::clone(visits);
        tokio::spawn(async move {
            while !visits.is_over.load(Ordering::Relaxed) {
                let asked = tokio::time::timeout(PATIENCE, ask(to)).await;
                visits.count(asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())));
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

async fn ask(to: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // An error of the connection is one of the request, too.
    tokio::spawn(connection);
    let request = Request::get("/").header(HOST, to.to_string()).header(CONNECTION, "close");
    let request = request.body(Body::empty()).map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    to_bytes(Body::new(answer.into_body()), ANSWER_LEN_MAX).await.map_err(io::Error::other)?;
    if status.is_success() { Ok(()) } else { Err(io::Error::other(format!("the answer is {status}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> io::Result<()> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    #[test]
    fn failures_count_from_the_first_answer_to_the_end() {
        let visits = Visits::default();
        visits.count(refused());
        assert_eq!(visits.to_string(), "0 requests answered, 0 failed");
        visits.count(Ok(()));
        visits.count(refused());
        assert_eq!(visits.to_string(), "1 requests answered, 1 failed");
        visits.is_over.store(true, Ordering::Relaxed);
        visits.count(refused());
        assert_eq!(visits.to_string(), "1 requests answered, 1 failed");
    }
}
