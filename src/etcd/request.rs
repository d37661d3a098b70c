//! One request to one member, with bounds on its answer and its time.
//!
//! Each request has a connection of its own: nothing is kept that something between us and the server has forgotten.
//! A member that knows no leader must refuse (`hasleader`): behind a partition it would answer as if nothing happened.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::base::causes::with_causes;
use crate::config::one_line;
use crate::config::server_tls::ServerTls;
use crate::etcd::messages::{Fault, Streamed};
use crate::sys::dial;

/// How long a member may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take for an answer, or for the beginning of a watch.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer: some ten thousand keys with values of some hundred bytes.
const ANSWER_LEN_MAX: usize = 16 << 20;
/// Bytes of the head of an answer at most.
const HEAD_LEN_MAX: usize = 64 << 10;
/// Status codes of gRPC after which another member may do better: canceled, unknown, deadline exceeded, resource
/// exhausted, internal, unavailable.
const AWAY: [u16; 6] = [1, 2, 4, 8, 13, 14];
const UNAUTHENTICATED: u16 = 16;

/// Why there is no answer. Messages name the member and have no password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// No member answers as it should: asked again, one may.
    #[error("{0}")]
    Away(String),
    /// A member has answered that it will not.
    #[error("{member}: {message}")]
    Refused {
        /// Which one.
        member: SocketAddr,
        /// A status code of gRPC.
        code: u16,
        /// In its words.
        message: String,
    },
    /// There is no password to sign in with.
    #[error("{0}")]
    Password(String),
}

impl EtcdError {
    /// Returns whether signing in anew may help: tokens end, and a cluster that was restarted knows none.
    pub(super) fn is_of_token(&self) -> bool {
        match self {
            Self::Refused { code, message, .. } => {
                *code == UNAUTHENTICATED || message.contains("auth store is old")
            }
            Self::Away(why) => why.contains("invalid auth token") || why.contains("auth store is old"),
            Self::Password(_) => false,
        }
    }
}

/// An answer that has begun, with the task that reads its connection.
pub(super) type Begun = (Response<Incoming>, JoinSet<Result<(), hyper::Error>>);

/// Returns the whole answer of a member.
pub(super) async fn ask(
    member: SocketAddr,
    tls: Option<&ServerTls>,
    path: &str,
    token: Option<HeaderValue>,
    request: &Value,
) -> Result<Vec<u8>, EtcdError> {
    let whole = async {
        let (response, _connection) =
            begin(member, tls, path, token, Body::from(request.to_string())).await?;
        let status = response.status();
        let bytes = whole(member, response.into_body()).await?;
        if status == StatusCode::OK { Ok(bytes) } else { Err(refusal(member, status, &bytes)) }
    };
    let late =
        |_| EtcdError::Away(format!("{member}: no whole answer within {} s", ANSWER_TIMEOUT.as_secs()));
    timeout(ANSWER_TIMEOUT, whole).await.map_err(late)?
}

/// Sends the head of a request and begins with its body; returns once an answer begins.
pub(super) async fn begin(
    member: SocketAddr,
    tls: Option<&ServerTls>,
    path: &str,
    token: Option<HeaderValue>,
    body: Body,
) -> Result<Begun, EtcdError> {
    let away = |what: String| EtcdError::Away(one_line(&format!("{member}: {what}")));
    let late = |_| away(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()));
    let stream = timeout(CONNECT_TIMEOUT, dial(member, None, tls)).await.map_err(late)?;
    let stream = stream.map_err(|why| away(format!("cannot connect: {why}")))?;
    let broken = |error: hyper::Error| away(with_causes(&error));
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_LEN_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with the answer, however that ends.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let mut request = Request::post(format!("/v3/{path}"))
        .header(HOST, member.to_string())
        .header(USER_AGENT, concat!("l4lb/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        // Without it a server in Go reads the request to its end before it answers, and a watch has none.
        .header(CONNECTION, "close")
        .header("grpc-metadata-hasleader", "true");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    let request = request.body(body).map_err(|error| away(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok((response, connections))
}

/// Returns what an answer that is not 200 says.
pub(super) fn refusal(member: SocketAddr, status: StatusCode, bytes: &[u8]) -> EtcdError {
    let stream = |fault: &Fault| fault.message.is_empty() && fault.code == 0;
    let fault = serde_json::from_slice::<Fault>(bytes).ok().filter(|fault| !stream(fault));
    // A stream that fails at its first message says it as streams do.
    let of_stream = || match serde_json::from_slice::<Streamed<IgnoredAny>>(bytes) {
        Ok(Streamed::Error(fault)) => Some(fault),
        Ok(Streamed::Result(_)) | Err(_) => None,
    };
    let Some(Fault { message, code }) = fault.or_else(of_stream) else {
        return EtcdError::Away(format!("{member}: answers {status}"));
    };
    let message = match message.as_str() {
        "" => format!("answers {status}"),
        "etcdserver: user name is empty" => format!("{message}: it wants a user and a password"),
        _ => one_line(&message),
    };
    if AWAY.contains(&code) || (code == 0 && status.is_server_error()) {
        EtcdError::Away(format!("{member}: {message}"))
    } else {
        EtcdError::Refused { member, code, message }
    }
}

/// Returns an answer of bounded length.
pub(super) async fn whole(member: SocketAddr, body: Incoming) -> Result<Vec<u8>, EtcdError> {
    let too_long =
        || EtcdError::Away(format!("{member}: the answer is longer than {} MiB", ANSWER_LEN_MAX >> 20));
    if body.size_hint().lower() > ANSWER_LEN_MAX as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    let mut pieces = Body::new(body).into_data_stream();
    while let Some(piece) = pieces.next().await {
        let broken =
            |error| EtcdError::Away(format!("{member}: the answer breaks off: {}", with_causes(&error)));
        let piece: Bytes = piece.map_err(broken)?;
        if bytes.len() + piece.len() > ANSWER_LEN_MAX {
            return Err(too_long());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
