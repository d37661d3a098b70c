//! Which HTTP server a source asks.

use hyper::Uri;

use super::super::reader::Reader;
use super::file;
use crate::config::address::Target;
use crate::config::discover::{Http, Url};
use crate::config::error::Invalid;
use crate::config::parse::raw::RawDiscover;

const PORT: u16 = 80;

/// The question; `None` if the url is missing or wrong.
pub(super) fn check(raw: &RawDiscover, read: &mut Reader<'_>) -> Option<Http> {
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
        Ok(url) => Some(Http { url, token_file }),
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
    if uri.scheme_str() == Some("https") {
        let instead = "name a proxy on this machine that speaks TLS for it, as http://";
        return Err(Invalid(format!("only http:// is supported: {instead}; got {got}")));
    }
    if uri.scheme_str() != Some("http") {
        return Err(expected());
    }
    if text.contains('#') {
        return Err(Invalid(format!("must have no #, which names a part of a page, got {got}")));
    }
    let address = match (uri.port(), uri.host()) {
        (Some(_), _) => authority.to_owned(),
        (None, Some(host)) if host == authority => format!("{host}:{PORT}"),
        (None, _) => return Err(expected()),
    };
    let address = Target::parse(&address)?;
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    Ok(Url { authority: authority.to_ascii_lowercase(), address, path })
}
