//! Which keys of which cluster a source follows.

use super::super::cluster;
use super::super::reader::Reader;
use super::super::tls::Trust;
use crate::config::cluster::check_prefix;
use crate::config::discover::{Etcd, WhenAbsent};
use crate::config::parse::raw::RawDiscover;

const WHEN_ABSENT: [(&str, WhenAbsent); 2] = {
    let [a, b] = WhenAbsent::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

/// The keys; `None` if the prefix or the endpoints are missing or wrong.
pub(super) fn check(raw: &RawDiscover, read: &mut Reader<'_>, trust: &mut Trust) -> Option<Etcd> {
    if raw.prefix.is_none() {
        read.wrong("prefix", &raw.prefix, "missing, write prefix = \"/l4lb/web/\"");
    }
    let prefix = cluster::checked(read, "prefix", &raw.prefix, check_prefix);
    let cluster =
        cluster::check(read, &raw.endpoints, &raw.user, &raw.password_file, raw.tls.as_ref(), trust);
    let when_absent = read.choice("when_absent", &raw.when_absent, &WHEN_ABSENT);
    Some(Etcd { prefix: prefix?, cluster: cluster?, when_absent: when_absent.unwrap_or(WhenAbsent::ALL[0]) })
}
