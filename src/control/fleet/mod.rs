//! This balancer as one of several: what it publishes in etcd for the others, and what it reads of them.
//!
//! The control thread starts the thread of the fleet, `keeper`, and never waits for etcd. `own` reads what is published from
//! the state of the control thread, `publish` puts it, `follow` reads what others have put, `seen` is what is known. Data
//! threads know nothing of it, and a process without `[fleet]` has none of it.

mod follow;
mod keeper;
mod own;
mod publish;
pub(super) mod seen;
pub(super) mod state;

use std::sync::Arc;

use crate::control::control_loop::{ControlLoop, RETRY_INTERVAL};

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
            match keeper::start(Arc::clone(&self.control.view)) {
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

    /// What is published may have changed.
    pub(super) fn fleet_news(&self) {
        if let Some(keeper) = &self.fleet.keeper {
            keeper.notice();
        }
    }

    /// Withdraws what is there, and waits for that as long as one try may take.
    pub(super) fn leave_fleet(&mut self) {
        if let Some(keeper) = self.fleet.keeper.take() {
            keeper.end();
        }
    }
}
