//! Checks by a program: they have no socket here. The order goes to the control side, the answer comes into the
//! mailbox, and from there on it is a result like any other.

use std::io;
use std::time::Duration;

use super::conversation::pace_of;
use super::judgement::judge;
use super::{Awaited, Probes};
use crate::base::slots::Key;
use crate::config::model::{Check, OneCheck};
use crate::health;
use crate::messages::command::Command;
use crate::messages::external::{self, Order, Ran};
use crate::messages::report::Report;
use crate::sys::Kernel;
use crate::worker::core::Core;

impl<K: Kernel> Probes<K> {
    /// Orders the check that is due, if it is a program; returns whether it is.
    pub(super) fn order_program(&mut self, core: &mut Core<K>, key: Key) -> bool {
        let entry = &mut self.entries[key.index as usize];
        let due = entry.pool.health.checks().nth(entry.turn);
        let Some(OneCheck { check: Check::Command(command), port, .. }) = due else { return false };
        let target = health::target(port, &entry.by.own, &entry.backend.address);
        let variables = external::variables(&entry.pool.name, &entry.backend.name, &target);
        let mailbox = core.mailboxes.get(core.index).cloned();
        let reply = move |ran, took| {
            // Without room for the answer the ticket is void, which the worker finds out.
            let _posted = mailbox.is_some_and(|mailbox| mailbox.post(Command::Ran { key, ran, took }));
        };
        let (order, ticket) = Order::new(command, variables, entry.limit, reply);
        if core.reports.try_send(Report::Run(order)) {
            entry.awaited = Some(Awaited { ticket, generation: key.generation });
            let when = core.now + entry.timing.timeout;
            self.arm_probe(core, key.index, when);
        } else {
            self.defer_probe(core, key.index, &io::Error::other("the control thread has no room for it"));
        }
        true
    }

    /// Looks after an order that has had no answer for a while: it may wait for a place, or be lost.
    pub(super) fn look_after_order(&mut self, core: &mut Core<K>, index: u32) {
        let entry = &mut self.entries[index as usize];
        if entry.awaited.as_ref().is_some_and(|awaited| awaited.ticket.is_void()) {
            entry.awaited = None;
            return self.defer_probe(core, index, &io::Error::other("its order was lost"));
        }
        self.log_if_late(core, index, "their programs wait for a place");
        let when = core.now + self.entries[index as usize].timing.timeout;
        self.arm_probe(core, index, when);
    }

