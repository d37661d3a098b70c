//! A watch that has begun: its messages come, and it may be asked whether it is still alive.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::Value;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;

use crate::base::causes::with_causes;
use crate::config::server_tls::ServerTls;
use crate::etcd::messages::Watched;
use crate::etcd::request::{EtcdError, begin, refusal, whole};
use crate::etcd::stream::Stream;

/// Requests on their way to the server. One that does not read them has no more than these.
const REQUESTS_MAX: usize = 4;

/// The changes of some keys. Dropped, it ends.
#[derive(Debug)]
pub struct Watch {
    member: SocketAddr,
    requests: Sender<Bytes>,
    pieces: BodyDataStream,
    stream: Stream,
    _connection: JoinSet<Result<(), hyper::Error>>,
}

impl Watch {
    /// Returns once the server says that it watches.
    pub(super) async fn begin(
        member: SocketAddr,
        tls: Option<&ServerTls>,
        token: Option<HeaderValue>,
        request: &Value,
    ) -> Result<Self, EtcdError> {
        let (requests, mut waiting) = channel(REQUESTS_MAX);
        let body = poll_fn(move |context| waiting.poll_recv(context).map(|request| request.map(infallible)));
        requests
            .try_send(Bytes::from(request.to_string()))
            .map_err(|error| EtcdError::Away(format!("{member}: {error}")))?;
        let (response, connection) = begin(member, tls, "watch", token, Body::from_stream(body)).await?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(refusal(member, head.status, &whole(member, body).await?));
        }
        let mut watch = Self {
            member,
            requests,
            pieces: Body::new(body).into_data_stream(),
            stream: Stream::default(),
            _connection: connection,
        };
        let first = watch.next().await.map_err(EtcdError::Away)?;
        if !first.created {
            return Err(EtcdError::Away(format!(
                "{member}: the first message of a watch is not its creation"
            )));
        }
        Ok(watch)
    }

    /// Returns the next message. Fails once the watch has ended, with the reason. May be dropped at any time: nothing is
    /// lost.
    pub async fn next(&mut self) -> Result<Watched, String> {
        let member = self.member;
        loop {
            if let Some(message) = self.stream.take() {
                return message.map_err(|why| format!("{member}: {why}"));
            }
            let piece = self.pieces.next().await;
            let piece = piece.ok_or_else(|| format!("{member}: {}", self.stream.at_end()))?;
            let piece =
                piece.map_err(|error| format!("{member}: the watch breaks off: {}", with_causes(&error)))?;
            self.stream.push(&piece).map_err(|why| format!("{member}: {why}"))?;
        }
    }

    /// Asks for a message without events. Fails when the server takes no requests.
    pub fn ask_progress(&self) -> Result<(), String> {
        let request = Bytes::from_static(b"{\"progress_request\":{}}");
        self.requests.try_send(request).map_err(|_| format!("{}: takes no request for progress", self.member))
    }
}

fn infallible(request: Bytes) -> Result<Bytes, Infallible> {
    Ok(request)
}
