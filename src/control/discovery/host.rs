//! Backends at a host name, as this machine resolves it: the file of hosts, then the name servers of resolv.conf(5), and
//! where these have no address, whatever else nsswitch.conf(5) names.
//!
//! getaddrinfo(3) alone would know all of these. But it reports neither how long an answer is good nor whether there is
//! no such name or no answer, and it holds a thread until it returns. So it is asked last.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::Hosts;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::sync::Semaphore;

use super::belief::{Answer, Records};
use super::dns::{self, AskDns};
use super::listed::THREAD;
use super::source::Source;
use crate::config::discover::{Dns, HOSTS_ASKED, Host, Record};
use crate::config::{is_server, system_resolver};
use crate::sys::Call;

/// Of all pools: descriptors are those of the process.
static ASKING: Semaphore = Semaphore::const_new(HOSTS_ASKED);
/// Of the calls of getaddrinfo(3) that are waited for: one that hangs gives its turn to the others.
static CALLING: Semaphore = Semaphore::const_new(HOSTS_ASKED);
/// Of all of these calls: one that hangs keeps its thread.
static THREADS: Semaphore = Semaphore::const_new(CALLS_MAX);
const CALLS_MAX: usize = 256;
/// How long an answer waits for getaddrinfo(3), which is left alone then.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Turns `host:port` into addresses, and may block.
type Resolve = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// A host that is resolved.
pub(super) struct AskHost {
    host: Host,
    question: Dns,
    resolve: Resolve,
    call: Call<io::Result<Vec<SocketAddr>>>,
}

impl AskHost {
    pub(super) fn new(host: Host) -> Self {
        let question = Dns::new(host.name.clone(), Record::Address { port: host.port });
        Self { host, question, resolve: system_resolver, call: Call::new(THREAD, CALL_TIMEOUT) }
    }

    async fn answer_of_all(&mut self) -> Answer {
        if let Some(addresses) = in_file(&self.host.name) {
            return self.answer(&addresses);
        }
        let answer = {
            // It is never closed.
            let _permit = ASKING.acquire().await;
            AskDns(self.question.clone()).ask().await
        };
        if matches!(answer, Answer::Records(_)) {
            return answer;
        }
        match self.of_system().await {
            Ok(addresses) if !addresses.is_empty() => self.answer(&addresses),
            Ok(_) => answer,
            Err(why) => Answer::Failure(format!("getaddrinfo(3): {why}")),
        }
    }

    /// Returns the addresses by getaddrinfo(3), which are none where it knows none. Fails when it does not return.
    async fn of_system(&mut self) -> Result<Vec<IpAddr>, String> {
        let found = match self.call.late() {
            Some(late) => late?,
            None => {
                let _turn = CALLING.acquire().await;
                // Held until the call returns, however late that is.
                let thread = THREADS.try_acquire();
                let thread = thread.map_err(|_| format!("{CALLS_MAX} earlier calls have not returned"))?;
                let (resolve, target) = (self.resolve, self.host.target());
                let call = move || {
                    let _thread = thread;
                    resolve(&target)
                };
                self.call.run(call).await?
            }
        };
        // It has no words of its own for what the name servers have answered.
        let found = found.unwrap_or_default();
        let has_v4 = found.iter().any(SocketAddr::is_ipv4);
        let of_family = found.iter().filter(|address| address.is_ipv4() == has_v4);
        let mut all: Vec<IpAddr> = of_family.map(SocketAddr::ip).collect();
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Returns an answer that says nothing of how long it is good.
    fn answer(&self, addresses: &[IpAddr]) -> Answer {
        let (servers, refused): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|&&ip| is_server(ip));
        let refused: Vec<String> =
            refused.iter().map(|ip| format!("{ip} is no server, and left out")).collect();
        if servers.is_empty() {
            return Answer::Failure(refused.join("; "));
        }
        let listed =
            servers.into_iter().map(|ip| (String::new(), dns::found((ip, self.host.port).into(), 1, 0)));
        Answer::Records(Records { listed: listed.collect(), notes: refused, ..Records::default() })
    }
}

impl Source for AskHost {
    async fn ask(&mut self) -> Answer {
        let name = self.host.name.clone();
        let said = |why: String| format!("cannot resolve host {name:?}: {why}");
        match self.answer_of_all().await {
            records @ Answer::Records(_) => records,
            Answer::Nothing { why, ttl } => Answer::Nothing { why: said(why), ttl },
            Answer::Failure(why) => Answer::Failure(said(why)),
        }
    }
}

/// The file of hosts, and what it was when it was read: ten thousand names do not read it ten thousand times.
struct HostsFile {
    /// Device, file, length and time of the last change.
    seen: (u64, u64, u64, i64, i64),
    hosts: Arc<Hosts>,
}

const HOSTS_FILE: &str = "/etc/hosts";
static READ: Mutex<Option<HostsFile>> = Mutex::new(None);

/// Returns the addresses in hosts(5), those of IPv4 if there are any.
fn in_file(name: &str) -> Option<Vec<IpAddr>> {
    let name = Name::from_utf8(name).ok()?;
    let hosts = hosts()?;
    let of = |family| {
        let lookup = hosts.lookup_static_host(&Query::query(name.clone(), family))?;
        let mut all: Vec<IpAddr> = lookup.answers().iter().filter_map(dns::ip_of).collect();
        all.sort_unstable();
        all.dedup();
        Some(all).filter(|all| !all.is_empty())
    };
    of(RecordType::A).or_else(|| of(RecordType::AAAA))
}

fn hosts() -> Option<Arc<Hosts>> {
    let about = fs::metadata(HOSTS_FILE).ok()?;
    let seen = (about.dev(), about.ino(), about.len(), about.mtime(), about.mtime_nsec());
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = read.as_ref().filter(|known| known.seen == seen) {
        return Some(Arc::clone(&known.hosts));
    }
    let hosts = Arc::new(Hosts::from_system().ok()?);
    *read = Some(HostsFile { seen, hosts: Arc::clone(&hosts) });
    Some(hosts)
}

#[cfg(test)]
mod tests;
