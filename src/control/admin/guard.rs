//! Access control. A unix socket is guarded by its mode; over TCP a request must name this machine as its host, come
//! from no other site's page, and present the token.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::token::{Access, Tokens, bearer};
use crate::control::View;
use crate::control::denials::Denial;

/// The only route that takes a POST and changes nothing.
pub(super) const DRY_RUN: &str = "/v1/config/diff";

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// From SO_PEERCRED (unix(7)). Must only be logged: the pid may belong to another process by now.
    Unix { uid: u32, pid: Option<i32> },
    /// It has presented the token, or only reads metrics.
    Tcp(SocketAddr),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, pid: Some(pid) } => write!(f, "uid {uid} pid {pid}"),
            Self::Unix { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Tcp(address) => write!(f, "{address} by token"),
        }
    }
}

/// The accepted tokens, and the counts of denials.
#[derive(Clone)]
pub(super) struct Guard {
    /// Replaced by a new configuration. No token is accepted at a listener that will be closed.
    pub(super) tokens: Arc<RwLock<Option<Tokens>>>,
    pub(super) view: Arc<View>,
}

/// How long the answer to a request must wait before it is sent. The client counts as idle meanwhile, so it may be
/// closed to make room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delay(pub(super) Duration);

/// Returns the answer to a denied request.
fn deny(view: &View, denial: Denial, request: &Request, status: StatusCode, what: String) -> Response {
    let peer = match request.extensions().get() {
        Some(Peer::Tcp(address)) => address.ip().to_canonical(),
        // No other peer gets here.
        Some(Peer::Unix { .. }) | None => Ipv4Addr::UNSPECIFIED.into(),
    };
    let words = format!("{} {}", request.method(), request.uri().path());
    let delay = view.denials.add(denial, peer, &words, view.clock.now());
    let mut response = Problem::new(status, what).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if delay > Duration::ZERO {
        response.extensions_mut().insert(Delay(delay));
    }
    response
}

/// Accepts over TCP a request that names this machine as its host and comes from no other site's page. Otherwise a page
/// in a browser of this machine could reach the API under a name of its own (DNS rebinding), or send a form to it.
pub(super) async fn check_host(State(view): State<Arc<View>>, request: Request, next: Next) -> Response {
    match hosts(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((denial, what)) => deny(&view, denial, &request, StatusCode::FORBIDDEN, what),
    }
}

/// Accepts a request if its token permits it.
pub(super) async fn check_token(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let access = {
        let tokens = guard.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.as_ref().and_then(|tokens| tokens.access(request.headers()))
    };
    if let Some(access) = access {
        request.extensions_mut().insert(access);
    }
    match access {
        Some(Access::Full) => next.run(request).await,
        Some(Access::Read) if is_read(&request) => next.run(request).await,
        Some(Access::Read) => {
            let what = "this token permits no changes: show that of token_file".to_owned();
            deny(&guard.view, Denial::ReadOnly, &request, StatusCode::FORBIDDEN, what)
        }
        None => {
            let (denial, what) = match bearer(request.headers()) {
                Some(_) => (Denial::Token, "the token does not match that of token_file"),
                None => (Denial::NoToken, "show the token of token_file: Authorization: Bearer TOKEN"),
            };
            deny(&guard.view, denial, &request, StatusCode::UNAUTHORIZED, what.to_owned())
        }
    }
}

/// Returns whether a request changes nothing.
fn is_read(request: &Request) -> bool {
    request.method().is_safe() || request.uri().path() == DRY_RUN
}

/// Checks the target, Host and Origin of a request. Fails unless it names this machine and comes from no other site's
/// page.
pub fn names_this_machine(target: &Uri, headers: &HeaderMap) -> bool {
    hosts(target, headers).is_ok()
}

fn hosts(target: &Uri, headers: &HeaderMap) -> Result<(), (Denial, String)> {
    let of_host = |what: String| (Denial::Host, what);
    let host = only(headers, &HOST).and_then(|host| host.ok_or("a Host header is needed".into()));
    let host = host.map_err(of_host)?;
    let authority: Authority = host.parse().map_err(|_| of_host(format!("Host {host:?} is no host")))?;
    if !is_this_machine(authority.host()) {
        return Err(of_host(format!("Host {host:?} is not this machine: use localhost or 127.0.0.1")));
    }
    // The target of a request may name a host too, and then that one counts (RFC 9112, 3.2.2).
    if let Some(target) = target.authority().filter(|target| !is_this_machine(target.host())) {
        return Err(of_host(format!("the target names {target}, which is not this machine")));
    }
    let of_origin = |what: String| (Denial::Origin, what);
    let Some(origin) = only(headers, &ORIGIN).map_err(of_origin)? else { return Ok(()) };
    let uri: Option<Uri> = origin.parse().ok();
    let same = uri.as_ref().and_then(Uri::authority).is_some_and(|origin| *origin == authority);
    if same { Ok(()) } else { Err(of_origin(format!("Origin {origin:?} is another site"))) }
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| format!("{name} is no text")),
        (Some(_), Some(_)) => Err(format!("{name} comes twice")),
    }
}

fn is_this_machine(host: &str) -> bool {
    let ip: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    host.eq_ignore_ascii_case("localhost") || ip.is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    /// Returns the verdict on a request with these headers.
    fn hosts(request: &Request) -> Result<(), (Denial, String)> {
        super::hosts(request.uri(), request.headers())
    }

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = axum::http::Request::new(Body::empty());
        for &(name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn only_names_of_this_machine_are_let_in() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:9901", true),
            ("127.0.0.1:9901", true),
            ("127.9.9.9", true),
            ("[::1]:9901", true),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("10.0.0.1", false),
            ("evil.example@127.0.0.1:80@evil", false),
            ("", false),
        ] {
            assert_eq!(hosts(&request(&[("host", host)])).is_ok(), expected, "{host:?}");
        }
        assert!(hosts(&request(&[])).is_err());
        assert!(hosts(&request(&[("host", "localhost"), ("host", "localhost")])).is_err());
    }

    #[test]
    fn only_our_own_page_is_let_in() {
        for (origin, expected) in [
            ("http://localhost:9901", true),
            ("http://localhost", false),
            ("http://evil.example", false),
            ("null", false),
        ] {
            let request = request(&[("host", "localhost:9901"), ("origin", origin)]);
            assert_eq!(hosts(&request).is_ok(), expected, "{origin:?}");
        }
    }
}
