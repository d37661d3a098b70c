//! Which HTTP server a source asks.

use hyper::Uri;

use super::super::cluster::{client_tls, has_tls};
use super::super::reader::Reader;
use super::super::tls::Trust;
use super::file;
use crate::config::address::Target;
use crate::config::discover::{Http, Url};
use crate::config::error::Invalid;
use crate::config::parse::raw::RawDiscover;

const PORT: u16 = 80;
const PORT_OF_HTTPS: u16 = 443;

/// The question; `None` if the url is missing or wrong.
pub(super) fn check(raw: &RawDiscover, read: &mut Reader<'_>, trust: &mut Trust) -> Option<Http> {
    if raw.url.is_none() {
        read.wrong("url", &raw.url, "missing, write url = \"http://127.0.0.1:8080/backends.json\"");
    }
    let token_file = file::path(read, "token_file", &raw.token_file);
    let text = read.text("url", &raw.url)?;
    if text.contains('?') && read.has_variable_within(&raw.url) {
        let what = "must have no variable beside a query, which logs would show: write token_file";
        read.wrong("url", &raw.url, what);
        return None;
    }
    match parse_url(text, &read.got(&raw.url)) {
        Ok(url) => {
            if !url.is_https && has_tls(raw.tls.as_ref()) {
                read.wrong_at("tls", raw.tls.as_ref(), "goes with https://, which the url has not");
            }
            let tls = client_tls(read, raw.tls.as_ref(), url.is_https, trust).filter(|_| url.is_https);
            Some(Http { url, tls, token_file })
        }
        Err(Invalid(what)) => {
            read.wrong("url", &raw.url, what);
            None
        }
    }
}

/// Messages repeat `text` as `got`.
fn parse_url(text: &str, got: &str) -> Result<Url, Invalid> {
    let expected =
        || Invalid(format!("must be a URL like \"http://127.0.0.1:8080/backends.json\", got {got}"));
    let uri: Uri = text.parse().map_err(|_| expected())?;
    let authority = uri.authority().ok_or_else(expected)?.as_str();
    if authority.contains('@') {
        // It is not repeated: there is a password in it.
        return Err(Invalid(
            "must have no user and no password, which logs would show: write token_file".into(),
        ));
    }
    let (is_https, default_port) = match uri.scheme_str() {
        Some("http") => (false, PORT),
        Some("https") => (true, PORT_OF_HTTPS),
        Some(_) | None => return Err(expected()),
    };
    if text.contains('#') {
        return Err(Invalid(format!("must have no #, which names a part of a page, got {got}")));
    }
    let address = match (uri.port(), uri.host()) {
        (Some(_), _) => authority.to_owned(),
        (None, Some(host)) if host == authority => format!("{host}:{default_port}"),
        (None, _) => return Err(expected()),
    };
    let address = Target::parse(&address)?;
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    Ok(Url { authority: authority.to_ascii_lowercase(), is_https, address, path })
}
