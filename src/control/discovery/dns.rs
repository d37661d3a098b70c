//! Backends by DNS: the addresses of a name, or the hosts and ports of a service (RFC 2782).
//!
//! hickory-resolver asks: by UDP with EDNS, each time from another port and with another id, and by TCP where an answer
//! is truncated. A resolver lives for one question: it caches nothing, reads resolv.conf(5) anew, and keeps no socket
//! that something between us and the name server has forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record as Entry, RecordType};
use tokio::task::JoinSet;

use self::servers::{Miss, Servers};
use super::belief::{Answer, Records};
use super::source::Source;
use crate::config::discover::{Dns, Prefer, Record};
use crate::config::{PRIORITY_MAX, WEIGHT_MAX};
use crate::messages::discovery::Found;
use crate::sys::has_route;

/// How long all that one question needs may take: a service has many hosts.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// Hosts of a service that are resolved at a time.
const HOSTS_AT_ONCE: usize = 16;
/// Hosts of a service at most.
const HOSTS_MAX: usize = 4096;
/// Addresses of a service at most, as many as a pool may have: a name server may send any number of them.
const LISTED_MAX: usize = 65_536;
/// Notes on one answer at most.
const NOTES_MAX: usize = 16;

/// A name that is asked for.
pub(super) struct AskDns(pub(super) Dns);

impl Source for AskDns {
    async fn ask(&mut self) -> Answer {
        ask_in_time(&self.0).await
    }
}

async fn ask_in_time(settings: &Dns) -> Answer {
    match tokio::time::timeout(ASK_TIMEOUT, ask(settings)).await {
        Ok(Ok(records)) => Answer::Records(records),
        Ok(Err(miss)) => miss.into(),
        Err(_) => Answer::Failure(format!("no whole answer within {} s", ASK_TIMEOUT.as_secs())),
    }
}

async fn ask(settings: &Dns) -> Result<Records, Miss> {
    let servers = Servers::of(settings).map_err(|error| Miss::Failure(error.to_string()))?;
    ask_servers(&Arc::new(servers), settings).await
}

/// Returns the records of the first name of the search list that has some. A failure ends the walk: what was meant may
/// be there, and what another name has is not it.
async fn ask_servers(servers: &Arc<Servers>, settings: &Dns) -> Result<Records, Miss> {
    let name = Name::from_utf8(&settings.name).map_err(|error| Miss::Failure(error.to_string()))?;
    let mut first = None;
    for name in servers.names(&name) {
        match records_of(servers, &name, settings).await {
            Err(nothing @ Miss::Nothing(..)) => _ = first.get_or_insert(nothing),
            answer @ (Ok(_) | Err(Miss::Failure(_))) => return answer,
        }
    }
    Err(first.unwrap_or_else(|| Miss::Failure(format!("{name} cannot be asked for"))))
}

async fn records_of(servers: &Arc<Servers>, name: &Name, settings: &Dns) -> Result<Records, Miss> {
    let prefer = settings.prefer;
    let Record::Address { port } = settings.record else { return service(servers, name, prefer).await };
    let addresses = addresses(servers, name, prefer).await?;
    let host = name.to_string();
    let mut records = Records { ttl: addresses.ttl, ..Records::default() };
    if let Some((family, why)) = addresses.unknown {
        records.notes.push(format!("{host} {family}: {why}"));
        records.unknown_hosts.insert(known_by(&host, family == RecordType::AAAA, prefer));
    }
    let mut notes = Notes::default();
    addresses.no_servers.iter().for_each(|ip| notes.add(|| no_server(&host, *ip)));
    records.notes.extend(notes.into_list());
    let listed = addresses.all.into_iter();
    let listed = listed.map(|ip| (known_by(&host, ip.is_ipv6(), prefer), found((ip, port).into(), 1, 0)));
    records.listed = listed.collect();
    Ok(records)
}

