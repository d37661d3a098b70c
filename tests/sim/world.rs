//! One run: workers over the simulated network, with random clients, peers and operators, and a check of the books
//! after every turn. In the end all faults stop, and everything must end well.
//!
//! Case 133.

mod answers;
mod discovery;
mod ending;
mod flood;
mod operator;
mod refusals;
mod reload;
mod site;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};

use l4lb::base::rng::Rng;
use l4lb::config::model::{self, HealthState, Relay};
use l4lb::config::routing::Tls;
use l4lb::control::SteppedControl;
use l4lb::messages::report::{AgentNews, Report, Reports};
use l4lb::pool::{Backend, BackendId, Listener, Pool, PoolId, Snapshot};
use l4lb::session::{CloseReason, Direction};
use l4lb::stats::{self, Counter, PauseReason, RefuseReason, Totals, WorkerStats};
use l4lb::worker::{Admission, Audit, Flow, Worker, WorkerHandle};

use crate::accounting::Books;
use crate::conn::Nanos;
use crate::coverage::Coverage;
use crate::deadlines;
use crate::faults::Faults;
use crate::kernel::{SimKernel, SimListener, SimSocket};
use crate::network::{self, Net, client_of};
use crate::oracle::{self, StopOrder};
use crate::programs::Programs;
use crate::random::{below, happens, to_usize};
use crate::scenario::Plan;
use crate::shortage;
use crate::summaries;
use crate::trace::Trace;
use answers::Answers;
use discovery::{Sources, stepped_control};
use refusals::{Free, Retries};
use site::Group;

/// Connections with something left to happen; above this no more clients come.
const LIVE_MAX: usize = 24;
/// Rounds without a move before a run counts as hung. Each lasts [`ROUND`]: longer than every pause of the worker, and
/// in sum shorter than the timeouts that would hide a hang.
const STILL_ROUNDS_MAX: u32 = 1_000;
const ROUND: Nanos = 4_000_000;
/// Duration of a turn's wait while a check must not time out.
const MOMENT: Nanos = 10_000;

/// The result of a run without a fault found.
#[derive(Debug)]
pub(crate) struct Run {
    /// Equal for equal seeds.
    pub(crate) hash: u64,
    pub(crate) coverage: Coverage,
    pub(crate) sessions: u64,
    /// Fewer than asked for when all workers got the command to stop before.
    pub(crate) steps: u64,
}

/// Runs `seed` for `steps` steps. Panics, in the step that `step` shows, when something does not hold.
pub(crate) fn run(seed: u64, steps: u32, is_loud: bool, step: &mut u32) -> Run {
    summaries::listen(is_loud);
    let mut world = World::new(seed, is_loud);
    let hurry = world.rng.below(8);
    let mut done = 0;
    for now in 0..steps {
        *step = now;
        world.step();
        done = now + 1;
        if world.workers.iter().all(Option::is_none) {
            break;
        }
    }
    *step = steps;
    world.stop_faults();
    if hurry == 0 {
        world.stop_at_once();
    } else {
        world.come_to_rest();
        world.heal();
        world.flood();
        world.end_retired();
        world.serve_the_last();
        world.drain();
    }
    Run { steps: u64::from(done), ..world.end() }
}

struct World {
    rng: Rng,
    net: Rc<RefCell<Net>>,
    workers: Vec<Option<Worker<SimKernel>>>,
    /// Of all workers that ever were, like `workers`.
    handles: Vec<WorkerHandle<SimListener, SimSocket>>,
    /// Which of them serve, by index.
    serving: Vec<usize>,
    groups: Vec<Group>,
    groups_ever: u32,
    /// The listener that was removed last, unless it was put back.
    removed_listener: Option<model::Listener>,
    /// Of each one a version.
    listeners_ever: Vec<Arc<Listener>>,
    /// Held by workers that have not taken their last assignment yet.
    ticket: Weak<()>,
    reports: Reports,
    admission: Arc<Admission>,
    inbox: Receiver<Report>,
    /// The workers' answers to the operator.
    answers: Answers,
    snapshot: Arc<Snapshot>,
    /// Puts pools together, for reloads and for sources.
    control: SteppedControl,
    sources: Sources,
    programs: Programs,
    retries: Retries,
    stats: Vec<Arc<WorkerStats>>,
    books: Vec<Books>,
    plan: Plan,
    /// Backends that were removed and may come back.
    removed: Vec<(PoolId, model::Backend)>,
    /// Backends that were removed and that sessions may still be on.
    gone: Vec<Arc<Backend>>,
    /// Pools that were removed and that sessions may still find, and how many sessions those had so far.
    retired: Vec<(Arc<Pool>, u64)>,
    /// Pools that were removed and may come back.
    away: Vec<model::Pool>,
    stop_order: StopOrder,
    is_draining: bool,
    /// Workers that were not sent the last epoch yet.
    late: Vec<bool>,
    /// Of each session that is over, by the connection of its client.
    done: Vec<usize>,
    sessions_over: u64,
    /// Bytes that their log lines report.
    reported: u64,
    coverage: Coverage,
}

