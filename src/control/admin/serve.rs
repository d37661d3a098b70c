//! Accepts admin clients and bounds what they can hold: connections, heads, bodies, answers and time. A client without
//! a request in progress gives its place to the next one: stuck clients never lock an operator out.
//!
//! A client may close its half of the connection after its request, as `socat` and health checkers do: it still
//! receives the whole answer. Bytes that a client sends after its last request are read and discarded for a while,
//! because a close with unread bytes is a reset, and a reset destroys the answer that the client has not read yet (RFC
//! 9112, 9.6).

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::join;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use super::guard::{Delay, Peer};
use super::problem::Problem;
use super::reloads;
use super::socket::Unix;
use super::stop::Last;
use super::work::{Activity, Work};
use crate::api;
use crate::base::token_bucket::TokenBucket;
use crate::sys::Clock;

/// Most connections at a time through one listener, besides the one accepted last.
const CLIENTS_MAX: usize = 32;
/// Limits for the size and time of a head.
const HEAD_LEN_MAX: usize = 16 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit from the head of a request to the head of its answer, unless it reads the configuration.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit for an answer or a stream of events to wait for a reader that has stopped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Limits for what is read and discarded after the last answer.
const LINGER_LEN_MAX: u64 = 1024 * 1024;
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after accept has failed, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Accept errors are logged at most this often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// One listening socket, and the routes behind it.
pub(super) struct AdminListener {
    listener: Listener,
    routes: Router,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl AdminListener {
    pub(super) fn unix(unix: Unix, routes: Router) -> io::Result<Self> {
        Ok(Self { listener: Listener::Unix(UnixListener::from_std(unix.listener)?), routes })
    }

    pub(super) fn tcp(listener: TcpListener, routes: Router) -> Self {
        Self { listener: Listener::Tcp(listener), routes }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
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
        let mut connections = Connections::default();
        let clock = Clock::of_process();
        let mut errors_logged = TokenBucket::new(1, LOG_PERIOD, clock.now());
        loop {
            match self.accept().await {
                Ok((stream, peer)) => {
                    connections.admit(stream, peer, self.routes.clone());
                    connections.make_room().await;
                }
                Err(error) => {
                    if errors_logged.take(clock.now()).is_some() {
                        log::warn!(error:%; "admin: cannot accept a client, it waits");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Socket,
    Listen,
    Metrics,
}

/// Opens a listener, within the runtime; returns `None` to close it for good.
pub(super) type OpenListener = Box<dyn FnOnce() -> io::Result<Option<AdminListener>> + Send>;

/// Receives the listeners that replace others.
pub(super) type Swaps = UnboundedReceiver<(Place, OpenListener)>;

/// Serves all listeners for ever, each until another one replaces it, which ends its clients too.
pub(super) async fn serve_all(listeners: Vec<(Place, AdminListener)>, mut swaps: Swaps) {
    let mut all = JoinSet::new();
    let mut open: BTreeMap<Place, AbortHandle> =
        listeners.into_iter().map(|(place, listener)| (place, all.spawn(listener.serve()))).collect();
    while let Some((place, open_listener)) = swaps.recv().await {
        if let Some(before) = open.remove(&place) {
            before.abort();
        }
        match open_listener() {
            Ok(Some(listener)) => _ = open.insert(place, all.spawn(listener.serve())),
            Ok(None) => {}
            Err(error) => {
                log::error!(place:?, error:%; "admin: cannot watch a listener, its clients get no answer");
            }
        }
        while all.try_join_next().is_some() {}
    }
    while all.join_next().await.is_some() {}
}

/// The clients of one listener, oldest first.
#[derive(Default)]
struct Connections {
    clients: JoinSet<()>,
    by_age: VecDeque<Client>,
    idle: Arc<Notify>,
}

struct Client {
    task: AbortHandle,
    activity: Arc<Activity>,
}

impl Connections {
    fn admit(&mut self, stream: impl Stream + 'static, peer: Peer, routes: Router) {
        let activity = Activity::new(&self.idle);
        let task = self.clients.spawn(converse(stream, peer, routes, Work::begin(&activity)));
        self.by_age.push_back(Client { task, activity });
    }

    /// Returns when the next client may be accepted. With too many clients, the oldest one without work is closed; when
    /// all have work, waits for the first that finishes.
    async fn make_room(&mut self) {
        loop {
            // Pending input is read first: no client must be closed over a request that waits in its socket.
            yield_now().await;
            while self.clients.try_join_next().is_some() {}
            self.by_age.retain(|client| !client.task.is_finished());
            if self.clients.len() <= CLIENTS_MAX {
                return;
            }
            let is_idle = |client: &Client| client.activity.is_idle();
            match self.by_age.iter().position(is_idle).and_then(|place| self.by_age.remove(place)) {
                Some(client) => {
                    client.task.abort();
                    self.clients.join_next().await;
                }
                None => self.idle.notified().await,
            }
        }
    }
}

/// Serves one connection, from its first request to its end.
async fn converse(stream: impl Stream, peer: Peer, routes: Router, arrival: Work) {
    let activity = Arc::clone(&arrival.0);
    let last_answer = Arc::new(OnceLock::new());
    let kept = Arc::clone(&last_answer);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let work = Work::begin(&activity);
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(work.clone());
        let (routes, kept) = (routes.clone(), Arc::clone(&kept));
        async move {
            let mut answer = answer(routes, request.map(Body::new)).await;
            drop(work);
            // The connection ends behind it, so there is one at most.
            answer.extensions_mut().remove::<Last>().map(|last| kept.set(last));
            if let Some(&Delay(delay)) = answer.extensions().get() {
                tokio::time::sleep(delay).await;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let mut stream = pin!(stream);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(stream.as_mut()), service);
    let arriving = async move {
        // The first poll registers the socket, and only the next turn of the runtime reports its input.
        yield_now().await;
        drop(arrival);
    };
    let (result, ()) = join(connection, arriving).await;
    if let Err(error) = result {
        log::debug!(peer:%, error:%; "admin: connection");
    }
    // It is written, or cannot be.
    drop(last_answer);
    linger(stream).await;
}

/// Closes a connection so that its last answer arrives, whatever else the client has sent.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let drain = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_LEN_MAX), &mut tokio::io::sink()).await
    };
    // In time or not, with an error or not: the connection is over.
    let _: Result<io::Result<u64>, _> = tokio::time::timeout(LINGER_TIMEOUT, drain).await;
}

async fn answer(routes: Router, request: hyper::Request<Body>) -> Response {
    let is_reload = reloads::PATHS.contains(&request.uri().path());
    let timeout = if is_reload { api::RELOAD_ANSWER_MAX + REQUEST_TIMEOUT } else { REQUEST_TIMEOUT };
    match tokio::time::timeout(timeout, routes.oneshot(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(never)) => match never {},
        Err(_) => Problem::new(StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::routing::{get, post};
    use tokio::io::DuplexStream;
    use tokio::sync::{Semaphore, broadcast};
    use tokio::time::Instant;

    use super::*;
    use crate::control::admin::stream;

    const PEER: Peer = Peer::Unix { uid: 0, pid: None };
    /// Most bytes in flight between the two ends of a connection.
    const PIPE_LEN: usize = HEAD_LEN_MAX * 4;
    /// More than that, and than hyper buffers.
    const LARGE: usize = 1024 * 1024;
    const GET_EVENTS: &[u8] = b"GET /events HTTP/1.1\r\n\r\n";
    const GET_LARGE: &[u8] = b"GET /large HTTP/1.1\r\n\r\n";
    /// With `Connection: close`, so that the answer ends where the connection does.
    const POST: &[u8] = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";

    fn routes() -> Router {
        let (events, _) = broadcast::channel::<api::Event>(1);
        let streams = Arc::new(Semaphore::new(stream::STREAMS_MAX));
        let stream = async move |Extension(work): Extension<Work>| {
            stream::place(&streams, work).map(|place| stream::events(place, events.subscribe()))
        };
        Router::new()
            .route("/", post(async |_: axum::body::Bytes| "all of it"))
            .route("/large", get(async || "x".repeat(LARGE)))
            .route("/events", get(stream))
    }

    /// Returns the client's end of a connection that was admitted and has sent `sent`.
    async fn admit(connections: &mut Connections, sent: &[u8]) -> DuplexStream {
        let (mut client, server) = tokio::io::duplex(PIPE_LEN);
        client.write_all(sent).await.unwrap();
        connections.admit(server, PEER, routes());
        client
    }

    /// Returns everything received until the end of the connection.
    async fn read_all(client: &mut DuplexStream) -> String {
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Returns what a client receives that sends `sent` and then waits, and how long it waits. Time is virtual: it
    /// passes when nothing else can happen.
    async fn wait_after(sent: &[u8]) -> (String, Duration) {
        let began = Instant::now();
        let mut connections = Connections::default();
        let answer = read_all(&mut admit(&mut connections, sent).await).await;
        (answer, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_finish_its_request_is_closed() {
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

    /// A client that had finished sending was taken for one that had left: the answer was lost, or cut.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_closes_its_half_behind_the_request_receives_the_whole_answer() {
        let mut connections = Connections::default();
        for (request, len) in [(POST, "all of it".len()), (GET_LARGE, LARGE)] {
            let mut client = admit(&mut connections, request).await;
            client.shutdown().await.unwrap();
            let answer = read_all(&mut client).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert_eq!(body.len(), len);
        }
    }

    /// A reader that stopped was held for ever, because hyper checks no clock while it waits for a write.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_its_answer_is_cut_off() {
        let mut connections = Connections::default();
        let _client = admit(&mut connections, GET_LARGE).await;
        let began = Instant::now();
        connections.clients.join_next().await.unwrap().unwrap();
        let late = LINGER_TIMEOUT + Duration::from_millis(10);
        assert!((WRITE_TIMEOUT..WRITE_TIMEOUT + late).contains(&began.elapsed()), "{:?}", began.elapsed());
    }

    /// A close on top of unread bytes is a reset, and destroys the part that the client has not read yet.
    #[tokio::test(start_paused = true)]
    async fn bytes_of_a_client_behind_its_last_request_are_read() {
        let mut connections = Connections::default();
        let mut client = admit(&mut connections, POST).await;
        client.write_all(&[b'x'; LARGE / 2]).await.unwrap();
        client.shutdown().await.unwrap();
        let answer = read_all(&mut client).await;
        assert!(answer.ends_with("all of it"), "{answer}");
    }

    /// Any 32 connections took the places of running streams.
    #[tokio::test(start_paused = true)]
    async fn streams_stay_and_clients_without_a_request_make_room() {
        let mut connections = Connections::default();
        let mut streams = Vec::new();
        for _ in 0..stream::STREAMS_MAX {
            // Each router has its own limit, so all of them are streams.
            streams.push(admit(&mut connections, GET_EVENTS).await);
            connections.make_room().await;
        }
        let mut idle = Vec::new();
        for _ in 0..3 * CLIENTS_MAX {
            idle.push(admit(&mut connections, b"").await);
            connections.make_room().await;
        }
        assert_eq!(connections.clients.len(), CLIENTS_MAX);
        for stream in &mut streams {
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
        }
        let running = connections.by_age.iter().filter(|client| !client.task.is_finished());
        let works = |client: &&Client| !client.activity.is_idle();
        assert_eq!(running.filter(works).count(), stream::STREAMS_MAX);
    }

    /// A client was closed over the request that it had just sent.
    #[tokio::test(start_paused = true)]
    async fn no_client_is_closed_before_its_request_was_looked_at() {
        let mut connections = Connections::default();
        let mut clients = Vec::new();
        for _ in 0..2 * CLIENTS_MAX {
            clients.push(admit(&mut connections, POST).await);
        }
        connections.make_room().await;
        for client in &mut clients {
            let answer = read_all(client).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("all of it"), "{answer}");
        }
    }

    /// Accepting waited for a connection to end, though only a request was in progress.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_finishes_its_work_makes_room_without_leaving() {
        let mut connections = Connections::default();
        let began = Instant::now();
        let mut clients = Vec::new();
        for _ in 0..=CLIENTS_MAX {
            clients.push(admit(&mut connections, b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab").await);
        }
        let finish = async { clients[7].write_all(b"c").await.unwrap() };
        join(connections.make_room(), finish).await;
        assert_eq!(connections.clients.len(), CLIENTS_MAX);
        assert!(began.elapsed() < REQUEST_TIMEOUT, "{:?}", began.elapsed());
    }
}
