//! The name servers of one question, and the names that a name may stand for.
//!
//! Each server is asked by itself: a pool of hickory-resolver ends at the first SERVFAIL or REFUSED, has one time limit
//! for all of its servers, and takes whatever the last name of a search list has come to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;

use super::super::belief::Answer;
use crate::config::discover::Dns;

/// Why there are no records.
#[derive(Debug)]
pub(super) enum Miss {
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

/// How long one name server may take to answer.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest datagram that crosses every network in one piece (DNS flag day 2020); larger answers come by TCP.
const UDP_PAYLOAD_LEN: u16 = 1232;

/// Name servers in the order of the file.
pub(super) struct Servers {
    resolvers: Vec<TokioResolver>,
    /// The place of the server that has answered last: it is asked first, so that one that is away costs its time once.
    first: AtomicUsize,
    /// Domains in which a name may be.
    search: Vec<Name>,
    /// A name with so many dots is asked for as it stands first.
    ndots: usize,
}

impl Servers {
    /// Returns the servers of `settings`, or those of resolv.conf(5) with its search list.
    pub(super) fn of(settings: &Dns) -> Result<Self, NetError> {
        if settings.resolvers.is_empty() {
            let (config, options) = read_system_conf()?;
            return Self::of_system(config, options.ndots);
        }
        let servers = settings.resolvers.iter().map(|at| {
            let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
            (udp.port, tcp.port) = (at.port(), at.port());
            NameServerConfig::new(at.ip(), true, vec![udp, tcp])
        });
        Self::new(servers.collect(), Vec::new(), 0)
    }

    /// Returns the servers of a resolv.conf(5).
    pub(super) fn of_system(config: ResolverConfig, ndots: usize) -> Result<Self, NetError> {
        let (domain, search, servers) = config.into_parts();
        // The domain is that of the host name too: it counts where no list is set.
        let search = if search.is_empty() { domain.into_iter().collect() } else { search };
        Self::new(servers, search, ndots)
    }

    fn new(servers: Vec<NameServerConfig>, search: Vec<Name>, ndots: usize) -> Result<Self, NetError> {
        let resolvers = servers.into_iter().map(resolver).collect::<Result<_, _>>()?;
        Ok(Self { resolvers, first: AtomicUsize::new(0), search, ndots })
    }

    /// Returns what `name` may stand for, in the order in which that is asked for.
    pub(super) fn names(&self, name: &Name) -> Vec<Name> {
        let mut whole = name.clone();
        whole.set_fqdn(true);
        if name.is_fqdn() {
            return vec![whole];
        }
        let within = |domain: &Name| name.clone().append_domain(domain).ok();
        let mut names: Vec<Name> = self.search.iter().filter_map(within).collect();
        let is_whole_first = usize::from(name.num_labels()) > self.ndots;
        names.insert(if is_whole_first { 0 } else { names.len() }, whole);
        names
    }

    /// Returns the first answer of a server; fails as the last one has when none of them answers.
    pub(super) async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Lookup, Miss> {
        let first = self.first.load(Ordering::Relaxed);
        let count = self.resolvers.len();
        let mut last = Miss::Failure("there is no name server".into());
        for place in (first..first + count).map(|place| place % count) {
            match self.resolvers[place].lookup(name.clone(), kind).await.map_err(|error| miss(&error)) {
                Err(failure @ Miss::Failure(_)) => last = failure,
                answer @ (Ok(_) | Err(Miss::Nothing(..))) => {
                    self.first.store(place, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(last)
    }
}

fn resolver(server: NameServerConfig) -> Result<TokioResolver, NetError> {
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
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
