//! Makes the source that settings ask for. All else here does without knowing which kinds there are.

use super::belief::{Answer, Belief, Records};
use super::dns::AskDns;
use super::etcd::AskEtcd;
use super::file::AskFile;
use super::host::AskHost;
use super::http::AskHttp;
use super::runner::{Runner, Running};
use super::source::Source;
use crate::base::rng::Rng;
use crate::config::discover::{Discover, Kind};
use crate::messages::discovery::{Found, SourceId};
use crate::messages::report::Reports;

/// Runs the source of these settings. Of what it answers `belief` is reported under that name.
pub(super) fn run(
    runner: &Runner,
    settings: &Discover,
    belief: Belief,
    rng: Rng,
    id: SourceId,
    reports: Reports,
) -> Running {
    match &settings.kind {
        Kind::Dns(dns) => runner.run(AskDns(dns.clone()), belief, rng, id, reports),
        Kind::File(file) => runner.run(AskFile::new(file.clone()), belief, rng, id, reports),
        Kind::Http(http) => runner.run(AskHttp::new(http.clone()), belief, rng, id, reports),
        Kind::Host(host) => runner.run(AskHost::new(host.clone()), belief, rng, id, reports),
        Kind::Etcd(etcd) => {
            let source = AskEtcd::new(etcd.clone(), rng.clone());
            runner.run(source, belief, rng, id, reports)
        }
    }
}

/// What the source of these settings says now, whatever it has said before: the backends with notes on them, or why
/// there is no answer.
pub(in crate::control) async fn look(settings: &Discover) -> Result<(Vec<Found>, Vec<String>), String> {
    let answer = match &settings.kind {
        Kind::Dns(dns) => AskDns(dns.clone()).ask().await,
        Kind::File(file) => AskFile::new(file.clone()).ask().await,
        Kind::Http(http) => AskHttp::new(http.clone()).ask().await,
        Kind::Host(host) => AskHost::new(host.clone()).ask().await,
        Kind::Etcd(etcd) => AskEtcd::new(etcd.clone(), Rng::new(0)).ask().await,
    };
    match answer {
        Answer::Records(Records { listed, notes, .. }) => {
            let listed = listed.into_iter().map(|(_, found)| found).collect();
            Ok((Found::of(settings, listed), notes))
        }
        Answer::Nothing { why, .. } => Ok((Vec::new(), vec![why])),
        Answer::Failure(why) => Err(why),
    }
}
