//! The listening sockets of the process: a group per address, with one socket per worker.
//!
//! The workers own them. This module only knows them, because options belong to a listener and not to a worker, and
//! because connections must be kept away from a socket before its worker can close it. Where possible that is done by
//! hiding the socket: then another process that listens on the address gets the next client, and without one the client
//! is refused. A socket passed to this process cannot be hidden, because the next process has it too: its clients wait.
//!
//! The kernel numbers the sockets of a group in the order in which they began to listen. That is the order of the
//! workers, because only sockets of the last workers are ever closed, and new ones come only after these have gone.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use crate::config::model::{Config, Listener, Tcp};
use crate::server::StartError;
use crate::server::activation;
use crate::server::error::refused;
use crate::sys::{self, Kernel, Linux, Neighbours, Passed};
use crate::worker::GroupId;

/// A listening socket as the workers own it.
pub(super) type Socket = <Linux as Kernel>::Listener;
/// A listening socket as this module knows it.
type Known = Weak<<Socket as std::ops::Deref>::Target>;

/// The sockets of one address.
pub(super) struct Group {
    pub(super) id: GroupId,
    /// The configured address; port 0 lets the kernel choose.
    bind: SocketAddr,
    pub(super) address: SocketAddr,
    /// The name of its listener.
    pub(super) name: String,
    backlog: u32,
    tcp: Tcp,
    /// By worker. The last workers may have none.
    sockets: Vec<Known>,
    /// The first sockets, if the service manager has them too. Workers alone cannot close these: connections would
    /// continue to begin there.
    passed: Vec<Passed<Socket>>,
}

/// Sockets that their workers must close.
pub(super) struct Retiring {
    /// The group that they belonged to.
    pub(super) group: GroupId,
    pub(super) name: String,
    pub(super) address: SocketAddr,
    sockets: Vec<Known>,
    /// How many of the first ones this module holds too, because they were passed to this process.
    passed: usize,
    pub(super) is_hidden: bool,
}

/// The sockets that one listener of a configuration needs.
pub(super) enum Need {
    /// More sockets for a group that exists, for new workers.
    More { group: GroupId, sockets: Vec<Socket> },
    /// A new group; its sockets do not listen yet.
    New { address: SocketAddr, sockets: Vec<Socket>, neighbours: Neighbours },
    /// A group of at least one passed socket. The sockets beside it do not listen yet.
    Passed { passed: Vec<Passed<Socket>>, beside: Vec<Socket> },
}

impl Retiring {
    /// Returns whether a worker still has one of them.
    pub(super) fn is_open(&self) -> bool {
        let is_open =
            |(index, socket): (usize, &Known)| socket.strong_count() > usize::from(index < self.passed);
        self.sockets.iter().enumerate().any(is_open)
    }
}

/// Returns the sockets `passed` to this process. Fails when they do not fit `config`. From now on each is known by its
/// address alone: a listener of its name may have moved when it is needed again.
pub(super) fn match_passed(config: &Config, passed: Vec<Passed>) -> Result<Vec<Passed<Socket>>, StartError> {
    let (claimed, left) = activation::claim(&config.listeners, passed)?;
    for Passed { name, address, .. } in &left {
        log::warn!(name, address:%; "passed socket belongs to no listener");
    }
    let known = |Passed { address, is_dual_stack, socket, .. }: Passed| Passed {
        name: String::new(),
        address,
        is_dual_stack,
        socket: Arc::new(socket.into()),
    };
    Ok(claimed.into_iter().flatten().chain(left).map(known).collect())
}

/// Opens the sockets that `config` needs besides `groups` and the sockets of `unused`, by listener. None of them
/// listens yet: if anything else fails, no client was accepted.
pub(super) fn open(
    config: &Config,
    groups: &[Group],
    retiring: &[Retiring],
    unused: &[Passed<Socket>],
) -> Result<Vec<Need>, StartError> {
    let workers = config.global.workers.get();
    let kept = kept(config, groups);
    let own: Vec<SocketAddr> =
        groups.iter().map(|group| group.address).chain(retiring.iter().map(|gone| gone.address)).collect();
    let (claimed, _) = activation::claim(&config.listeners, unused.to_vec())?;
    let need = |((listener, kept), passed): ((&Listener, Option<&Group>), Vec<Passed<Socket>>)| {
        let tcp = &config.pools[listener.pool].tcp;
        let count = kept.map_or(passed.len(), |group| group.passed.len());
        if count > workers {
            return Err(StartError::FewWorkers { name: listener.name.clone(), passed: count, workers });
        }
        let need = match kept {
            Some(group) => group.more(workers, tcp),
            None if passed.is_empty() => open_group(listener, workers, tcp, &own),
            None => adopt_group(listener, passed, workers, tcp),
        };
        need.map_err(|error| refused(listener, error))
    };
    config.listeners.iter().zip(kept).zip(claimed).map(need).collect()
}

