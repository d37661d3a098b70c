use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::config::KnownNames;
use crate::control::loading::ReloadQueue;
use crate::control::tests::{config, control};
use crate::messages::reload::{Listening, Source};

/// A control thread that the test runs step by step.
fn work() -> ControlLoop {
    ControlLoop::new(control(Snapshot::new(&config("")), &[]))
}

const PATIENCE: Duration = Duration::from_secs(60);

type Answered = Receiver<Result<ReloadReport, Refused>>;

fn request(source: Option<&Source>, mode: Mode) -> (ReloadRequest, Answered) {
    let (sender, answered) = channel();
    let answer: Answer = Box::new(move |report| _ = sender.send(report));
    (
        ReloadRequest {
            who: "a test".into(),
            source: source.cloned(),
            mode,
            answer: Some(answer),
            listening: None,
        },
        answered,
    )
}

/// Returns a source of this configuration, and the number of times it was read.
fn source(keys: &'static str) -> (Source, Arc<Mutex<u32>>) {
    let reads = Arc::<Mutex<u32>>::default();
    let counted = Arc::clone(&reads);
    let read = move |_: &KnownNames| {
        *counted.lock().expect("lock not poisoned") += 1;
        Ok(config(keys))
    };
    (Arc::new(read), reads)
}

/// Handles the reports of the threads until a request is done.
fn deliver_reports(work: &mut ControlLoop) {
    let under_way = |work: &ControlLoop| {
        let ReloadQueue { loading, read, opening, .. } = &work.reload_queue;
        usize::from(loading.is_some()) + usize::from(read.is_some()) + usize::from(opening.is_some())
    };
    let mut is_done = false;
    while !is_done {
        let report = work.control.inbox.recv_timeout(PATIENCE).expect("a thread reports");
        // Sockets are yet to be opened for what was read to be applied.
        is_done =
            !matches!(&report, Report::Read(read) if matches!(&**read, Ok(read) if read.opened.is_some()));
        let is_ending = work.stage != ControlStage::Serving;
        work.on_report(report);
        is_done |= is_ending && under_way(work) == 0;
    }
    work.give_answers();
}

#[test]
fn reloads_requested_during_a_reload_become_one_that_runs_next() {
    let mut work = work();
    let (source, reads) = source("retries = 7");
    let answered: Vec<Answered> = (0..4)
        .map(|_| {
            let (request, answered) = request(Some(&source), Mode::Apply);
            work.on_reload_request(request);
            answered
        })
        .collect();
    deliver_reports(&mut work);
    let changes = |answered: &Answered| answered.try_recv().ok().map(|report| report.unwrap().changes.len());
    assert_eq!(answered.iter().map(changes).collect::<Vec<_>>(), [Some(1), None, None, None]);
    deliver_reports(&mut work);
    assert_eq!(answered.iter().map(changes).collect::<Vec<_>>(), [None, Some(0), Some(0), Some(0)]);
    assert_eq!(*reads.lock().unwrap(), 2);
    assert_eq!(work.control.snapshot.pools[0].settings.retries, 7);
}

#[test]
fn only_the_latest_request_of_the_watch_waits() {
    let mut work = work();
    let (slow, _) = source("retries = 3");
    let (first, _answered) = request(Some(&slow), Mode::Apply);
    work.on_reload_request(first);
    let reads = ["retries = 5", "retries = 7"].map(|keys| {
        let (source, reads) = source(keys);
        let (who, source) = (WATCH.into(), Some(source));
        work.on_reload_request(ReloadRequest {
            who,
            source,
            mode: Mode::Apply,
            answer: None,
            listening: None,
        });
        reads
    });
    deliver_reports(&mut work);
    deliver_reports(&mut work);
    assert_eq!(reads.map(|reads| *reads.lock().unwrap()), [0, 1]);
    assert_eq!(work.control.snapshot.pools[0].settings.retries, 7);
}

