//! This balancer as one of several: what it publishes in etcd for the others, and what it reads of them.
//!
//! The control thread starts the thread of the fleet, `keeper`, and never waits for etcd. `own` reads what is published from
//! the state of the control thread, `publish` puts it, `follow` reads what others have put, `orders` does what operators
//! want on all balancers, `alone` finds out whether it is the one that is wrong, `seen` is what is known. Data threads know
//! nothing of it, and a process without `[fleet]` has none of it.

mod alone;
mod follow;
mod keeper;
mod orders;
mod own;
mod publish;
pub(super) mod seen;
pub(super) mod state;

use std::sync::Arc;

use crate::api::EventKind;
use crate::control::control_loop::{ControlLoop, RETRY_INTERVAL};
use crate::control::events::Draft;

impl ControlLoop {
    /// Joins the fleet that the configuration names, or leaves it.
    pub(super) fn join_fleet(&mut self) {
        let config = &self.control.config;
        let is_same = self.fleet.asked.as_ref().is_some_and(|asked| Arc::ptr_eq(asked, config));
        if is_same || (config.fleet.is_none() && self.fleet.keeper.is_none()) {
            return;
        }
        if self.fleet.keeper.is_none() {
            let now = self.clock.now();
            if self.fleet.retry.is_some_and(|retry| now < retry) {
                return;
            }
            let (view, news) = (Arc::clone(&self.control.view), Arc::clone(&self.fleet.news));
            match keeper::start(view, self.control.reports.clone(), news) {
                Ok(keeper) => self.fleet.keeper = Some(keeper),
                Err(error) => {
                    self.fleet.retry = Some(now + RETRY_INTERVAL);
                    let view = &self.control.view;
                    view.fleet().fails(&format!("cannot start its thread: {error}"), &view.events);
                    return;
                }
            }
        }
        if let Some(keeper) = &self.fleet.keeper {
            keeper.want(config.fleet.clone());
        }
        self.fleet.asked = Some(Arc::clone(config));
        self.fleet_news();
    }

    /// Its view contradicts that of most others, or does no more.
    pub(super) fn on_alone(&mut self, alone: Option<String>) {
        let mut state = self.control.view.state();
        if state.alone.is_some() == alone.is_some() {
            return;
        }
        state.alone.clone_from(&alone);
        drop(state);
        let message = match alone {
            Some(why) => {
                log::warn!(why; "alone in the fleet: look at the link to the backends");
                format!("alone: {why}")
            }
            None => {
                log::info!("no longer alone in the fleet");
                "no longer alone".to_owned()
            }
        };
        self.control.view.events.push(Draft::new(EventKind::Fleet, message));
        self.fleet_news();
    }

    /// Has the thread look again, as something that is published may have changed.
    pub(super) fn fleet_news(&self) {
        if self.fleet.keeper.is_some() {
            self.fleet.news.notify_one();
        }
    }

    /// Withdraws what is there, and waits for that as long as one try may take.
    pub(super) fn leave_fleet(&mut self) {
        if let Some(keeper) = self.fleet.keeper.take() {
            keeper.end();
        }
    }
}
