//! What threads share, in every order in which they may meet, with every stale value that an ordering allows.
//! A thread that waits for what never comes fails its test too.
//!
//! The files of the product are compiled here a second time, as they are, over the atomics of loom. Why the rest needs
//! no model is said where it is: in `pool::snapshot`, `balance::round_robin` and `stats`.

#![expect(dead_code, unreachable_pub, reason = "a model needs only a part of each file")]

#[path = "../src/worker/admission.rs"]
mod admission;
#[path = "../src/pool/backend.rs"]
mod backend;
#[path = "../src/messages/command.rs"]
mod command;
#[path = "../src/worker/dispatch.rs"]
mod dispatch;
#[path = "../src/pool/listener.rs"]
mod listener;
#[path = "../src/messages/mailbox.rs"]
mod mailbox;
#[path = "../src/pool/permits.rs"]
mod permits;
#[path = "../src/messages/report.rs"]
mod report;

/// What these files import.
mod base {
    pub use l4lb::base::{address, own_line, slots};
    pub mod atomic {
        pub use loom::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

        /// One behind whose exchange other threads may have their turn: loom stops in front of its own calls only, and
        /// what follows an exchange may be none of them.
        #[derive(Debug, Default)]
        pub struct AtomicUsize(loom::sync::atomic::AtomicUsize);

        impl AtomicUsize {
            pub fn new(value: usize) -> Self {
                Self(loom::sync::atomic::AtomicUsize::new(value))
            }

            pub fn compare_exchange(
                &self,
                current: usize,
                new: usize,
                success: Ordering,
                failure: Ordering,
            ) -> Result<usize, usize> {
                let exchanged = self.0.compare_exchange(current, new, success, failure);
                self.0.load(Ordering::Relaxed);
                exchanged
            }
        }

        impl std::ops::Deref for AtomicUsize {
            type Target = loom::sync::atomic::AtomicUsize;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }
    }
}
mod config {
    pub use l4lb::config::{model, proxy};
}
mod pool {
    pub use crate::backend::Backend;
    pub use crate::listener::Listener;
    pub use crate::permits::Gauge;
    pub use l4lb::pool::{Admin, Advice, AgentWeight, BackendId, PoolId, Snapshot};
}
mod messages {
    pub(crate) use crate::command;
    pub use l4lb::messages::{announce, discovery, external, query, reload, request, topology};
}
mod stats {
    pub use l4lb::stats::{BackendStats, DialFailure, ListenerStats, Tally};
}
mod sys {
    pub use l4lb::sys::Wake;
}
mod tls {
    pub use l4lb::tls::Certificate;
}

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use l4lb::config::model::{self, HealthState};
use loom::sync::Notify;
use loom::thread;

use admission::{Admission, Full};
use base::atomic::{AtomicUsize, Ordering};
use command::Command;
use dispatch::{Arrival, Dispatcher, HANDOFF_QUEUE_LEN, HandoffQueue};
use listener::ListenerId;
use mailbox::Mailbox;
use pool::{Backend, BackendId, Listener, PoolId, Snapshot};
use report::{REPORTS_LEN, Report, Reports};

fn backend() -> Arc<Backend> {
    let settings = model::Backend {
        name: "a".into(),
        address: ([10, 0, 0, 1], 80).into(),
        weight: 1,
        priority: 0,
        check: model::BackendCheck::default(),
    };
    Arc::new(Backend::new(BackendId(0), PoolId(0), &settings, HealthState::Down, 1))
}

/// A listener with so many places.
fn listener(places: Option<usize>) -> Arc<Listener> {
    let no_time =
        model::Timeouts { connect: Duration::ZERO, idle: Duration::ZERO, half_close: Duration::ZERO };
    let settings = model::Listener {
        name: "a".into(),
        bind: ([10, 0, 0, 1], 80).into(),
        pool: 0,
        backlog: 1,
        accept: model::Accept::Reuseport,
        max_sessions: places.and_then(NonZeroUsize::new),
        timeouts: no_time,
        preread: Duration::ZERO,
        access: None,
        on_refuse: model::OnRefuse::Reset,
        proxy_protocol: None,
        routing: None,
    };
    Arc::new(Listener::new(ListenerId(0), settings, (PoolId(0), Vec::new()), 1))
}

/// A waker whose worker is a thread of the model.
#[derive(Default)]
struct CountingNotify(Notify, Rings);

/// How often it was rung. Not of the model: no order depends on it.
type Rings = std::sync::atomic::AtomicUsize;

