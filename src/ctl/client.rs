//! Asks the admin API of a running l4lb, over its unix socket or over TCP.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{Method, Request, Response, StatusCode};
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::api::Problem;

use super::messages::{Message, Parser};

/// Limit for an answer, from the connect to its last byte.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit for the size of an answer: 10,000 backends are a few megabytes.
const ANSWER_LEN_MAX: usize = 64 << 20;

/// The place of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The path of the unix socket of the admin API.
    Socket(PathBuf),
    /// A loopback address, with a token to present.
    Tcp {
        /// The loopback address of the admin API.
        address: SocketAddr,
        /// The token sent as `Authorization: Bearer`.
        token: String,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp { address, .. } => write!(f, "{address}"),
        }
    }
}

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing answers there, or access is denied.
    #[error("cannot reach l4lb at {target}: {error}")]
    Unreachable {
        /// The address that could not be reached.
        target: Target,
        /// The error of the call. Not a `source`: the message holds it.
        error: io::Error,
    },
    /// l4lb refused the request.
    #[error("{error}")]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// In the words of the server.
        error: String,
    },
    /// The bytes received are no answer.
    #[error("no answer from l4lb at {target}: {what}")]
    Broken {
        /// The address that was asked.
        target: Target,
        /// The mistake in the answer.
        what: String,
    },
}

impl ClientError {
    /// Returns whether nothing listens there.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Unreachable { error, .. } if is_unanswered(error))
    }

    /// Returns a remedy, as the end of a line.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable { error, .. } if is_unanswered(error) => {
                "; is it running? Its socket can be given with --socket"
            }
            Self::Unreachable { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                "; ask as the user that it runs as, or as root"
            }
            Self::Unreachable { .. } | Self::Refused { .. } | Self::Broken { .. } => "",
        }
    }
}

fn is_unanswered(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Asks one question after the other; each waits for its answer.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    target: Target,
    patience: Duration,
}

impl Client {
    /// Returns a client of the API at `target`; nothing is sent yet.
    pub fn new(target: Target) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Self { runtime, target, patience: ANSWER_TIMEOUT })
    }

    /// Limits the time for an answer.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Returns the place it asks.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the answer of a route.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None::<&()>)
    }

    /// Sends a request, with a body if it needs one, and returns the answer.
    pub fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        self.answer(method, path, body)?.read()
    }

    /// Returns the answer as received.
    pub fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Answer<'_>, ClientError> {
        let (status, body) = self.runtime.block_on(async {
            let answered = tokio::time::timeout(self.patience, async {
                let answer = self.send(method, path, body).await?;
                self.whole(answer).await
            });
            answered.await.unwrap_or_else(|_| Err(self.too_slow()))
        })?;
        Ok(Answer { client: self, status, body })
    }

    /// Returns the messages of a stream of server-sent events.
    pub fn follow(&self, path: &str) -> Result<Messages<'_>, ClientError> {
        self.runtime.block_on(async {
            let answered = tokio::time::timeout(self.patience, async {
                let answer = self.send(Method::GET, path, None::<&()>).await?;
                if answer.status().is_success() {
                    return Ok(Body::new(answer.into_body()).into_data_stream());
                }
                let (status, _) = self.whole(answer).await?;
                Err(self.broken(format!("{status} is no stream")))
            });
            let body = answered.await.unwrap_or_else(|_| Err(self.too_slow()))?;
            Ok(Messages { client: self, body, parser: Parser::default(), ready: VecDeque::new() })
        })
    }

    /// Returns the status and body of a successful answer; fails for an error status.
    async fn whole(&self, answer: Response<Incoming>) -> Result<(StatusCode, Bytes), ClientError> {
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(Body::new(body), ANSWER_LEN_MAX).await;
        let body = body.map_err(|error| self.broken(error))?;
        if head.status.is_success() { Ok((head.status, body)) } else { Err(refused(head.status, &body)) }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        if let Target::Tcp { token, .. } = &self.target {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Body::from(serde_json::to_vec(body).map_err(|error| self.broken(error))?)
            }
            None => Body::empty(),
        };
        let request = request.body(body).map_err(|error| self.broken(error))?;
        let stream = self
            .connect()
            .await
            .map_err(|error| ClientError::Unreachable { target: self.target.clone(), error })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.target {
            Target::Socket(path) => Box::new(UnixStream::connect(path).await?),
            Target::Tcp { address, .. } => Box::new(TcpStream::connect(address).await?),
        })
    }

    fn too_slow(&self) -> ClientError {
        self.broken(format!("it took longer than {:?}", self.patience))
    }

    fn broken(&self, what: impl fmt::Display) -> ClientError {
        ClientError::Broken { target: self.target.clone(), what: what.to_string() }
    }
}

/// A successful answer, not parsed yet.
pub struct Answer<'c> {
    client: &'c Client,
    /// Always one of success.
    pub status: StatusCode,
    /// The JSON document.
    pub body: Bytes,
}

impl Answer<'_> {
    /// Returns the parsed document. Fails when it is not that of a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| self.client.broken(error))
    }
}

/// A stream of server-sent events.
pub struct Messages<'c> {
    client: &'c Client,
    body: BodyDataStream,
    parser: Parser,
    ready: VecDeque<Message>,
}

impl Iterator for Messages<'_> {
    type Item = Result<Message, ClientError>;

    /// Returns the next message, however long it takes.
    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            let bytes = self.client.runtime.block_on(self.body.next())?;
            let bytes = bytes.map_err(|error| self.client.broken(error));
            match bytes.and_then(|bytes| self.parser.feed(&bytes).map_err(|error| self.client.broken(error)))
            {
                Ok(messages) => self.ready.extend(messages),
                Err(error) => return Some(Err(error)),
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let error = serde_json::from_slice(body).map(|Problem { error }| error);
    ClientError::Refused { status, error: error.unwrap_or_else(|_| status.to_string()) }
}
