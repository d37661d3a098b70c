//! The rates of faults. Each seed draws its own rates and leaves about half of them at zero, so that every fault also
//! occurs without the others, which would hide its effects (swarm testing).

use l4lb::base::rng::Rng;

use crate::conn::Descriptor;
use crate::network::Net;
use crate::random::below;

/// Chances in a million, per opportunity, and the resources of this machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// An event is reported by a later wait.
    pub(crate) late_event: u64,
    /// An event that means nothing.
    pub(crate) spurious_event: u64,
    /// A wait reports no more than one event.
    pub(crate) small_batch: u64,
    /// A read returns less than there is; the rest comes right behind it.
    pub(crate) short_read: u64,
    /// A write takes less than there is room for.
    pub(crate) short_write: u64,
    /// accept(2) fails.
    pub(crate) accept: u64,
    /// socket(2) or connect(2) fails at once.
    pub(crate) dial: u64,
    /// The answer to a dial takes its time.
    pub(crate) slow_dial: u64,
    /// A dial connects to itself.
    pub(crate) self_connect: u64,
    /// epoll_ctl(2) fails.
    pub(crate) watch: u64,
    /// pipe2(2) fails.
    pub(crate) pipe: u64,
    /// splice(2) does not work at all.
    pub(crate) splices_not: bool,
    /// A peer resets, at any moment.
    pub(crate) reset: u64,
    /// A peer vanishes silently.
    pub(crate) vanish: u64,
    /// A backend changes its mode.
    pub(crate) backend: u64,
    /// The clock jumps by 1 ms or by an hour.
    pub(crate) jump: u64,
    /// The process is stopped for a while.
    pub(crate) stop: u64,
    /// The operator does something.
    pub(crate) operator: u64,
    /// A source of backends answers.
    pub(crate) lists: u64,
    /// An event is never reported.
    pub(crate) lost_edge: u64,
    /// A peer reads nothing.
    pub(crate) stuck: u64,
    /// Descriptors that may be open.
    pub(crate) fds: usize,
    /// Slots that the pipes of this user may have together.
    pub(crate) pipe_slots: usize,
    /// Source ports available towards each backend.
    pub(crate) ports: usize,
}

impl Faults {
    /// No faults and no shortages.
    pub(crate) fn none() -> Self {
        Self { fds: usize::MAX, pipe_slots: usize::MAX, ports: usize::MAX, ..Self::default() }
    }

    /// The rates of one seed.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut rate = |most: u64| if rng.below(2) == 0 { 0 } else { rng.below(most) };
        Self {
            late_event: rate(600_000),
            spurious_event: rate(200_000),
            small_batch: rate(500_000),
            short_read: rate(500_000),
            short_write: rate(500_000),
            accept: rate(200_000),
            dial: rate(200_000),
            self_connect: rate(100_000),
            watch: rate(20_000),
            pipe: rate(300_000),
            splices_not: rate(8) == 1,
            reset: rate(20_000),
            vanish: rate(2_000),
            backend: rate(20_000),
            jump: rate(2_000),
            stop: rate(2_000),
            operator: rate(20_000),
            stuck: rate(600_000),
            fds: if rate(4) == 0 { usize::MAX } else { 6 + below(rng, 30) },
            pipe_slots: if rng.below(2) == 0 { below(rng, 600) } else { usize::MAX },
            ports: if rng.below(4) == 0 { 1 + below(rng, 6) } else { usize::MAX },
            slow_dial: rng.below(4) / 3 * 990_000,
            // Rarely: if it never happens, the worker may never find it.
            lost_edge: if rng.below(8) == 0 { rng.below(50_000) } else { 0 },
            lists: if rng.below(2) == 0 { rng.below(20_000) } else { 0 },
        }
    }
}

/// Present shortages.
impl Net {
    pub(crate) fn lacks_descriptors(&self) -> bool {
        self.faults.fds != usize::MAX && self.descriptors() >= self.faults.fds
    }

    pub(crate) fn lacks_ports(&self, towards: u16) -> bool {
        let holds_port = |&&id: &&usize| {
            let conn = &self.conns[id];
            conn.descriptor == Descriptor::Open && conn.dialed_port == Some(towards)
        };
        self.faults.ports != usize::MAX && self.live.iter().filter(holds_port).count() >= self.faults.ports
    }
}
