//! Who may come in. A unix socket is guarded by its mode; over TCP a request has to name this machine as its host, come from no
//! other site's page, and show the token.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::problem::Problem;

/// A shorter token could be guessed.
const TOKEN_LEN_MIN: usize = 16;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// As SO_PEERCRED says (unix(7)). Only to be logged: a pid may have gone to another process since.
    Unix { uid: u32, pid: Option<i32> },
    /// It has shown the token, or only wants to see metrics.
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

/// What a client over TCP has to show.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    /// The first line of a file that nobody else may read.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(invalid(format!("others may use it (mode {:03o}): chmod 600", mode & 0o777)));
        }
        let text = fs::read_to_string(path)?;
        let token = text.lines().next().unwrap_or_default().trim();
        if token.len() < TOKEN_LEN_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid(format!(
                "needs a first line of at least {TOKEN_LEN_MIN} printable characters"
            )));
        }
        Ok(Self(token.to_owned()))
    }

    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        shown.is_some_and(|(_, token)| token.trim().as_bytes().ct_eq(self.0.as_bytes()).into())
    }
}

/// Lets in over TCP who names this machine and comes from no other site's page: a page in a browser of this machine could
/// otherwise reach us under a name of its own (DNS rebinding), or send a form here.
pub(super) async fn check_host(request: Request, next: Next) -> Response {
    match hosts(&request) {
        Ok(()) => next.run(request).await,
        Err(what) => Problem::new(StatusCode::FORBIDDEN, what).into_response(),
    }
}

/// Lets in who shows the token.
pub(super) async fn check_token(State(token): State<Token>, request: Request, next: Next) -> Response {
    if token.is_shown(request.headers()) {
        return next.run(request).await;
    }
    let what = "show the token of token_file: Authorization: Bearer TOKEN";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, what).into_response();
    let scheme = axum::http::HeaderValue::from_static("Bearer");
    response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, scheme);
    response
}

fn hosts(request: &Request) -> Result<(), String> {
    let host = only(request.headers(), &HOST)?.ok_or("a Host header is needed")?;
    let authority: Authority = host.parse().map_err(|_| format!("Host {host:?} is no host"))?;
    if !is_this_machine(authority.host()) {
        return Err(format!("Host {host:?} is not this machine: use localhost or 127.0.0.1"));
    }
    // The target of a request may name a host too, and then that is the one that counts (RFC 9112, 3.2.2).
    if let Some(target) = request.uri().authority().filter(|target| !is_this_machine(target.host())) {
        return Err(format!("the target names {target}, which is not this machine"));
    }
    let Some(origin) = only(request.headers(), &ORIGIN)? else { return Ok(()) };
    let uri: Option<Uri> = origin.parse().ok();
    let same = uri.as_ref().and_then(Uri::authority).is_some_and(|origin| *origin == authority);
    if same { Ok(()) } else { Err(format!("Origin {origin:?} is another site")) }
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

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token("0123456789abcdef".into());
        for (shown, expected) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer 0123456789abcdef", true),
            ("Bearer 0123456789abcde", false),
            ("Bearer 0123456789abcdefg", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
            ("Bearer ", false),
        ] {
            assert_eq!(token.is_shown(request(&[("authorization", shown)]).headers()), expected, "{shown:?}");
        }
        assert!(!token.is_shown(&HeaderMap::new()));
    }

    #[test]
    fn a_token_that_others_may_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "0123456789abcdef\nanything").unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Token::read(file.path()).unwrap().0, "0123456789abcdef");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Token::read(file.path()).is_err());
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(file.path(), "short").unwrap();
        assert!(Token::read(file.path()).is_err());
    }
}
