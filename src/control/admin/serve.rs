//! Accepts admin clients and bounds what they can hold: connections, heads, bodies and time.
//! Who does not ask, or does not read its answer, gives its place to the next: stuck clients never lock an operator out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, JoinSet};
use tower::ServiceExt;

use super::guard::Peer;
use super::problem::Problem;
use super::socket::Unix;
use crate::base::token_bucket::TokenBucket;
use crate::sys::Clock;

/// Connections at a time through one door.
const CLIENTS_MAX: usize = 32;
/// What a head may take, and how long it may take.
const HEAD_LEN_MAX: usize = 16 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take from its head to the head of its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after accept has failed, so that a lack of descriptors does not become a loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// That is logged at most that often.
const TELL_PERIOD: Duration = Duration::from_secs(10);

/// One place to come in by, and what is behind it.
pub(super) struct Door {
    listener: Listener,
    routes: Router,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Door {
    pub(super) fn unix(unix: Unix, routes: Router) -> std::io::Result<Self> {
        Ok(Self { listener: Listener::Unix(UnixListener::from_std(unix.listener)?), routes })
    }

    pub(super) fn tcp(listener: TcpListener, routes: Router) -> Self {
        Self { listener: Listener::Tcp(listener), routes }
    }

    async fn accept(&self) -> std::io::Result<(Box<dyn Stream>, Peer)> {
        match &self.listener {
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred()?;
                Ok((Box::new(stream), Peer::Unix { uid: peer.uid(), pid: peer.pid() }))
            }
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Box::new(stream), Peer::Tcp(address)))
            }
        }
    }

    async fn serve(self) {
        let mut crowd = Crowd::default();
        let clock = Clock::of_process();
        let mut told = TokenBucket::new(1, TELL_PERIOD, clock.now());
        loop {
            crowd.make_room().await;
            match self.accept().await {
                Ok((stream, peer)) => crowd.admit(stream, peer, self.routes.clone()),
                Err(error) => {
                    if told.take(clock.now()).is_some() {
                        log::warn!(error:%; "admin: a client cannot be accepted, it waits");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves all of them for ever.
pub(super) async fn serve_all(doors: Vec<Door>) {
    let mut all: JoinSet<()> = doors.into_iter().map(Door::serve).collect();
    while all.join_next().await.is_some() {}
}

/// The clients of one door, those that came first in front.
#[derive(Default)]
struct Crowd {
    clients: JoinSet<()>,
    by_age: VecDeque<Client>,
}

struct Client {
    task: AbortHandle,
    /// Requests whose answer has not begun.
    busy: Arc<AtomicUsize>,
}

impl Crowd {
    /// Waits until there is a place, or takes the oldest that nothing is being done for.
    async fn make_room(&mut self) {
        while self.clients.try_join_next().is_some() {}
        while self.clients.len() >= CLIENTS_MAX {
            self.by_age.retain(|client| !client.task.is_finished());
            let idle = |client: &Client| client.busy.load(Ordering::Relaxed) == 0;
            if let Some(place) = self.by_age.iter().position(idle) {
                self.by_age.remove(place).inspect(|client| client.task.abort());
            }
            self.clients.join_next().await;
        }
    }

    fn admit(&mut self, stream: Box<dyn Stream>, peer: Peer, routes: Router) {
        self.by_age.retain(|client| !client.task.is_finished());
        let busy = Arc::new(AtomicUsize::new(0));
        let task = self.clients.spawn(converse(stream, peer, routes, Arc::clone(&busy)));
        self.by_age.push_back(Client { task, busy });
    }
}

/// One connection, from its first request to its end.
async fn converse(stream: Box<dyn Stream>, peer: Peer, routes: Router, busy: Arc<AtomicUsize>) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let routes = routes.clone();
        let busy = Arc::clone(&busy);
        async move {
            busy.fetch_add(1, Ordering::Relaxed);
            let answer = answer(routes, request.map(Body::new)).await;
            busy.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        log::debug!(peer:%, error:%; "admin: connection");
    }
}

async fn answer(routes: Router, request: hyper::Request<Body>) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, routes.oneshot(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(never)) => match never {},
        Err(_) => Problem::new(StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    /// What a client gets that sends `sent` and then waits, and how long it waits. The time is not that of a clock: it passes
    /// when nothing else can happen.
    async fn wait_after(sent: &[u8]) -> (String, Duration) {
        let routes = Router::new().route("/", post(async |_: axum::body::Bytes| "all of it"));
        let (mut client, server) = tokio::io::duplex(HEAD_LEN_MAX * 4);
        let peer = Peer::Unix { uid: 0, pid: None };
        let server = tokio::spawn(converse(Box::new(server), peer, routes, Arc::default()));
        let began = Instant::now();
        client.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        server.await.unwrap();
        (String::from_utf8(answer).unwrap(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_what_it_has_begun_is_let_go() {
        for (sent, answer, time) in [
            (&b""[..], "", HEAD_TIMEOUT),
            (b"POST / HTTP/1.1\r\nHost: lo", "", HEAD_TIMEOUT),
            (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", "HTTP/1.1 408 ", REQUEST_TIMEOUT),
            (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 ", HEAD_TIMEOUT),
        ] {
            let (got, waited) = wait_after(sent).await;
            let sent = String::from_utf8_lossy(sent);
            assert!(got.starts_with(answer) && got.is_empty() == answer.is_empty(), "{sent:?}: {got}");
            // The clock of tokio counts milliseconds.
            let late = Duration::from_millis(10);
            assert!((time..time + late).contains(&waited), "{sent:?}: {waited:?}");
        }
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let sent = format!("POST / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(HEAD_LEN_MAX));
        let (answer, _) = wait_after(sent.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}