    /// Takes the answer to an order. One to another check than the present one means nothing any more.
    pub(in crate::worker) fn on_ran(&mut self, core: &mut Core<K>, key: Key, ran: Ran, took: Duration) {
        let Some(entry) = self.entries.get_mut(key.index as usize) else { return };
        if entry.awaited.as_ref().is_none_or(|awaited| awaited.generation != key.generation) {
            return;
        }
        entry.awaited = None;
        // Neither the backend nor its round is charged with the wait for a place.
        entry.began = core.now - took;
        entry.pace = pace_of(took, entry.timing.timeout);
        match judge(ran) {
            Ok(result) => {
                self.on_check_result(core, key.index, result);
                self.finish_attempt(core, key.index);
            }
            Err(why) => self.defer_probe(core, key.index, &io::Error::other(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::Receiver;

    use super::*;
    use crate::config::model::HealthState::{Down, Up};
    use crate::pool::{Admin, Backend};
    use crate::worker::test_worker::Bench;

    const HEALTH: &str = "type = \"command\", command = [\"/check\", \"--fast\"], interval = \"1h\", \
        fast_interval = \"1h\", initial_state = \"up\", rise = 1, fall = 1";
    const TOOK: Duration = Duration::from_millis(7);

    /// The control side, as a script. The program is run for the backend `b` alone.
    struct Script {
        bench: Bench,
        index: u32,
    }

    fn script(keys: &str) -> Script {
        let bench = Bench::with_checks(&format!("{HEALTH}{keys}"), 0);
        let (index, _) =
            bench.worker.probes.entries.iter().find(|(_, entry)| entry.backend.name == "b").unwrap();
        let index = u32::try_from(index).unwrap();
        Script { bench, index }
    }

    impl Script {
        fn backend(&self) -> Arc<Backend> {
            Arc::clone(&self.bench.worker.probes.entries[self.index as usize].backend)
        }

        /// Its check is due.
        fn is_due(&mut self) {
            self.bench.worker.fires(self.index);
            self.bench.turn_at_once();
            self.bench.worker.audit();
        }

        fn reports(&self) -> &Receiver<Report> {
            &self.bench.reports
        }

        /// The order that the worker has sent.
        #[track_caller]
        fn order(&mut self) -> Order {
            self.is_due();
            self.find_order().expect("an order")
        }

        fn find_order(&self) -> Option<Order> {
            self.reports()
                .try_iter()
                .find_map(|report| if let Report::Run(order) = report { Some(order) } else { None })
        }

        fn answers(&mut self, order: Order, ran: Ran) {
            order.answer(ran, TOOK);
            self.bench.turn_at_once();
            self.bench.worker.audit();
        }

        fn results(&self) -> (u64, u64) {
            let stats = &self.backend().stats;
            (stats.checks_passed.get(), stats.checks_failed.get())
        }

        fn failures(&self) -> Vec<String> {
            let failure = |report| if let Report::Checked { failure, .. } = report { failure } else { None };
            self.reports().try_iter().filter_map(failure).collect()
        }
    }

    fn exits(status: i32, printed: &str) -> Ran {
        Ran::Exited { status, printed: printed.into() }
    }

    #[test]
    fn the_status_of_a_program_is_a_result_like_any_other() {
        let mut script = script("");
        let order = script.order();
        assert_eq!(order.command, ["/check", "--fast"]);
        let names = order.variables.clone().map(|(name, _)| name);
        assert_eq!(names, ["L4LB_POOL", "L4LB_BACKEND", "L4LB_ADDRESS", "L4LB_PORT"]);
        assert_eq!(order.variables[1].1, "b");
        let mut order = Some(order);
        for (ran, state, sentence) in [
            (exits(0, "fine"), Up, None),
            (exits(3, "no disk\nmore"), Down, Some("exit status 3: printed \"no disk\"")),
            (exits(0, ""), Up, None),
            (
                Ran::Signalled { signal: 9, printed: b"\x1b[0m".to_vec() },
                Down,
                Some("ended by signal 9: printed \"\\x1b[0m\""),
            ),
            (exits(0, ""), Up, None),
            (Ran::TimedOut { limit: TOOK }, Down, Some("timed out after 7ms while running the command")),
            (exits(0, ""), Up, None),
            (Ran::NoProgram("cannot run /check: gone".into()), Down, Some("cannot run /check: gone")),
        ] {
            let order = order.take().unwrap_or_else(|| script.order());
            script.answers(order, ran);
            assert_eq!(script.backend().health(), state);
            assert_eq!(script.failures(), Vec::from_iter(sentence.map(str::to_owned)));
        }
        assert_eq!(script.results(), (4, 4));
        assert_eq!(script.backend().stats.last_check_nanos.get(), 7_000_000, "without the wait for a place");
    }

    #[test]
    fn a_shortage_of_this_machine_is_no_result() {
        let mut script = script("");
        let order = script.order();
        script.answers(order, Ran::PutOff("no more processes".into()));
        let order = script.order();
        script.answers(order, exits(0, ""));
        assert_eq!((script.results(), script.backend().health()), ((1, 0), Up));
    }

    #[test]
    fn a_late_answer_is_waited_for_and_no_second_program_is_run_meanwhile() {
        let mut script = script("");
        let order = script.order();
        for _ in 0..3 {
            script.is_due();
            assert!(script.find_order().is_none());
        }
        script.answers(order, exits(0, ""));
        assert_eq!(script.results(), (1, 0));
    }

    #[test]
    fn an_answer_to_an_earlier_order_is_no_answer_to_this_one() {
        let mut script = script("");
        let earlier = script.order();
        let backend = script.backend();
        backend.set_admin(Admin::Maint);
        let next = script.bench.worker.core.snapshot.refreshed(&[]);
        assert!(script.bench.mailbox.post(Command::Publish(Arc::new(next))));
        script.bench.turn_at_once();
        backend.set_admin(Admin::Ready);
        let order = script.order();
        script.answers(earlier, exits(1, "of other settings"));
        assert_eq!((script.results(), script.failures()), ((0, 0), Vec::new()));
        script.answers(order, exits(0, ""));
        assert_eq!((script.results(), script.backend().health()), ((1, 0), Up));
    }

    #[test]
    fn an_order_that_was_lost_is_repeated() {
        let mut script = script("");
        drop(script.order());
        script.is_due();
        assert_eq!(script.results(), (0, 0));
        let order = script.order();
        script.answers(order, exits(0, ""));
        assert_eq!(script.results(), (1, 0));
    }

    #[test]
    fn an_answer_in_maintenance_or_for_a_backend_that_has_left_means_nothing() {
        let mut script = script("");
        let order = script.order();
        let backend = script.backend();
        backend.set_admin(Admin::Maint);
        let next = script.bench.worker.core.snapshot.refreshed(&[]);
        assert!(script.bench.mailbox.post(Command::Publish(Arc::new(next))));
        script.bench.turn_at_once();
        assert!(!order.is_wanted(), "its program is killed");
        script.answers(order, exits(1, ""));
        backend.set_admin(Admin::Ready);
        let order = script.order();
        let pool = script.bench.worker.core.snapshot.pools[0].id;
        let without = script.bench.worker.core.snapshot.with_backends(pool, &[]);
        assert!(script.bench.mailbox.post(Command::Publish(Arc::new(without))));
        script.bench.turn_at_once();
        assert!(!order.is_wanted());
        script.answers(order, exits(1, ""));
        let stats = &backend.stats;
        assert_eq!((stats.checks_passed.get(), stats.checks_failed.get()), (0, 0));
        assert_eq!(backend.health(), Up);
    }
}