#[test]
fn a_dry_run_is_not_mistaken_for_a_reload() {
    let mut work = work();
    let (source, _) = source("retries = 7");
    let (first, _first) = request(Some(&source), Mode::DryRun);
    let (second, answered) = request(Some(&source), Mode::Apply);
    work.on_reload_request(first);
    work.on_reload_request(second);
    deliver_reports(&mut work);
    assert_eq!(work.control.snapshot.epoch, 0);
    deliver_reports(&mut work);
    assert_eq!(answered.try_recv().unwrap().unwrap().mode, Mode::Apply);
    assert_eq!(work.control.snapshot.epoch, 1);
}

#[test]
fn nothing_is_read_without_a_file_or_while_the_process_drains() {
    for (begins_to_drain, expected) in [
        (false, "there is no file to read again"),
        (true, "the process is draining: no configuration is applied"),
    ] {
        let mut work = work();
        if begins_to_drain {
            work.on_terminate();
        }
        let (request, answered) = request(None, Mode::Apply);
        work.on_reload_request(request);
        work.give_answers();
        assert_eq!(answered.try_recv().unwrap().unwrap_err().errors, [expected]);
        assert_eq!(work.control.view.state().reload.failed, 1);
    }
}

#[test]
fn a_drain_that_begins_while_a_file_is_read_goes_first() {
    let mut work = work();
    let (source, _) = source("retries = 7");
    let (request, answered) = request(Some(&source), Mode::Apply);
    work.on_reload_request(request);
    work.on_terminate();
    deliver_reports(&mut work);
    assert!(answered.try_recv().unwrap().is_err());
    assert_eq!(work.control.snapshot.epoch, 0);
}

/// Returns a source that blocks until the lock is released.
fn stuck_source() -> (Source, Arc<Mutex<()>>) {
    let gate = Arc::<Mutex<()>>::default();
    let waits = Arc::clone(&gate);
    let read = move |_: &KnownNames| {
        drop(waits.lock().expect("lock not poisoned"));
        Ok(config("retries = 3"))
    };
    (Arc::new(read), gate)
}

/// Lets the time limit of the reading pass; returns its result.
fn passes(work: &mut ControlLoop, answered: &Answered) -> Result<ReloadReport, Refused> {
    let mut answer = None;
    while answer.is_none() {
        work.act();
        answer = answered.recv_timeout(Duration::from_millis(1)).ok();
    }
    answer.expect("there is an answer")
}

/// One file without an answer disabled every later reload, silently.
#[test]
fn a_file_that_gives_no_answer_is_given_up_and_the_next_one_is_read() {
    let mut work = work();
    Arc::make_mut(&mut work.control.config).global.reload_timeout = Duration::from_millis(1);
    let (stuck, gate) = stuck_source();
    let closed = gate.lock().unwrap();
    for round in 0..LOADERS - 1 {
        let (request, answered) = request(Some(&stuck), Mode::Apply);
        work.on_reload_request(request);
        assert!(work.control.view.state().reload.reading_since.is_some(), "{round}");
        let refused = passes(&mut work, &answered).unwrap_err();
        assert!(refused.is_for_now && refused.errors[0].starts_with("not read within 1ms"), "{refused:?}");
        assert!(work.control.view.state().reload.reading_since.is_none(), "{round}");
    }
    Arc::make_mut(&mut work.control.config).global.reload_timeout = config("").global.reload_timeout;
    let (good, _) = source("retries = 7");
    let (good_request, answered) = request(Some(&good), Mode::Apply);
    work.on_reload_request(good_request);
    deliver_reports(&mut work);
    assert_eq!(answered.try_recv().unwrap().unwrap().changes.len(), 1);
    // A late result changes nothing, and its threads are free again.
    drop(closed);
    for _ in 0..LOADERS {
        let (request, answered) = request(Some(&good), Mode::Apply);
        work.on_reload_request(request);
        deliver_reports(&mut work);
        assert_eq!(answered.try_recv().unwrap().unwrap().changes, []);
    }
    assert_eq!(work.control.snapshot.pools[0].settings.retries, 7);
}

