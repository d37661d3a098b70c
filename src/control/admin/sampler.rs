//! The samples of one stream: the figures of the last second need the sample before.

use std::sync::Arc;

use super::rows;
use crate::api;
use crate::control::View;
use crate::control::durations::Times;

/// Takes samples for one reader.
pub(super) struct Sampler {
    view: Arc<View>,
    before: Option<Times>,
}

impl Sampler {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self { view, before: None }
    }

    /// Returns the present counts, and the durations since the previous sample.
    pub(super) fn take(&mut self) -> api::Sample {
        let (snapshot, mut sample) = {
            let state = self.view.state();
            (Arc::clone(&state.snapshot), rows::sample(&state, self.view.clock.now()))
        };
        let now = Times::of(&snapshot);
        if let Some(before) = &self.before {
            sample.connect = now.connect_since(before);
            sample.duration = now.duration_since(before);
        }
        self.before = Some(now);
        sample
    }
}
