#!/usr/bin/env python3
"""Shows that the simulation finds what it is there for.

Each mutant is the code with one known mistake in it, of the kind that has hurt proxies before. The sweep has to fail on
each of them within --seeds seeds, or the unit test that it names; one that survives fails this script. The last one is the
code as it is and must survive, so that "caught" means something.

Usage: scripts/mutants.py [--seeds N] [--every N] [NAME...]

Each takes a build of half a minute: the gate tries every tenth that is not rare, a change to the data plane is tried by all.

Goal G14 of tests/CASES.md.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPIED = ["Cargo.toml", "Cargo.lock", "build.rs", "src", "tests", "config"]
SURVIVOR = "none"
SURVIVOR_SEEDS = 100


class Mutant(NamedTuple):
    name: str
    mistake: str
    file: str
    # What stands there once, and what the mistake makes of it.
    edits: list
    # The unit test that has to fail instead, where the simulation meets the mistake too seldom.
    unit_test: str = ""
    # Caught by one of thousands of seeds: too slow for the gate, and near its bound.
    is_rare: bool = False


MUTANTS = [
    Mutant(
        "any-eagain",
        "EAGAIN of a full sink clears the readiness of the source",
        "src/session/machine.rs",
        [
            (
                "Outcome::WouldBlock => self.endpoints[sink as usize].writable = false,",
                "Outcome::WouldBlock => self.endpoints.iter_mut().for_each(|e| (e.readable, e.writable) = (false, false)),",
            )
        ],
    ),
    Mutant(
        "early-fin",
        "FIN in front of bytes that the conduit still holds",
        "src/session/machine.rs",
        [
            (
                "                && self.endpoint(direction.sink()).writable\n",
                "                && (self.endpoint(direction.sink()).writable || self.endpoint(direction.source()).closing)\n",
            ),
            (
                "&& (half.held() == 0 || half.is_joinable())\n",
                "&& (half.held() == 0 || half.is_joinable() || self.endpoint(direction.source()).closing)\n",
            ),
            ("if half.held() > 0 {", "if half.held() > 0 && half.state != HalfState::Ending {"),
        ],
    ),
    Mutant(
        "lost-last-words",
        "a client that resets while its backend is dialed ends the session, whatever it has sent",
        "src/session/machine.rs",
        [("Some(kind) if outcome == Outcome::Unread => self.latch", "Some(kind) if outcome == Outcome::Eof => self.latch")],
    ),
    Mutant(
        "port-now-or-never",
        "a session that finds no source port is cut at once",
        "src/worker/relay/connect.rs",
        [("Some(&(_, address)) => Progress::Short(Shortage::Port(address)),", "Some(_) => Progress::Over(CloseReason::LocalLimit),")],
    ),
    Mutant(
        "port-starves-all",
        "accepting waits for a source port towards one backend",
        "src/worker/relay/connect.rs",
        [("Some(&(_, address)) => Progress::Short(Shortage::Port(address)),", "Some(_) => Progress::Short(Shortage::Resources),")],
    ),
    Mutant(
        "dirty-buffer",
        "a buffer goes back to the free list with bytes in it",
        "src/worker/relay/buffers.rs",
        [("            leftover.bytes.clear();\n", "")],
    ),
    Mutant(
        "dirty-pipe",
        "a pipe goes back to the free list with bytes in it",
        "src/worker/relay/conduit.rs",
        [("=> relay_buffers.pipes.destroy_lent(pipe, place),", "=> relay_buffers.pipes.take_back(pipe, place),")],
    ),
    Mutant(
        "eager-pipe",
        "a pipe that is denied is asked for again at once",
        "src/worker/relay/pipes.rs",
        [("self.denied_until = Some(now + DENIED_PAUSE);", "self.denied_until = Some(now);")],
    ),
    Mutant(
        "pinned-pipe",
        "a sink that has stalled keeps its pipe, whoever finds none",
        "src/worker/relay/stalled.rs",
        [("        for _ in 0..wanted {\n", "        for _ in 0..wanted.min(0) {\n")],
    ),
    Mutant(
        "young-pipe",
        "the pipe of the sink that took something last is looked at first",
        "src/worker/relay/lent.rs",
        [("self.entries.get(self.first.into())?", "self.entries.get(self.last.into())?")],
    ),
    Mutant(
        "leaked-pipe",
        "a pipe that is closed is still counted as open",
        "src/worker/relay/pipes.rs",
        [("        drop(pipe);\n        self.open -= 1;\n", "        drop(pipe);\n")],
    ),
    Mutant(
        "no-generation",
        "a key of a session that is gone finds the next one in its place",
        "src/base/slots.rs",
        [
            (
                "match self.slab.get_mut(key.index as usize) {\n            Some((generation, value)) if *generation == key.generation",
                "match self.slab.get_mut(key.index as usize) {\n            Some((generation, value)) if *generation != u32::MAX",
            )
        ],
    ),
    Mutant(
        "no-ready-queue",
        "a session that has used up its budget is forgotten",
        "src/worker/relay/drive.rs",
        [("                slot.queued = true;\n", ""), ("                    self.served.push(key);\n", "")],
    ),
    Mutant(
        "no-turn-budget",
        "only the clock bounds what a turn takes",
        "src/worker/budget.rs",
        [
            ("self.of_queue.is_used_up() || now.since", "now.since"),
            ("Some(Share::new(share.min(self.of_queue), true))", "Some(Share::new(share, true))"),
        ],
        unit_test="a_turn_moves_no_more_than_it_may_however_many_sessions_wait",
    ),
    Mutant(
        "late-expiry",
        "a session whose timer was due while it waited for its share is looked at in the next turn",
        "src/worker/relay/drive.rs",
        [("                self.expire(core, key);\n", "")],
        unit_test="a_session_whose_share_finds_nothing_expires_in_that_turn",
    ),
    Mutant(
        "two-shares",
        "a session that has had its share is served again in the same turn",
        "src/worker/relay/drive.rs",
        [("                    self.served.push(key);\n", "                    self.ready_queue.push_back(key);\n")],
    ),
    Mutant(
        "error-as-end",
        "the zero behind an error is taken for the end of the stream",
        "src/session/endpoint.rs",
        [("matches!(self.error, None | Some(ErrorKind::BrokenPipe))", "self.error.is_none() || self.readable || !self.readable")],
    ),
    Mutant(
        "early-timer",
        "a timer that fires early is not armed again",
        "src/worker/relay/drive.rs",
        [("Expiry::Early => self.arm(core, key),", "Expiry::Early => {}")],
    ),
    Mutant(
        "stale-timer",
        "timers that are due can no longer be cancelled",
        "src/worker/mod.rs",
        [
            (
                "while core.turn.take_timer()\n            && let Some(timer) = core.wheel.pop_due()\n        {",
                "for timer in std::iter::from_fn(|| core.wheel.pop_due()).collect::<Vec<_>>() {",
            )
        ],
    ),
    Mutant(
        "endless-gap",
        "after a stop of the process timers wait for a silence that need not come",
        "src/worker/stall_guard.rs",
        [("Some(until) if events == 0 || now >= until => {", "Some(until) if events == 0 && now >= until => {")],
    ),
    Mutant(
        "double-release",
        "a lease is released twice",
        "src/pool/backend.rs",
        [("pub fn release(self) {}", "pub fn release(self) {\n        self.backend.busy.active.fetch_sub(1, Ordering::Relaxed);\n    }")],
    ),
    Mutant(
        "short-read",
        "a short read is taken for an empty socket though its end was told",
        "src/worker/relay/conduit.rs",
        [("(source.hides_more && !is_full).then(|| kernel.read", "(source.hides_more && is_full && !is_full).then(|| kernel.read")],
    ),
    Mutant(
        "silent-listener",
        "accepting waits for an edge after EMFILE",
        "src/worker/listen/accept.rs",
        [("        if lacks_resources(error) {\n", "        if lacks_resources(error) {\n            listener.readable = false;\n")],
    ),
    Mutant(
        "long-queue",
        "each listener is accepted from as if it were the only one in its turn",
        "src/worker/mod.rs",
        [
            (
                "        for _ in 0..ACCEPTS_PER_TURN {\n",
                "        for _ in 0..ACCEPTS_PER_TURN as usize * self.acceptor.listeners().len() {\n",
            )
        ],
    ),
    Mutant(
        "deaf-listener",
        "a listener whose pause is over is not accepted from before something happens to it",
        "src/worker/listen/accept.rs",
        [("        self.watch_listener(core, index);\n        self.listeners.queue_if_ready(index);\n", "        self.watch_listener(core, index);\n")],
    ),
    Mutant(
        "lost-place",
        "an accept that fails keeps its place among the sessions",
        "src/worker/listen/accept.rs",
        [("            Err(error) => {\n                core.admission.leave(&slot.listener);\n", "            Err(error) => {\n")],
    ),
    Mutant(
        "early-connect",
        "an event that means nothing is taken for a connection",
        "src/worker/relay/connect.rs",
        [("            Dial::Pending => {}\n            Dial::Connected if", "            Dial::Connected if"), ("            Dial::Connected => {\n                self.on_dialed", "            Dial::Pending | Dial::Connected => {\n                self.on_dialed")],
    ),
    Mutant(
        "same-backend",
        "a retry goes to the backend that has just failed",
        "src/worker/relay/connect.rs",
        [("    failed.tried.push(backend.id);\n    failed.last.clone_from(backend);\n", "    failed.last.clone_from(backend);\n")],
    ),
    Mutant(
        "reset-as-close",
        "a session that is cut ends as if it were complete",
        "src/worker/relay/close.rs",
        [("CloseMode::Reset => kernel.reset(socket),", "CloseMode::Reset => kernel.close(socket),")],
    ),
    Mutant(
        "impatient-reset",
        "a reset does not wait for the bytes in front of it",
        "src/session/machine.rs",
        [("                Phase::Settling { side, since, poll: next }\n", "                _ = (side, since, next);\n                Phase::Over\n")],
    ),
    Mutant(
        "closed-queue",
        "a drain closes the listener in front of those who wait to be accepted",
        "src/worker/listen/listening.rs",
        [("            slot.stage = Stage::Closing { queue_left: slot.queue_max };", "            slot.stage = Stage::Closing { queue_left: 1 };")],
    ),
    Mutant(
        "leaked-check",
        "a check that ends is still counted as being in flight",
        "src/worker/probes/mod.rs",
        [("        self.queue.leave(entry.pace);\n", "")],
    ),
    Mutant(
        "impatient-idle",
        "activity does not put the idle timeout off",
        "src/session/deadlines.rs",
        [("self.last_activity + millis(self.timeouts.idle)", "self.held_up + millis(self.timeouts.idle)")],
    ),
    Mutant(
        "double-idle",
        "a reader that has stopped counts as one that took some at the first look",
        "src/session/machine.rs",
        [("self.last_activity = self.last_activity.max(now - quiet);", "let taken_at = if unacked > 0 && self.held_up < self.last_activity { now } else { now - quiet };\n            self.held_up = now;\n            self.last_activity = self.last_activity.max(taken_at);")],
    ),
    Mutant(
        "early-half-close",
        "what a peer takes of what was sent before does not put a timeout off",
        "src/session/machine.rs",
        [("self.last_activity = self.last_activity.max(now - quiet);", "self.last_activity = self.last_activity.max(now - quiet.max(now - self.last_activity));")],
    ),
    Mutant(
        "tier-order",
        "the tiers of a pool are asked from the last one on",
        "src/pool/tables.rs",
        [("            .into_iter()\n            .map(|priority| tier(TierKind::Priority(priority),", "            .into_iter()\n            .rev()\n            .map(|priority| tier(TierKind::Priority(priority),")],
    ),
    Mutant(
        "tier-skipped",
        "where a pool has more than two tiers, the first one is passed over",
        "src/pool/choose.rs",
        [("    for tier in &pool.tiers {\n", "    for tier in pool.tiers.iter().skip(usize::from(pool.tiers.len() > 2)) {\n")],
    ),
    Mutant(
        "maint-dialed",
        "a choice heeds neither drain nor maint",
        "src/pool/backend.rs",
        [("self.admin() == Admin::Ready && self.weight() > 0", "self.weight() > 0")],
    ),
    Mutant(
        "maint-checked",
        "checks go on in maintenance",
        "src/worker/probes/mod.rs",
        [("            return self.pause_probe(core, index);\n", "            self.deferral_log.take(core.now);\n")],
    ),
    Mutant(
        "orphan-check",
        "a check that is under way outlives the backend in its pool",
        "src/worker/probes/assignment.rs",
        [("                && snapshot.backend(entry.backend.id).is_some()\n", "                && (snapshot.backend(entry.backend.id).is_some() || entry.attempt.is_some())\n")],
    ),
    Mutant(
        "reused-place",
        "an event of a check that is over reaches the next in its place",
        "src/worker/probes/mod.rs",
        [("attempt.filter(|attempt| attempt.generation == key.generation)", "attempt.filter(|attempt| attempt.generation != u32::MAX)")],
    ),
    Mutant(
        "same-id",
        "a new backend takes the id of one that was removed",
        "src/pool/snapshot.rs",
        [("        let mut next = Self { epoch: self.epoch + 1, ..self.clone() };\n", "        let mut next = Self { epoch: self.epoch + 1, ..self.clone() };\n        next.next.backends = BackendIds(self.backends.last().map_or(0, |last| last.id.0 + 1));\n")],
    ),
    Mutant(
        "counted-twice",
        "bytes that were counted while the session lasts are counted again at its end",
        "src/session/half.rs",
        [("std::mem::replace(&mut self.counted, self.flushed)", "self.counted")],
    ),
    Mutant(
        "counted-once",
        "a session that was on the list of those to be counted never comes back to it",
        "src/worker/relay/byte_accounting.rs",
        [("                slot.counting = Counting::Lasting;\n", "")],
    ),
    Mutant(
        "lasts-unseen",
        "a session that lasts is counted at its end only",
        "src/worker/relay/byte_accounting.rs",
        [("Counting::Young => self.session.age(now) >= COUNT_PERIOD,", "Counting::Young => false,"), ("        if self.counting == Counting::Young {\n            self.counting = Counting::Lasting;\n        }\n", "")],
    ),
    Mutant(
        "adopted-twice",
        "a session that was handed over is counted by both workers",
        "src/worker/listen/accept.rs",
        [("        core.stats.adopted.add(1);\n", "        core.stats.adopted.add(1);\n        core.dispatcher.keep();\n")],
    ),
    Mutant(
        "place-given-back",
        "the place of a session does not go with it to the other worker",
        "src/worker/listen/accept.rs",
        [
            ("            let snapshot = Arc::clone(", "            let left = Arc::clone(&listener);\n            let snapshot = Arc::clone("),
            ("                    core.stats.handed_over.add(1);\n", "                    core.stats.handed_over.add(1);\n                    core.admission.leave(&left);\n"),
        ],
    ),
    Mutant(
        "retired-lost",
        "a pool that was removed is not found by the sessions that still need it",
        "src/pool/snapshot.rs",
        [("        next.retired.retain(|pool| held.contains(&pool.id));\n", "        next.retired.retain(|pool| held.is_empty() && held.contains(&pool.id));\n")],
    ),
    Mutant(
        "epoch-not-taken",
        "a session that was handed over meets a worker that does not know its pool yet",
        "src/worker/mod.rs",
        [("            self.run_epoch(snapshot);\n", "            drop(snapshot);\n")],
        is_rare=True,
    ),
    Mutant(
        "epoch-backwards",
        "who hands a session over takes the other worker back to an older epoch",
        "src/worker/commands.rs",
        [("        if snapshot.epoch <= self.core.snapshot.epoch {\n            return;\n        }\n", "")],
    ),
    Mutant(
        "gauge-per-version",
        "the sessions of an older version of a listener are not counted",
        "src/pool/listener.rs",
        [("(Arc::clone(&self.gauge), Arc::clone(&self.opening)", "(Arc::default(), Arc::clone(&self.opening)")],
    ),
    Mutant(
        "cut-short",
        "the first session on a removed backend stays",
        "src/worker/relay/mod.rs",
        [("self.sessions.keys().filter(is_on_it).collect", "self.sessions.keys().filter(is_on_it).skip(1).collect")],
    ),
    Mutant(
        "checks-as-before",
        "a backend is checked on as it was before its pool has said otherwise",
        "src/worker/probes/assignment.rs",
        [("                && entry.is_checked_by(&snapshot, special.get(&entry.backend.id).copied().unwrap_or_default())\n", "")],
    ),
    Mutant(
        "blind-sweep",
        "a session whose event was lost is found and left as it is",
        "src/worker/relay/lost_wakeups.rs",
        [("            slot.session.on_ready(side, ready);\n", "")],
    ),
    Mutant(
        "hasty-sweep",
        "a session that has something to read is taken for one that was forgotten, though its event is to come",
        "src/worker/relay/lost_wakeups.rs",
        [("state.readable && awaited.readable\n", "state.readable\n")],
    ),
    Mutant(
        "deaf-sweep",
        "a session whose end or death was lost is not found",
        "src/worker/relay/lost_wakeups.rs",
        [("if awaited.is_some_and(|awaited| meets(state, awaited)) {", "if awaited.is_some_and(|awaited| meets(state, awaited) && !state.closing) {")],
    ),
    Mutant(
        "false-pause",
        "accepting is paused for want of a place though nobody waits for one",
        "src/worker/listen/accept.rs",
        [("core.admission.is_scarce(&slot.listener) && !core.kernel", "core.admission.is_scarce(&slot.listener) && slot.listener.sessions_max() == 0 && !core.kernel")],
    ),
    Mutant(
        "overridden-verdict",
        "checks are judged by the word of an operator, so that each that contradicts it is a change again",
        "src/worker/probes/mod.rs",
        [("        verdict.adopt(entry.backend.checked_health());\n", "        verdict.adopt(entry.backend.health());\n")],
    ),
    Mutant(
        "crowded-checks",
        "silent backends may hold all the places that checks have",
        "src/worker/probes/queue.rs",
        [("(self.places / SLOW_SHARE).max(1)", "self.places")],
    ),
    Mutant(
        "idle-places",
        "a check waits for the next turn though a place is free",
        "src/worker/probes/mod.rs",
        [("while core.turn.take_check()\n            && let Some(index) = self.queue.pop()\n        {", "if let Some(index) = self.queue.pop() {")],
    ),
    Mutant(
        "rude-check",
        "a check whose result is known says no farewell",
        "src/health/probe.rs",
        [("if self.unsent().is_empty() || self.broken.is_some() {", "if true {")],
        unit_test="a_farewell_is_sent_behind_the_result",
    ),
    Mutant(
        "lost-answer",
        "a step of a script does not find what has arrived before it began",
        "src/health/protocols/script.rs",
        [("drop(inbox.take(end));", "drop(inbox.take(inbox.bytes().len()));")],
        unit_test="a_step_does_not_find_what_the_step_before_has_found",
    ),
    Mutant(
        "undone-drain",
        "an agent that says ready undoes the drain of an operator",
        "src/pool/backend.rs",
        [("self.agent().admin.map_or(operator, |agent| agent.max(operator))", "self.agent().admin.unwrap_or(operator)")],
    ),
    Mutant(
        "overridden-check",
        "an agent that says up is over a failed check",
        "src/pool/backend.rs",
        [("(HealthState::Unknown, Some(HealthState::Up)) if is_alone => HealthState::Up,", "(HealthState::Unknown, Some(HealthState::Up)) if is_alone || self.weight.load(Ordering::Relaxed) < 512 => HealthState::Up,")],
    ),
    Mutant(
        "undone-weight",
        "an agent sets another weight in place of the one that an operator has set",
        "src/pool/backend.rs",
        [("Some(AgentWeight::Absolute(_)) if is_held => plain,", "Some(AgentWeight::Absolute(_)) if is_held && plain > 256 => plain,")],
    ),
    Mutant(
        "stale-words",
        "words are put together with those that the backend has, of which some are still on their way to it",
        "src/worker/agents/mod.rs",
        [("let advice = self.unsent.followed_by(said.advice);", "let advice = self.backend.agent().followed_by(said.advice);")],
    ),
    Mutant(
        "half-a-line",
        "a line that has not ended counts",
        "src/health/agent/answer.rs",
        [("            Framing::Body { start, end: None } => Ok(Said::parse(&self.bytes[start..])),\n            Framing::Bare | Framing::Headers", "            Framing::Body { start, end: None } => Ok(Said::parse(&self.bytes[start..])),\n            Framing::Bare => Ok(Said::parse(&self.bytes)),\n            Framing::Headers")],
        unit_test="health::agent",
    ),
    Mutant(
        "orphan-agent",
        "an agent is asked on that belongs to a backend of another worker",
        "src/worker/agents/assignment.rs",
        [("            self.is_mine(&entry.backend)\n                && snapshot", "            snapshot")],
    ),
    Mutant(
        "leaked-exchange",
        "an exchange that ends is still counted as being in flight",
        "src/worker/agents/mod.rs",
        [("        self.queue.leave(entry.pace);\n", "")],
    ),
    Mutant(
        "empty-believed",
        "a pool is emptied by the first answer by which there is no backend",
        "src/control/discovery/belief.rs",
        [("if count >= self.settings.negatives && now - since >= NEGATIVE_SPAN {", "if count >= 1 && now >= since {")],
        "control::discovery::belief::tests::two_negative_answers_and_a_good_one_change_nothing",
    ),
    Mutant(
        "missing-once",
        "a backend goes with the first answer that lacks it",
        "src/control/discovery/belief.rs",
        [("self.keep_only(|known| known.missed <= obsolete);", "self.keep_only(|known| known.missed <= obsolete.min(0));")],
        "control::discovery::belief::tests::a_backend_goes_with_the_second_answer_in_a_row_that_lacks_it",
    ),
    Mutant(
        "missing-long-ago",
        "answers that lack a backend add up, though others between them have it",
        "src/control/discovery/belief.rs",
        [("order: order_of(&found.address), found, missed: 0 };\n                }\n", "order: order_of(&found.address), found, missed: known.missed };\n                }\n")],
        "control::discovery::belief::properties::no_answer_takes_more_away_than_it_may",
    ),
    Mutant(
        "failure-forgets",
        "a failure takes away what was known",
        "src/control/discovery/belief.rs",
        [("                    None => wait,\n", "                    None => {\n                        self.keep_only(|_| false);\n                        wait\n                    }\n")],
        "control::discovery::belief::tests::servfail_for_an_hour_removes_nothing_and_is_retried_less_and_less_often",
    ),
    Mutant(
        "fewer-than-min",
        "an answer leaves fewer backends than min_backends",
        "src/control/discovery/belief.rs",
        [("self.settings.min_backends.saturating_sub(wanted);", "self.settings.min_backends.saturating_sub(wanted).min(0);")],
        "control::discovery::belief::tests::nothing_leaves_fewer_than_min_backends",
    ),
    Mutant(
        "stale-for-ever",
        "what is stale stays",
        "src/control/discovery/belief.rs",
        [(".map(|stale| stale.saturating_sub", ".filter(|_| false).map(|stale| stale.saturating_sub")],
        "control::discovery::belief::tests::a_stale_source_empties_its_pool_where_that_is_configured",
    ),
    Mutant(
        "known-by-place",
        "a backend of a list is known by its place there",
        "src/control/membership/discovered.rs",
        [("let Some(found) = listed[place].get(&key) else {", "let Some(found) = lists[place].list.get(stays[place].len()).filter(|found| found.name == backend.name) else {")],
    ),
    Mutant(
        "new-with-each-list",
        "a list makes all backends of the pool anew: without their health, their counters and their sessions",
        "src/control/membership/discovered.rs",
        [("self.control.snapshot.with_backends_back(pool.id, &backends, &back)", "self.control.snapshot.with_backends(pool.id, &[]).with_backends_back(pool.id, &backends, &back)")],
    ),
    Mutant(
        "removed-and-ready",
        "a backend that has left its pool gets sessions of workers that run an older epoch",
        "src/control/membership/drain.rs",
        [("                backend.set_admin(Admin::Drain);\n            }\n            let pool = ", "            }\n            let pool = ")],
    ),
    Mutant(
        "replaced-and-refused",
        "a client is refused while the backends of its pool are replaced, because those that leave are drained first",
        "src/worker/relay/connect.rs",
        [("if may_try && may_await(slot, &core.snapshot) && pool.serves() =>", "if !may_try && may_await(slot, &core.snapshot) && pool.serves() =>")],
        unit_test="a_client_that_comes_while_a_list_is_replaced_waits_for_the_new_one",
    ),
    Mutant(
        "waits-for-nothing",
        "a client of a pool without backends waits as long as anything changes",
        "src/worker/relay/connect.rs",
        [("if may_try && may_await(slot, &core.snapshot) && pool.serves() =>", "if may_try && may_await(slot, &core.snapshot) =>")],
        unit_test="a_client_of_a_pool_without_backends_is_refused_though_an_epoch_is_announced",
    ),
    Mutant(
        "waits-again",
        "a client whose dials have failed waits for every epoch that is announced",
        "src/worker/relay/connect.rs",
        [("snapshot.epoch < *failed.awaited.get_or_insert(announced)", "snapshot.epoch < *failed.awaited.insert(announced)")],
        unit_test="a_client_whose_dials_have_failed_waits_for_one_epoch",
    ),
    Mutant(
        "first-waits-all-wait",
        "a client that waits on for tables holds up all that wait behind it",
        "src/worker/relay/waiting.rs",
        [("Shortage::Tables => self.untried == 0,", "Shortage::Tables => is_back,")],
        unit_test="each_session_that_waits_for_tables_is_tried_once_though_others_wait_on",
    ),
    Mutant(
        "gives-way-anew",
        "a backend whose placed address the file takes is a new one, ready again though an operator had drained it",
        "src/control/reload.rs",
        [("            self.give_way(&giving_way, &merged);\n", "            drop(giving_way);\n")],
        unit_test="a_backend_that_gives_way_keeps_what_operators_have_set_of_it",
    ),
    Mutant(
        "first-answer-asked-again",
        "a reload asks a source again that has given its first answer to the one before",
        "src/control/discovery/follow.rs",
        [("|row| _ = row.answered.get_or_insert(now)", "|_| ()")],
        unit_test="a_first_answer_is_one",
    ),
    Mutant(
        "pause-behind-a-file",
        "a pause of a listener waits for a file that a reload reads",
        "src/control/reload.rs",
        [("while self.reload_queue.opening.is_none() {", "while self.reload_queue.opening.is_none() && self.reload_queue.loading.is_none() {")],
        unit_test="a_pause_waits_for_no_file",
    ),
    Mutant(
        "source-over-operator",
        "each list undoes the weight that an operator has set",
        "src/control/membership/discovered.rs",
        [("            weight: kept.weight_over(found.weight),\n", "            weight: kept.weight_over(found.weight).clamp(found.weight, found.weight),\n")],
    ),
    Mutant(
        "drain-forgotten",
        "a backend in drain that a source lists again gets sessions",
        "src/control/membership/discovered.rs",
        [("                overrides.put_on(backend);\n                recalled.insert", "                let _ = overrides;\n                recalled.insert")],
    ),
    Mutant(
        "last-source-only",
        "what one source lists no more leaves, though another one lists it",
        "src/control/discovery/lists.rs",
        [("            if self.put(&pool, &lists) {\n", "            if self.put(&pool, &lists) && pool.is_empty() {\n")],
    ),
    Mutant(
        "file-over-source",
        "what the file lists no more leaves for a moment, though a source lists it",
        "src/control/membership/discovered.rs",
        [("filter(|(_, found)| found.name == backend.name);\n                if let", "filter(|(_, found)| found.name == backend.name && believed.is_empty());\n                if let")],
    ),
    Mutant(
        "hello-over-records",
        "a hello that is cut by a record is read across the head of the next one",
        "src/preread/client_hello.rs",
        [("        let piece = &there[..len.min(self.left).min(there.len())];", "        let piece = &there[..len.min(self.left.max(2)).min(there.len())];"), ("        self.left -= piece.len();", "        self.left = self.left.saturating_sub(piece.len());")],
        unit_test="preread::tests::client_hello",
    ),
    Mutant(
        "hello-over-read",
        "what follows an extension is read as if it were part of it",
        "src/preread/client_hello.rs",
        [("        self.left = self.left.checked_sub(len).ok_or(HelloFault::Length)?;\n        let mut missing", "        self.left = self.left.saturating_sub(len);\n        let mut missing")],
        unit_test="preread::tests::client_hello",
    ),
    Mutant(
        "hello-without-end",
        "the heads of its records do not count towards the length of a hello",
        "src/preread/client_hello.rs",
        [("        if self.at >= HELLO_MAX {", "        if self.at >= 7 * HELLO_MAX {"), ("        if self.at + RECORD_HEAD >= HELLO_MAX {", "        if self.at + RECORD_HEAD >= 7 * HELLO_MAX {"), ("self.bytes[self.at..self.bytes.len().min(HELLO_MAX)]", "self.bytes[self.at..self.bytes.len().min(7 * HELLO_MAX)]")],
        unit_test="preread::tests::client_hello",
    ),
    Mutant(
        "request-of-any-length",
        "a request of PostgreSQL for TLS may have any length",
        "src/preread/postgres.rs",
        [("(Opening::SslRequest, 8..=8, REQUEST_LEN)", "(Opening::SslRequest, 8..=STARTUP_MAX, REQUEST_LEN)")],
        unit_test="preread::tests::postgres",
    ),
    Mutant(
        "shortest-suffix",
        "the route of a shorter suffix goes before that of a longer one",
        "src/preread/routes.rs",
        [("        let mut behind = name.match_indices('.').map(", "        let mut behind = name.rmatch_indices('.').map(")],
        unit_test="preread::tests::routes",
    ),
    Mutant(
        "preread-payload",
        "what came with a header is taken with it",
        "src/worker/relay/opening.rs",
        [("take(kernel, look.socket, &mut room[..len])", "take(kernel, look.socket, &mut room[..HEADER_MAX])")],
    ),
    Mutant(
        "preread-whole",
        "a header that comes in pieces is refused",
        "src/worker/relay/look.rs",
        [("Progress::More(_) => Err(Outcome::WouldBlock),", "Progress::More(_) => Err(Outcome::Refused(CloseReason::ProxyBad)),")],
    ),
    Mutant(
        "preread-false-end",
        "the hint of an event is taken for the end of a client that has sent a part of its header",
        "src/worker/relay/look.rs",
        [("self.may_end && kernel.has_ended(self.socket)", "self.may_end")],
    ),
    Mutant(
        "preread-last-look",
        "a client whose event was lost is reset, though its header is there",
        "src/session/deadlines.rs",
        [("self.phase = Phase::Opening { until, is_late: true, lacks_room: false };", "let _ = until;\n                self.cut(CloseReason::PrereadTimeout);")],
    ),
    Mutant(
        "preread-last-header",
        "a client that resets behind its header is gone, whatever it has sent",
        "src/session/machine.rs",
        [("self.endpoints[side as usize].readable |= self.is_opening();", "if self.is_opening() { self.cut(CloseReason::ClientGone); }")],
        unit_test="session::tests::opening::a_client_that_leaves_within_its_header_is_gone",
    ),
    Mutant(
        "preread-peer",
        "the balancer in front is taken for the client",
        "src/worker/relay/slot.rs",
        [("Some(Header::Client(addresses)) => addresses.source,", "Some(Header::Client(_)) => self.origin.peer(),")],
    ),
    Mutant(
        "preread-strangers",
        "whoever is no balancer in front is served",
        "src/worker/listen/listener_slot.rs",
        [("proxy.welcome(peer) == Welcome::Reject", "proxy.welcome(peer) == Welcome::Reject && peer.is_loopback()")],
    ),
    Mutant(
        "access-wider",
        "the widest network that has an address decides, not the longest",
        "src/admission/prefixes.rs",
        [
            (
                "ranges.begin(network.first, Some(network.name));",
                "ranges.begin(network.first, Some(around.first().map_or(network.name, |outer| outer.name)));",
            )
        ],
        unit_test="admission::access::tests::the_longest_network_decides_and_of_equal_ones_the_denied",
    ),
    Mutant(
        "access-unread",
        "the lists of a listener are not looked at",
        "src/worker/listen/listener_slot.rs",
        [("!access.admits(peer)", "!access.admits(peer) && peer.is_loopback()")],
    ),
    Mutant(
        "access-equal",
        "of two equal networks the allowed decides",
        "src/admission/access.rs",
        [("[of(Rule::Deny, &deny), of(Rule::Allow, &allow)].concat()", "[of(Rule::Allow, &allow), of(Rule::Deny, &deny)].concat()")],
        unit_test="admission::access::tests::the_longest_network_decides_and_of_equal_ones_the_denied",
    ),
    Mutant(
        "stale-program",
        "the answer of a program counts for the next check of that place, whatever its settings",
        "src/worker/probes/external.rs",
        [
            (
                "if entry.awaited.as_ref().is_none_or(|awaited| awaited.generation != key.generation) {",
                "if entry.awaited.is_none() {",
            )
        ],
        # The simulation has the law too, and meets this mistake too seldom.
        unit_test="an_answer_to_an_earlier_order_is_no_answer_to_this_one",
    ),
    Mutant(
        "hello-taken",
        "a hello is taken from the stream of its client",
        "src/worker/relay/opening.rs",
        [("        Ok(Progress::Done(hello, _)) => {\n", "        Ok(Progress::Done(hello, len)) => {\n            let _ = take(kernel, look.socket, &mut room[..len]);\n")],
    ),
    Mutant(
        "hello-without-patience",
        "a silent client is never served, though its listener has a pool for it",
        "src/worker/relay/opening.rs",
        [("    let is_silent = look.is_late && outcome", "    let is_silent = look.is_late && on_no_sni == OnNoSni::Reject && outcome")],
    ),
    Mutant(
        "preread-reset-as-end",
        "a client that resets within its hello is served like one that ends its stream there",
        "src/worker/relay/look.rs",
        [("self.died_of.or_else(error).map_or(Outcome::Eof, Outcome::Failed)", "self.died_of.or_else(error).map_or(Outcome::Eof, |_| Outcome::Eof)")],
    ),
    Mutant(
        "preread-uncounted",
        "a client that has sent its hello keeps its place among those that have not",
        "src/worker/relay/drive.rs",
        [("            core.admission.leave_opening(&slot.listener);", "            if slot.session.end().is_some() { core.admission.leave_opening(&slot.listener); }")],
    ),
    Mutant(
        "postgres-unasked",
        "a backend gets the hello without being asked for TLS",
        "src/worker/relay/connect.rs",
        [("            Dial::Connected if asks_for_tls => self.ask_for_tls(core, key),\n", "            Dial::Connected if asks_for_tls && key.index == u32::MAX => self.ask_for_tls(core, key),\n")],
    ),
    Mutant(
        "postgres-any-answer",
        "a backend that refuses TLS gets the hello",
        "src/worker/relay/postgres.rs",
        [("if answer[..bytes] == [GRANTED] {", "if bytes == 1 {")],
    ),
    Mutant(
        "postgres-stuffed",
        "what is stuffed behind the answer to a request is lost",
        "src/worker/relay/postgres.rs",
        [("if answer[..bytes] == [GRANTED] {", "if answer[0] == GRANTED {")],
    ),
    Mutant(
        "postgres-once",
        "a request that is written in pieces loses the rest",
        "src/worker/relay/postgres.rs",
        [("                request.written += bytes;", "                request.written += bytes.max(request.bytes.len() - request.header);")],
    ),
    Mutant(
        "postgres-request-kept",
        "a request that was answered is relayed, too",
        "src/worker/relay/encryption.rs",
        [("        if let Err(error) = take(kernel, look.socket, room) {", "        if let Err(error) = take(kernel, look.socket, &mut room[..1]) {")],
    ),
    Mutant(
        "postgres-no-room",
        "a client without room for an answer is never answered",
        "src/session/machine.rs",
        [("&& (!lacks_room || self.endpoint(Side::Client).writable)", "&& !lacks_room")],
        unit_test="session::tests::opening",
    ),
    Mutant(SURVIVOR, "nothing is wrong", "src/lib.rs", []),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10_000, help="seeds in which each has to be caught")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th mutant that is not rare, and the one that survives")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these mutants")
    args = parser.parse_args()
    known = {mutant.name: mutant for mutant in MUTANTS}
    unknown = [name for name in args.names if name not in known]
    if unknown:
        sys.exit(f"mutants.py: no mutant is called {' or '.join(unknown)}; there are: {' '.join(known)}")
    chosen = [known[name] for name in args.names] or chosen_of_every(args.every)
    wrong = 0
    rows = []
    with tempfile.TemporaryDirectory(prefix="l4lb-mutants.") as work:
        tree = pathlib.Path(work) / "tree"
        copy_tree(tree)
        for place, mutant in enumerate(chosen, 1):
            began = time.monotonic()
            caught, what = judge(mutant, tree, args.seeds)
            is_right = (caught is None) == (mutant.name == SURVIVOR)
            wrong += not is_right
            verdict = caught or "never"
            rows.append(f"| {mutant.name} | {mutant.mistake} | {verdict}{'' if is_right else ' (WRONG)'} | {what} |")
            print(f"{place}/{len(chosen)} {mutant.name}: {verdict}, {time.monotonic() - began:.0f} s", flush=True)
    print("\n| mutant | mistake | seeds until caught | by |\n|---|---|---|---|")
    print("\n".join(rows))
    sys.exit(f"mutants.py: {wrong} of {len(chosen)} are not as they should be" if wrong else 0)


def chosen_of_every(every):
    """Every `every`-th mutant that is not rare, and the one that survives; with 1, all."""
    if every <= 1:
        return MUTANTS
    return [mutant for mutant in MUTANTS[:-1] if not mutant.is_rare][::every] + MUTANTS[-1:]


def judge(mutant, tree, seeds):
    """What catches the mutant, the number of seeds or "a test", or None; and how it fails."""
    for old, new in mutant.edits:
        edit(tree / mutant.file, old, new)
    caught, what = run_unit_test(mutant, tree) if mutant.unit_test else sweep(mutant, tree, seeds)
    # Written, not copied: cargo compiles again what is newer than what it has compiled.
    (tree / mutant.file).write_text((ROOT / mutant.file).read_text())
    return caught, what


def run_unit_test(mutant, tree):
    status, output = run_tests(mutant, tree, ["--lib", mutant.unit_test])
    if status == 0 and "1 passed" in output:
        return None, "-"
    panic = re.search(r"^thread .* panicked at .*\n(.*)", output, re.MULTILINE)
    if not panic:
        sys.exit(f"mutants.py: {mutant.name}: the test broke:\n{output[-2000:]}")
    return "a test", panic[1][:80].replace("|", "/")


def sweep(mutant, tree, seeds):
    # The code as it is has been swept already; a few seeds show that this script runs it.
    seeds = seeds if mutant.name != SURVIVOR else SURVIVOR_SEEDS
    status, output = run_tests(mutant, tree, ["--test", "sim", "a_sweep_over_seeds"], SIM_SEEDS=str(seeds))
    failed = re.search(r"^seed (\d+) failed in step \d+: (.*)", output, re.MULTILINE)
    if failed:
        what = failed[2].removeprefix("assertion `left == right` failed: ")
        return str(int(failed[1]) + 1), what[:80].replace("|", "/")
    if status != 0 and "never reached" not in output:
        sys.exit(f"mutants.py: {mutant.name}: the sweep broke:\n{output[-2000:]}")
    return None, "-"


def run_tests(mutant, tree, which, **variables):
    """Builds the mutant and runs `which` of its tests. Returns the exit code and what they printed."""
    environment = {
        **os.environ,
        **variables,
        "CARGO_TARGET_DIR": str(ROOT / "target" / "mutants"),
        "RUST_BACKTRACE": "0",
        # Less to compile and to link, over and over.
        "CARGO_PROFILE_DEV_DEBUG": "false",
    }
    command = ["cargo", "test", "--locked", "--quiet", *which]
    built = subprocess.run([*command, "--no-run"], cwd=tree, env=environment, capture_output=True, text=True)
    if built.returncode != 0:
        sys.exit(f"mutants.py: {mutant.name} does not compile:\n{built.stderr}")
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


def copy_tree(tree):
    tree.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, copy_function=shutil.copy)
        else:
            shutil.copy(source, tree / name)


def edit(file, old, new):
    text = file.read_text()
    if text.count(old) != 1:
        sys.exit(f"mutants.py: {file.name} has {text.count(old)} times, not once: {old}")
    file.write_text(text.replace(old, new))


if __name__ == "__main__":
    main()