impl sys::Wake for CountingNotify {
    fn wake(&self) -> io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.notify();
        // What the caller does next may come too late for the worker. loom does not stop at the queue by itself.
        thread::yield_now();
        Ok(())
    }
}

#[test]
fn a_full_listener_leaves_room_for_the_others() {
    loom::model(|| {
        let admission = Admission::new(3);
        let (small, large) = (listener(Some(1)), listener(None));
        assert_eq!(admission.enter(&small), Ok(()));
        assert_eq!(admission.enter(&small), Err(Full { limit: 1, of_listener: true }));
        assert_eq!(admission.enter(&large), Ok(()));
        assert_eq!(admission.enter(&large), Ok(()));
        assert_eq!(admission.enter(&large), Err(Full { limit: 3, of_listener: false }));
        admission.leave(&small);
        assert_eq!(admission.enter(&large), Ok(()));
        assert_eq!(admission.enter(&small), Err(Full { limit: 3, of_listener: false }));
    });
}

#[test]
fn the_number_of_places_in_use_has_a_bound_and_each_is_released() {
    loom::model(|| {
        let admission = Arc::new(Admission::new(1));
        let listeners = [listener(None), listener(Some(1))];
        let inside = Arc::new(AtomicUsize::new(0));
        let worker = |listener: &Arc<Listener>| {
            let (admission, inside) = (Arc::clone(&admission), Arc::clone(&inside));
            let listener = Arc::clone(listener);
            thread::spawn(move || {
                if admission.enter(&listener).is_ok() {
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "one place for two");
                    inside.fetch_sub(1, Ordering::Relaxed);
                    admission.leave(&listener);
                }
            })
        };
        for worker in listeners.each_ref().map(worker) {
            worker.join().unwrap();
        }
        for listener in &listeners {
            assert_eq!(admission.enter(listener), Ok(()), "a place was kept");
            admission.leave(listener);
        }
    });
}

/// An attempt that was refused held a place for a moment, in which the place that had become free was refused to
/// another.
#[test]
fn a_refused_attempt_uses_up_no_place() {
    loom::model(|| {
        let (admission, listener) = (Arc::new(Admission::new(1)), listener(None));
        admission.enter(&listener).unwrap();
        let other = thread::spawn({
            let (admission, listener) = (Arc::clone(&admission), Arc::clone(&listener));
            move || admission.enter(&listener)
        });
        admission.leave(&listener);
        let entered = [admission.enter(&listener), other.join().unwrap()];
        assert_eq!(entered.iter().filter(|entered| entered.is_ok()).count(), 1, "{entered:?}");
    });
}

/// What is handed to each worker.
type Inboxes = Vec<Receiver<Arrival<()>>>;

/// Workers that have so many sessions, each as it sees the others.
fn dispatchers<const N: usize>(
    counts: [usize; N],
) -> (Vec<Arc<CountingNotify>>, [Dispatcher<()>; N], Inboxes) {
    let bells: Vec<Arc<CountingNotify>> = (0..N).map(|_| Arc::default()).collect();
    let handoff_queue =
        |(worker, bell): (usize, &Arc<CountingNotify>)| HandoffQueue::new(worker, Arc::clone(bell) as _);
    let (handoff_queues, inboxes): (Vec<_>, Vec<_>) = bells.iter().enumerate().map(handoff_queue).unzip();
    let handoff_queues: Arc<[_]> = handoff_queues.into();
    let dispatchers = std::array::from_fn(|worker| {
        Dispatcher::new(Arc::clone(&handoff_queues[worker]), Arc::clone(&handoff_queues))
    });
    for (dispatcher, count) in dispatchers.iter().zip(counts) {
        (0..count).for_each(|_| dispatcher.keep());
    }
    (bells, dispatchers, inboxes)
}

fn arrival() -> Arrival<()> {
    let address = ([10, 0, 0, 1], 80).into();
    Arrival { snapshot: Arc::new(Snapshot::default()), listener: listener(None), client: (), address }
}

fn counts<const N: usize>(dispatchers: &[Dispatcher<()>; N]) -> [usize; N] {
    dispatchers.each_ref().map(Dispatcher::sessions)
}

fn rings(bells: &[Arc<CountingNotify>]) -> Vec<usize> {
    bells.iter().map(|bell| bell.1.load(Ordering::Relaxed)).collect()
}

