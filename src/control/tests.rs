use std::sync::Mutex;
use std::sync::mpsc::Receiver;

use tokio::sync::oneshot;

use super::membership::kept::Kept;
use super::*;
use crate::config;
use crate::config::model::BackendCheck;
use crate::messages::mailbox::Mailbox;
use crate::messages::reload::Refused;
use crate::messages::report::Reports;
use crate::messages::request::{Ask, Done, Refusal, Request};
use crate::messages::topology::{Opened, Site};

struct NoWake;

impl sys::Wake for NoWake {
    fn wake(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A site that has the resources of any configuration.
#[derive(Debug)]
struct PermissiveSite;

impl Site for PermissiveSite {
    fn prepare(&self, _config: &Config, _opened: Opened) -> Result<Box<dyn StagedChange>, Refused> {
        Ok(Box::new(Self))
    }

    fn preflight(&self, _config: &Config) -> Result<(), Refused> {
        Ok(())
    }

    fn open(&self, _config: &Config) -> Result<Opened, Refused> {
        Ok(Box::new(|| {}))
    }

    fn addresses(&self) -> Vec<std::net::SocketAddr> {
        Vec::new()
    }

    fn drain(&self) {}
}

impl StagedChange for PermissiveSite {
    fn listen(&self) -> Result<(), Refused> {
        Ok(())
    }

    fn commit(self: Box<Self>, _snapshot: &Arc<Snapshot>) {}
}

pub(super) fn control(snapshot: Snapshot, mailboxes: &[Mailbox]) -> Control {
    let (reports, inbox) = Reports::new();
    let snapshot = Arc::new(snapshot);
    let workers = Arc::new(Workers::default());
    workers.change(mailboxes.len(), 0, mailboxes.iter().cloned());
    let config = Arc::new(config(""));
    Control {
        view: Arc::new(View::new(&config, None, Arc::clone(&snapshot), Arc::clone(&workers))),
        snapshot,
        workers,
        reports,
        inbox,
        config,
        source: None,
        look: None,
        loader: Standby::start("test", LOADER_THREADS, LOADER_THREADS).expect("a thread"),
        programs: CommandChecks::without_thread().expect("descriptors"),
        site: Arc::new(PermissiveSite),
        admin_sockets: Vec::new(),
        drain_timeout: Duration::from_secs(60),
        kept: Kept::default(),
        listed: Vec::new(),
    }
}

/// Returns a change that has all resources it needs.
pub(super) fn staged() -> Box<dyn StagedChange> {
    Box::new(PermissiveSite)
}

/// Returns a mailbox and its receiver.
pub(super) fn mailbox() -> (Mailbox, Receiver<Command>) {
    Mailbox::new(Arc::new(NoWake))
}

/// Returns a pool of two backends with these other keys.
pub(super) fn config(keys: &str) -> Config {
    let text = format!(
        "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\n{keys}\nbackend = [\
         {{ name = \"a\", address = \"127.0.0.1:1\" }}, {{ name = \"b\", address = \"127.0.0.1:2\" }}]"
    );
    let no_names = &mut |_: &str| Ok(Vec::new());
    config::parse(&text, "test", &config::Overrides::default(), no_names).expect("a good config")
}

#[test]
fn the_health_of_a_removed_backend_changes_no_table() {
    let mut work = ControlLoop::new(control(Snapshot::default(), &[]));
    let (from, to) = (HealthState::Up, HealthState::Down);
    work.on_report(Report::Health { backend: BackendId(7), from, to, reason: String::new() });
    assert!(work.changed.is_empty());
}

/// Records whether an answer had been sent when a worker was woken.
struct Witness {
    answered: Mutex<oneshot::Receiver<Result<Done<()>, Refusal>>>,
    too_early: Mutex<Vec<bool>>,
}

impl sys::Wake for Witness {
    fn wake(&self) -> io::Result<()> {
        let is_answered = self.answered.lock().unwrap().try_recv().is_ok();
        self.too_early.lock().unwrap().push(is_answered);
        Ok(())
    }
}

#[test]
fn the_workers_get_their_commands_before_the_answer_is_sent() {
    let (reply, answered) = oneshot::channel();
    let witness = Arc::new(Witness { answered: Mutex::new(answered), too_early: Mutex::default() });
    let (mailbox, commands) = Mailbox::new(Arc::clone(&witness) as _);
    let mut work = ControlLoop::new(control(Snapshot::new(&config("")), &[mailbox]));
    let backend = Named { pool: "default".into(), backend: "a".into() };
    let request = Request::Change { backend, weight: Some(0), admin: None, reply };
    work.on_report(Report::Ask(Ask { who: "a test".into(), request }));
    work.act();
    assert!(matches!(commands.try_iter().collect::<Vec<_>>()[..], [Command::Publish(_)]));
    assert_eq!(*witness.too_early.lock().unwrap(), [false]);
    assert_eq!(
        witness.answered.lock().unwrap().try_recv().unwrap(),
        Ok(Done { result: (), not_saved: None })
    );
}

#[test]
fn a_worker_with_a_full_mailbox_gets_the_drain_command_later() {
    let (mailbox, commands) = mailbox();
    while mailbox.post(Command::DialFailed(BackendId(0))) {}
    let mut work = ControlLoop::new(control(Snapshot::default(), &[mailbox]));
    work.on_terminate();
    assert!(commands.try_iter().all(|command| matches!(command, Command::DialFailed(_))), "it was full");
    work.post_commands();
    work.post_commands();
    assert!(matches!(commands.try_iter().collect::<Vec<_>>()[..], [Command::Drain]), "reported once");
}

fn change(work: &mut ControlLoop, weight: u16) -> oneshot::Receiver<Result<Done<()>, Refusal>> {
    let (reply, answered) = oneshot::channel();
    let backend = Named { pool: "default".into(), backend: "a".into() };
    let request = Request::Change { backend, weight: Some(weight), admin: None, reply };
    work.on_report(Report::Ask(Ask { who: "a test".into(), request }));
    answered
}

fn not_saved(answered: &mut oneshot::Receiver<Result<Done<()>, Refusal>>) -> Option<String> {
    answered.try_recv().expect("an answer").expect("it is done").not_saved
}

/// Weights set by an operator were lost with the power within the next second.
#[test]
fn a_change_is_answered_once_it_is_on_the_disk_or_with_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("later");
    let path = inner.join("state.json");
    let (tried, tries) = std::sync::mpsc::channel();
    let mut work = ControlLoop::new(control(Snapshot::new(&config("")), &[]));
    work.control.kept.file =
        Some(membership::saving::StateFile::start(path.clone(), move || _ = tried.send(())).unwrap());
    let mut answered = change(&mut work, 7);
    work.act();
    tries.recv().unwrap();
    work.act();
    assert!(not_saved(&mut answered).unwrap().contains("No such file"));
    // Meanwhile no request waits.
    let mut answered = change(&mut work, 8);
    work.act();
    assert!(not_saved(&mut answered).unwrap().contains("No such file"));
    std::fs::create_dir(&inner).unwrap();
    work.control.kept.file = None;
    work.control.kept.file = Some(membership::saving::StateFile::start(path.clone(), || {}).unwrap());
    for weight in [9, 10, 11] {
        let mut answered = change(&mut work, weight);
        while answered.is_empty() {
            work.act();
        }
        assert_eq!(not_saved(&mut answered), None);
        assert!(std::fs::read_to_string(&path).unwrap().contains(&format!("\"weight_set\": {weight}")));
    }
    // Repeating it changes nothing, and is saved already.
    let mut answered = change(&mut work, 11);
    work.act();
    assert_eq!(not_saved(&mut answered), None);
}

#[test]
fn a_request_does_not_wait_long_for_a_disk_that_gives_no_answer() {
    let mut work = ControlLoop::new(control(Snapshot::new(&config("")), &[]));
    work.control.kept.file = Some(membership::saving::StateFile::that_hangs());
    let mut answered = change(&mut work, 7);
    work.act();
    assert!(answered.is_empty(), "it is waited for");
    assert!(work.next_timeout() <= RETRY_INTERVAL);
    work.control.kept.end_waits();
    work.act();
    assert_eq!(not_saved(&mut answered).unwrap(), "the disk has given no answer for 5s");
    let mut next = change(&mut work, 8);
    work.act();
    assert!(not_saved(&mut next).is_some(), "at once");
}

#[test]
fn results_of_checks_that_a_reload_replaces_are_forgotten_and_others_stay() {
    let mut work = ControlLoop::new(control(Snapshot::new(&config("")), &[]));
    let id = work.control.snapshot.pools[0].backends[0].id;
    let results = |work: &ControlLoop| work.control.view.state().notes[&id].checks.len();
    let own = BackendCheck::default();
    let refused = || Some("connection refused".to_owned());
    work.on_checked(id, CheckedBy { checks: 0, own }, 0, refused());
    work.reconfigure(&config("retries = 1"), Box::new(PermissiveSite));
    assert_eq!(results(&work), 1, "the checks are the same");
    work.reconfigure(&config("health = { interval = \"5s\" }"), Box::new(PermissiveSite));
    assert_eq!(results(&work), 0);
    work.on_checked(id, CheckedBy { checks: 0, own }, 0, refused());
    let elsewhere = BackendCheck { port: Some(81), ..own };
    work.on_checked(id, CheckedBy { checks: 1, own: elsewhere }, 0, refused());
    assert_eq!(results(&work), 0, "a late result of checks that were replaced");
    work.reconfigure(&config(""), Box::new(PermissiveSite));
    work.on_checked(id, CheckedBy { checks: 0, own }, 0, refused());
    assert_eq!(results(&work), 0, "of checks that are back, but were gone meanwhile");
    work.on_checked(id, CheckedBy { checks: 2, own }, 0, refused());
    assert_eq!(results(&work), 1);
}
