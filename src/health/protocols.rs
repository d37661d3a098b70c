//! The exchange of each kind of check.

mod connect;
mod question;

mod dialogue;
mod script;

mod grpc;
mod mqtt;
mod mysql;
mod postgres;
mod redis;
mod smtp;

mod tls;

#[cfg(test)]
mod tests;

use std::sync::mpsc::Sender;

use crate::base::address::Address;
use crate::config::model::Check;
use crate::health::exchange::Exchange;
use crate::health::recording::{Moment, Recorded};
use connect::Connect;
use dialogue::Messages;
use grpc::Grpc;
use mqtt::Mqtt;
use mysql::Mysql;
use postgres::Postgres;
use question::{Question, authority};
use redis::Redis;
use script::Script;
use smtp::Smtp;
use tls::Tls;

/// Returns the exchange of a check of `target`; `None` when there is nothing to check. With `moments`, what it does is
/// sent there, inside of TLS if the check has it.
pub(super) fn exchange_of(
    check: &Check,
    target: &Address,
    moments: Option<&Sender<Moment>>,
) -> Option<Box<dyn Exchange>> {
    let exchange: Box<dyn Exchange> = match check {
        // A program has no connection.
        Check::Off | Check::Command(_) => return None,
        Check::Tcp => Box::new(Connect),
        Check::SendExpect { send, expect } => Box::new(Question::plain(send, expect)),
        Check::Http { path, host, status } => {
            Box::new(Question::http(path, host.as_deref(), *status, target))
        }
        Check::Script(steps) => Box::new(Messages::new(Script::new(steps))),
        Check::Redis => Box::new(Messages::new(Redis)),
        Check::Postgres { user } => Box::new(Messages::new(Postgres::new(user))),
        Check::Mysql { user } => Box::new(Messages::new(Mysql::new(user.as_deref()))),
        Check::Smtp { domain } => Box::new(Messages::new(Smtp::new(domain))),
        Check::Grpc { service, host } => {
            let authority = host.clone().unwrap_or_else(|| authority(target));
            Box::new(Messages::new(Grpc::new(service, &authority)))
        }
        Check::Mqtt { client_id } => Box::new(Messages::new(Mqtt::new(client_id))),
        Check::Tls { tls, inside } => {
            let inner = exchange_of(inside, target, moments)?;
            return Some(Box::new(Tls::new(tls, inside, target, inner)));
        }
    };
    Some(match moments {
        Some(moments) => Box::new(Recorded::new(exchange, moments.clone())),
        None => exchange,
    })
}
