//! Configurations that were refused: they are counted, logged and shown, until an operator dismisses the last one.

use crate::api::EventKind;
use crate::control::audit;
use crate::control::control_loop::ControlLoop;
use crate::control::events::Draft;
use crate::control::loading::Rejected;
use crate::messages::request::Refusal;
use crate::sys::timestamp;

/// Most errors of one configuration that are remembered.
const ERRORS_MAX: usize = 100;

impl ControlLoop {
    /// Dismisses the refused reload of that number: it is shown no more. Fails unless it is the last reload.
    pub(super) fn dismiss(&self, number: u64, who: &str) -> Result<(), Refusal> {
        let mut state = self.control.view.state();
        let last = state.reload.refused.as_mut().filter(|refused| refused.number == number);
        let missing =
            || Refusal::NotFound(format!("the last reload is not the refused one of number {number}"));
        last.ok_or_else(missing)?.dismissed_by.get_or_insert_with(|| who.to_owned());
        drop(state);
        let what = "refused configuration dismissed";
        audit::write(format_args!("{what}"), &[("who", who.into()), ("number", number.into())]);
        self.control.view.events.push(Draft::new(EventKind::Reload, what).who(who));
        Ok(())
    }

    /// Counted first: the status must show the failure once the log does.
    pub(super) fn count_failure(&self, who: &str, errors: &[String]) {
        let kept: Vec<String> = errors.iter().take(ERRORS_MAX).cloned().collect();
        let message = format!("refused: {}", kept.join("; "));
        self.control.view.events.push(Draft::new(EventKind::Reload, message).who(who));
        let mut state = self.control.view.state();
        state.reload.failed += 1;
        let (number, when) = (state.reload.failed, timestamp());
        state.reload.last_failure = Some(when);
        state.reload.errors = kept;
        state.reload.refused = Some(Rejected { number, who: who.to_owned(), when, dismissed_by: None });
        drop(state);
        for error in errors {
            log::error!(error; "reload");
        }
        log::error!(who, errors = errors.len(); "configuration refused, the running one stays");
    }
}