#[test]
fn a_worker_that_accepts_everything_keeps_its_share() {
    loom::model(|| {
        let (bells, dispatchers, inboxes) = dispatchers([0; 3]);
        let kept = (0..9).filter(|_| dispatchers[0].spread(arrival()).is_some()).count();
        assert_eq!((kept, counts(&dispatchers)), (3, [3; 3]));
        assert_eq!(rings(&bells), [0, 3, 3], "one for each that moved");
        let moved: Vec<usize> = inboxes.iter().map(|inbox| inbox.try_iter().count()).collect();
        assert_eq!(moved, [0, 3, 3]);
    });
}

#[test]
fn a_tie_moves_nothing() {
    loom::model(|| {
        let (bells, dispatchers, _inboxes) = dispatchers([1, 1]);
        assert!(dispatchers[1].spread(arrival()).is_some());
        assert_eq!((counts(&dispatchers), rings(&bells)), ([1, 2], vec![0, 0]));
    });
}

#[test]
fn a_full_handoff_queue_accepts_no_more_and_its_worker_is_woken() {
    loom::model(|| {
        let (bells, dispatchers, _inboxes) = dispatchers([HANDOFF_QUEUE_LEN + 1, 0]);
        assert!((0..HANDOFF_QUEUE_LEN).all(|_| dispatchers[0].spread(arrival()).is_none()));
        assert!(dispatchers[0].spread(arrival()).is_some());
        assert_eq!(counts(&dispatchers), [HANDOFF_QUEUE_LEN + 2, HANDOFF_QUEUE_LEN]);
        assert_eq!(rings(&bells), [0, HANDOFF_QUEUE_LEN + 1], "it may drain, and wait for this one");
    });
}

#[test]
fn a_worker_that_is_gone_gets_nothing() {
    loom::model(|| {
        let (_bells, dispatchers, mut inboxes) = dispatchers([1, 0]);
        inboxes.pop();
        assert!(dispatchers[0].spread(arrival()).is_some());
        assert_eq!(counts(&dispatchers), [2, 0]);
    });
}

#[test]
fn a_closed_handoff_queue_accepts_nothing_and_ends_when_its_worker_has_nothing_left() {
    loom::model(|| {
        let (_bells, dispatchers, _inboxes) = dispatchers([3, 1]);
        dispatchers[1].close_handoff_queue();
        assert!(dispatchers[0].spread(arrival()).is_some());
        assert!(!dispatchers[1].is_over(), "one is left, or on its way");
        assert!(dispatchers[1].spread(arrival()).is_some(), "what it accepts it keeps");
        assert_eq!(counts(&dispatchers), [4, 2]);
        (0..2).for_each(|_| dispatchers[1].leave());
        assert!(dispatchers[1].is_over() && !dispatchers[0].is_over());
    });
}

/// What is still in its queues goes to those who stay, if they have less to do.
#[test]
fn a_worker_that_leaves_gives_and_takes_nothing() {
    loom::model(|| {
        let (bell, [mut leaves], inboxes) = dispatchers([1]);
        let (handoff_queue, inbox) = HandoffQueue::new(1, Arc::clone(&bell[0]) as _);
        let handoff_queues: Arc<[_]> = [handoff_queue].into();
        leaves.close_handoff_queue();
        leaves.regroup(Arc::clone(&handoff_queues));
        let stays = Dispatcher::new(Arc::clone(&handoff_queues[0]), handoff_queues);
        assert!(leaves.spread(arrival()).is_none());
        assert!(leaves.spread(arrival()).is_some(), "it keeps what nobody has fewer than");
        (0..3).for_each(|_| assert!(stays.spread(arrival()).is_some()));
        assert_eq!(counts(&[leaves, stays]), [2, 4]);
        assert_eq!((inbox.try_iter().count(), inboxes[0].try_iter().count()), (1, 0));
    });
}

/// Each sees that the last one has the fewest. All would give it theirs, if any gave before it was counted there.
#[test]
fn workers_that_look_at_the_same_time_do_not_choose_the_same_place() {
    loom::model(|| {
        let (_bells, [first, second, third], _inboxes) = dispatchers([1, 1, 0]);
        let worker = |dispatcher: Dispatcher<()>| {
            thread::spawn(move || {
                let _kept = dispatcher.spread(arrival());
                dispatcher
            })
        };
        let others = [worker(first), worker(second)];
        let _kept = third.spread(arrival());
        let [first, second] = others.map(|other| other.join().unwrap());
        let mut counts = counts(&[first, second, third]);
        counts.sort_unstable();
        assert_eq!(counts, [1, 2, 2]);
    });
}

