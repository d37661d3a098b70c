//! Answers queries about sessions, between two turns: it looks at a bounded number of them, and the requester asks
//! again from where the answer ended.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::slots::Key;
use crate::messages::query::{
    Answer, Filter, PLACES_MAX, Query, ROWS_MAX, Row, SessionExplanation, SessionId, SessionState, Target,
};
use crate::pool::{Choice, PoolId, Snapshot, Why};
use crate::session::{CloseReason, Direction};
use crate::sys::Kernel;
use crate::worker::core::Core;
use crate::worker::inspect::flight_recorder::{Record, fits};
use crate::worker::inspect::former_tables::Tables;
use crate::worker::relay::Relay;

/// Answers queries, and keeps the former tables that answers need.
#[derive(Default)]
pub(in crate::worker) struct Inspection {
    tables: Tables,
}

/// The parts of the worker that an answer reads.
struct Inspected<'a, K: Kernel> {
    core: &'a mut Core<K>,
    relay: &'a mut Relay<K>,
    tables: &'a Tables,
}

impl Inspection {
    pub(in crate::worker) fn on_epoch(&mut self, before: &Snapshot, after: &Snapshot) {
        self.tables.replaced(before, after);
    }

    pub(in crate::worker) fn answer<K: Kernel>(
        &self,
        core: &mut Core<K>,
        relay: &mut Relay<K>,
        query: Query,
    ) -> Answer {
        Inspected { core, relay, tables: &self.tables }.answer(query)
    }
}

