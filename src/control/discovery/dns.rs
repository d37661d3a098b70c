//! Backends by DNS: the addresses of a name, or the hosts and ports of a service (RFC 2782).
//!
//! hickory-resolver asks: by UDP with EDNS, each time from another port and with another id, and by TCP where an answer is
//! truncated. A resolver lives for one question: it caches nothing, reads resolv.conf(5) anew, and keeps no socket that
//! something between us and the name server has forgotten.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record as Entry, RecordType};
use tokio::task::JoinSet;

use super::belief::{Answer, Belief, Records};
use super::source::Source;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::config::WEIGHT_MAX;
use crate::config::discover::{Discover, Prefer, Record};
use crate::messages::discovery::{Found, Sighting};
use crate::sys::has_route;

/// How long a name server may take to answer.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long all that one question needs may take: a service has many hosts.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// What crosses every network in one piece (DNS flag day 2020); what is larger comes by TCP.
const UDP_PAYLOAD_LEN: u16 = 1232;
/// Hosts of a service that are resolved at a time.
const HOSTS_AT_ONCE: usize = 16;
/// Hosts of a service at most.
const HOSTS_MAX: usize = 4096;

/// A name that is asked for again and again.
pub(super) struct Dns {
    settings: Discover,
    belief: Belief,
    rng: Rng,
}

impl Dns {
    /// A source that has `listed` these backends so far.
    pub(super) fn new(settings: Discover, listed: Vec<Found>, seed: u64, now: Instant) -> Self {
        Self { belief: Belief::new(settings.clone(), listed, now), settings, rng: Rng::new(seed) }
    }
}

impl Source for Dns {
    async fn ask(&mut self, now: impl Fn() -> Instant + Send) -> (Sighting, Duration) {
        let answer = ask_in_time(&self.settings).await;
        let chance = self.rng.below(CHANCES) as f64 / CHANCES as f64;
        self.belief.on_answer(answer, now(), chance)
    }
}

/// Steps of what is left to chance.
const CHANCES: u64 = 1 << 16;

/// What name servers say now, whatever they have said before: the backends, or why there are none.
pub(in crate::control) async fn look(settings: &Discover) -> Result<(Vec<Found>, Vec<String>), String> {
    match ask_in_time(settings).await {
        Answer::Records(Records { listed, notes, .. }) => {
            Ok((listed.into_iter().map(|(_, found)| found).collect(), notes))
        }
        Answer::Nothing { why, .. } => Ok((Vec::new(), vec![why])),
        Answer::Failure(why) => Err(why),
    }
}

async fn ask_in_time(settings: &Discover) -> Answer {
    match tokio::time::timeout(ASK_TIMEOUT, ask(settings)).await {
        Ok(Ok(records)) => Answer::Records(records),
        Ok(Err(miss)) => miss.into(),
        Err(_) => Answer::Failure(format!("no whole answer within {} s", ASK_TIMEOUT.as_secs())),
    }
}

/// Why there are no records.
#[derive(Debug)]
enum Miss {
    /// There are none, for so long if that was said.
    Nothing(String, Option<Duration>),
    /// The question could not be answered.
    Failure(String),
}

impl From<Miss> for Answer {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Nothing(why, ttl) => Self::Nothing { why, ttl },
            Miss::Failure(why) => Self::Failure(why),
        }
    }
}

async fn ask(settings: &Discover) -> Result<Records, Miss> {
    let resolver = resolver(settings).map_err(|error| Miss::Failure(error.to_string()))?;
    let mut name = Name::from_utf8(&settings.name).map_err(|error| Miss::Failure(error.to_string()))?;
    // Search lists are those of resolv.conf(5).
    name.set_fqdn(!settings.resolvers.is_empty());
    match settings.record {
        Record::Address { port } => {
            let Addresses { all, ttl } = addresses(&resolver, &name, settings.prefer).await?;
            let listed = all.into_iter().map(|ip| (String::new(), found((ip, port).into(), 1, false)));
            Ok(Records { listed: listed.collect(), ttl, ..Records::default() })
        }
        Record::Service => service(&resolver, &name, settings.prefer).await,
    }
}

fn found(address: SocketAddr, weight: u16, backup: bool) -> Found {
    Found { name: address.to_string(), address: address.into(), weight, backup }
}

