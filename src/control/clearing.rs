//! Counters that an operator has cleared. The counters continue, because rates, metrics and the invariants are made of
//! them; only what they were is noted here, and whatever shows a total subtracts it. Kept in the process only.

use std::sync::Arc;

use crate::api::EventKind;
use crate::control::audit;
use crate::control::control_loop::ControlLoop;
use crate::control::events::Draft;
use crate::control::membership::notes::ClearedBackend;
use crate::control::status::Cleared;
use crate::messages::request::{CountersCleared, Refusal, Scope};
use crate::pool::Backend;
use crate::stats::{Share, Totals};
use crate::sys::timestamp;

impl ControlLoop {
    /// Notes the present counts of `scope`. A pool has no other counters than its backends.
    pub(super) fn clear_counters(&self, scope: &Scope, who: &str) -> Result<CountersCleared, Refusal> {
        let draft = Draft::new(EventKind::Process, "counters cleared").who(who);
        let (backends, draft): (Vec<Arc<Backend>>, Draft) = match scope {
            Scope::All => (self.control.snapshot.backends().cloned().collect(), draft),
            Scope::Pool(name) => {
                let pool = self.pool_named(name)?;
                (pool.backends.to_vec(), draft.pool(&pool.settings.name))
            }
            Scope::Backend(named) => (vec![self.backend_named(named)?.1], draft.backend(named)),
        };
        let since = timestamp();
        let mut state = self.control.view.state();
        if *scope == Scope::All {
            let counters = self.control.workers.counters();
            state.cleared = Some(Cleared {
                since,
                totals: Totals::of(counters.iter().map(|(_, stats)| stats.as_ref())),
                shares: counters.iter().map(|(worker, stats)| (*worker, Share::of(stats))).collect(),
            });
        }
        for backend in &backends {
            let note = state.notes.entry(backend.id).or_default();
            note.cleared = Some(ClearedBackend::of(backend, since));
        }
        drop(state);
        let (pool, backend) = match scope {
            Scope::All => ("all", None),
            Scope::Pool(pool) => (pool.as_str(), None),
            Scope::Backend(named) => (named.pool.as_str(), Some(named.backend.as_str())),
        };
        let mut fields = vec![("pool", pool.into()), ("who", who.into())];
        fields.extend(backend.map(|backend| ("backend", backend.into())));
        audit::write(format_args!("counters cleared"), &fields);
        self.control.view.events.push(draft);
        Ok(CountersCleared { since, backends: backends.len() })
    }
}