#[test]
fn readings_that_never_end_have_a_bound() {
    let mut work = work();
    Arc::make_mut(&mut work.control.config).global.reload_timeout = Duration::from_millis(1);
    let (stuck, gate) = stuck_source();
    let _closed = gate.lock().unwrap();
    let errors = (0..=LOADERS).map(|_| {
        let (request, answered) = request(Some(&stuck), Mode::DryRun);
        work.on_reload_request(request);
        passes(&mut work, &answered).unwrap_err().errors.remove(0)
    });
    let last = errors.last().unwrap();
    assert_eq!(last, "4 readings of the configuration have not ended: check the disks and name servers");
}

#[test]
fn a_storm_of_signals_reads_the_file_twice() {
    let mut work = work();
    let (source, reads) = source("");
    work.control.source = Some(source);
    (0..10 * REQUESTS_MAX).for_each(|_| work.on_report(Report::Reload));
    deliver_reports(&mut work);
    deliver_reports(&mut work);
    assert!(work.reload_queue.waiting.is_empty() && work.reload_queue.loading.is_none());
    let status = work.control.view.state().reload.clone();
    assert_eq!((*reads.lock().unwrap(), status.succeeded, status.failed), (2, 2, 0));
}

#[test]
fn waiting_reload_requests_have_a_bound() {
    let mut work = work();
    let mut answers = Vec::new();
    for _ in 0..REQUESTS_MAX + 2 {
        let (source, _) = source("");
        let (request, answered) = request(Some(&source), Mode::DryRun);
        work.on_reload_request(request);
        answers.push(answered);
    }
    work.give_answers();
    let refused: Vec<_> = answers.iter().filter_map(|answered| answered.try_recv().ok()).collect();
    assert_eq!(refused, [Err(Refused::for_now(format!("{REQUESTS_MAX} reloads wait already")))]);
}

/// It waited for the end of the reading, at most `reload_timeout`; with all threads of readings stuck it was refused.
#[test]
fn a_pause_waits_for_no_file() {
    let mut work = work();
    work.control.view.state().snapshot = Arc::clone(&work.control.snapshot);
    let name = work.control.snapshot.listeners[0].settings.name.clone();
    let (stuck, gate) = stuck_source();
    let closed = gate.lock().unwrap();
    let pause = |work: &mut ControlLoop, is_paused| {
        let (reply, mut answered) = tokio::sync::oneshot::channel();
        work.change_listening(Listening { listener: name.clone(), is_paused }, "a test".into(), reply);
        deliver_reports(work);
        assert!(answered.try_recv().expect("it answers").is_ok());
        work.control.view.state().pauses.contains_key(&name)
    };
    Arc::make_mut(&mut work.control.config).global.reload_timeout = Duration::from_millis(1);
    for _ in 0..LOADERS - 1 {
        let (request, answered) = request(Some(&stuck), Mode::Apply);
        work.on_reload_request(request);
        assert!(pause(&mut work, true) && !pause(&mut work, false));
        passes(&mut work, &answered).unwrap_err();
    }
    Arc::make_mut(&mut work.control.config).global.reload_timeout = config("").global.reload_timeout;
    let (request, answered) = request(Some(&stuck), Mode::Apply);
    work.on_reload_request(request);
    assert!(pause(&mut work, true), "with as many stuck as there may be");
    assert!(answered.try_recv().is_err(), "it is read still");
    drop(closed);
    deliver_reports(&mut work);
    assert_eq!(answered.try_recv().unwrap().unwrap().changes.len(), 1);
    assert!(work.control.view.state().pauses.contains_key(&name), "and stays paused");
}

#[test]
fn the_last_of_several_changes_of_a_listener_counts() {
    let mut work = work();
    let name = work.control.snapshot.listeners[0].settings.name.clone();
    let answers: Vec<_> = [true, false, true]
        .map(|is_paused| {
            let (reply, answered) = tokio::sync::oneshot::channel();
            work.change_listening(Listening { listener: name.clone(), is_paused }, "a test".into(), reply);
            answered
        })
        .into();
    answers.iter().for_each(|_| deliver_reports(&mut work));
    assert!(answers.into_iter().all(|mut answered| answered.try_recv().is_ok_and(|done| done.is_ok())));
    assert!(work.control.view.state().pauses.contains_key(&name));
}