pub(super) fn found(address: SocketAddr, weight: u16, priority: u8) -> Found {
    Found { name: address.to_string(), address: address.into(), weight, priority }
}

/// Returns what the addresses of `host` of one family are known by: with `prefer = "both"` one family may be unknown
/// alone.
fn known_by(host: &str, is_ipv6: bool, prefer: Prefer) -> String {
    match prefer {
        Prefer::Both if is_ipv6 => format!("{host} {}", RecordType::AAAA),
        Prefer::Both | Prefer::Ipv4 | Prefer::Ipv6 => host.to_owned(),
    }
}

/// The addresses of one host.
#[derive(Debug)]
struct Addresses {
    all: Vec<IpAddr>,
    ttl: Duration,
    /// Others that it has, which nothing can be dialed at.
    no_servers: Vec<IpAddr>,
    /// The family that could not be asked for, and why.
    unknown: Option<(RecordType, String)>,
}

/// A note for the operator about an address that is left out. A filter between us and the name server puts some there.
fn no_server(host: &str, ip: IpAddr) -> String {
    format!("{host}: {ip} is no server, and left out")
}

/// Returns the addresses of `host` to dial.
async fn addresses(servers: &Servers, host: &Name, prefer: Prefer) -> Result<Addresses, Miss> {
    let (first, second) = match prefer {
        Prefer::Ipv4 | Prefer::Both => (RecordType::A, RecordType::AAAA),
        Prefer::Ipv6 => (RecordType::AAAA, RecordType::A),
    };
    let preferred = addresses_of(servers, host, first).await;
    match (prefer, preferred) {
        (Prefer::Ipv4 | Prefer::Ipv6, Err(Miss::Nothing(..))) => addresses_of(servers, host, second).await,
        (Prefer::Ipv4 | Prefer::Ipv6, preferred) => preferred,
        (Prefer::Both, preferred) => {
            let others = addresses_of(servers, host, second).await;
            both(preferred, others.and_then(with_a_route))
        }
    }
}

/// Joins the addresses of both families, A first. One family that cannot be asked for leaves those of the other one.
fn both(first: Result<Addresses, Miss>, second: Result<Addresses, Miss>) -> Result<Addresses, Miss> {
    match (first, second) {
        (Ok(found), Err(Miss::Failure(why))) => {
            Ok(Addresses { unknown: Some((RecordType::AAAA, why)), ..found })
        }
        (Err(Miss::Failure(why)), Ok(found)) => {
            Ok(Addresses { unknown: Some((RecordType::A, why)), ..found })
        }
        (Err(Miss::Failure(why)), Err(_)) | (Err(_), Err(Miss::Failure(why))) => Err(Miss::Failure(why)),
        (Ok(first), Ok(second)) => {
            let ttl = first.ttl.min(second.ttl);
            let no_servers = [first.no_servers, second.no_servers].concat();
            Ok(Addresses { all: [first.all, second.all].concat(), ttl, no_servers, unknown: None })
        }
        (Ok(found), Err(Miss::Nothing(..))) | (Err(Miss::Nothing(..)), Ok(found)) => Ok(found),
        (Err(nothing), Err(Miss::Nothing(..))) => Err(nothing),
    }
}

fn with_a_route(mut found: Addresses) -> Result<Addresses, Miss> {
    found.all.retain(|ip| has_route(*ip));
    match found.all.is_empty() {
        true => Err(Miss::Nothing("no route to any of its addresses".into(), Some(found.ttl))),
        false => Ok(found),
    }
}

