//! Listeners that operators pause. The sockets of one are closed as those of a removed listener are: what is in its
//! queue is served, new clients are refused, its sessions live on. It stays in the configuration, and a reload leaves
//! it paused; a new process listens.

use std::collections::HashSet;
use std::sync::Arc;

use crate::api::EventKind;
use crate::base::nearest::did_you_mean;
use crate::config::model::OwnSocket;
use crate::config::{self, Config};
use crate::control::audit;
use crate::control::control_loop::{ControlLoop, ControlStage};
use crate::control::events::Draft;
use crate::control::status::{ControlState, Pause};
use crate::messages::reload::{Answer, Listening, Mode, Refused, ReloadRequest, Source};
use crate::messages::request::{Done, Refusal, Reply};
use crate::pool::PoolId;
use crate::sys::{INPUTS, timestamp};

impl ControlLoop {
    /// Pauses a listener, or makes it listen again; answers once that is so. It waits for no file that a reload reads,
    /// and for the sockets that one opens.
    pub(super) fn change_listening(&mut self, wanted: Listening, who: String, reply: Reply<()>) {
        if let Err(refusal) = self.refuse_listening(&wanted) {
            return self.answer(move || _ = reply.send(Err(refusal)));
        }
        let answer: Answer = Box::new(move |result| {
            let done = Done { result: (), not_saved: None };
            let answer = result
                .map(|_| done)
                .map_err(|Refused { errors, .. }| Refusal::Unavailable(errors.join("; ")));
            // The client may have gone.
            let _gone = reply.send(answer);
        });
        self.on_reload_request(ReloadRequest {
            who,
            source: None,
            mode: Mode::Listeners,
            answer: Some(answer),
            listening: Some(wanted),
        });
    }

    /// Returns the sockets on which the process accepts, and those that paused listeners will have again: no backend
    /// may be one of them.
    pub(super) fn own_sockets(&self) -> Vec<OwnSocket> {
        // Before the state is locked: it may wait for sockets that are being opened.
        let open = self.control.site.addresses();
        let state = self.control.view.state();
        let listeners = state.snapshot.listeners.iter().map(|listener| &listener.settings);
        let paused = listeners.filter(|listener| state.pauses.contains_key(&listener.name));
        let paused = paused.map(|listener| listener.bind);
        let listeners = open.into_iter().chain(paused).map(OwnSocket::Listener);
        listeners.chain(self.control.admin_sockets.iter().copied()).collect()
    }

    fn refuse_listening(&self, wanted: &Listening) -> Result<(), Refusal> {
        let listeners = &self.control.snapshot.listeners;
        let mut known = listeners.iter().map(|listener| listener.settings.name.as_str());
        let name = wanted.listener.as_str();
        if !known.clone().any(|known| known == name) {
            let hint = did_you_mean(name, &mut known);
            return Err(Refusal::NotFound(format!("there is no listener {name:?}{hint}")));
        }
        if self.stage != ControlStage::Serving {
            return Err(Refusal::Unavailable(format!("listener {name:?}: the process is draining")));
        }
        Ok(())
    }

    /// Returns the names of the listeners that pause, after the change of `listening`.
    pub(super) fn pausing_after(&self, listening: Option<&Listening>) -> HashSet<String> {
        let mut names: HashSet<String> = self.control.view.state().pauses.keys().cloned().collect();
        match listening {
            Some(Listening { listener, is_paused: true }) => _ = names.insert(listener.clone()),
            Some(Listening { listener, is_paused: false }) => _ = names.remove(listener),
            None => {}
        }
        names
    }

    /// Returns what reads the configuration that runs, with the files of its lists of networks as they are now.
    pub(super) fn lists_source(&self) -> Source {
        let running = Arc::clone(&self.control.config);
        Arc::new(move |_| {
            let read = config::read_lists_again(&running, INPUTS);
            read.map_err(|errors| errors.iter().map(ToString::to_string).collect())
        })
    }

    /// Records that the sockets are as `listening` wants them.
    pub(super) fn note_listening(&self, Listening { listener, is_paused }: Listening, who: &str) {
        let what = if is_paused { "paused" } else { "resumed" };
        let mut state = self.control.view.state();
        let is_change = if is_paused {
            let pause = || Pause { by: who.to_owned(), since: timestamp() };
            let is_new = !state.pauses.contains_key(&listener);
            state.pauses.entry(listener.clone()).or_insert_with(pause);
            is_new
        } else {
            state.pauses.remove(&listener).is_some()
        };
        drop(state);
        if !is_change {
            return;
        }
        let fields = [("listener", listener.as_str().into()), ("who", who.into())];
        audit::write(format_args!("listener {what}"), &fields);
        let message = format!("listener {listener:?} {what}");
        self.control.view.events.push(Draft::new(EventKind::Process, message).who(who));
    }

    /// Forgets the pauses of listeners that the configuration no longer has.
    pub(super) fn forget_pauses(&self) {
        let names = self.control.snapshot.listeners.iter().map(|listener| listener.settings.name.as_str());
        let names: HashSet<&str> = names.collect();
        self.control.view.state().pauses.retain(|name, _| names.contains(name.as_str()));
    }
}

/// Returns `config` with the listeners that have sockets alone.
pub(super) fn with_sockets(config: &Config, pausing: &HashSet<String>) -> Config {
    let mut config = config.clone();
    config.listeners.retain(|listener| !pausing.contains(&listener.name));
    config
}

/// Returns the names of the listeners that pause, if all do; of those of one pool, if it is given.
pub(super) fn all_paused(state: &ControlState, pool: Option<PoolId>) -> Option<String> {
    let listeners = state.snapshot.listeners.iter();
    let names: Vec<&str> = listeners
        .filter(|listener| pool.is_none_or(|pool| listener.pools().any(|served| served == pool)))
        .map(|listener| listener.settings.name.as_str())
        .collect();
    let all = !names.is_empty() && names.iter().all(|name| state.pauses.contains_key(*name));
    all.then(|| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "))
}
