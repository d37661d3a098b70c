//! Server-sent events: what happens, and how much of it, while it happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior};

use super::problem::Problem;
use crate::api;

/// Streams at a time over all doors.
pub(super) const STREAMS_MAX: usize = 16;
/// A stream ends then, and its reader asks again: one whose reader has gone is not held for ever.
const STREAM_TIME_MAX: Duration = Duration::from_mins(10);
/// Time between samples.
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

/// A place for one stream.
pub(super) fn place(streams: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
    let full = |_| {
        let what = format!("there are {STREAMS_MAX} streams already");
        Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, what)
    };
    Arc::clone(streams).try_acquire_owned().map_err(full)
}

/// Each event as it happens. Who is too slow is told how many it has missed.
pub(super) fn events(
    place: OwnedSemaphorePermit,
    events: Receiver<api::Event>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let end = Instant::now() + STREAM_TIME_MAX;
    let stream = stream::unfold((events, place), move |(mut events, place)| async move {
        let event = match tokio::time::timeout_at(end, events.recv()).await {
            Ok(Ok(event)) => json("event", &event).id(event.id.to_string()),
            Ok(Err(RecvError::Lagged(missed))) => Event::default().event("missed").data(missed.to_string()),
            Ok(Err(RecvError::Closed)) | Err(_) => return None,
        };
        Some((Ok(event), (events, place)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

/// A sample at once, and one every second.
pub(super) fn samples(
    place: OwnedSemaphorePermit,
    take: impl FnMut() -> api::Sample + Send + 'static,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let end = Instant::now() + STREAM_TIME_MAX;
    let mut ticks = tokio::time::interval(SAMPLE_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = stream::unfold((ticks, take, place), move |(mut ticks, mut take, place)| async move {
        if ticks.tick().await >= end {
            return None;
        }
        let event = json("sample", &take());
        Some((Ok(event), (ticks, take, place)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

fn json(name: &str, value: &impl serde::Serialize) -> Event {
    let event = Event::default().event(name);
    event.json_data(value).expect("the types of the API are JSON")
}