/// Returns the groups that stay, by listener: the one of the same name and configured address, or else the one of the
/// same address under another name.
fn kept<'a>(config: &Config, groups: &'a [Group]) -> Vec<Option<&'a Group>> {
    let same = |listener: &Listener| {
        groups.iter().find(|group| group.bind == listener.bind && group.name == listener.name)
    };
    let same: Vec<Option<&Group>> = config.listeners.iter().map(same).collect();
    let is_free = |group: &Group| same.iter().flatten().all(|kept| kept.id != group.id);
    let renamed =
        |listener: &Listener| groups.iter().find(|group| group.address == listener.bind && is_free(group));
    config.listeners.iter().zip(&same).map(|(listener, same)| same.or_else(|| renamed(listener))).collect()
}

/// Returns the sockets of a new group, which may overlap this process's own addresses `own`.
fn open_group(listener: &Listener, workers: usize, tcp: &Tcp, own: &[SocketAddr]) -> io::Result<Need> {
    let bind = listener.bind;
    // Overlapping ones are about to go: two that stay would have been refused by the checks of the configuration.
    let is_among_own = own.iter().any(|address| overlap(bind, *address));
    let neighbours = if is_among_own { Neighbours::Own } else { Neighbours::None };
    let sockets = sys::bind(bind, workers, tcp, neighbours)?;
    let address = sockets[0].local_addr()?.as_socket().unwrap_or(bind);
    let sockets = sockets.into_iter().map(|socket| Arc::new(socket.into())).collect();
    Ok(Need::New { address, sockets, neighbours })
}

/// Makes the sockets opened for new listeners of `config` listen.
pub(super) fn start_listening(config: &Config, needs: &[Need]) -> Result<(), StartError> {
    for (listener, need) in config.listeners.iter().zip(needs) {
        if let Need::New { sockets, neighbours, .. } = need {
            let result =
                sys::start_listening(sockets.iter().map(|socket| &***socket), listener.backlog, *neighbours);
            result.map_err(|error| refused(listener, error))?;
        }
    }
    Ok(())
}

/// Returns a group of the sockets passed for it; there must be at least one.
fn adopt_group(
    listener: &Listener,
    passed: Vec<Passed<Socket>>,
    workers: usize,
    tcp: &Tcp,
) -> io::Result<Need> {
    let beside = beside(&passed[0].socket, workers.saturating_sub(passed.len()), tcp)?;
    let (name, count, opened) = (&listener.name, passed.len(), beside.len());
    log::info!(listener:% = name, passed = count, opened; "sockets were passed to this process");
    Ok(Need::Passed { passed, beside })
}

/// Returns `count` more sockets for the address of `socket`, which do not listen yet. Returns none when the kernel does
/// not allow it: the socket was passed without SO_REUSEPORT, or root opened it and was given up.
fn beside(socket: &Socket, count: usize, tcp: &Tcp) -> io::Result<Vec<Socket>> {
    if count == 0 || !sys::lets_others_bind(socket)? {
        return Ok(Vec::new());
    }
    Ok(sys::bind_beside(socket, count, tcp)?.into_iter().map(|socket| Arc::new(socket.into())).collect())
}

/// Returns whether a client of one address could be accepted at the other.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (a == b || a.is_unspecified() || b.is_unspecified())
}

impl Group {
    /// Opens the sockets that this group lacks for `workers` workers.
    fn more(&self, workers: usize, tcp: &Tcp) -> io::Result<Need> {
        let count = workers.saturating_sub(self.sockets.len());
        let sockets = match self.any() {
            _ if count == 0 => Vec::new(),
            Some(socket) => beside(&socket, count, tcp)?,
            // The process drains meanwhile.
            None => return Err(io::ErrorKind::NotConnected.into()),
        };
        Ok(Need::More { group: self.id, sockets })
    }

    /// Returns one of its sockets, unless all are closed.
    fn any(&self) -> Option<Socket> {
        self.open().next()
    }

    fn open(&self) -> impl Iterator<Item = Socket> {
        self.sockets.iter().filter_map(Weak::upgrade)
    }

    /// Returns a group of these sockets.
    pub(super) fn new(
        id: GroupId,
        address: SocketAddr,
        listener: &Listener,
        tcp: Tcp,
        sockets: &[Socket],
    ) -> Self {
        let sockets = sockets.iter().map(Arc::downgrade).collect();
        let (bind, name, backlog) = (listener.bind, listener.name.clone(), listener.backlog);
        Self { id, bind, address, name, backlog, tcp, sockets, passed: Vec::new() }
    }