impl<K: Kernel> Inspected<'_, K> {
    fn answer(&mut self, query: Query) -> Answer {
        match query {
            Query::Live { from, filter } => self.live(from, &filter),
            Query::Ended { before, filter } => {
                let mut records =
                    self.core.recorder.numbered(before).filter(|(_, record)| record.fits(&filter)).peekable();
                let (mut rows, mut last) = (Vec::new(), 0);
                for (number, record) in records.by_ref().take(ROWS_MAX) {
                    rows.push(self.row_of_record(record));
                    last = number;
                }
                let next = records.peek().map(|_| last);
                Answer::Ended { rows, next }
            }
            Query::Session(id) => Answer::Session(self.explanation(id).map(Box::new)),
            Query::Cut(target) => Answer::Cut(self.cut_target(target)),
        }
    }

    /// Returns the sessions from a place on, as many as one answer may look at.
    fn live(&mut self, from: u32, filter: &Filter) -> Answer {
        let places = self.relay.places();
        let end = places.min(from.saturating_add(PLACES_MAX));
        let mut rows = Vec::new();
        let mut next = from;
        while next < end && rows.len() < ROWS_MAX {
            rows.extend(self.row_at(next, filter));
            next += 1;
        }
        Answer::Page { rows, next: (next < places).then_some(next) }
    }

    fn row_at(&mut self, place: u32, filter: &Filter) -> Option<Row> {
        let (key, slot) = self.relay.at(place)?;
        let backend = slot.backend_to_report().map(Arc::as_ref);
        let is_wanted = fits(filter, slot.listener().id, slot.pool(), backend, slot.client());
        is_wanted.then(|| {
            let session = slot.session();
            let names = self.core.recorder.place(slot.listener(), slot.pool(), &self.core.snapshot).names;
            Row {
                id: self.core.id_of(key),
                listener: names.listener,
                pool: names.pool,
                backend: slot.backend_to_report().cloned(),
                client: slot.client(),
                peer: slot.front(),
                asked: slot.asked().cloned(),
                source: slot.source(&mut self.core.kernel),
                opened: session.accepted_at(),
                given: session.given(),
                connect_time: session.connect_time(),
                retries: session.retries(),
                state: SessionState::Live {
                    stage: session.stage(),
                    quiet: self.core.now - session.last_activity(),
                    held: Direction::BOTH.map(|direction| session.unpassed(direction)),
                },
            }
        })
    }

    fn row_of_record(&self, record: &Record) -> Row {
        let summary = &record.summary;
        Row {
            id: self.core.id_of(record.key),
            listener: Arc::clone(&record.place.names.listener),
            pool: Arc::clone(&record.place.names.pool),
            backend: record.backend.clone(),
            client: record.client,
            peer: record.front,
            asked: record.asked.clone(),
            source: record.source,
            opened: record.opened,
            given: [summary.to_backend, summary.to_client],
            connect_time: summary.connect_time,
            retries: summary.retries,
            state: SessionState::Ended {
                reason: summary.reason,
                code: summary.code(),
                reset_by: summary.reset_by,
                half_closed_by: summary.half_closed_by,
                duration: summary.duration,
                discarded: summary.discarded,
            },
        }
    }

    fn explanation(&mut self, id: SessionId) -> Option<SessionExplanation> {
        if id.worker != self.core.id.0 {
            return None;
        }
        if self.relay.get(id.key).is_some() {
            let row = self.row_at(id.key.index, &Filter::default())?;
            let slot = self.relay.get(id.key)?;
            let (tried, why) = (slot.tried().to_vec(), slot.choice());
            let (pool, epoch) = (slot.pool(), slot.epoch(self.core.snapshot.epoch));
            return Some(SessionExplanation {
                why: self.why(pool, why, row.client.ip()),
                row,
                tried,
                pool,
                epoch,
            });
        }
        let record = self.core.recorder.newest_first().find(|record| record.key == id.key)?;
        let why = self.why(record.place.pool, record.choice, record.client.ip());
        let (tried, epoch) = (record.tried.clone(), record.epoch);
        Some(SessionExplanation {
            row: self.row_of_record(record),
            why,
            tried,
            pool: record.place.pool,
            epoch,
        })
    }

    /// Returns the meaning of a choice, by the tables that it was made by, or else by the present ones.
    fn why(&self, pool: PoolId, choice: Option<Choice>, client: IpAddr) -> Option<Why> {
        let choice = choice?;
        let epoch = choice.epoch(self.core.snapshot.epoch);
        let former = self.tables.of(pool, epoch);
        let now = || self.core.snapshot.pools.iter().find(|now| now.id == pool);
        let is_exact = !self.tables.are_gone(pool, epoch);
        former.or_else(now).map(|pool| Why::of(choice, pool, client, epoch, is_exact))
    }

    /// Cuts the target and returns how many sessions that were.
    fn cut_target(&mut self, target: Target) -> usize {
        let keys: Vec<Key> = match target {
            Target::Session(id) => {
                let is_here = id.worker == self.core.id.0 && self.relay.get(id.key).is_some();
                is_here.then_some(id.key).into_iter().collect()
            }
            Target::Backend(backend) => self.relay.sessions_on(backend),
        };
        for &key in &keys {
            self.relay.cut(self.core, key, CloseReason::Killed);
        }
        keys.len()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;

    use super::*;
    use crate::config;
    use crate::messages::command::Command;
    use crate::messages::query::{RECORDS_MAX, Reply};
    use crate::session::Stage;
    use crate::worker::inspect::former_tables::TABLES_MAX;
    use crate::worker::test_worker::Bench;

    const POOL: PoolId = PoolId(0);
    impl Bench {
        fn ask(&mut self, query: Query) -> Answer {
            let (reply, answers) = Reply::channel(1);
            assert!(self.mailbox.post(Command::Ask(query, reply)));
            self.worker.turn().unwrap();
            answers.try_recv().expect("it answers in the turn in which it is asked")
        }

        fn rows(&mut self, query: Query) -> Vec<Row> {
            let answer = self.ask(query);
            let Answer::Page { rows, next: None } = answer else { panic!("{answer:?}") };
            rows
        }

        fn live(&mut self, filter: Filter) -> Vec<Row> {
            self.rows(Query::Live { from: 0, filter })
        }

        fn ended(&mut self, before: Option<u64>, filter: Filter) -> (Vec<Row>, Option<u64>) {
            let answer = self.ask(Query::Ended { before, filter });
            let Answer::Ended { rows, next } = answer else { panic!("{answer:?}") };
            (rows, next)
        }

        fn explanation(&mut self, id: SessionId) -> Option<Box<SessionExplanation>> {
            let answer = self.ask(Query::Session(id));
            let Answer::Session(explanation) = answer else { panic!("{answer:?}") };
            explanation
        }
    }

    #[test]
    fn a_session_is_shown_while_it_runs_and_after_its_end() {
        let mut bench = Bench::new("retries = 1");
        let (client, served) = bench.session();
        let [row] = &bench.live(Filter::default())[..] else { panic!("one session") };
        assert_eq!((&*row.listener, &*row.pool), ("in", "web"));
        assert_eq!(row.backend.as_ref().map(|backend| backend.name.as_str()), Some("b"));
        assert_eq!((row.client, row.given, row.retries), (client.local_addr().unwrap(), [1, 0], 1));
        assert_eq!(row.source, served.peer_addr().ok());
        assert!(matches!(row.state, SessionState::Live { stage: Stage::Open, held: [0, 0], .. }), "{row:?}");

        let explanation = bench.explanation(row.id).expect("it runs");
        let refused = bench.worker.core.snapshot.pool(POOL).backends[0].id;
        assert_eq!(explanation.tried, [refused]);
        let why = explanation.why.as_ref().expect("it has a backend").to_string();
        let start = "round_robin over 2 of 2 backends (priority 0) in epoch 0; it had 0 sessions";
        assert!(why.starts_with(start), "{why}");

        drop((client, served));
        bench.turn_until(|worker| worker.relay.is_empty());
        assert!(bench.live(Filter::default()).is_empty());
        let [ended] = &bench.ended(None, Filter::default()).0[..] else { panic!("one") };
        assert_eq!(ended.id, row.id);
        let SessionState::Ended { reason: CloseReason::Done, code, .. } = ended.state else {
            panic!("{ended:?}")
        };
        assert_eq!((code.to_string(), ended.given), ("-L".into(), [1, 0]));
        assert_eq!(bench.explanation(row.id).expect("it is remembered").why, explanation.why);
        let next = SessionId { worker: 1, ..row.id };
        assert!(bench.explanation(next).is_none(), "of another worker");
    }

    #[test]
    fn only_sessions_that_match_the_filter_are_listed() {
        let mut bench = Bench::new("retries = 1");
        let _held = [bench.session(), bench.session()];
        let snapshot = Arc::clone(&bench.worker.core.snapshot);
        let [a, b] = [0, 1].map(|index| snapshot.pool(POOL).backends[index].id);
        let nothing = Filter::default();
        let none = [
            Filter { listener: Some(crate::pool::ListenerId(7)), ..nothing.clone() },
            Filter { pool: Some(PoolId(7)), ..nothing.clone() },
            Filter { backends: Some([a].into()), ..nothing.clone() },
            Filter { client: Some("10.0.0.0/8".parse().unwrap()), ..nothing.clone() },
        ];
        for filter in none {
            assert!(bench.live(filter.clone()).is_empty(), "{filter:?}");
        }
        let listener = Some(snapshot.listeners[0].id);
        let all = Filter {
            listener,
            pool: Some(POOL),
            backends: Some([a, b].into()),
            client: Some("127.0.0.0/8".parse().unwrap()),
            ..nothing
        };
        assert_eq!(bench.live(all).len(), 2);
    }

    #[test]
    fn a_session_that_is_cut_is_reset_and_logged_as_cut() {
        let mut bench = Bench::new("retries = 1");
        let (mut first, _served) = bench.session();
        let (mut second, _served_too) = bench.session();
        let ids: Vec<_> = bench.live(Filter::default()).iter().map(|row| row.id).collect();
        assert!(matches!(bench.ask(Query::Cut(Target::Session(ids[0]))), Answer::Cut(1)));
        assert!(matches!(bench.ask(Query::Cut(Target::Session(ids[0]))), Answer::Cut(0)), "it is over");
        assert!(first.read(&mut [0]).is_err());
        let backend = bench.worker.core.snapshot.pool(POOL).backends[1].id;
        assert!(matches!(bench.ask(Query::Cut(Target::Backend(backend))), Answer::Cut(1)));
        assert!(second.read(&mut [0]).is_err());
        let (ended, _) = bench.ended(None, Filter::default());
        let killed = |row: &Row| matches!(row.state, SessionState::Ended { reason: CloseReason::Killed, .. });
        assert!(ended.len() == 2 && ended.iter().all(killed), "{ended:?}");
        assert_eq!(ended[0].id, ids[1], "the newest first");
        let of = |reason: CloseReason| Filter { reason: Some(reason), ..Filter::default() };
        assert_eq!(bench.ended(None, of(CloseReason::Killed)).0.len(), 2);
        assert_eq!(bench.ended(None, of(CloseReason::Done)).0.len(), 0);
        let (last, next) =
            (ended[0].ended().unwrap(), bench.worker.core.now + std::time::Duration::from_nanos(1));
        let since = |since| Filter { since: Some(since), ..Filter::default() };
        assert!(!bench.ended(None, since(last)).0.is_empty());
        assert_eq!(bench.ended(None, since(next)).0.len(), 0);
    }

    #[test]
    fn a_choice_is_explained_by_the_tables_that_it_was_made_by() {
        let mut bench = Bench::new("balance = \"source_hash\"\nretries = 1");
        let _held = bench.session();
        let id = bench.live(Filter::default())[0].id;
        let before = bench.explanation(id).expect("it runs").why.expect("it has a backend");
        let (_, homes) = before.hash.as_ref().expect("the client decides");
        assert_eq!(homes.last().map(String::as_str), Some("b"));
        // Other tables, as many as are kept, and one more.
        for round in 0..=TABLES_MAX {
            let backends = bench.worker.core.snapshot.pool(POOL).settings.backends.clone();
            let more = config::model::Backend {
                name: format!("more{round}"),
                address: ([127, 0, 0, 1], 9).into(),
                weight: 1,
                priority: 0,
                check: config::model::BackendCheck::default(),
            };
            let next = bench.worker.core.snapshot.with_backends(POOL, &[&backends[..], &[more]].concat());
            bench.worker.run_epoch(Arc::new(next));
            let now = bench.explanation(id).expect("it runs").why.expect("it has a backend");
            if round < TABLES_MAX {
                assert_eq!(now, before, "round {round}");
            } else {
                assert!(!now.is_exact && now.epoch == 0 && now.backends > 2, "{now:?}");
            }
        }
    }

    #[test]
    fn no_more_are_remembered_than_may_be() {
        let mut bench = Bench::new("");
        bench.worker.core.snapshot.pool(POOL).backends.iter().for_each(|backend| backend.set_weight(0));
        for clients in 0..RECORDS_MAX as u64 + 10 {
            let client = TcpStream::connect(bench.address).unwrap();
            bench.turn_until(|worker| worker.core.stats.accepted.get() > clients);
            drop(client);
        }
        assert_eq!(bench.worker.core.recorder.newest_first().count(), RECORDS_MAX);
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let (rows, next) = bench.ended(before, Filter::default());
            assert!(rows.len() <= ROWS_MAX);
            seen.extend(rows.into_iter().map(|row| row.id));
            before = next;
            if next.is_none() {
                break;
            }
        }
        let distinct: std::collections::HashSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (RECORDS_MAX, RECORDS_MAX), "each on one page");
    }
}
