//! Asks the agents of the backends that belong to this worker, between the sessions and on the same wheel. `health`
//! decides what an agent is sent and what its line means; this module has its sockets and its timer, and reports what
//! has changed to the control thread, which decides what follows. `assignment` maintains the list of agents. Changes no
//! backend. Without an agent in any pool there is nothing here, and nothing is done in a turn.

mod assignment;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::base::address::Address;
use crate::base::slots::{GENERATION_BITS, Key};
use crate::base::time::Instant;
use crate::base::timer_wheel::TimerId;
use crate::base::token_bucket::TokenBucket;
use crate::config::agent::{Agent, OnLost};
use crate::health::{self, AgentExchange, AgentFault, Conversation, Said};
use crate::messages::report::{AgentLine, AgentNews, Report};
use crate::pool::{Advice, Backend, BackendId};
use crate::sys::{DialSpec, Kernel, Token, lacks_resources};
use crate::worker::core::{Core, Timer};
use crate::worker::probes::conversation;
use crate::worker::probes::queue::{Pace, Queue};

/// Each interval is longer or shorter by at most this many percent, so that agents are not asked together for ever.
const JITTER_PERCENT: u8 = 10;
/// Exchanges that are put off are logged at most this often.
const DEFERRAL_LOG_PERIOD: Duration = Duration::from_secs(10);

/// The agents of one worker.
pub(super) struct Agents<K: Kernel> {
    /// Its index among the asking workers; `None` once it retires.
    worker: Option<usize>,
    /// How many there are.
    workers: usize,
    /// The next epoch changes the agents to ask.
    is_reassigned: bool,
    entries: Slab<Entry<K>>,
    by_backend: HashMap<BackendId, u32>,
    /// Counts attempts, so that an event of an ended one does not reach another.
    generation: u32,
    /// Exchanges that are due while the limit in flight is reached.
    queue: Queue,
    deferral_log: TokenBucket,
}

/// One agent to ask. Its timer is armed, unless it is among those that wait and its words have no end, or have ended.
struct Entry<K: Kernel> {
    backend: Arc<Backend>,
    agent: Arc<Agent>,
    target: Address,
    attempt: Option<Attempt<K>>,
    timer: Option<(TimerId, Instant)>,
    started: Instant,
    /// When it last answered, or when it was first asked.
    answered_at: Instant,
    /// What the control thread knows of it, apart from the advice.
    reported: Reported,
    /// The advice reported so far, put together, and that of answers whose report did not fit.
    sent: Advice,
    unsent: Advice,
    pace: Pace,
    /// Among those that wait.
    is_waiting: bool,
    /// The end of its words was reported, and it has not answered since.
    is_forgotten: bool,
}

/// The last news of an agent that the control thread got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reported {
    Nothing,
    Line(AgentLine),
    Lost(AgentFault),
}

/// One exchange under way.
struct Attempt<K: Kernel> {
    socket: K::Socket,
    generation: u32,
    exchange: Box<AgentExchange>,
}

impl<K: Kernel> Agents<K> {
    /// Returns the exchanges with an open socket.
    pub(super) fn in_flight(&self) -> u64 {
        self.queue.in_flight() as u64
    }

    /// Returns whether a waiting one may start.
    pub(super) fn may_start(&self) -> bool {
        !self.entries.is_empty() && self.queue.next_pace().is_some()
    }

    pub(super) fn on_timer(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.timer = None;
        if entry.attempt.is_none() {
            if entry.is_waiting {
                return entry.forget_if_silent(core);
            }
            entry.is_waiting = true;
            self.queue.push(entry.backend.pool, index, entry.pace);
            return self.arm_end(core, index);
        }
        // This turn may be late, and its wait may have had no room for the event of an answer that was in time.
        self.continue_exchange(core, index);
        let entry = &mut self.entries[index as usize];
        if let Some(attempt) = &mut entry.attempt {
            attempt.exchange.on_timeout(entry.agent.timeout);
            self.converse(core, index);
        }
    }

    /// Starts due exchanges, as many as the limits of flight and turn allow.
    pub(super) fn start_waiting(&mut self, core: &mut Core<K>) {
        while self.may_start()
            && core.turn.take_check()
            && let Some(index) = self.queue.pop()
        {
            self.ask(core, index);
        }
    }

