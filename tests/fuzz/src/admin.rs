//! Bodies of admin requests: refused in one line that names the key, or legal by themselves.

use l4lb::api;
use l4lb::base::address::Address;
use l4lb::config::{Target, check_name, one_line};
use l4lb::control::admin::Wanted;
use l4lb::messages::request::Holder;

use super::config::expect_one_line;

pub fn check(data: &[u8]) {
    if let Ok(change) = serde_json::from_slice::<api::BackendChange>(data) {
        let again = serde_json::to_vec(&change).expect("JSON");
        let again: api::BackendChange = serde_json::from_slice(&again).expect("what is written is read");
        assert_eq!((again.weight, again.admin), (change.weight, change.admin));
    }
    let Ok(new) = serde_json::from_slice::<api::NewBackend>(data) else { return };
    match Wanted::check(new.clone()) {
        Ok(wanted) => expect_legal(&wanted),
        Err(what) => {
            expect_one_line(&one_line(&what));
            let keys = ["address: ", "name: ", "weight: ", "ttl: ", "holder: ", "new_holder: "];
            assert!(keys.iter().any(|key| what.starts_with(key)), "{what}");
        }
    }
}

fn expect_legal(wanted: &Wanted) {
    let Wanted { target, name, weight, ttl, holder, .. } = wanted;
    assert!(check_name(name).is_ok(), "{name:?}");
    assert!(*weight <= 256);
    assert!(ttl.is_none_or(|ttl| api::TTL.contains(&ttl)), "{ttl:?}");
    if let Some(Holder::Known(holder) | Holder::Named(holder)) = holder {
        assert!(check_name(holder).is_ok(), "{holder:?}");
    }
    match target {
        Target::Address(Address::Ip(address)) => {
            assert!(address.port() > 0 && !address.ip().is_multicast(), "{address}");
        }
        Target::Host { host, port } => {
            assert!(*port > 0 && host.bytes().any(|byte| byte.is_ascii_alphabetic()), "{host:?}");
        }
    }
}
