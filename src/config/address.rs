//! Addresses as people write them: `0.0.0.0:9090`, `[::1]:80`, `:9090`, `web1.example:80`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use super::error::Invalid;
use crate::base::address::Address;

/// Returns the addresses of a `host:port`; may block until the name server answers.
pub type Resolver<'a> = &'a mut dyn FnMut(&str) -> io::Result<Vec<SocketAddr>>;

/// Asks the system's resolver, and blocks until it answers.
pub fn system_resolver(host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(host_and_port.to_socket_addrs()?.collect())
}

/// Whether the host is this machine, RFC 6761, 6.3.
pub(in crate::config) fn is_local(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Parses the address of a listener. `:9090` means every IPv4 address; host names are not accepted.
pub fn parse_bind(text: &str) -> Result<SocketAddr, Invalid> {
    match split(text, Ipv4Addr::UNSPECIFIED)? {
        Target::Address(Address::Ip(address)) if address.ip().is_multicast() => {
            Err(Invalid("must not be a multicast address".into()))
        }
        Target::Address(Address::Ip(address)) => Ok(address),
        Target::Host { host, .. } => {
            Err(Invalid(format!("a listener needs an IP address like 0.0.0.0, got host name {host:?}")))
        }
    }
}

/// The address of a backend as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An IP address and port; no name server is asked.
    Address(Address),
    /// A name to resolve, and a port.
    Host {
        /// The name as the configuration spells it.
        host: String,
        /// Not 0.
        port: u16,
    },
}

impl Target {
    /// Parses the address of a backend. `:9090` means 127.0.0.1.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let target = split(text, Ipv4Addr::LOCALHOST)?;
        match &target {
            Self::Address(Address::Ip(address)) if !is_dialable(address.ip()) => {
                Err(Invalid("must not be a multicast or broadcast address".into()))
            }
            Self::Address(_) | Self::Host { .. } => Ok(target),
        }
    }

    /// Returns one address to dial: of a host the first one, IPv4 before IPv6. Fails when it cannot be resolved.
    pub fn resolve(&self, resolve: Resolver) -> Result<Address, Invalid> {
        let mut all = self.addresses(resolve)?.into_iter();
        all.next().ok_or_else(|| Invalid(format!("{self} has no address")))
    }

    /// Returns all addresses to dial, at least one: of a host those of IPv4, or those of IPv6 where there is none of
    /// IPv4. Fails when it cannot be resolved.
    pub fn addresses(&self, resolve: Resolver) -> Result<Vec<Address>, Invalid> {
        let (host, port) = match self {
            Self::Address(address) => return Ok(vec![address.clone()]),
            Self::Host { host, port } => (host, *port),
        };
        let found = resolve(&format!("{host}:{port}"))
            .map_err(|error| Invalid(format!("cannot resolve host {host:?}: {error}")))?;
        let has_v4 = found.iter().any(SocketAddr::is_ipv4);
        let of_family = || found.iter().filter(|address| address.is_ipv4() == has_v4);
        let mut all = Vec::new();
        for address in of_family().filter(|address| is_server(address.ip())) {
            let mut address = *address;
            address.set_port(port);
            let address = Address::from(address);
            if !all.contains(&address) {
                all.push(address);
            }
        }
        match (all.is_empty(), of_family().next()) {
            (false, _) => Ok(all),
            (true, Some(address)) => {
                Err(Invalid(format!("host {host:?} resolves to {}, no server", address.ip())))
            }
            (true, None) => Err(Invalid(format!("host {host:?} has no address"))),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Splits `text` into host and port; an empty host means `any`.
fn split(text: &str, any: Ipv4Addr) -> Result<Target, Invalid> {
    if is_unix(text) {
        return Err(Invalid(format!("{text:?} is a Unix socket, and only TCP is served: write ADDR:PORT")));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        port_of(&address.port().to_string())?;
        return Ok(Target::Address(address.into()));
    }
    if let Some(address) = zoned(text) {
        return address.map(|address| Target::Address(address.into()));
    }
    if let Some(invalid) = half_ipv6(text) {
        return Err(invalid);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(Invalid("port missing, write ADDR:PORT".into()));
    };
    let port = port_of(port)?;
    if host.is_empty() {
        return Ok(Target::Address((any, port).into()));
    }
    if host.starts_with('[') {
        return Err(Invalid("IPv6 is written [ADDR]:PORT".into()));
    }
    if !is_host(host) {
        return Err(Invalid(format!("{host:?} is neither an IP address nor a host name")));
    }
    Ok(Target::Host { host: host.into(), port })
}

/// Returns a correction for an IPv6 address, with or without a zone, that lacks its brackets or its port.
fn half_ipv6(text: &str) -> Option<Invalid> {
    let is_ipv6 = |host: &str| {
        let ip = host.split_once('%').map_or(host, |(ip, _)| ip);
        ip.parse::<Ipv6Addr>().is_ok()
    };
    if let Some(host) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return is_ipv6(host).then(|| Invalid(format!("port missing, write [{host}]:PORT")));
    }
    let with_port = text.rsplit_once(':').filter(|(host, port)| is_ipv6(host) && port_of(port).is_ok());
    match with_port {
        Some((host, port)) => Some(Invalid(format!("IPv6 needs brackets, write [{host}]:{port}"))),
        None => {
            is_ipv6(text).then(|| Invalid(format!("IPv6 needs brackets and a port, write [{text}]:PORT")))
        }
    }
}

/// Returns the address of `[fe80::1%eth0]:80` on this machine, where interfaces have numbers; `None` for any other
/// text.
fn zoned(text: &str) -> Option<Result<SocketAddr, Invalid>> {
    let (host, port) = text.strip_prefix('[')?.split_once("]:")?;
    let (ip, zone) = host.split_once('%')?;
    ip.parse::<Ipv6Addr>().ok()?;
    // For an address with a zone, getaddrinfo(3) only looks at the interfaces.
    let found = || {
        (host, port_of(port)?)
            .to_socket_addrs()
            .map_err(|_| no_interface(zone))?
            .next()
            .ok_or_else(|| no_interface(zone))
    };
    Some(found())
}

fn no_interface(zone: &str) -> Invalid {
    Invalid(format!("there is no interface {zone:?}, see ip link"))
}

fn port_of(text: &str) -> Result<u16, Invalid> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        Ok(_) | Err(_) => Err(Invalid(format!("port must be 1..=65535, got {text:?}"))),
    }
}

