//! The end of the process on request: what SIGTERM does, except that a request may be repeated.

use std::time::Duration;

use crate::api::EventKind;
use crate::control::audit;
use crate::control::control_loop::{ControlLoop, ControlStage};
use crate::control::events::Draft;
use crate::messages::command::StopReason;
use crate::messages::request::Stopping;

impl ControlLoop {
    /// Begins the drain that SIGTERM begins; with `now` resets the sessions at once. Without it, a request that comes
    /// while the process ends already changes nothing: a client that has lost the answer may ask again.
    pub(super) fn on_stop_request(&mut self, now: bool, who: &str) -> Stopping {
        let what = match (now, self.stage) {
            (false, ControlStage::Serving) => Some("stop requested: sessions may finish"),
            (false, _) | (true, ControlStage::Stopping) => None,
            (true, _) => Some("stop requested: sessions are reset"),
        };
        if let Some(what) = what {
            audit::write(format_args!("{what}"), &[("who", who.into())]);
            self.control.view.events.push(Draft::new(EventKind::Process, what).who(who));
        }
        match self.stage {
            ControlStage::Serving => self.on_terminate(),
            ControlStage::Leaving { .. } | ControlStage::Draining { .. } | ControlStage::Stopping => {}
        }
        if now {
            // Behind the drain, which closes the listeners.
            if let ControlStage::Leaving { .. } = self.stage {
                self.drain();
            }
            self.stop(StopReason::AtOnce);
        }
        let now = self.clock.now();
        match self.stage {
            // The requests above have ended this stage.
            ControlStage::Serving => Stopping { drains_in: Some(Duration::ZERO), cut_in: Duration::ZERO },
            ControlStage::Leaving { deadline } => {
                let drains_in = deadline - now;
                let cut_in = drains_in.saturating_add(self.control.drain_timeout);
                Stopping { drains_in: Some(drains_in), cut_in }
            }
            ControlStage::Draining { deadline } => Stopping { drains_in: None, cut_in: deadline - now },
            ControlStage::Stopping => Stopping { drains_in: None, cut_in: Duration::ZERO },
        }
    }
}