async fn addresses_of(servers: &Servers, host: &Name, family: RecordType) -> Result<Addresses, Miss> {
    let lookup = servers.lookup(host, family).await?;
    let mut all: Vec<IpAddr> = lookup.answers().iter().filter_map(ip_of).collect();
    if all.is_empty() {
        return Err(Miss::Nothing(format!("{host} has no {family} record"), None));
    }
    let mut no_servers: Vec<IpAddr> = all.extract_if(.., |ip| !is_dialable(ip)).collect();
    if all.is_empty() {
        // A filter between us and the name server answers so (0.0.0.0) for names that are there.
        return Err(Miss::Failure(format!("{host}: none of its addresses can be dialed")));
    }
    // Answers come in another order each time.
    for ips in [&mut all, &mut no_servers] {
        ips.sort_unstable();
        ips.dedup();
    }
    Ok(Addresses { all, ttl: ttl_of(lookup.answers()), no_servers, unknown: None })
}

pub(super) fn ip_of(entry: &Entry) -> Option<IpAddr> {
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

/// The hosts of a service with their ports, in tiers by the priorities of their records.
async fn service(servers: &Arc<Servers>, name: &Name, prefer: Prefer) -> Result<Records, Miss> {
    let lookup = servers.lookup(name, RecordType::SRV).await?;
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
    let mut notes = Notes::default();
    if hosts.len() > HOSTS_MAX {
        notes.add(|| format!("{} hosts, more than {HOSTS_MAX}: the others are left out", hosts.len()));
        hosts.truncate(HOSTS_MAX);
    }
    let glue = glue(lookup.additionals(), prefer);
    let resolved = resolve_all(servers, &hosts, glue, prefer).await;
    let mut records = Records { ttl, ..Records::default() };
    combine_answers(&hosts, &resolved, prefer, &mut records, &mut notes);
    records.notes = notes.into_list();
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
    let mut glue: HashMap<Name, Addresses> = HashMap::new();
    for entry in additionals {
        let Some(ip) = ip_of(entry).filter(is_enough) else { continue };
        let ttl = Duration::from_secs(entry.ttl.into());
        let nothing = Addresses { all: Vec::new(), ttl, no_servers: Vec::new(), unknown: None };
        let known = glue.entry(entry.name.clone()).or_insert(nothing);
        if is_dialable(&ip) { &mut known.all } else { &mut known.no_servers }.push(ip);
        known.ttl = known.ttl.min(ttl);
    }
    glue.into_iter()
        .filter(|(_, known)| !known.all.is_empty())
        .map(|(name, known)| (name, Ok(known)))
        .collect()
}

/// The addresses of all hosts, of which some are known.
async fn resolve_all(
    servers: &Arc<Servers>,
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
            let servers = Arc::clone(servers);
            asking.spawn(async move {
                let found = addresses(&servers, &host, prefer).await;
                (host, found)
            });
        }
        while let Some(asked) = asking.join_next().await {
            // None of them is cancelled; one that panics ends the process.
            let Ok((host, found)) = asked else { continue };
            resolved.insert(host, found);
        }
        // The rest has no place any more.
        if resolved.values().flatten().map(|addresses| addresses.all.len()).sum::<usize>() > LISTED_MAX {
            break;
        }
    }
    resolved
}

/// Notes for the operator about an answer: the first ones, and how many more there are.
#[derive(Default)]
struct Notes {
    first: Vec<String>,
    more: usize,
}

impl Notes {
    fn add(&mut self, note: impl FnOnce() -> String) {
        if self.first.len() < NOTES_MAX { self.first.push(note()) } else { self.more += 1 }
    }

    fn into_list(mut self) -> Vec<String> {
        if self.more > 0 {
            self.first.push(format!("and {} more", self.more));
        }
        self.first
    }
}

/// Weights of the hosts of one tier.
#[derive(Clone, Copy, Debug, Default)]
struct Weights {
    heaviest: u16,
    /// Whether one of them is 0: it gets sessions almost never (RFC 2782).
    has_zero: bool,
}

