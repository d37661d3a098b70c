//! Talks to the watched process, on threads of its own: samples in, changes out.

use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use axum::http::Method;

use crate::api;
use crate::ctl::{Client, Failure, routes};
use crate::top::app::{Change, News};
use crate::top::input::Input;

/// Events requested with each sample: as many as a tall screen shows.
const EVENTS_LEN: u32 = 8;
/// Sessions requested with each sample, while they are shown.
const SESSIONS_LEN: u32 = 8;
/// Time between tries to reach it.
const RETRY: Duration = Duration::from_secs(1);
/// Samples come once a second, give or take this.
const EARLY: Duration = Duration::from_millis(500);

/// The order of the sessions that are shown now; `None` while none are.
pub(super) type WantedSessions = Arc<Mutex<Option<api::SessionSort>>>;

/// Sends samples of the process at `client` to `inputs`, at most one per `interval`, until the receiver has gone.
pub(super) fn follow(
    client: &Client,
    interval: Duration,
    wanted: &WantedSessions,
    inputs: &SyncSender<Input>,
) {
    loop {
        match watch(client, interval, wanted, inputs) {
            Ok(()) => {}
            Err(Failure::NoReader) => return,
            Err(failure) => {
                if inputs.send(Input::News(News::Lost(failure.to_string()))).is_err() {
                    return;
                }
                // It may return early, and then the try comes early.
                thread::park_timeout(RETRY);
            }
        }
    }
}

/// Follows one stream from start to end: the server ends each after a while.
fn watch(
    client: &Client,
    interval: Duration,
    wanted: &WantedSessions,
    inputs: &SyncSender<Input>,
) -> Result<(), Failure> {
    let send = |news| inputs.send(Input::News(news)).map_err(|_| Failure::NoReader);
    send(News::Reached(Box::new(client.get("/v1/status")?)))?;
    send(News::Past(Box::new(client.get("/v1/history")?)))?;
    let mut last: Option<jiff::Timestamp> = None;
    for message in client.follow("/v1/samples/stream")? {
        let message = message?;
        if message.event != "sample" {
            continue;
        }
        let sample: api::Sample = serde_json::from_str(&message.data)
            .map_err(|error| Failure::Failed(format!("invalid sample: {error}")))?;
        let wait = interval.saturating_sub(EARLY).as_secs_f64();
        if last.is_some_and(|last| sample.time.duration_since(last).as_secs_f64().abs() < wait) {
            continue;
        }
        last = Some(sample.time);
        let path = routes::query("/v1/events", &[("limit", Some(EVENTS_LEN.to_string()))]);
        let events = client.get(&path)?;
        send(News::Sources(client.get("/v1/discovery")?))?;
        send(News::Listeners(client.get("/v1/listeners")?))?;
        let order = *wanted.lock().expect("lock not poisoned");
        if let Some(order) = order {
            let query = [("sort", order.as_str().to_owned()), ("limit", SESSIONS_LEN.to_string())];
            let query = query.map(|(key, value)| (key, Some(value)));
            let page: Result<api::SessionPage, _> = client.get(&routes::query("/v1/sessions", &query));
            // A worker that does not answer hides only these.
            send(match page {
                Ok(page) => News::Sessions(order, page.sessions),
                Err(error) => News::Answer(format!("sessions: {}", Failure::from(error))),
            })?;
        }
        send(News::Reached(Box::new(client.get("/v1/status")?)))?;
        send(News::Sample(Box::new(sample), events))?;
    }
    match last {
        Some(_) => Ok(()),
        None => Err(Failure::Failed("the stream of samples ended before the first one".into())),
    }
}

/// A change that a key requests.
pub(super) enum Order {
    Change(Change),
    /// Dismiss the refused reload of this number.
    Dismiss(u64),
}

/// Makes the changes, one after the other, and reports the results.
pub(super) fn change(client: &Client, orders: &Receiver<Order>, inputs: &SyncSender<Input>) {
    for order in orders {
        let words = match order {
            Order::Change(change) => set_admin(client, &change),
            Order::Dismiss(number) => dismiss(client, number),
        };
        if inputs.send(Input::News(News::Answer(words))).is_err() {
            return;
        }
    }
}

fn set_admin(client: &Client, change: &Change) -> String {
    let Change { pool, backend, admin } = change;
    let path = routes::backend(pool, backend);
    let body = api::BackendChange { admin: Some(*admin), weight: None };
    let answer: Result<api::Backend, _> = client.ask(Method::PATCH, &path, Some(&body));
    let verb = change.verb();
    match answer {
        Ok(_) => format!("{pool}/{backend}: {verb} is set"),
        Err(error) => format!("{pool}/{backend}: no {verb}: {}", Failure::from(error)),
    }
}

fn dismiss(client: &Client, number: u64) -> String {
    let path = format!("/v1/config/refusals/{number}");
    let answer: Result<api::Reload, _> = client.ask(Method::DELETE, &path, None::<&()>);
    match answer {
        Ok(_) => "the refused reload is dismissed".to_owned(),
        Err(error) => format!("not dismissed: {}", Failure::from(error)),
    }
}
