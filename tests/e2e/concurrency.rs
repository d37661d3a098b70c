//! Many sessions at a time (`tests/CASES.md`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use l4lb::base::rng::Rng;
use l4lb::session::CloseReason::Done;
use l4lb::session::Side::{self, Backend, Client};

use crate::harness::daemon::Daemon;
use crate::harness::lab::{Lab, setup};
use crate::harness::peer::{Ending, Peer, SetOnDrop, until};
use crate::harness::relay::Relay;

const MIB: u64 = 1 << 20;

/// Names the session to its backend: the first bytes of every client of a crowd.
const NAME_LEN: usize = 8;

/// `count` sessions that are all open at the same time. The backend learns from the client which is which.
fn crowd<S>(lab: &Lab<S>, count: u64) -> Vec<Relay<()>> {
    let mut clients: Vec<Peer> = (0..count).map(|_| lab.client()).collect();
    let first = lab.clients() - count;
    for (client, id) in clients.iter_mut().zip(first..) {
        client.sending().bytes(&id.to_le_bytes());
    }
    let mut backends: Vec<Option<Peer>> = (0..count).map(|_| None).collect();
    for _ in 0..count {
        let (id, backend) = accept_named(lab);
        let place = usize::try_from(id - first).expect("a session of this crowd");
        assert!(backends[place].replace(backend).is_none(), "two sessions say that they are number {id}");
    }
    let backends = backends.into_iter().map(|backend| backend.expect("all have come"));
    clients.into_iter().zip(backends).map(|(client, backend)| Relay::new((), client, backend)).collect()
}

fn accept_named<S>(lab: &Lab<S>) -> (u64, Peer) {
    let mut backend = lab.accept(0);
    let mut name = [0; NAME_LEN];
    backend.receiving().anything(&mut name);
    let id = u64::from_le_bytes(name);
    backend.rename(id);
    (id, backend)
}

/// How one session of the crowd goes: how much each side sends, and who resets after how much.
struct Plan {
    bytes: [u64; 2],
    reset_by: Option<Side>,
}

impl Plan {
    fn of(id: u64) -> Self {
        let mut rng = Rng::new(id);
        let mut size = || 1 + rng.below(200_000);
        let bytes = [size(), size()];
        let reset_by = match rng.below(4) {
            0 => Some(Client),
            1 => Some(Backend),
            _ => None,
        };
        Self { bytes, reset_by }
    }

    /// Both ends of a session, each with a thread that writes and one that reads.
    fn carry_out(&self, mut relay: Relay<()>) {
        let (client, backend) = relay.ends_from(Client);
        thread::scope(|scope| {
            scope.spawn(|| self.play(Client, client));
            self.play(Backend, backend);
        });
    }

    fn play(&self, side: Side, peer: &mut Peer) {
        let bytes = self.bytes[side as usize];
        match self.reset_by {
            None => {
                let (mut sending, mut receiving) = peer.halves();
                thread::scope(|scope| {
                    scope.spawn(|| sending.stream(bytes));
                    receiving.stream(self.bytes[side.other() as usize]);
                });
                peer.fin();
                assert_eq!(peer.receiving().ending(), Ending::Fin);
            }
            Some(by) if by == side => {
                peer.sending().stream(bytes);
                peer.reset();
            }
            // Whatever comes before the reset, it is this session's own.
            Some(_) => assert_eq!(peer.receiving().rest(), Ending::Reset),
        }
    }
}

/// Case 12.
#[test]
fn no_session_gets_a_byte_of_another_session() {
    let (waves, sessions) = (5, 100);
    let lab = setup().workers(2).start();
    let mut done = 0;
    for _ in 0..waves {
        let first = lab.clients();
        let plans: Vec<Plan> = (first..first + sessions).map(Plan::of).collect();
        done += plans.iter().filter(|plan| plan.reset_by.is_none()).count();
        thread::scope(|scope| {
            for (plan, relay) in plans.iter().zip(crowd(&lab, sessions)) {
                scope.spawn(move || plan.carry_out(relay));
            }
        });
    }
    let totals = lab.audit();
    assert_eq!(totals.closed_for(Done), done as u64, "{totals}");
}

