//! The thread of the sources.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::belief::Belief;
use super::source::Source;
use crate::base::rng::Rng;
use crate::messages::discovery::SourceId;
use crate::messages::report::{Report, Reports};
use crate::sys::Clock;

/// Shortest time between two questions, for a source that is asked early.
const EARLY_MIN: Duration = Duration::from_secs(5);
/// Steps of what is left to chance.
const CHANCES: u64 = 1 << 16;

/// A runtime on a thread of its own. The thread ends when this is dropped, and all sources with it.
pub(super) struct Runner {
    runtime: Handle,
    /// Dropped, it ends the thread.
    _end: oneshot::Sender<()>,
}

/// A source that runs. Dropped, it does no more.
pub(super) struct Running {
    task: AbortHandle,
    resolve_now: Arc<Notify>,
}

impl Runner {
    /// Only a process that has sources has the thread.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("l4lb-discovery".into()).spawn(move || {
            // It ends when the receiver is dropped.
            let _gone = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, _end: end })
    }

    /// Drops every source that it is given: none is ever asked.
    pub(super) fn without_thread() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().build()?;
        Ok(Self { runtime: runtime.handle().clone(), _end: oneshot::channel().0 })
    }

    /// Asks `source` from now on, and reports what `belief` makes of the answers under that name. `rng` has the chance
    /// in its waits.
    pub(super) fn run(
        &self,
        source: impl Source,
        belief: Belief,
        rng: Rng,
        id: SourceId,
        reports: Reports,
    ) -> Running {
        let resolve_now = Arc::<Notify>::default();
        let asked = Asked { source, belief, rng, resolve_now: Arc::clone(&resolve_now) };
        let task = self.runtime.spawn(asked.follow(id, reports));
        Running { task: task.abort_handle(), resolve_now }
    }
}

impl Running {
    /// Something indicates that the source would say something else by now.
    pub(super) fn resolve_now(&self) {
        self.resolve_now.notify_one();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A source with what is believed of it.
struct Asked<S> {
    source: S,
    belief: Belief,
    rng: Rng,
    resolve_now: Arc<Notify>,
}

impl<S: Source> Asked<S> {
    async fn follow(mut self, id: SourceId, reports: Reports) {
        let clock = Clock::of_process();
        loop {
            let answer = self.source.ask().await;
            let asked = clock.now();
            let chance = self.rng.below(CHANCES) as f64 / CHANCES as f64;
            let (report, wait) = self.belief.on_answer(answer, asked, chance);
            reports.send_waiting(Report::Discovered(id, report, wait));
            let is_early = {
                let (resolve_now, changed) = (pin!(self.resolve_now.notified()), pin!(self.source.changed()));
                matches!(timeout(wait, select(resolve_now, changed)).await, Ok(Either::Left(_)))
            };
            if is_early {
                let since = clock.now() - asked;
                let pause = EARLY_MIN.min(wait).saturating_sub(since);
                // Either way it is time.
                let _changed = timeout(pause, self.source.changed()).await;
            }
        }
    }
}
