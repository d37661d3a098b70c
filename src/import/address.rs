//! The addresses of `bind` and `server` lines.

/// Most listeners that one range of ports becomes.
const RANGE_MAX: u16 = 64;

/// Returns the addresses that `text` of a `bind` line means, as `bind` of a listener takes them.
pub(super) fn binds(text: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for text in text.split(',') {
        let (family, text) = prefix(text)?;
        let (host, ports) = text.rsplit_once(':').ok_or("it has no port")?;
        let host = match (host, family) {
            ("" | "*", Family::V6) | ("::" | "[::]", _) => "[::]".to_owned(),
            ("" | "*", Family::V4 | Family::Any) => "0.0.0.0".to_owned(),
            (host, _) => bracketed(host),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        if first == last {
            all.push(format!("{host}:{first}"));
            continue;
        }
        let number = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
        let (first, last) = (number(first)?, number(last)?);
        if last < first || last - first >= RANGE_MAX {
            return Err(format!("a range may have 1 to {RANGE_MAX} ports here"));
        }
        all.extend((first..=last).map(|port| format!("{host}:{port}")));
    }
    Ok(all)
}

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// IP or name, an IPv6 address in brackets.
    pub(super) host: String,
    /// `None`: the port on which the client came in.
    pub(super) port: Option<String>,
}

impl Place {
    /// Returns the place that `text` of a `server` line means.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let (_, text) = prefix(text)?;
        let (host, port) = match text.rsplit_once(':') {
            // Without brackets the last colon is in front of the port.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port).filter(|port| !port.is_empty())),
            Some(_) | None => (text, None),
        };
        if matches!(host, "" | "*" | "0.0.0.0" | "::" | "[::]") {
            return Err("the address is that which the client dialed, which l4lb does not do".into());
        }
        if port.is_some_and(|port| port.starts_with(['+', '-'])) {
            return Err("the port is relative to that of the client".into());
        }
        Ok(Self { host: bracketed(host), port: port.map(str::to_owned) })
    }
}

enum Family {
    Any,
    V4,
    V6,
}

fn prefix(text: &str) -> Result<(Family, &str), String> {
    if text.starts_with(['/', '@']) {
        return Err("unix sockets are not supported".into());
    }
    match text.split_once('@') {
        None => Ok((Family::Any, text)),
        Some(("tcp", rest)) => Ok((Family::Any, rest)),
        Some(("ipv4" | "tcp4", rest)) => Ok((Family::V4, rest)),
        Some(("ipv6" | "tcp6", rest)) => Ok((Family::V6, rest)),
        Some((other, _)) => Err(format!("addresses of the kind {other}@ are not supported")),
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spelling_of_a_bind_becomes_one_of_ours() {
        for (text, all) in [
            (":80", vec!["0.0.0.0:80"]),
            ("*:80", vec!["0.0.0.0:80"]),
            ("10.0.0.1:80,10.0.0.2:81", vec!["10.0.0.1:80", "10.0.0.2:81"]),
            (":::443", vec!["[::]:443"]),
            ("[::1]:443", vec!["[::1]:443"]),
            ("ipv6@:443", vec!["[::]:443"]),
            ("2001:db8::1:443", vec!["[2001:db8::1]:443"]),
            (":8000-8002", vec!["0.0.0.0:8000", "0.0.0.0:8001", "0.0.0.0:8002"]),
            (":${PORT}", vec!["0.0.0.0:${PORT}"]),
        ] {
            assert_eq!(binds(text).unwrap(), all, "{text}");
        }
        for text in ["/run/x.sock", "unix@x", "fd@3", ":1-60000", ":9-1", "10.0.0.1"] {
            assert!(binds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_spelling_of_a_server_becomes_a_host_and_a_port() {
        for (text, host, port) in [
            ("10.0.0.1:80", "10.0.0.1", Some("80")),
            ("10.0.0.1", "10.0.0.1", None),
            ("web.local:80", "web.local", Some("80")),
            ("[2001:db8::1]:80", "[2001:db8::1]", Some("80")),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("2001:db8::1:80", "[2001:db8::1]", Some("80")),
            ("ipv4@web.local:80", "web.local", Some("80")),
        ] {
            let place = Place::read(text).unwrap();
            assert_eq!((place.host.as_str(), place.port.as_deref()), (host, port), "{text}");
        }
        for text in ["0.0.0.0", "*:80", "/run/x.sock", "10.0.0.1:+1"] {
            assert!(Place::read(text).is_err(), "{text}");
        }
    }
}