/// Returns the tier of each priority that a record has: the lowest number is the first one, each higher number the
/// next. Priorities that are left over share the last one.
fn tiers(hosts: &[&SRV], notes: &mut Notes) -> BTreeMap<u16, u8> {
    let priorities: BTreeSet<u16> = hosts.iter().map(|host| host.priority).collect();
    let most = usize::from(PRIORITY_MAX) + 1;
    if priorities.len() > most {
        let count = priorities.len();
        notes.add(|| {
            format!("{count} priorities, more than {most}: the last ones share priority {PRIORITY_MAX}")
        });
    }
    let in_order = (0..PRIORITY_MAX).chain(iter::repeat(PRIORITY_MAX));
    priorities.into_iter().zip(in_order).collect()
}

/// Hosts and their addresses make backends.
fn combine_answers(
    hosts: &[&SRV],
    resolved: &Resolved,
    prefer: Prefer,
    records: &mut Records,
    notes: &mut Notes,
) {
    let tiers = tiers(hosts, notes);
    let mut weights: BTreeMap<u8, Weights> = BTreeMap::new();
    for host in hosts {
        let weights = weights.entry(tiers[&host.priority]).or_default();
        weights.heaviest = host.weight.max(weights.heaviest);
        weights.has_zero |= host.weight == 0;
    }
    let targets: BTreeSet<&Name> = hosts.iter().map(|host| &host.target).collect();
    for target in targets {
        if let Some(Ok(Addresses { no_servers, .. })) = resolved.get(target) {
            no_servers.iter().for_each(|ip| notes.add(|| no_server(&target.to_string(), *ip)));
        }
    }
    let mut taken: HashSet<SocketAddr> = HashSet::new();
    // Those that are listed twice take time, too.
    let mut left = LISTED_MAX;
    for host in hosts {
        let target = host.target.to_string();
        match resolved.get(&host.target) {
            Some(Ok(addresses)) => {
                records.ttl = records.ttl.min(addresses.ttl);
                if let Some((family, why)) = &addresses.unknown {
                    notes.add(|| format!("{target} {family}: {why}"));
                    records.unknown_hosts.insert(known_by(&target, *family == RecordType::AAAA, prefer));
                }
                let priority = tiers[&host.priority];
                let weight = scaled(host.weight, weights[&priority]);
                for ip in addresses.all.iter().take(left) {
                    let address = SocketAddr::new(*ip, host.port);
                    if taken.insert(address) {
                        let backend = found(address, weight, priority);
                        records.ranks.insert(backend.address.clone(), host.priority);
                        records.listed.push((known_by(&target, ip.is_ipv6(), prefer), backend));
                    } else {
                        notes.add(|| format!("{address} is listed twice, the first counts"));
                    }
                }
                let Some(rest) = left.checked_sub(addresses.all.len()) else {
                    // Other notes may be too many for it.
                    notes
                        .first
                        .insert(0, format!("more than {LISTED_MAX} addresses: the others are left out"));
                    return;
                };
                left = rest;
            }
            Some(Err(Miss::Nothing(why, _))) => notes.add(|| why.clone()),
            unknown @ (Some(Err(Miss::Failure(_))) | None) => {
                if let Some(Err(Miss::Failure(why))) = unknown {
                    notes.add(|| format!("{target}: {why}"));
                }
                let both = [false, true].map(|is_ipv6| known_by(&target, is_ipv6, prefer));
                records.unknown_hosts.extend(both);
            }
        }
    }
}

/// Returns a weight of 0..=65535 as one of 1..=256. Beside heavier ones 0 is as far below them as 256 steps allow; of
/// equal ones each is 1.
fn scaled(weight: u16, Weights { heaviest, has_zero }: Weights) -> u16 {
    let max = u32::from(WEIGHT_MAX);
    let (weight, heaviest) = (u32::from(weight), u32::from(heaviest));
    let is_scaled = heaviest > max || (has_zero && heaviest > 0);
    let scaled = if is_scaled { weight * max / heaviest } else { weight };
    u16::try_from(scaled.clamp(1, max)).unwrap_or(WEIGHT_MAX)
}

mod servers;

#[cfg(test)]
mod tests;
