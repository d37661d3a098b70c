//! What follows from the words of agents. Workers ask them and report; here their advice is put in force, logged, and
//! made an event. Over all of it stands the operator, see [`Backend`]. Nothing of it outlasts the process: agents
//! repeat themselves.

use std::sync::Arc;
use std::time::Duration;

use crate::api::EventKind;
use crate::config::model::{self, Check, HealthState};
use crate::control::control_loop::ControlLoop;
use crate::control::events::Draft;
use crate::control::membership::notes::Leaving;
use crate::messages::report::{AgentLine, AgentNews};
use crate::messages::request::Named;
use crate::pool::{Admin, Advice, Backend, BackendId};
use crate::sys::timestamp;

/// Words of an agent that change nothing are logged at most this often.
const WORDS_PERIOD: Duration = Duration::from_secs(60);

/// What runs of a backend: the part that an agent may change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Running {
    admin: Admin,
    weight: u16,
    health: HealthState,
}

impl Running {
    fn of(backend: &Backend) -> Self {
        Self { admin: backend.admin(), weight: backend.weight(), health: backend.health() }
    }
}

impl ControlLoop {
    pub(super) fn on_agent(&mut self, id: BackendId, news: AgentNews) {
        let Some(backend) = self.control.snapshot.backend(id).cloned() else { return };
        let settings = Arc::clone(&self.control.snapshot.pool(backend.pool).settings);
        // An answer from before a reload that has no agent any more.
        if settings.agent.is_none() {
            return;
        }
        let named = Named { pool: settings.name.clone(), backend: backend.name.clone() };
        match news {
            AgentNews::Said { advice, line } => {
                // What it does not mention stays as it was.
                let known = backend.agent();
                let advice = known.followed_by(advice);
                let (message, was_down) = (line_words(advice, &line), backend.health() == HealthState::Down);
                let changes = self.follow_advice(&backend, &settings, advice, line);
                let is_news = advice != known || !changes.is_empty();
                if !self.is_worth_a_line(id, is_news) {
                    log::debug!(pool:% = named.pool, backend:% = named.backend, agent:% = message; "agent");
                    return;
                }
                // At night an operator reads warnings.
                let goes_down = backend.health() == HealthState::Down && !was_down;
                let level = if goes_down { log::Level::Warn } else { log::Level::Info };
                self.report_agent(&named, level, format!("says {message}{changes}"));
            }
            AgentNews::Lost(reason) => {
                let mut state = self.control.view.state();
                let note = state.notes.entry(id).or_default().agent.get_or_insert_default();
                note.lost = Some((reason.clone(), timestamp()));
                drop(state);
                let stays = if backend.agent() == Advice::NONE { "" } else { ", what it has said stays" };
                self.report_agent(&named, log::Level::Warn, format!("cannot be reached: {reason}{stays}"));
            }
            AgentNews::Forgotten => {
                let changes = self.follow_advice(&backend, &settings, Advice::NONE, AgentLine::default());
                let message = format!("is silent for too long, what it has said is forgotten{changes}");
                self.report_agent(&named, log::Level::Warn, message);
            }
        }
    }

    /// Notes that an agent has answered. Returns whether that is logged: other words that change nothing are at most once
    /// in [`WORDS_PERIOD`], because an agent may show the time.
    fn is_worth_a_line(&self, id: BackendId, is_news: bool) -> bool {
        let now = self.clock.now();
        let mut state = self.control.view.state();
        let agent = state.notes.entry(id).or_default().agent.get_or_insert_default();
        let was_lost = agent.lost.take().is_some();
        let is_due = agent.logged.is_none_or(|logged| now.since(logged) >= WORDS_PERIOD);
        let is_worth = is_news || was_lost || is_due;
        if is_worth {
            agent.logged = Some(now);
        }
        is_worth
    }

    /// Puts `advice` in force; returns what changes by it, behind a colon.
    fn follow_advice(
        &mut self,
        backend: &Arc<Backend>,
        settings: &model::Pool,
        advice: Advice,
        line: AgentLine,
    ) -> String {
        // The reasons are shown with what they explain.
        let mut state = self.control.view.state();
        let (known, before) = (backend.agent(), Running::of(backend));
        self.put_in_force(backend, advice, is_alone(settings));
        let (after, now) = (Running::of(backend), timestamp());
        let note = state.notes.entry(backend.id).or_default();
        if after.admin != before.admin {
            let (since, sessions_at_start) = (self.clock.now(), backend.active().into());
            let leaving = Leaving { since, deadline: None, sessions_at_start };
            note.leaving = (after.admin != Admin::Ready).then_some(leaving);
        }
        if after.health != before.health {
            let word = advice.health.map_or("nothing", HealthState::as_str);
            let because = line.note.as_ref().map(|note| format!(", {note}")).unwrap_or_default();
            note.health_reason = Some(format!("its agent says {word}{because}"));
            note.health_since = Some(now);
        }
        let agent = note.agent.get_or_insert_default();
        agent.line = line;
        if advice != known {
            agent.since = Some(now);
        }
        if advice.admin != known.admin {
            agent.admin_since = Some(now);
        }
        drop(state);
        if after != before {
            self.tables_changed(backend.pool);
        }
        changes(before, after)
    }