/// Case 41. One worker serves all of them.
#[test]
fn small_requests_get_through_beside_a_stream() {
    let lab = setup().start();
    let (mut bulk, mut small) = (lab.relay(), crowd(&lab, 20));
    let (stop, streamed, mut rounds) = (AtomicBool::new(false), AtomicU64::new(0), 0);
    let (source, sink) = bulk.ends_from(Backend);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                source.sending().stream(MIB);
                streamed.fetch_add(MIB, Ordering::Relaxed);
            }
            source.fin();
        });
        scope.spawn(|| assert_eq!(sink.receiving().rest(), Ending::Fin));
        let _stop = SetOnDrop(&stop);
        until("both get on", || {
            small = std::mem::take(&mut small).into_iter().map(ping).collect();
            rounds += 1;
            rounds >= 50 && streamed.load(Ordering::Relaxed) >= 64 * MIB
        });
    });
    bulk.fin(Client).expects_fin(Backend);
    for relay in small {
        relay.closes_both_ways();
    }
    lab.ends(&[(Done, 21)]);
}

fn ping(relay: Relay<()>) -> Relay<()> {
    relay.sends(Client, b"ping").expects(Backend, b"ping").sends(Backend, b"pong").expects(Client, b"pong")
}

/// Case 42. Several streams on one worker: each uses up its share of a turn again and again.
#[test]
fn streams_that_share_a_worker_all_come_to_their_end() {
    let lab = setup().start();
    let relays = crowd(&lab, 8);
    thread::scope(|scope| {
        for (relay, near) in relays.into_iter().zip(Side::BOTH.into_iter().cycle()) {
            scope.spawn(move || relay.carries(near, 16 * MIB).closes_both_ways());
        }
    });
    lab.ends(&[(Done, 8)]);
}

/// Case 42. All has come before the server reads any of it, so no event will tell it to go on when its share of the
/// first turn (512 KiB) is used up.
#[test]
fn a_backlog_larger_than_one_share_arrives_whole() {
    let lab = setup().start_daemon();
    for near in Side::BOTH.into_iter().cycle().take(4) {
        // Lets the windows grow to more than a share.
        let mut relay = lab.relay().carries(near, 64 * MIB);
        frozen(&lab, || {
            relay.peer(near).sending().stream(640 << 10);
            relay.peer(near).fin();
            wait_until_nothing_moves(relay.peer(near));
        });
        relay.catches_up(near.other()).expects_fin(near.other());
    }
    lab.stops();
}

/// Until the server's kernel has acknowledged all that it will while the server is frozen. Where the window is too
/// small for all of it, the rest comes later, and the test is less sharp.
fn wait_until_nothing_moves(peer: &Peer) {
    let mut before = None;
    until("nothing moves", || {
        thread::park_timeout(Duration::from_millis(20));
        let now = peer.acknowledged();
        before.replace(now) == Some(now)
    });
}

/// Case 43. A frozen process finds more connections ready than one wait takes (256).
#[test]
fn more_ready_connections_than_one_wait_takes_are_all_served() {
    let sessions = 1_500;
    let lab = setup().start_daemon();
    let mut relays = crowd(&lab, sessions);
    frozen(&lab, || {
        for relay in &mut relays {
            relay.peer(Client).sending().bytes(b"ping");
            relay.peer(Backend).sending().bytes(b"pong");
        }
    });
    let answered = relays.into_iter().map(|relay| relay.expects(Backend, b"ping").expects(Client, b"pong"));
    let mut answered: Vec<Relay<()>> = answered.collect();
    frozen(&lab, || {
        for relay in &mut answered {
            relay.peer(Client).fin();
            relay.peer(Backend).fin();
        }
    });
    for relay in answered {
        relay.expects_fin(Backend).expects_fin(Client);
    }
    lab.stops();
}

/// Does something while the server stands still.
fn frozen(lab: &Lab<Daemon>, act: impl FnOnce()) {
    lab.server.freeze();
    act();
    lab.server.signal("CONT", 1);
}

/// Case 44.
#[test]
fn a_storm_of_connections_is_served_beside_an_old_one() {
    let lab = setup().workers(2).start();
    let mut old = lab.relay();
    let mut storm = crowd(&lab, 1_000);
    for _ in 0..3 {
        old = old
            .sends(Client, b"still")
            .expects(Backend, b"still")
            .sends(Backend, b"here")
            .expects(Client, b"here");
        storm = storm.into_iter().map(ping).collect();
    }
    let next = crowd(&lab, 1_000);
    for relay in storm.into_iter().chain(next) {
        relay.closes_both_ways();
    }
    old.closes_both_ways();
    lab.ends(&[(Done, 2_001)]);
}
