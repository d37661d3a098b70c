//! Scrapes are built on a thread of their own: listing the open files of the process and writing the series of 10,000
//! backends must not delay other clients.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use tokio::sync::{Mutex, oneshot};

use super::problem::Problem;
use crate::base::time::Instant;
use crate::control::metrics::Metrics;
use crate::control::{Standby, View};

/// Most scrapes that wait for the one being built.
const WAITING_MAX: usize = 8;
/// The age up to which several clients share a scrape.
const SHARED_FOR: Duration = Duration::from_secs(1);

pub(super) struct Scraper {
    view: Arc<View>,
    metrics: Arc<Metrics>,
    thread: Standby,
    /// The last shared scrape, and when it was begun.
    shared: Mutex<Option<(Instant, Bytes)>>,
}

impl Scraper {
    /// Starts the thread. Fails when that is not possible.
    pub(super) fn start(view: Arc<View>) -> io::Result<Self> {
        let metrics = Arc::new(Metrics::new(Arc::clone(&view)));
        let thread = Standby::start("l4lb-scrape", 1, WAITING_MAX)?;
        Ok(Self { view, metrics, thread, shared: Mutex::default() })
    }

    /// Returns all series with their present values.
    pub(super) async fn now(&self) -> Result<Bytes, Problem> {
        let (sender, built) = oneshot::channel();
        let metrics = Arc::clone(&self.metrics);
        let is_taken = self.thread.try_run(move || {
            // The client may have given up while it waited.
            if !sender.is_closed() {
                let _gone = sender.send(metrics.scrape());
            }
        });
        let failed = |status, what: &str| Problem::new(status, what);
        if !is_taken {
            return Err(failed(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes are being built"));
        }
        match built.await {
            Ok(Ok(text)) => Ok(text.into()),
            Ok(Err(_)) => Err(failed(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written")),
            Err(_) => {
                Err(failed(StatusCode::SERVICE_UNAVAILABLE, "the thread that builds scrapes has ended"))
            }
        }
    }

    /// Returns all series, or those another client got less than a second ago: however many clients there are, one
    /// scrape per second is built.
    pub(super) async fn recent(&self) -> Result<Bytes, Problem> {
        // Held while one is built: the others wait for that one.
        let mut shared = self.shared.lock().await;
        let now = self.view.clock.now();
        if let Some((began, text)) = &*shared
            && now - *began < SHARED_FOR
        {
            return Ok(text.clone());
        }
        let text = self.now().await?;
        *shared = Some((now, text.clone()));
        Ok(text)
    }
}