    /// Takes back the words of agents that the configuration has no longer, and puts those of the others in force under
    /// it. Must be called after a reload.
    pub(super) fn align_agents(&mut self) {
        let snapshot = Arc::clone(&self.control.snapshot);
        for pool in &snapshot.pools {
            for backend in &pool.backends {
                let before = Running::of(backend);
                if pool.settings.agent.is_some() {
                    self.put_in_force(backend, backend.agent(), is_alone(&pool.settings));
                } else if backend.agent() == Advice::NONE {
                    continue;
                } else {
                    self.put_in_force(backend, Advice::NONE, false);
                    let named = Named { pool: pool.settings.name.clone(), backend: backend.name.clone() };
                    let message = "is asked no more, what it has said is forgotten";
                    let changes = changes(before, Running::of(backend));
                    self.report_agent(&named, log::Level::Info, format!("{message}{changes}"));
                    self.forget_agent(backend);
                }
                if Running::of(backend) != before {
                    self.tables_changed(pool.id);
                }
            }
        }
    }

    /// Announces the epoch with the tables for it before it shows: the backends that come with it are in these.
    fn put_in_force(&self, backend: &Backend, advice: Advice, is_alone: bool) {
        if backend.changes_by_agent(advice, is_alone) {
            self.control.snapshot.announce();
        }
        let before = Running::of(backend);
        backend.set_agent(advice, is_alone);
        debug_assert!(Running::of(backend) == before || self.control.snapshot.is_outdated());
    }

    fn forget_agent(&self, backend: &Backend) {
        let mut state = self.control.view.state();
        if let Some(note) = state.notes.get_mut(&backend.id) {
            note.agent = None;
            note.leaving = note.leaving.filter(|_| backend.admin() != Admin::Ready);
        }
    }

    fn report_agent(&self, named: &Named, level: log::Level, message: String) {
        let Named { pool, backend } = named;
        log::log!(level, pool:%, backend:%, agent:% = message; "agent");
        self.control.view.events.push(Draft::new(EventKind::Agent, message).backend(named));
    }
}

/// Returns whether no check finds the health of the backends of a pool: then their agents decide over it.
fn is_alone(settings: &model::Pool) -> bool {
    settings.health.check == Check::Off
}

fn line_words(advice: Advice, line: &AgentLine) -> String {
    let words = if advice == Advice::NONE { "nothing".to_owned() } else { advice.to_string() };
    let note = line.note.as_ref().map(|note| format!(", {note}")).unwrap_or_default();
    let mistake = line.mistake.as_ref().map(|mistake| format!(", and a mistake: {mistake}"));
    words + &note + &mistake.unwrap_or_default()
}

