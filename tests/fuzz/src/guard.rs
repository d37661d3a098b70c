//! Who is let in over TCP: whatever the bytes, nobody who means another machine or comes from another site's page.
//! The first line is the target of the request; each other one is a header, its value behind the first character: H for
//! Host, O for Origin.

use std::net::IpAddr;

use axum::http::Uri;
use axum::http::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use l4lb::control::admin::names_this_machine;

pub fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Ok(target) = Uri::try_from(lines.next().unwrap_or_default()) else { return };
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = match line {
            [b'H', value @ ..] => (HOST, value),
            [b'O', value @ ..] => (ORIGIN, value),
            _ => continue,
        };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        headers.append(name, value);
    }
    if !names_this_machine(&target, &headers) {
        return;
    }
    let values = |name| headers.get_all(name).iter().map(|value| value.to_str().expect("it was read"));
    let hosts: Vec<&str> = values(HOST).collect();
    let [host] = hosts[..] else { panic!("{hosts:?}: one of them was read") };
    assert!(is_here(host), "Host {host:?}");
    if let Some(authority) = target.authority() {
        assert!(is_here(authority.as_str()), "target {target}");
    }
    let origins: Vec<&str> = values(ORIGIN).collect();
    assert!(origins.len() <= 1, "{origins:?}: one of them was read");
    for origin in origins {
        let (_, site) = origin.split_once("://").unwrap_or(("", origin));
        let site = site.split(['/', '?', '#']).next().unwrap_or_default();
        assert!(site.eq_ignore_ascii_case(host), "Origin {origin:?} is not {host:?}");
    }
}

/// The same question, read off the text in another way than the guard does.
fn is_here(authority: &str) -> bool {
    // A browser takes what is in front of "@" for a user.
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