fn resolver(settings: &Discover) -> Result<TokioResolver, NetError> {
    let mut builder = if settings.resolvers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = settings.resolvers.iter().map(|at| {
            let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
            (udp.port, tcp.port) = (at.port(), at.port());
            NameServerConfig::new(at.ip(), true, vec![udp, tcp])
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = QUERY_TIMEOUT;
    // The next question is soon enough.
    options.attempts = 0;
    options.edns0 = true;
    options.edns_payload_len = UDP_PAYLOAD_LEN;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
    builder.build()
}

/// The addresses of one host.
#[derive(Debug)]
struct Addresses {
    all: Vec<IpAddr>,
    ttl: Duration,
}

/// Those addresses of `host` that are to be dialed.
async fn addresses(resolver: &TokioResolver, host: &Name, prefer: Prefer) -> Result<Addresses, Miss> {
    let (first, second) = match prefer {
        Prefer::Ipv4 | Prefer::Both => (RecordType::A, RecordType::AAAA),
        Prefer::Ipv6 => (RecordType::AAAA, RecordType::A),
    };
    let preferred = addresses_of(resolver, host, first).await;
    match (prefer, preferred) {
        (Prefer::Ipv4 | Prefer::Ipv6, Err(Miss::Nothing(..))) => addresses_of(resolver, host, second).await,
        (Prefer::Ipv4 | Prefer::Ipv6, preferred) => preferred,
        (Prefer::Both, preferred) => {
            let others = addresses_of(resolver, host, second).await;
            both(preferred, others.and_then(with_a_route))
        }
    }
}

/// One family that cannot be asked for makes an answer of the other one a part.
fn both(first: Result<Addresses, Miss>, second: Result<Addresses, Miss>) -> Result<Addresses, Miss> {
    match (first, second) {
        (Err(Miss::Failure(why)), _) | (_, Err(Miss::Failure(why))) => Err(Miss::Failure(why)),
        (Ok(first), Ok(second)) => {
            let ttl = first.ttl.min(second.ttl);
            Ok(Addresses { all: [first.all, second.all].concat(), ttl })
        }
        (Ok(found), Err(Miss::Nothing(..))) | (Err(Miss::Nothing(..)), Ok(found)) => Ok(found),
        (Err(nothing), Err(Miss::Nothing(..))) => Err(nothing),
    }
}

fn with_a_route(Addresses { mut all, ttl }: Addresses) -> Result<Addresses, Miss> {
    all.retain(|ip| has_route(*ip));
    match all.is_empty() {
        true => Err(Miss::Nothing("no route to any of its addresses".into(), Some(ttl))),
        false => Ok(Addresses { all, ttl }),
    }
}

async fn addresses_of(resolver: &TokioResolver, host: &Name, family: RecordType) -> Result<Addresses, Miss> {
    let lookup = resolver.lookup(host.clone(), family).await.map_err(|error| miss(&error))?;
    let mut all: Vec<IpAddr> = lookup.answers().iter().filter_map(ip_of).filter(is_dialable).collect();
    // Answers come in another order each time.
    all.sort_unstable();
    all.dedup();
    if all.is_empty() {
        return Err(Miss::Nothing(format!("{host} has no {family} record"), None));
    }
    Ok(Addresses { all, ttl: ttl_of(lookup.answers()) })
}

fn ip_of(entry: &Entry) -> Option<IpAddr> {
    if let RData::A(ip) = &entry.data {
        return Some(IpAddr::V4(ip.0));
    }
    if let RData::AAAA(ip) = &entry.data { Some(IpAddr::V6(ip.0)) } else { None }
}

/// A name server may say anything.
fn is_dialable(ip: &IpAddr) -> bool {
    let is_broadcast = *ip == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

fn ttl_of(entries: &[Entry]) -> Duration {
    Duration::from_secs(entries.iter().map(|entry| entry.ttl).min().unwrap_or_default().into())
}

fn miss(error: &NetError) -> Miss {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else {
        return Miss::Failure(error.to_string());
    };
    let (name, kind) = (none.query.name(), none.query.query_type());
    let why = match none.response_code == ResponseCode::NXDomain {
        true => format!("there is no {name}"),
        false => format!("{name} has no {kind} record"),
    };
    Miss::Nothing(why, none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into())))
}

/// The hosts of a service with their ports. Those of the lowest number serve, the others are backups.
async fn service(resolver: &TokioResolver, name: &Name, prefer: Prefer) -> Result<Records, Miss> {
    let lookup = resolver.lookup(name.clone(), RecordType::SRV).await.map_err(|error| miss(&error))?;
    let mut hosts: Vec<&SRV> = lookup
        .answers()
        .iter()
        .filter_map(|entry| if let RData::SRV(host) = &entry.data { Some(host) } else { None })
        .collect();
    let ttl = ttl_of(lookup.answers());
    if hosts.is_empty() {
        return Err(Miss::Nothing(format!("{name} has no SRV record"), None));
    }
    hosts.retain(|host| !host.target.is_root() && host.port > 0);
    if hosts.is_empty() {
        return Err(Miss::Nothing(format!("{name} is not available (RFC 2782)"), Some(ttl)));
    }
    hosts.sort_unstable_by_key(|host| (host.priority, host.target.to_string(), host.port));
    let mut notes = Vec::new();
    if hosts.len() > HOSTS_MAX {
        notes.push(format!("{} hosts, more than {HOSTS_MAX}: the others are left out", hosts.len()));
        hosts.truncate(HOSTS_MAX);
    }
    let glue = glue(lookup.additionals(), prefer);
    let resolved = resolve_all(resolver, &hosts, glue, prefer).await;
    let mut records = Records { ttl, notes, ..Records::default() };
    put_together(&hosts, &resolved, &mut records);
    if records.listed.is_empty() {
        let why = records.notes.join("; ");
        return Err(match records.unknown_hosts.is_empty() {
            true => Miss::Nothing(why, Some(records.ttl)),
            false => Miss::Failure(why),
        });
    }
    Ok(records)
}

type Resolved = HashMap<Name, Result<Addresses, Miss>>;

/// Addresses that came along with the answer, of those hosts where they are all that is wanted.
fn glue(additionals: &[Entry], prefer: Prefer) -> Resolved {
    let is_enough = |ip: &IpAddr| match prefer {
        Prefer::Ipv4 => ip.is_ipv4(),
        Prefer::Ipv6 => ip.is_ipv6(),
        // The other family may exist too.
        Prefer::Both => false,
    };
    let mut glue = Resolved::new();
    for entry in additionals {
        let Some(ip) = ip_of(entry).filter(is_enough).filter(is_dialable) else { continue };
        let ttl = Duration::from_secs(entry.ttl.into());
        match glue.get_mut(&entry.name) {
            Some(Ok(known)) => {
                known.all.push(ip);
                known.ttl = known.ttl.min(ttl);
            }
            Some(Err(_)) | None => {
                glue.insert(entry.name.clone(), Ok(Addresses { all: vec![ip], ttl }));
            }
        }
    }
    glue
}

/// The addresses of all hosts, of which some are known.
async fn resolve_all(
    resolver: &TokioResolver,
    hosts: &[&SRV],
    mut resolved: Resolved,
    prefer: Prefer,
) -> Resolved {
    let mut missing: Vec<Name> = hosts.iter().map(|host| host.target.clone()).collect();
    missing.sort_unstable();
    missing.dedup();
    missing.retain(|host| !resolved.contains_key(host));
    for some in missing.chunks(HOSTS_AT_ONCE) {
        let mut asking = JoinSet::new();
        for host in some.iter().cloned() {
            let resolver = resolver.clone();
            asking.spawn(async move {
                let found = addresses(&resolver, &host, prefer).await;
                (host, found)
            });
        }
        while let Some(asked) = asking.join_next().await {
            // None of them is cancelled; one that panics ends the process.
            let Ok((host, found)) = asked else { continue };
            resolved.insert(host, found);
        }
    }
    resolved
}

/// Hosts and their addresses make backends.
fn put_together(hosts: &[&SRV], resolved: &Resolved, records: &mut Records) {
    let first = hosts.iter().map(|host| host.priority).min().unwrap_or_default();
    let mut heaviest: BTreeMap<u16, u16> = BTreeMap::new();
    for host in hosts {
        let weight = heaviest.entry(host.priority).or_default();
        *weight = host.weight.max(*weight);
    }
    let mut taken: HashSet<SocketAddr> = HashSet::new();
    for host in hosts {
        let target = host.target.to_string();
        match resolved.get(&host.target) {
            Some(Ok(addresses)) => {
                records.ttl = records.ttl.min(addresses.ttl);
                let weight = scaled(host.weight, heaviest[&host.priority]);
                for ip in &addresses.all {
                    let address = SocketAddr::new(*ip, host.port);
                    if taken.insert(address) {
                        let backend = found(address, weight, host.priority > first);
                        records.listed.push((target.clone(), backend));
                    } else {
                        records.notes.push(format!("{address} is listed twice, the first counts"));
                    }
                }
            }
            Some(Err(Miss::Nothing(why, _))) => records.notes.push(why.clone()),
            Some(Err(Miss::Failure(why))) => {
                records.notes.push(format!("{target}: {why}"));
                records.unknown_hosts.insert(target);
            }
            None => _ = records.unknown_hosts.insert(target),
        }
    }
}

/// A weight of 0..=65535 as one of 1..=256: beside heavier ones 0 is almost never (RFC 2782), and of equal ones each is 1.
fn scaled(weight: u16, heaviest: u16) -> u16 {
    let max = u32::from(WEIGHT_MAX);
    let (weight, heaviest) = (u32::from(weight), u32::from(heaviest));
    let scaled = if heaviest > max { weight * max / heaviest } else { weight };
    u16::try_from(scaled.clamp(1, max)).unwrap_or(WEIGHT_MAX)
}

#[cfg(test)]
mod tests;
