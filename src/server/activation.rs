//! Assigns the sockets passed by the service manager to listeners.

use std::net::SocketAddr;

use crate::config::model::Listener;
use crate::sys::Passed;

/// A socket passed under the name of a listener that it does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It listens on another address.
    #[error(
        "listener {name:?}: the socket that was passed under its name listens on {address}, not on {bind}"
    )]
    Address { name: String, bind: SocketAddr, address: SocketAddr },
    /// It accepts no IPv4 clients.
    #[error(
        "listener {name:?}: the socket that was passed for {bind} takes IPv6 clients alone: write BindIPv6Only=both"
    )]
    Ipv6Only { name: String, bind: SocketAddr },
}

/// The sockets passed for each listener, by index, and those that fit none.
pub(super) type Claims<S> = (Vec<Vec<Passed<S>>>, Vec<Passed<S>>);

/// Returns for each listener the sockets passed for it, by name or else by address, in the order of `listeners`; and
/// the sockets that fit none. Fails when a name matches and the socket does not.
pub(super) fn claim<S>(listeners: &[Listener], passed: Vec<Passed<S>>) -> Result<Claims<S>, Mismatch> {
    let (mut claimed, mut left) = (Vec::from_iter(listeners.iter().map(|_| Vec::new())), Vec::new());
    for socket in passed {
        let by_name = listeners.iter().position(|listener| listener.name == socket.name);
        let by_address = || listeners.iter().position(|listener| is_same(listener.bind, socket.address));
        let Some(index) = by_name.or_else(by_address) else {
            left.push(socket);
            continue;
        };
        let Listener { name, bind, .. } = &listeners[index];
        if !is_same(*bind, socket.address) {
            let (name, bind, address) = (name.clone(), *bind, socket.address);
            return Err(Mismatch::Address { name, bind, address });
        }
        if bind.is_ipv6() && bind.ip().is_unspecified() && !socket.is_dual_stack {
            return Err(Mismatch::Ipv6Only { name: name.clone(), bind: *bind });
        }
        claimed[index].push(socket);
    }
    Ok((claimed, left))
}

fn is_same(a: SocketAddr, b: SocketAddr) -> bool {
    (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides, system_resolver};

    fn socket(name: &str, address: &str, is_dual_stack: bool) -> Passed<()> {
        Passed { name: name.into(), address: address.parse().unwrap(), is_dual_stack, socket: () }
    }

    /// A listener "web" on 127.0.0.1:80 and one "all" on [::]:81.
    fn claimed(passed: Vec<Passed<()>>) -> Result<Claims<()>, String> {
        let text = "
            listener = [{ name = \"web\", bind = \"127.0.0.1:80\" }, { name = \"all\", bind = \"[::]:81\" }]
            pool = [{ backend = [{ address = \"10.0.0.1:80\" }] }]
        ";
        let config = config::parse(text, "x.toml", &Overrides::default(), &mut system_resolver).unwrap();
        claim(&config.listeners, passed).map_err(|error| error.to_string())
    }

    #[test]
    fn a_socket_belongs_to_the_listener_of_its_name_or_of_its_address() {
        let (web, mapped) =
            (socket("web", "127.0.0.1:80", false), socket("unknown", "[::ffff:127.0.0.1]:80", false));
        let (all, other) =
            (socket("l4lb.socket", "[::]:81", true), socket("l4lb.socket", "0.0.0.0:81", false));
        assert_eq!(
            claimed(vec![web, all, other, mapped]),
            Ok((
                vec![
                    vec![
                        socket("web", "127.0.0.1:80", false),
                        socket("unknown", "[::ffff:127.0.0.1]:80", false)
                    ],
                    vec![socket("l4lb.socket", "[::]:81", true)]
                ],
                vec![socket("l4lb.socket", "0.0.0.0:81", false)]
            ))
        );
    }

    #[test]
    fn a_socket_with_a_listeners_name_must_be_that_listeners() {
        let error = |socket: Passed<()>| claimed(vec![socket]).unwrap_err();
        assert_eq!(
            error(socket("web", "0.0.0.0:80", false)),
            "listener \"web\": the socket that was passed under its name listens on 0.0.0.0:80, not on 127.0.0.1:80"
        );
        assert_eq!(
            error(socket("x", "[::]:81", false)),
            "listener \"all\": the socket that was passed for [::]:81 takes IPv6 clients alone: \
             write BindIPv6Only=both"
        );
    }
}