/// Returns whether `host` may be passed to a resolver. All digits and dots is a mistyped IPv4 address: getaddrinfo(3)
/// would read "10.1" as 10.0.0.1.
fn is_host(host: &str) -> bool {
    host.len() <= HOST_LEN_MAX
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && host.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !host.starts_with(['-', '.'])
}

/// Whether `text` is the path of a Unix socket as other programs write it. A host may have that name too.
fn is_unix(text: &str) -> bool {
    text.strip_prefix("unix:").is_some_and(|path| path.bytes().any(|byte| !byte.is_ascii_digit()))
}

/// RFC 1035, 2.3.4.
const HOST_LEN_MAX: usize = 253;

fn is_dialable(ip: IpAddr) -> bool {
    !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether a host may have `ip`. The unspecified address, which is this machine, is what a filter of names answers.
pub fn is_server(ip: IpAddr) -> bool {
    is_dialable(ip) && !ip.to_canonical().is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_host_is_everywhere_for_a_listener_and_here_for_a_backend() {
        assert_eq!(parse_bind(":9090"), Ok("0.0.0.0:9090".parse().unwrap()));
        assert_eq!(Target::parse(":9090"), Ok(Target::Address(([127, 0, 0, 1], 9090).into())));
    }

    #[test]
    fn a_host_takes_its_first_ipv4_address() {
        let target = Target::parse("web.example:80").unwrap();
        let mut both =
            |_: &str| Ok(["[::1]:80", "10.0.0.2:80", "10.0.0.1:80"].map(|a| a.parse().unwrap()).into());
        assert_eq!(target.resolve(&mut both), Ok(([10, 0, 0, 2], 80).into()));
        let mut only_v6 = |_: &str| Ok(vec!["[::1]:80".parse().unwrap()]);
        assert_eq!(target.resolve(&mut only_v6), Ok((Ipv6Addr::LOCALHOST, 80).into()));
        let mut none = |_: &str| -> io::Result<Vec<SocketAddr>> { Ok(Vec::new()) };
        assert_eq!(target.resolve(&mut none).unwrap_err().0, "host \"web.example\" has no address");
    }

    #[test]
    fn a_link_local_address_names_its_interface() {
        let SocketAddr::V6(bind) = parse_bind("[fe80::1%lo]:80").unwrap() else { panic!("it is IPv6") };
        assert!(bind.scope_id() > 0 && bind.ip().is_unicast_link_local() && bind.port() == 80, "{bind}");
        assert_eq!(Target::parse("[fe80::1%lo]:80"), Ok(Target::Address(SocketAddr::from(bind).into())));
        for (text, expected) in [
            ("[fe80::1%none0]:80", "there is no interface \"none0\", see ip link"),
            ("[fe80::1%lo]:0", "port must be 1..=65535, got \"0\""),
        ] {
            assert_eq!(parse_bind(text), Err(Invalid(expected.into())), "{text}");
        }
    }

    /// `::1:8080` is an address too, without a port, which is never intended.
    #[test]
    fn a_wrong_ipv6_address_is_shown_corrected() {
        for (text, expected) in [
            ("::1:8080", "IPv6 needs brackets, write [::1]:8080"),
            ("fe80::1%eth0:80", "IPv6 needs brackets, write [fe80::1%eth0]:80"),
            ("1:2:3:4:5:6:7:8:80", "IPv6 needs brackets, write [1:2:3:4:5:6:7:8]:80"),
            ("2001:db8::1", "IPv6 needs brackets and a port, write [2001:db8::1]:PORT"),
            ("::", "IPv6 needs brackets and a port, write [::]:PORT"),
            ("fe80::1%eth0", "IPv6 needs brackets and a port, write [fe80::1%eth0]:PORT"),
            ("[::1]", "port missing, write [::1]:PORT"),
            ("[fe80::1%eth0]", "port missing, write [fe80::1%eth0]:PORT"),
        ] {
            assert_eq!(parse_bind(text), Err(Invalid(expected.into())), "{text}");
            assert_eq!(Target::parse(text), Err(Invalid(expected.into())), "{text}");
        }
    }

    #[test]
    fn a_host_has_all_addresses_of_one_family() {
        let all = |addresses: &[&str]| {
            let target = Target::parse("web.example:80").unwrap();
            let found: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let all = target.addresses(&mut |_| Ok(found.clone()));
            all.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map_err(|invalid| invalid.0)
        };
        let v4 = all(&["[::1]:80", "10.0.0.2:80", "10.0.0.1:9", "10.0.0.2:80", "224.0.0.1:80", "0.0.0.0:80"]);
        assert_eq!(v4.unwrap(), ["10.0.0.2:80", "10.0.0.1:80"], "each once, at the port that was asked for");
        assert_eq!(all(&["[::2]:80", "[::1]:80"]).unwrap(), ["[::2]:80", "[::1]:80"]);
        for (ip, shown) in [("224.0.0.1", "224.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("[::]", "::")] {
            let words = format!("host \"web.example\" resolves to {shown}, no server");
            assert_eq!(all(&[&format!("{ip}:80")]).unwrap_err(), words);
        }
    }

    /// The error for `unix:/run/web.sock` named a wrong port.
    #[test]
    fn a_unix_socket_is_named_as_what_it_is() {
        for text in ["unix:/run/web.sock", "unix:web.sock", "unix:@abstract"] {
            let what = format!("{text:?} is a Unix socket, and only TCP is served: write ADDR:PORT");
            assert_eq!(Target::parse(text), Err(Invalid(what.clone())));
            assert_eq!(parse_bind(text), Err(Invalid(what)));
        }
        let host = Target::Host { host: "unix".into(), port: 80 };
        assert_eq!(Target::parse("unix:80"), Ok(host), "a host may be called so");
    }

    #[test]
    fn a_mistyped_address_is_not_taken_for_a_host() {
        for text in
            ["10.1:80", "256.0.0.1:80", "10.0.0.1.:80", "::1:80", "[::1]", "a b:80", "-x:80", "a:+80", "a:"]
        {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
