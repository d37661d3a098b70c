//! Which route a client takes, and which none does.
//!
//! Case 129.

use std::net::IpAddr;

use crate::preread::client_hello::ClientHello;
use crate::preread::routes::{Conditions, Routes};
use crate::preread::{Alpn, NoName, ServerName};

/// The conditions of one route: names, protocols, networks, each with spaces between.
fn route((sni, alpn, client): (&str, &str, &str)) -> Conditions {
    Conditions {
        sni: sni.split_whitespace().map(|name| name.parse().unwrap()).collect(),
        alpn: alpn.split_whitespace().map(|protocol| protocol.as_bytes().into()).collect(),
        client: client.split_whitespace().map(|network| network.parse().unwrap()).collect(),
    }
}

fn routes(all: &[(&str, &str, &str)]) -> Routes {
    Routes::new(all.iter().copied().map(route).collect())
}

fn hello(name: &str, alpn: &str) -> ClientHello {
    let list = alpn.split_whitespace();
    let list = list.flat_map(|one| [&[u8::try_from(one.len()).unwrap()][..], one.as_bytes()].concat());
    ClientHello {
        server_name: (!name.is_empty()).then(|| name.into()),
        alpn: Alpn::from_list(list.collect()).unwrap_or_default(),
    }
}

#[test]
fn an_exact_name_goes_before_the_longest_wildcard_and_that_before_what_names_no_server() {
    let routes = routes(&[
        ("", "h2", ""),
        ("*.example.com", "", ""),
        ("*.b.example.com c.example.com", "", ""),
        ("A.example.com.", "", ""),
        ("x.example.com", "http/1.1", ""),
        ("x.example.com", "", "10.0.0.0/8 2001:db8::/32"),
        ("", "", "10.1.0.0/16"),
    ]);
    for (name, alpn, client, expected) in [
        ("a.example.com", "", "192.0.2.1", Some(3)),
        ("a.example.com", "h2", "10.1.0.1", Some(3)),
        ("b.example.com", "h2", "192.0.2.1", Some(1)),
        ("a.b.example.com", "", "192.0.2.1", Some(2)),
        ("z.a.b.example.com", "", "192.0.2.1", Some(2)),
        ("y.z.example.com", "", "192.0.2.1", Some(1)),
        ("c.example.com", "", "192.0.2.1", Some(2)),
        // Not below itself, and below means behind a dot.
        ("example.com", "", "192.0.2.1", None),
        ("aexample.com", "", "192.0.2.1", None),
        ("example.com", "x h2", "192.0.2.1", Some(0)),
        ("example.com", "", "10.1.0.1", Some(6)),
        ("", "h2", "192.0.2.1", Some(0)),
        ("", "h2", "10.1.0.1", Some(0)),
        ("", "", "10.1.0.1", Some(6)),
        ("", "", "::ffff:10.1.0.1", Some(6)),
        ("", "", "10.2.0.1", None),
        // Conditions are joined by and, values by or; what does not hold falls back to the next rank.
        ("x.example.com", "h2 http/1.1", "10.0.0.1", Some(4)),
        ("x.example.com", "h2", "10.0.0.1", Some(5)),
        ("x.example.com", "", "2001:db8::1", Some(5)),
        ("x.example.com", "h2", "192.0.2.1", Some(1)),
    ] {
        let client: IpAddr = client.parse().unwrap();
        assert_eq!(routes.find(&hello(name, alpn), client), expected, "{name} {alpn} {client}");
    }
}

#[test]
fn a_route_that_others_cover_is_never_taken() {
    for (all, expected) in [
        (&[("a.example", "", ""), ("a.example", "", "")][..], &[(1, 0)][..]),
        (&[("a.example", "", ""), ("A.EXAMPLE", "h2", "10.0.0.0/8")], &[(1, 0)]),
        (&[("a.example", "h2", ""), ("a.example", "", "")], &[]),
        (&[("a.example", "h2", ""), ("a.example", "h2 h3", "")], &[]),
        (&[("a.example", "h2", ""), ("a.example", "h3", ""), ("a.example", "h2 h3", "")], &[(2, 1)]),
        (&[("", "", "10.0.0.0/8"), ("", "", "10.1.0.0/16 10.2.0.0/16")], &[(1, 0)]),
        (&[("", "", "10.1.0.0/16"), ("", "", "10.0.0.0/8")], &[]),
        (&[("", "", "10.0.0.0/8"), ("", "h2", "10.1.0.0/16")], &[(1, 0)]),
        (&[("", "h2", ""), ("", "", "10.0.0.0/8")], &[]),
        // Of two names one is left, and a wildcard leaves what is named exactly.
        (&[("a.example", "", ""), ("a.example b.example", "", "")], &[]),
        (&[("*.example", "", ""), ("a.example", "", "")], &[]),
        (&[("", "", "0.0.0.0/0 ::/0"), ("a.example", "", "")], &[]),
        (&[("*.example", "", ""), ("*.a.example", "", ""), ("*.example", "h2", "")], &[(2, 0)]),
        // The protocols of a route are those of which the client offers one.
        (&[("a.example a.example", "", "")], &[]),
    ] {
        assert_eq!(routes(all).never_taken(), expected, "{all:?}");
    }
}

#[test]
fn names_are_lower_case_without_a_dot_at_the_end() {
    for (text, expected) in [
        ("a.example.com", "a.example.com"),
        ("A.Example.COM.", "a.example.com"),
        ("*.Example.com", "*.example.com"),
        ("localhost", "localhost"),
        ("_x-1.example", "_x-1.example"),
        ("192.0.2.1", "192.0.2.1"),
    ] {
        assert_eq!(text.parse::<ServerName>().map(|name| name.to_string()), Ok(expected.to_owned()));
    }
    let (label, name) = ("a".repeat(64), vec!["a"; 129].join("."));
    for text in [
        "",
        ".",
        "*",
        "*.",
        "*example.com",
        "a.*.com",
        "*.*.com",
        "a*",
        "**.com",
        "a..b",
        ".a",
        "a b",
        "ä.com",
        "a.com:443",
    ]
    .into_iter()
    .chain([&*label, &*name])
    {
        assert_eq!(text.parse::<ServerName>(), Err(NoName(text.to_owned())), "{text}");
    }
}
