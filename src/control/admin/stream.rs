//! Server-sent events: events and samples as they happen.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior};

use super::context::Context;
use super::problem::Problem;
use super::sampler::Sampler;
use super::work::Work;
use crate::api;

/// Most streams at a time over all listeners.
pub(super) const STREAMS_MAX: usize = 16;
/// A stream ends then, and its reader reconnects: one without a reader is not held for ever.
const STREAM_TIME_MAX: Duration = Duration::from_mins(10);
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

/// How often a stream without events writes something: only a write reports that its reader has left.
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(5);

/// A place for one stream, which counts as work of its client while it is held.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _work: Work,
}

/// Returns a place for one stream; fails when there are [`STREAMS_MAX`] already.
pub(super) fn place(streams: &Arc<Semaphore>, work: Work) -> Result<Place, Problem> {
    let full = |_| {
        let what = format!("there are {STREAMS_MAX} streams already");
        Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, what)
    };
    let permit = Arc::clone(streams).try_acquire_owned().map_err(full)?;
    Ok(Place { _permit: permit, _work: work })
}

/// Server-sent events as they happen: `event` with an Event each, `missed` with a number after a reader was too slow
#[utoipa::path(
    get, path = "/v1/events/stream",
    responses(
        (status = OK, content_type = "text/event-stream", body = String),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn event_stream(
    State(context): State<Context>,
    Extension(work): Extension<Work>,
) -> Result<impl IntoResponse, Problem> {
    let place = place(&context.streams, work)?;
    Ok(events(place, context.view.events.subscribe()))
}

/// Counts as server-sent events: `sample` with a Sample, at once and then once a second
#[utoipa::path(
    get, path = "/v1/samples/stream",
    responses(
        (status = OK, content_type = "text/event-stream", body = String),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn sample_stream(
    State(context): State<Context>,
    Extension(work): Extension<Work>,
) -> Result<impl IntoResponse, Problem> {
    let place = place(&context.streams, work)?;
    let mut sampler = Sampler::new(context.view);
    Ok(samples(place, move || sampler.take()))
}

/// Returns the stream of events. A slow reader gets the number of events that it missed.
pub(super) fn events(
    place: Place,
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
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_PERIOD))
}

/// Returns the stream of samples: one at once, and one every second.
pub(super) fn samples(
    place: Place,
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
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_PERIOD))
}

fn json(name: &str, value: &impl serde::Serialize) -> Event {
    let event = Event::default().event(name);
    event.json_data(value).expect("API types serialize to JSON")
}
