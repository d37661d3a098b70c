//! Backends that an HTTP server lists.
//!
//! Each question has a connection of its own: nothing is kept that something between us and the server has forgotten.
//! With the ETag of the last good list, a server that has no other one answers 304, and what it listed is taken as
//! listed again. A redirect is not followed: the token is for one server.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, ETAG, HOST, HeaderValue, IF_NONE_MATCH, LOCATION, USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::belief::Answer;
use super::listed::{on_thread, records};
use super::source::Source;
use crate::base::address::Address;
use crate::base::causes::with_causes;
use crate::config::discover::{Format, Http, Url};
use crate::config::{LIST_LEN_MAX, Target, one_line, parse_list};
use crate::control::token_file;
use crate::sys::{dial, look_up};
use crate::tls::ServerName;

/// How long an answer may take, from the lookup of the host to the last byte.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the head of an answer at most.
const HEAD_LEN_MAX: usize = 64 << 10;
/// Characters of a header that a message repeats.
const SHOWN_LEN_MAX: usize = 200;

/// A URL that lists backends.
pub(super) struct AskHttp {
    settings: Http,
    /// The last list that had an ETag.
    known: Option<(HeaderValue, Answer)>,
}

impl AskHttp {
    pub(super) fn new(settings: Http) -> Self {
        Self { settings, known: None }
    }

    /// Fails with what went wrong.
    async fn fetch(&mut self) -> Result<Answer, String> {
        let request = self.request().await?;
        let authority = &self.settings.url.authority;
        let failed = |error: String| format!("cannot connect to {authority}: {error}");
        let (addresses, name) = match self.settings.url.address.clone() {
            Target::Address(Address::Ip(address)) => (vec![address], None),
            Target::Host { host, port } => {
                let asked = format!("{host}:{port}");
                let found = on_thread(move || look_up(&asked)).await?;
                let name = ServerName::try_from(host).ok();
                (found.map_err(|error| failed(error.to_string()))?, name)
            }
        };
        let mut stream = Err("it has no address".to_owned());
        for address in addresses {
            stream = dial(address, name.clone(), self.settings.tls.as_ref()).await;
            if stream.is_ok() {
                break;
            }
        }
        let stream = stream.map_err(failed)?;
        let connected =
            http1::Builder::new().max_buf_size(HEAD_LEN_MAX).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.map_err(|error| with_causes(&error))?;
        // Ends with this question, however that ends.
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| with_causes(&error))?;
        self.answer(response).await
    }

    async fn request(&self) -> Result<Request<Body>, String> {
        let Http { url: Url { authority, path, .. }, tls: _, token_file } = &self.settings;
        let mut request = Request::get(path)
            .header(HOST, authority)
            .header(USER_AGENT, concat!("l4lb/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close");
        if let Some((etag, _)) = &self.known {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(path) = token_file {
            let file = path.clone();
            let token = on_thread(move || bearer(&file)).await?;
            request = request.header(
                AUTHORIZATION,
                token.map_err(|error| format!("token_file: {}: {error}", path.display()))?,
            );
        }
        request.body(Body::empty()).map_err(|error| error.to_string())
    }

    async fn answer(&mut self, response: Response<Incoming>) -> Result<Answer, String> {
        let (head, body) = response.into_parts();
        match (head.status, &self.known) {
            (StatusCode::OK, _) => {}
            (StatusCode::NOT_MODIFIED, Some((_, known))) => return Ok(known.clone()),
            (status, _) if status.is_redirection() && head.headers.contains_key(LOCATION) => {
                let to = shown(&head.headers[LOCATION]);
                return Err(format!("{status} to {to}: redirects are not followed, write that url"));
            }
            (status, _) => return Err(format!("the server answers {status}")),
        }
        let bytes = whole(body).await?;
        let list = on_thread(move || parse_list(&bytes, Format::Json)).await?;
        let list = list.map_err(|mistake| mistake.to_string())?;
        let answer = match list.is_empty() {
            // A server that has just started may know none yet.
            true => Answer::Nothing { why: "the list is empty".into(), ttl: None },
            false => Answer::Records(records(list)),
        };
        self.known = head.headers.get(ETAG).map(|etag| (etag.clone(), answer.clone()));
        Ok(answer)
    }
}

impl Source for AskHttp {
    async fn ask(&mut self) -> Answer {
        match tokio::time::timeout(ASK_TIMEOUT, self.fetch()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => Answer::Failure(why),
            Err(_) => Answer::Failure(format!("no whole answer within {} s", ASK_TIMEOUT.as_secs())),
        }
    }
}

/// The body, which may be of any size.
async fn whole(body: Incoming) -> Result<Vec<u8>, String> {
    let too_long = || format!("the list is longer than {} MiB", LIST_LEN_MAX >> 20);
    if body.size_hint().lower() > LIST_LEN_MAX as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    let mut pieces = Body::new(body).into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| format!("the answer breaks off: {}", with_causes(&error)))?;
        if bytes.len() + piece.len() > LIST_LEN_MAX {
            return Err(too_long());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Returns the header that presents the token of `file`. It is read each time, so that another one works at once.
fn bearer(file: &Path) -> io::Result<HeaderValue> {
    let token = token_file::read(file)?;
    let text = Zeroizing::new(format!("Bearer {}", *token));
    let mut value = HeaderValue::from_str(&text).map_err(io::Error::other)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns what a header has, as messages repeat it.
fn shown(value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    one_line(&text.chars().take(SHOWN_LEN_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::config::server_tls::ServerTls;
    use crate::tls::test_server::{Authority, Issued, authority};
    use crate::tls::{Authorities, Client, Verify};

    /// Answers each request with the same list, over TLS.
    async fn server(authority: &Authority) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(authority.config(&Issued::now(&["127.0.0.1"])));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust it has gone.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let list = r#"[{"address": "10.0.0.1:80"}]"#;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{list}", list.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        at
    }

    fn source(at: SocketAddr, trusted: &Authority) -> AskHttp {
        let authorities = Authorities::of_pem(trusted.pem().as_bytes()).unwrap();
        let client = Client::new(authorities, Verify::Full, &[]);
        let url = Url {
            authority: at.to_string(),
            is_https: true,
            address: Target::Address(at.into()),
            path: "/".into(),
        };
        AskHttp::new(Http {
            url,
            tls: Some(ServerTls { server_name: None, ca_file: None, client }),
            token_file: None,
        })
    }

    #[tokio::test]
    async fn a_list_over_tls_is_believed_if_its_certificate_is_good() {
        let [ours, theirs] = ["ours.example", "theirs.example"].map(authority);
        let at = server(&ours).await;
        let Answer::Records(records) = source(at, &ours).ask().await else { panic!("it has a list") };
        assert_eq!(records.listed.len(), 1);
        let Answer::Failure(why) = source(at, &theirs).ask().await else { panic!("it is not trusted") };
        assert_eq!(why, format!("cannot connect to {at}: certificate is signed by an unknown issuer"));
    }
}