impl World {
    fn new(seed: u64, is_loud: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng, is_loud);
        let faults = Faults::draw(&mut rng);
        if is_loud {
            eprintln!("{faults:?}");
        }
        let mut net = Net::new(Rng::new(rng.next_u64()), faults, Trace::new(is_loud));
        net.backends.clone_from(&plan.backends);
        net.proxy = plan.config.pools[0].proxy_protocol;
        net.on_refuse = plan.config.listeners[0].on_refuse;
        net.has_lists = plan.config.listeners[0].access.is_some();
        net.listens_behind.clone_from(&plan.config.listeners[0].proxy_protocol);
        let reads = plan.config.listeners[0].routing.as_ref().and_then(|routing| routing.reads);
        net.reads_hellos = reads.map(|reads| reads.on_no_sni);
        net.is_postgres = reads.is_some_and(|reads| reads.tls == Tls::Postgres);
        net.shortage.all_splice = plan.config.pools.iter().all(|pool| pool.relay == Relay::Splice);
        let admission = Arc::new(Admission::new(plan.sessions_max));
        let (reports, inbox) = Reports::new();
        let config = plan.config.clone();
        let snapshot = Arc::new(Snapshot::new(&config));
        let mut world = Self {
            rng,
            removed: Vec::new(),
            gone: Vec::new(),
            retired: Vec::new(),
            away: Vec::new(),
            net: Rc::new(RefCell::new(net)),
            workers: Vec::new(),
            handles: Vec::new(),
            serving: Vec::new(),
            groups: Vec::new(),
            groups_ever: 0,
            removed_listener: None,
            listeners_ever: Vec::new(),
            ticket: Weak::new(),
            reports,
            admission,
            inbox,
            answers: Answers::new(),
            snapshot: Arc::clone(&snapshot),
            control: stepped_control(&config, &snapshot),
            sources: Sources::default(),
            programs: Programs::default(),
            retries: Retries::default(),
            stats: Vec::new(),
            books: Vec::new(),
            plan,
            stop_order: StopOrder::Serve,
            is_draining: false,
            late: Vec::new(),
            done: Vec::new(),
            sessions_over: 0,
            reported: 0,
            coverage: Coverage::default(),
        };
        world.programs.note(&snapshot);
        world.sources.begin(&config);
        world.commit(&config, &snapshot);
        world
    }

    // --- while everything may happen -------------------------------------------------------------------------------

    /// A few things happen outside, and one worker has a turn.
    fn step(&mut self) {
        {
            let net = &mut *self.net.borrow_mut();
            net.bury();
            for _ in 0..=self.rng.below(3) {
                net.happen();
            }
            if net.live.len() < LIVE_MAX && self.rng.below(5) == 0 {
                let peer = net.draw_client();
                // Now and then to one that has gone: its handshakes may be under way.
                let group = if net.below(4) == 0 {
                    net.below(self.groups_ever as usize)
                } else {
                    self.groups[net.below(self.groups.len())].id.0 as usize
                };
                net.connect(group, peer);
            }
            net.stride = draw_stride(&mut self.rng);
            if happens(&mut self.rng, net.faults.jump) {
                net.now += [0, 1_000_000, 3_600_000_000_000][net.below(3)];
            }
        }
        let (operates, lists) = (self.net.borrow().faults.operator, self.net.borrow().faults.lists);
        if happens(&mut self.rng, operates) {
            self.operate();
        }
        if happens(&mut self.rng, lists) {
            self.discover();
        }
        let running: Vec<usize> =
            (0..self.workers.len()).filter(|&worker| self.workers[worker].is_some()).collect();
        let worker = running[below(&mut self.rng, running.len())];
        self.turn(worker);
    }

    // --- one turn and what has to hold after it --------------------------------------------------------------------

    fn turn(&mut self, index: usize) {
        if self.late[index] && self.rng.below(8) == 0 {
            self.post_epoch(index);
        }
        let (paused, free) = (self.pauses_at_limits(index), self.free_backends());
        let Some(worker) = &mut self.workers[index] else { return };
        let flow = worker.turn().expect("no call on epoll fails");
        self.check_pauses(index, paused);
        if !self.late[index] {
            self.net.borrow_mut().on_applied(index);
        }
        self.receive_reports(index);
        self.run_programs();
        self.receive_answers(index);
        self.judge_sessions(&free);
        self.look_at_retired();
        self.audit();
        self.check_books(index);
        self.check_deadlines(index);
        shortage::check(&self.net.borrow(), index);
        if flow == Flow::Stopped {
            self.workers[index] = None;
        }
    }

    fn follow_agents(&mut self, all_news: &[(BackendId, AgentNews)]) {
        let mut is_stale = false;
        for (backend, news) in all_news {
            is_stale |= self.net.borrow_mut().roster.on_agent(&self.snapshot, *backend, news);
            self.coverage.hit(match news {
                AgentNews::Said { .. } => "agent answered",
                AgentNews::Lost(_) => "agent lost",
                AgentNews::Forgotten => "agent forgotten",
            });
        }
        if is_stale {
            self.net.borrow().roster.check();
            self.refresh();
        }
    }

    /// Lets the programs of checks do what they do until now.
    fn run_programs(&mut self) {
        let (now, is_calm) = (self.net.borrow().now, self.net.borrow().peers_behave);
        self.programs.run(now, is_calm, &self.net.borrow().backends, &mut self.coverage);
    }

    fn receive_reports(&mut self, worker: usize) {
        // The worker that has found a change of health in this turn did not know yet what an agent has said in it.
        let mut of_agents = Vec::new();
        for report in self.inbox.try_iter() {
            if let Report::Agent { backend, news } = report {
                of_agents.push((backend, news));
                continue;
            }
            if let Report::Run(order) = report {
                let now = self.net.borrow().now;
                self.programs.take(order, worker, now, &mut self.rng);
                continue;
            }
            if let Report::Checked { backend, check, failure, by } = report {
                if let Some(failure) = &failure {
                    let pool = self.net.borrow().roster.pool_of(backend);
                    self.programs.judge(pool, by, check, failure);
                }
                self.coverage.hit_if(check > 0, "further check");
                self.coverage.hit_if(failure.is_some(), "reason reported");
                continue;
            }
            let Report::Health { from, to, backend, .. } = report else { panic!("{report:?} of a worker") };
            self.net.borrow_mut().roster.on_health(backend, from, to);
            self.coverage.hit(match (from, to) {
                (HealthState::Unknown, HealthState::Up) => "unknown to up",
                (HealthState::Unknown, HealthState::Down) => "unknown to down",
                (HealthState::Up, HealthState::Down) => "up to down",
                (HealthState::Down, HealthState::Up) => "down to up",
                (HealthState::Up | HealthState::Down, HealthState::Unknown) => "checks off",
                _ => panic!("a change of health from {from:?} to {to:?}"),
            });
        }
        self.net.borrow().roster.check();
        self.follow_agents(&of_agents);
    }

    fn judge_sessions(&mut self, free: &Free) {
        let reported = summaries::take();
        reported.iter().for_each(|reported| self.check_refusal(reported, free));
        let net = &mut *self.net.borrow_mut();
        let mut ended = std::mem::take(&mut net.ended);
        assert_eq!(reported.len(), ended.len(), "every session that ends is reported once");
        for reported in &reported {
            let id = client_of(reported.client);
            let place = ended.iter().position(|&ended| ended == id);
            ended.swap_remove(place.unwrap_or_else(|| panic!("client #{id} was reported and is not over")));
            oracle::judge(net, reported, self.plan.patience, self.stop_order);
            let reason = CloseReason::ALL.into_iter().find(|reason| reason.as_str() == reported.reason);
            self.coverage.hit(reason.expect("a reason of the list").as_str());
            self.reported += reported.to_backend + reported.to_client;
            if reported.reason == "done" {
                self.done.push(id);
            }
        }
        self.sessions_over += reported.len() as u64;
        net.ended = ended;
    }

    /// Compares the resources of the workers with those that the network has given them.
    fn audit(&mut self) {
        let audits: Vec<_> = self.workers.iter().flatten().map(Worker::audit).collect();
        self.workers.iter().flatten().for_each(Worker::audit_gauges);
        self.coverage.hit_if(audits.iter().any(|audit| audit.waiting_checks > 0), "check waits");
        self.coverage.hit_if(audits.iter().any(|audit| audit.slow_checks > 0), "slow check");
        let net = self.net.borrow();
        let on_their_way = self.on_their_way();
        let held: usize = on_their_way + audits.iter().map(|audit| audit.sockets).sum::<usize>();
        assert_eq!(held, net.sockets(), "sockets that workers hold, and that are open");
        let listeners: usize = audits.iter().map(|audit| audit.listeners).sum();
        let pipes: usize = audits.iter().map(|audit| audit.pipes).sum();
        assert_eq!(pipes, net.pipes_open(), "pipes that workers hold, and that are open");
        // Resources opened for a worker are its own once it has taken its assignment.
        let (held_in_all, in_use) = (held + listeners + 2 * pipes, net.descriptors());
        let all_have_taken = self.ticket.strong_count() == 0;
        assert!(
            held_in_all == in_use || held_in_all < in_use && !all_have_taken,
            "{held_in_all} descriptors that workers hold, and {in_use} that are open"
        );
        let leases: usize = audits.iter().map(|audit| audit.leases).sum();
        assert_eq!(leases as u64, net.roster.active(), "leases that sessions hold, and that backends count");
        let sessions: usize = audits.iter().map(|audit| audit.sessions).sum();
        let totals = Totals::of(self.stats.iter().map(Arc::as_ref));
        assert_eq!(totals.accepted, net.accepted, "every accepted connection is counted");
        let active = sessions + on_their_way;
        assert_eq!(totals.accepted, active as u64 + totals.closed_total(), "accepted = active + closed");
        let counted: usize = self.handles.iter().map(|handle| handle.handoff_queue.sessions()).sum();
        assert_eq!(counted, active, "each session is counted for one worker");
        assert!(active <= self.plan.sessions_max, "more sessions than there may be");
        let through: usize = self.listeners_ever.iter().map(|listener| listener.gauge().count()).sum();
        assert_eq!(through, active, "each session is counted for one listener, whatever its version");
        let opening: usize = audits.iter().map(|audit| audit.opening).sum();
        let of_listeners: usize = self.listeners_ever.iter().map(|listener| listener.opening().count()).sum();
        assert_eq!(
            self.admission.opening(),
            of_listeners,
            "each client in preread is counted for a listener"
        );
        // Those on their way may be in preread or not.
        let all_opening = opening..=opening + on_their_way;
        assert!(
            all_opening.contains(&of_listeners),
            "{opening} sessions in preread, {on_their_way} on their way, and {of_listeners} counted"
        );
        assert_eq!(totals.closed_total(), self.sessions_over, "closed sessions are reported of");
        assert_eq!(stats::violations(&totals), [""; 0]);
        for listener in &self.snapshot.listeners {
            assert_eq!(stats::violations_of_listener(&listener.stats().read()), [""; 0]);
        }
        let counted = [totals.to_backend, totals.to_client];
        for (direction, counted) in Direction::BOTH.into_iter().zip(counted) {
            let sum = |bytes: fn(&Audit) -> [u64; 2]| {
                audits.iter().map(|audit| bytes(audit)[direction as usize]).sum::<u64>()
            };
            let given = counted + sum(|audit| audit.uncounted);
            let gone = totals.discarded_by_direction[direction as usize];
            let accounted = given + sum(|audit| audit.held) + gone;
            let taken = totals.taken[direction as usize];
            assert_eq!(taken, accounted, "{direction:?}: taken = given + held + discarded");
        }
        assert_eq!(totals.taken.iter().sum::<u64>(), net.taken, "every byte taken is counted");
        let [negotiated_in, negotiated_out] = totals.negotiated_bytes;
        assert_eq!(
            totals.header_bytes_taken + negotiated_in,
            net.header_bytes_taken,
            "every byte of a header taken is counted"
        );
        for reason in [RefuseReason::Denied, RefuseReason::ProxyUntrusted] {
            let refused = |listener: &Arc<Listener>| listener.stats().read().refused[reason.index()];
            let refused: u64 = self.listeners_ever.iter().map(refused).sum();
            assert_eq!(refused, net.refused[reason.index()], "every client that is {reason:?} is counted");
        }
        let sum = |count: fn(&WorkerStats) -> &Counter| {
            self.stats.iter().map(|stats| count(stats).get()).sum::<u64>()
        };
        assert_eq!(
            sum(|stats| &stats.header_bytes) + negotiated_out,
            net.header_bytes.iter().sum::<u64>()
                + audits.iter().map(|audit| audit.of_headers).sum::<u64>()
                + sum(|stats| &stats.header_bytes_lost),
            "bytes of headers: begun = given + held + lost"
        );
        let pauses = |stats: &WorkerStats| stats.accept_pauses[PauseReason::DialPutOff.index()].get();
        let pauses: u64 = self.stats.iter().map(|stats| pauses(stats)).sum();
        assert!(pauses <= net.exhausted, "accepting was paused for the want of a port");
        assert!(totals.lost_wakeups <= net.edges_lost, "a wake-up was lost that the network had reported");
        let stale: u64 = self.stats.iter().map(|stats| stats.stale_events.get()).sum();
        assert!(stale >= net.stale_told, "an event for a session that is over reached another one");
    }

    fn check_books(&mut self, worker: usize) {
        let net = self.net.borrow();
        self.books[worker].check(net.now, net.given[worker], &self.stats[worker]);
        let totals = Totals::of(self.stats.iter().map(Arc::as_ref));
        let counted = totals.to_backend + totals.to_client;
        assert!(counted >= self.reported, "what a session has given is counted at its end");
        self.coverage.hit_if(counted > self.reported, "counted before the end");
    }

    /// Returns how often a worker has paused accepting for want of a place.
    fn pauses_at_limits(&self, index: usize) -> u64 {
        let pauses = &self.stats[index].accept_pauses;
        [PauseReason::ListenerLimit, PauseReason::ProcessLimit]
            .iter()
            .map(|reason| pauses[reason.index()].get())
            .sum()
    }

    /// Panics when clients are logged as waiting for a place while none wait.
    fn check_pauses(&self, index: usize, before: u64) {
        let net = self.net.borrow();
        let has_client =
            |listener: &network::Listener| listener.worker == index && !listener.queue.is_empty();
        assert!(
            self.pauses_at_limits(index) == before || net.is_stopping || net.listeners.iter().any(has_client),
            "accepting is paused, and nobody waits"
        );
    }

    fn check_deadlines(&self, index: usize) {
        if let Some(worker) = &self.workers[index]
            && !worker.audit().holds_timers_back
        {
            deadlines::check(&self.net.borrow(), index, self.plan.patience);
        }
    }

    /// Returns the sessions that one worker has handed over and the other has yet to open.
    fn on_their_way(&self) -> usize {
        let handed_over: u64 = self.stats.iter().map(|stats| stats.handed_over.get()).sum();
        to_usize(handed_over - self.stats.iter().map(|stats| stats.adopted.get()).sum::<u64>())
    }
}

/// Draws how long nothing happens: mostly no time or less than a tick, sometimes until a timer is due.
fn draw_stride(rng: &mut Rng) -> u64 {
    match rng.below(32) {
        0..12 => 0,
        12..24 => rng.below(1_000_000),
        24..31 => rng.below(20_000_000),
        _ => rng.below(1 << 36),
    }
}