    fn ask(&mut self, core: &mut Core<K>, index: u32) {
        self.generation = (self.generation + 1) % (1 << GENERATION_BITS);
        let generation = self.generation;
        let entry = &mut self.entries[index as usize];
        (entry.started, entry.is_waiting) = (core.now, false);
        if !entry.backend.is_resolved() {
            return self.schedule(core, index);
        }
        let token = Token::Agent(Key { index, generation });
        let tcp = &core.snapshot.pool(entry.backend.pool).settings.tcp;
        let dialed = conversation::dial(&mut core.kernel, &DialSpec { address: &entry.target, tcp }, token);
        let mut exchange = AgentExchange::new(&entry.agent, &entry.backend.name, &entry.target);
        match dialed {
            Ok(socket) => {
                entry.attempt = Some(Attempt { socket, generation, exchange: Box::new(exchange) });
                self.queue.enter(entry.pace);
                let when = core.now + entry.agent.timeout;
                self.arm(core, index, when);
            }
            Err(error) if lacks_resources(&error) => self.defer(core, index, &error),
            Err(error) => {
                exchange.on_failed(error.kind());
                self.finish(core, index, &exchange);
                self.schedule(core, index);
            }
        }
    }

    /// A lack of resources here means nothing for the agent: it is asked a little later.
    fn defer(&mut self, core: &mut Core<K>, index: u32, error: &io::Error) {
        if let Some(untold) = self.deferral_log.take(core.now) {
            let backend = &self.entries[index as usize].backend.name;
            log::warn!(backend:%, error:%, untold; "an agent is asked later, what it has said stays");
        }
        self.schedule(core, index);
    }

    pub(super) fn on_event(&mut self, core: &mut Core<K>, key: Key) {
        let attempt = self.entries.get(key.index as usize).and_then(|entry| entry.attempt.as_ref());
        if attempt.is_some_and(|attempt| attempt.generation == key.generation) {
            self.continue_exchange(core, key.index);
        } else {
            core.stats.stale_events.add(1);
        }
    }

    /// Continues the exchange in progress as far as possible.
    fn continue_exchange(&mut self, core: &mut Core<K>, index: u32) {
        let Some(Attempt { socket, exchange, .. }) = &mut self.entries[index as usize].attempt else {
            return;
        };
        match conversation::report_dial(&mut core.kernel, socket, &mut **exchange) {
            Ok(true) => self.converse(core, index),
            Ok(false) => {}
            Err(error) => {
                self.end_attempt(core, index);
                self.defer(core, index, &error);
            }
        }
    }

    /// Runs the steps of the exchange until it waits or has its result.
    fn converse(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &mut self.entries[index as usize];
        let Some(Attempt { socket, exchange, .. }) = &mut entry.attempt else { return };
        if conversation::converse(&mut core.kernel, socket, &mut **exchange)
            && let Some(exchange) = self.end_attempt(core, index)
        {
            self.finish(core, index, &exchange);
            self.schedule(core, index);
        }
    }

    /// Closes the socket of an attempt; returns its exchange.
    fn end_attempt(&mut self, core: &mut Core<K>, index: u32) -> Option<Box<AgentExchange>> {
        let entry = &mut self.entries[index as usize];
        let Attempt { socket, exchange, .. } = entry.attempt.take()?;
        self.queue.leave(entry.pace);
        entry.pace = conversation::pace_of(core.now - entry.started, entry.agent.timeout);
        if exchange.exchanged_data() {
            core.kernel.close(socket);
        } else {
            // A reset spares both sides the TIME_WAIT.
            core.kernel.reset(socket);
        }
        Some(exchange)
    }

    fn schedule(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &self.entries[index as usize];
        let delay = health::around(entry.agent.interval, JITTER_PERCENT, &mut core.rng);
        let mut when = (entry.started + delay).max(core.now);
        if let (Reported::Lost(_), Some(end)) = (&entry.reported, entry.advice_end())
            && end > core.now
        {
            // What it has said is cleared in time.
            when = when.min(end);
        }
        self.arm(core, index, when);
    }

    /// The words of one that waits behind others must not last longer for that, unless it has answered the last time.
    fn arm_end(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &self.entries[index as usize];
        if let (Reported::Lost(_), Some(end)) = (&entry.reported, entry.advice_end()) {
            self.arm(core, index, end.max(core.now));
        }
    }

    fn arm(&mut self, core: &mut Core<K>, index: u32, when: Instant) {
        let entry = &mut self.entries[index as usize];
        if let Some((timer, _)) = entry.timer.take() {
            core.wheel.cancel(timer);
        }
        entry.timer = Some((core.wheel.arm(when, Timer::Agent(index)), when));
    }

