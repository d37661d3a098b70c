//! Checks by a program of the operator: the order of a worker, and what became of it. The program runs on the control
//! side, because a worker must never wait.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::address::Address;

/// A program to run as a check. If it is dropped unanswered, its [`Ticket`] is void.
pub struct Order {
    /// The path of the program, and its arguments.
    pub command: Vec<String>,
    /// Its environment.
    pub variables: [(&'static str, String); 4],
    /// It is killed after this time.
    pub limit: Duration,
    ticket: Arc<()>,
    reply: Box<dyn FnOnce(Ran, Duration) + Send>,
}

/// What an orderer keeps while it waits for the answer. Dropped, nothing is run for it any more.
#[derive(Debug)]
pub struct Ticket(Arc<()>);

impl Ticket {
    /// Returns whether no answer will come: the order was dropped, or the answer is on its way.
    pub fn is_void(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Order {
    /// Returns an order and what its orderer keeps. `reply` gets the result, and how long the program has run; it must
    /// not block.
    pub fn new(
        command: &[String],
        variables: [(&'static str, String); 4],
        limit: Duration,
        reply: impl FnOnce(Ran, Duration) + Send + 'static,
    ) -> (Self, Ticket) {
        let ticket = Arc::default();
        let kept = Ticket(Arc::clone(&ticket));
        (Self { command: command.to_vec(), variables, limit, ticket, reply: Box::new(reply) }, kept)
    }

    /// Returns whether its orderer still waits.
    pub fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.ticket) > 1
    }

    /// Answers it: `ran` has taken so long.
    pub fn answer(self, ran: Ran, took: Duration) {
        (self.reply)(ran, took);
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Order to run {:?}", self.command)
    }
}

/// Returns the environment of the program that checks a backend at `target`.
pub fn variables(pool: &str, backend: &str, target: &Address) -> [(&'static str, String); 4] {
    let Address::Ip(target) = target;
    let address = match target {
        // With the scope, which a link-local address needs.
        std::net::SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        std::net::SocketAddr::V6(_) | std::net::SocketAddr::V4(_) => target.ip().to_string(),
    };
    [
        ("L4LB_POOL", pool.to_owned()),
        ("L4LB_BACKEND", backend.to_owned()),
        ("L4LB_ADDRESS", address),
        ("L4LB_PORT", target.port().to_string()),
    ]
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// The program has ended with this status.
    Exited {
        /// 0 means that the backend is well.
        status: i32,
        /// The first bytes that it has printed.
        printed: Vec<u8>,
    },
    /// A signal has ended it that was not ours.
    Signalled {
        /// The number of the signal.
        signal: i32,
        /// The first bytes that it has printed.
        printed: Vec<u8>,
    },
    /// It was killed at its limit.
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// There is no such program, or it must not be run, for this reason.
    NoProgram(String),
    /// This machine lacks something to run it, for this reason. That means nothing for the backend.
    PutOff(String),
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn an_address_is_in_the_environment_without_brackets_and_with_its_scope() {
        for (target, address, port) in [
            ("10.0.0.1:80", "10.0.0.1", "80"),
            ("[::1]:81", "::1", "81"),
            ("[fe80::1%3]:82", "fe80::1%3", "82"),
        ] {
            let target = target.parse::<SocketAddr>().unwrap().into();
            let expected =
                [("L4LB_POOL", "web"), ("L4LB_BACKEND", "a"), ("L4LB_ADDRESS", address), ("L4LB_PORT", port)];
            assert_eq!(
                variables("web", "a", &target),
                expected.map(|(name, value)| (name, value.to_owned()))
            );
        }
    }

    #[test]
    fn either_side_notices_that_the_other_is_gone() {
        let target = SocketAddr::from(([127, 0, 0, 1], 1)).into();
        let order = || Order::new(&[], variables("", "", &target), Duration::ZERO, |_, _| {});
        let (order_1, ticket) = order();
        assert!(order_1.is_wanted() && !ticket.is_void());
        drop(ticket);
        assert!(!order_1.is_wanted());
        let (order_2, ticket) = order();
        drop(order_2);
        assert!(ticket.is_void());
    }
}
