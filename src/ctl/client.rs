//! Asks the admin API of a running l4lb, over its unix socket or over TCP.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::api::Problem;

/// How long an answer may take, from the connect to its last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// What an answer may take: 10,000 backends are a few megabytes.
const ANSWER_LEN_MAX: usize = 64 << 20;

/// Where the API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// On a unix socket.
    Socket(PathBuf),
    /// On a loopback address, with the token to show.
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The token.
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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there, or may be asked.
    #[error("cannot reach l4lb at {target}: {error}")]
    Unreachable {
        /// Where it was looked for.
        target: Target,
        /// The error of the call. Not a `source`: the message holds it.
        error: io::Error,
    },
    /// The request was refused.
    #[error("{error}")]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// In its words.
        error: String,
    },
    /// What came is no answer.
    #[error("no answer from l4lb at {target}: {what}")]
    Broken {
        /// Who was asked.
        target: Target,
        /// What is wrong with it.
        what: String,
    },
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Asks one question after the other; each waits for its answer.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    target: Target,
}

impl Client {
    /// Asks the API at `target`; nothing is sent yet.
    pub fn new(target: Target) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Self { runtime, target })
    }

    /// What a route shows.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None::<&()>)
    }

    /// What became of a request, with a body if it needs one.
    pub fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let text = self.text(method, path, body)?;
        serde_json::from_slice(&text).map_err(|error| self.broken(error))
    }

    /// The answer as it came.
    pub fn text(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Bytes, ClientError> {
        self.runtime.block_on(async {
            let answered = tokio::time::timeout(ANSWER_TIMEOUT, async {
                let answer = self.send(method, path, body).await?;
                let (head, body) = answer.into_parts();
                let body = axum::body::to_bytes(Body::new(body), ANSWER_LEN_MAX).await;
                let body = body.map_err(|error| self.broken(error))?;
                if head.status.is_success() { Ok(body) } else { Err(refused(head.status, &body)) }
            });
            answered.await.unwrap_or_else(|_| Err(self.broken("it took too long")))
        })
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

    fn broken(&self, what: impl fmt::Display) -> ClientError {
        ClientError::Broken { target: self.target.clone(), what: what.to_string() }
    }
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let error = serde_json::from_slice(body).map(|Problem { error }| error);
    ClientError::Refused { status, error: error.unwrap_or_else(|_| status.to_string()) }
}
