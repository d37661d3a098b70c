//! What is known of the fleet, and how publishing and following go. The thread of the fleet writes it; others read it.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::api::EventKind;
use crate::control::events::{Draft, Events};
use crate::fleet::known::Known;
use crate::fleet::record::Wanted;
use crate::messages::request::Named;
use crate::sys::timestamp;

/// Sets what is wanted of backends; `None` ends that.
pub(crate) struct Order {
    pub(crate) backends: Vec<Named>,
    pub(crate) wanted: Option<Wanted>,
    /// Receives whether etcd has it.
    pub(crate) reply: oneshot::Sender<Result<(), String>>,
}

/// The state of the fleet as seen here.
#[derive(Default)]
pub(crate) struct FleetState {
    /// The name of this balancer; `None` while it is in no fleet.
    pub(crate) name: Option<String>,
    /// Takes what operators want on all balancers.
    pub(crate) orders: Option<mpsc::Sender<Order>>,
    /// Shared, so that it can be read without the lock.
    pub(crate) known: Arc<Known>,
    /// True once it was read.
    pub(crate) is_read: bool,
    /// Why what is known is not that of now, and since when.
    pub(crate) lost: Option<(String, Timestamp)>,
    /// True once the own keys were there.
    pub(crate) is_kept: bool,
    /// Why the own keys are not as they should be, and since when.
    pub(crate) failing: Option<(String, Timestamp)>,
}

impl FleetState {
    /// All keys were read.
    pub(super) fn listed(&mut self, known: Known, events: &Events) {
        self.known = Arc::new(known);
        self.is_read = true;
        if self.lost.take().is_some() {
            log::info!("the other balancers of the fleet can be read again");
            events.push(Draft::new(EventKind::Fleet, "the other balancers can be read again"));
        }
    }

    /// The keys cannot be read. What is known of them stays.
    pub(super) fn lost(&mut self, why: &str, events: &Events) {
        if fails(&mut self.lost, why) {
            log::warn!(why; "cannot read the other balancers of the fleet: retrying");
            events.push(Draft::new(EventKind::Fleet, format!("cannot read the other balancers: {why}")));
        }
    }

    /// The own keys are there.
    pub(super) fn kept(&mut self, events: &Events) {
        let was_failing = self.failing.take().is_some();
        if !self.is_kept || was_failing {
            log::info!("in the fleet");
            events.push(Draft::new(EventKind::Fleet, "in the fleet"));
        }
        self.is_kept = true;
    }

    /// The own keys cannot be kept.
    pub(super) fn fails(&mut self, why: &str, events: &Events) {
        if fails(&mut self.failing, why) {
            log::warn!(why; "cannot keep its keys in the fleet: retrying");
            events.push(Draft::new(EventKind::Fleet, format!("cannot keep its keys in the fleet: {why}")));
        }
    }
}

/// Notes why something fails. Returns whether it did not before.
fn fails(failure: &mut Option<(String, Timestamp)>, why: &str) -> bool {
    let since = failure.as_ref().map(|(_, since)| *since);
    *failure = Some((why.to_owned(), since.unwrap_or_else(timestamp)));
    since.is_none()
}