    /// Returns a group of passed sockets and those bound beside them.
    pub(super) fn of_passed(
        id: GroupId,
        listener: &Listener,
        tcp: Tcp,
        passed: Vec<Passed<Socket>>,
        beside: &[Socket],
    ) -> Self {
        let sockets: Vec<Socket> = passed.iter().map(|passed| Arc::clone(&passed.socket)).collect();
        let new = Self::new(id, passed[0].address, listener, tcp, &sockets);
        let mut group = Self { passed, ..new };
        group.each("take up a socket", |socket| sys::adopt_passed(socket, listener.backlog, &tcp));
        group.extend(beside);
        group
    }

    /// Returns how many of its first sockets were passed to this process.
    pub(super) fn passed(&self) -> usize {
        self.passed.len()
    }

    /// Returns how many workers have a socket of it: the first ones.
    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Assigns the group to `listener` and applies its options.
    pub(super) fn serve(&mut self, listener: &Listener, tcp: Tcp) {
        self.name.clone_from(&listener.name);
        self.bind = listener.bind;
        if self.backlog != listener.backlog {
            self.backlog = listener.backlog;
            self.each("set the backlog", |socket| sys::set_backlog(socket, listener.backlog));
        }
        if self.tcp != tcp {
            self.tcp = tcp;
            self.each("set the options", |socket| sys::set_listener_options(socket, &tcp));
        }
    }

    /// Adds sockets, which begin to listen; connections are spread over all sockets from now on.
    pub(super) fn extend(&mut self, sockets: &[Socket]) {
        self.sockets.extend(sockets.iter().map(Arc::downgrade));
        for socket in sockets {
            self.log_failure("listen", sys::set_backlog(socket, self.backlog));
        }
        if let Some(socket) = self.any() {
            self.log_failure("spread connections", sys::steer_to_all(&socket));
        }
    }

    /// Keeps new connections from all but the first `workers` sockets, and returns the others, if any.
    pub(super) fn shorten(&mut self, workers: usize) -> Option<Retiring> {
        if self.sockets.len() <= workers {
            return None;
        }
        if let (Some(socket), Ok(workers)) = (self.any(), u32::try_from(workers)) {
            self.log_failure("steer connections", sys::steer_to_first(&socket, workers));
        }
        let sockets = self.sockets.split_off(workers);
        let (name, address) = (self.name.clone(), self.address);
        Some(Retiring { group: self.id, name, address, sockets, passed: 0, is_hidden: false })
    }

    /// Keeps new connections from all of its sockets, and from those that are `retiring` already. Returns the sockets
    /// that were passed to this process: the service manager does not close them, and no other process can listen
    /// there.
    pub(super) fn retire(self, retiring: &mut Vec<Retiring>) -> Vec<Passed<Socket>> {
        let is_hidden = self.passed.is_empty() && self.hide(retiring);
        if is_hidden {
            retiring.iter_mut().filter(|gone| gone.group == self.id).for_each(|gone| gone.is_hidden = true);
        } else {
            self.each("refuse connections", |socket| sys::refuse_new(socket));
        }
        let Self { id, name, address, sockets, passed, .. } = self;
        retiring.push(Retiring { group: id, name, address, sockets, passed: passed.len(), is_hidden });
        passed
    }

    /// Hides all sockets that share its address; returns false when the kernel cannot.
    fn hide(&self, retiring: &[Retiring]) -> bool {
        let gone = retiring.iter().filter(|gone| gone.group == self.id);
        let gone = gone.flat_map(|gone| gone.sockets.iter().filter_map(Weak::upgrade));
        let sockets: Vec<Socket> = self.open().chain(gone).collect();
        match sys::hide(sockets.iter().map(|socket| &***socket)) {
            Ok(()) => true,
            Err(error) => {
                log::info!(listener:% = self.name, address:% = self.address, error:%;
                    "cannot hide a listening socket, its new clients wait until it is closed");
                false
            }
        }
    }

    /// Keeps new connections from all sockets but those that outlive the process, if there are any.
    pub(super) fn leave(&self) {
        let has_beside = self.sockets.len() > self.passed.len();
        if let ([first, ..], true, Ok(count)) =
            (&self.passed[..], has_beside, u32::try_from(self.passed.len()))
        {
            self.log_failure("steer connections", sys::steer_to_first(&first.socket, count));
        }
    }

    /// Leaves the passed sockets to the next process. Must be called once no worker has them.
    pub(super) fn hand_back(&self) {
        for Passed { socket, .. } in &self.passed {
            self.log_failure("hand back a socket", sys::hand_back(socket));
        }
    }

    fn each(&self, what: &str, call: impl Fn(&Socket) -> io::Result<()>) {
        self.open().for_each(|socket| self.log_failure(what, call(&socket)));
    }

    /// Logs an error of a call that fails on a listening socket only for want of memory. The old setting stays.
    fn log_failure(&self, what: &str, result: io::Result<()>) {
        if let Err(error) = result {
            log::error!(listener:% = self.name, address:% = self.address, error:%; "cannot {what}");
        }
    }
}
