//! The exchange of each kind of check.

mod connect;
mod question;

use crate::base::address::Address;
use crate::config::model::Check;
use crate::health::exchange::Exchange;
use connect::Connect;
use question::Question;

/// Returns the exchange of a check of `target`; `None` when there is nothing to check.
pub(super) fn exchange_of(check: &Check, target: &Address) -> Option<Box<dyn Exchange>> {
    Some(match check {
        Check::Off => return None,
        Check::Tcp => Box::new(Connect),
        Check::SendExpect { send, expect } => Box::new(Question::plain(send, expect)),
        Check::Http { path, host, status } => {
            Box::new(Question::http(path, host.as_deref(), *status, target))
        }
    })
}