/// It stops as soon as it is over: what came later would be lost.
#[test]
fn a_worker_that_drains_gets_all_that_was_counted_for_it_before_it_stops() {
    loom::model(|| {
        let (bells, [gives, drains], mut inboxes) = dispatchers([2, 0]);
        let (bell, inbox) = (Arc::clone(&bells[1]), inboxes.pop().unwrap());
        let drains = thread::spawn(move || {
            drains.close_handoff_queue();
            let mut served = 0;
            loop {
                let adopted = inbox.try_iter().count();
                (0..adopted).for_each(|_| drains.leave());
                served += adopted;
                if drains.is_over() {
                    return (served, drains);
                }
                bell.0.wait();
            }
        });
        let kept = (0..2).filter(|_| gives.spread(arrival()).is_some()).count();
        let (served, drains) = drains.join().unwrap();
        assert_eq!(served + kept, 2, "each is served by somebody");
        assert_eq!(counts(&[gives, drains]), [2 + kept, 0]);
    });
}

/// Both see that it is the turn of the first backend: it would get both sessions, and the other none.
#[test]
fn workers_that_choose_at_the_same_moment_do_not_take_the_same_turn() {
    loom::model(|| {
        let backends = [backend(), backend()];
        let worker = |stamp| {
            let backends = backends.clone();
            thread::spawn(move || {
                loop {
                    let seen = backends.each_ref().map(|backend| backend.stamp());
                    let first = usize::from(seen[1] < seen[0]);
                    if backends[first].claim(seen[first], stamp) {
                        return first;
                    }
                }
            })
        };
        let workers = [worker(1), worker(2)];
        let mut chosen = workers.map(|worker| worker.join().unwrap());
        chosen.sort_unstable();
        assert_eq!(chosen, [0, 1]);
    });
}

/// The owner waits until all of them have arrived.
#[test]
fn the_owner_of_a_probe_gets_every_failed_dial() {
    const FAILURES: u32 = 3;
    loom::model(|| {
        let (bell, backend) = (Arc::new(CountingNotify::default()), backend());
        let (mailbox, inbox) = Mailbox::new(Arc::clone(&bell) as _);
        let dialer = |failures| {
            let (mailbox, backend) = (mailbox.clone(), Arc::clone(&backend));
            thread::spawn(move || {
                for _ in 0..failures {
                    if backend.on_dial_failed() {
                        assert!(mailbox.post(Command::DialFailed(backend.id)), "there is room");
                    }
                }
            })
        };
        let dialers = [dialer(1), dialer(FAILURES - 1)];
        let mut received = 0;
        while received < FAILURES {
            bell.0.wait();
            while inbox.try_recv().is_ok() {
                received += backend.take_dial_failures();
            }
        }
        for dialer in dialers {
            dialer.join().unwrap();
        }
        assert_eq!((received, backend.take_dial_failures()), (FAILURES, 0), "each once");
    });
}

/// Two senders, and a worker that empties its inbox each time it was woken.
#[test]
fn no_command_is_left_behind_by_a_worker_that_waits() {
    loom::model(|| {
        let bell = Arc::new(CountingNotify::default());
        let (mailbox, inbox) = Mailbox::new(Arc::clone(&bell) as _);
        let senders = [mailbox.clone(), mailbox]
            .map(|mailbox| thread::spawn(move || assert!(mailbox.post(Command::Drain), "there is room")));
        let mut commands = 0;
        while commands < senders.len() {
            bell.0.wait();
            commands += inbox.try_iter().count();
        }
        for sender in senders {
            sender.join().unwrap();
        }
        assert!(matches!(inbox.try_recv(), Err(TryRecvError::Disconnected)));
    });
}

/// The count of dropped reports stands for them: a reader of it looks at every backend.
#[test]
fn a_dropped_report_makes_the_health_seen_that_it_was_about() {
    loom::model(|| {
        let (backend, (reports, inbox)) = (backend(), Reports::new());
        (0..REPORTS_LEN).for_each(|_| reports.send(Report::Reload));
        let worker = thread::spawn({
            let (backend, reports) = (Arc::clone(&backend), reports.clone());
            move || {
                let (from, to) = (HealthState::Down, HealthState::Up);
                backend.set_health(to);
                reports.send(Report::Health { backend: backend.id, from, to, reason: String::new() });
            }
        });
        if reports.take_dropped() > 0 {
            assert_eq!(backend.health(), HealthState::Up, "seen too early for the tables to change");
        } else {
            worker.join().unwrap();
            assert_eq!(reports.take_dropped(), 1, "and not seen later either");
        }
        drop(inbox);
    });
}