    /// Reports the result of an exchange, as far as it is news.
    fn finish(&mut self, core: &mut Core<K>, index: u32, exchange: &AgentExchange) {
        let entry = &mut self.entries[index as usize];
        match exchange.outcome() {
            None => {}
            Some(Ok(said)) => {
                entry.backend.stats.agent_answers.add(1);
                entry.on_line(core, said);
            }
            Some(Err(fault)) => {
                entry.backend.stats.agent_failures.add(1);
                entry.on_fault(core, fault);
            }
        }
    }
}

impl<K: Kernel> Entry<K> {
    fn on_line(&mut self, core: &Core<K>, said: &Said) {
        (self.answered_at, self.is_forgotten) = (core.now, false);
        let line = AgentLine {
            note: said.note.as_ref().map(ToString::to_string),
            mistake: said.mistake.as_ref().map(ToString::to_string),
        };
        // The control thread may not have read the last report: it puts the words together, not this one.
        let advice = self.unsent.followed_by(said.advice);
        let sent = self.sent.followed_by(advice);
        let known = self.backend.agent();
        let next = Reported::Line(line.clone());
        let is_news = sent != self.sent || known.followed_by(advice) != known || next != self.reported;
        if !is_news {
            self.unsent = Advice::NONE;
        } else if self.report(core, AgentNews::Said { advice, line }) {
            (self.reported, self.sent, self.unsent) = (next, sent, Advice::NONE);
        } else {
            self.unsent = advice;
        }
    }

    /// Reports a failed question. The advice stays, for a while or for ever, and checks continue.
    fn on_fault(&mut self, core: &Core<K>, fault: &AgentFault) {
        let is_news = !matches!(&self.reported, Reported::Lost(known) if known == fault);
        if is_news && self.report(core, AgentNews::Lost(fault.to_string())) {
            self.reported = Reported::Lost(fault.clone());
        }
        self.forget_if_silent(core);
    }

    /// Reports that its words have ended, if they have.
    fn forget_if_silent(&mut self, core: &Core<K>) {
        let is_over = self.advice_end().is_some_and(|end| end <= core.now);
        // The control thread may not have read it yet.
        let is_news = !self.is_forgotten && self.backend.agent() != Advice::NONE;
        // Repeated with the next failure, if it did not fit.
        if is_over && is_news && self.report(core, AgentNews::Forgotten) {
            (self.sent, self.unsent, self.is_forgotten) = (Advice::NONE, Advice::NONE, true);
        }
    }

    /// Returns when its words end, if it stays silent.
    fn advice_end(&self) -> Option<Instant> {
        match self.agent.on_lost {
            OnLost::Keep => None,
            OnLost::ClearAfter(after) => Some(self.answered_at + after),
        }
    }

    fn report(&self, core: &Core<K>, news: AgentNews) -> bool {
        core.reports.try_send(Report::Agent { backend: self.backend.id, news })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Admin;
    use crate::worker::test_worker::Bench;

    /// Most turns until something has happened.
    const TURNS_MAX: usize = 1_000;

    fn turn_until(bench: &mut Bench, is_meant: impl Fn(&AgentNews) -> bool) {
        for _ in 0..TURNS_MAX {
            let is_it = |report| matches!(report, Report::Agent { news, .. } if is_meant(&news));
            if bench.reports.try_iter().any(is_it) {
                return;
            }
            bench.worker.turn().unwrap();
            bench.worker.audit();
        }
        panic!("never");
    }

    /// Behind a thousand silent agents its words lasted for as long as the others took.
    #[test]
    fn the_words_of_a_silent_agent_end_in_time_also_while_others_are_asked() {
        let agent = "{ address = \"127.0.0.1\", port = 1, interval = \"20ms\", timeout = \"20ms\", \
                     on_lost = \"clear after 300ms\" }";
        let mut bench = Bench::new(&format!("agent = {agent}"));
        let drain = Advice { admin: Some(Admin::Drain), ..Advice::NONE };
        bench.worker.core.snapshot.backends().for_each(|backend| backend.set_agent(drain, false));
        turn_until(&mut bench, |news| matches!(news, AgentNews::Lost(_)));
        // No place is free, for ever.
        bench.worker.agents.queue.limit(0);
        turn_until(&mut bench, |news| matches!(news, AgentNews::Forgotten));
    }
}