fn changes(before: Running, after: Running) -> String {
    let change = |what: &str, from: &str, to: &str| (from != to).then(|| format!("{what} {from} -> {to}"));
    let changes = [
        change("weight", &before.weight.to_string(), &after.weight.to_string()),
        change("admin state", before.admin.as_str(), after.admin.as_str()),
        change("health", before.health.as_str(), after.health.as_str()),
    ];
    let changes: Vec<String> = changes.into_iter().flatten().collect();
    if changes.is_empty() { String::new() } else { format!(": {}", changes.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::membership::origin::RuntimeOverrides;
    use crate::control::tests::{config, control};
    use crate::messages::request::{Ask, Request};
    use crate::pool::{AgentWeight, Snapshot};

    const WITH_AGENT: &str = "agent = { port = 9707 }";
    const UNCHECKED: &str = "agent = { port = 9707 }\nhealth = { type = \"off\" }";

    fn work(keys: &str) -> ControlLoop {
        ControlLoop::new(control(Snapshot::new(&config(keys)), &[]))
    }

    fn first(work: &ControlLoop) -> Arc<Backend> {
        Arc::clone(&work.control.snapshot.pools[0].backends[0])
    }

    fn says(work: &mut ControlLoop, advice: Advice) {
        let (id, line) = (first(work).id, AgentLine::default());
        work.on_agent(id, AgentNews::Said { advice, line });
    }

    fn drain() -> Advice {
        Advice { admin: Some(Admin::Drain), weight: Some(AgentWeight::Absolute(7)), ..Advice::NONE }
    }

    fn change(work: &mut ControlLoop, weight: Option<u16>, admin: Option<Admin>) {
        let (reply, _) = tokio::sync::oneshot::channel();
        let backend = Named { pool: "default".into(), backend: "a".into() };
        let request = Request::Change { backend, weight, admin, reply };
        work.on_ask(Ask { who: "a test".into(), request });
    }

    fn messages(work: &ControlLoop) -> Vec<String> {
        work.control.view.events.recent(None, 100).into_iter().map(|event| event.message).collect()
    }

    #[test]
    fn advice_needs_tables_and_is_an_event_and_its_repetition_needs_none() {
        let mut work = work(WITH_AGENT);
        says(&mut work, drain());
        assert_eq!(work.changed, [first(&work).pool]);
        let message = "says weight:7 drain: weight 1 -> 7, admin state ready -> drain";
        assert_eq!(messages(&work), [message]);
        work.publish();
        says(&mut work, drain());
        assert!(work.changed.is_empty());
    }

    /// Each was a line and an event: an agent that shows its load or the time pushed out all other events.
    #[test]
    fn other_words_that_change_nothing_are_no_flood() {
        let mut work = work(WITH_AGENT);
        let note = |number: usize| AgentLine { note: Some(format!("{number} o'clock")), mistake: None };
        for number in 0..100 {
            let (id, line) = (first(&work).id, note(number));
            work.on_agent(id, AgentNews::Said { advice: drain(), line });
        }
        assert_eq!(messages(&work).len(), 1, "{:?}", messages(&work));
        let shown = |work: &ControlLoop| {
            work.control.view.state().notes[&first(work).id].agent.as_ref().unwrap().line.clone()
        };
        assert_eq!(shown(&work), note(99), "the last ones are shown");
        let (id, up) = (first(&work).id, Advice { admin: Some(Admin::Ready), ..Advice::NONE });
        work.on_agent(id, AgentNews::Said { advice: up, line: note(100) });
        work.on_agent(id, AgentNews::Lost("refused".into()));
        work.on_agent(id, AgentNews::Said { advice: up, line: note(101) });
        assert_eq!(messages(&work).len(), 4, "a change, and an agent that is back, are news");
    }

    #[test]
    fn a_drain_of_both_ends_with_the_last_of_them() {
        let mut work = work(WITH_AGENT);
        let leaves = |work: &ControlLoop| work.control.view.state().notes[&first(work).id].leaving.is_some();
        says(&mut work, drain());
        change(&mut work, None, Some(Admin::Drain));
        says(&mut work, Advice { admin: Some(Admin::Ready), ..Advice::NONE });
        assert!(first(&work).admin() == Admin::Drain && leaves(&work));
        says(&mut work, drain());
        change(&mut work, None, Some(Admin::Ready));
        assert!(first(&work).admin() == Admin::Drain && leaves(&work));
        says(&mut work, Advice { admin: Some(Admin::Ready), ..Advice::NONE });
        assert!(first(&work).admin() == Admin::Ready && !leaves(&work));
    }

    #[test]
    fn an_operator_weight_is_over_that_of_an_agent_also_if_it_is_that_of_the_file() {
        let mut work = work(WITH_AGENT);
        says(&mut work, drain());
        work.publish();
        change(&mut work, Some(1), None);
        assert_eq!((first(&work).weight(), work.changed.len()), (1, 1), "the tables follow");
    }

    #[test]
    fn checks_that_contradict_a_down_of_the_agent_are_no_event() {
        let mut work = work(WITH_AGENT);
        says(&mut work, Advice { health: Some(HealthState::Down), ..Advice::NONE });
        work.publish();
        let (backend, before) = (first(&work), messages(&work).len());
        backend.set_health(HealthState::Up);
        work.on_health(backend.id, HealthState::Unknown, HealthState::Up, "check passed");
        assert_eq!((messages(&work).len(), backend.health()), (before, HealthState::Down));
    }

    #[test]
    fn a_reload_without_agents_clears_their_words_and_one_without_checks_lets_them_decide() {
        let mut work = work(WITH_AGENT);
        let up = Advice { health: Some(HealthState::Up), ..drain() };
        says(&mut work, up);
        let backend = first(&work);
        backend.set_health(HealthState::Down);
        assert_eq!(backend.health(), HealthState::Down, "the check decides");
        let run = |work: &mut ControlLoop, keys: &str| {
            let next = work.control.snapshot.reconfigured(&config(keys));
            work.replace_snapshot(Arc::new(next));
            work.align_agents();
        };
        run(&mut work, UNCHECKED);
        assert_eq!((backend.health(), backend.admin()), (HealthState::Up, Admin::Drain));
        run(&mut work, "");
        assert_eq!((backend.agent(), backend.admin(), backend.weight()), (Advice::NONE, Admin::Ready, 1));
        let last = messages(&work).pop().expect("an event");
        assert!(last.starts_with("is asked no more, what it has said is forgotten: weight 7 -> 1"), "{last}");
        says(&mut work, up);
        assert_eq!(backend.agent(), Advice::NONE, "an answer from before");
    }

    #[test]
    fn what_an_agent_says_is_not_what_an_operator_has_set() {
        let mut work = work(WITH_AGENT);
        says(&mut work, Advice { health: Some(HealthState::Down), ..drain() });
        let overrides = RuntimeOverrides::of(&first(&work), 1);
        assert_eq!(overrides, RuntimeOverrides::default());
    }
}
