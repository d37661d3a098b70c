//! Backends that etcd lists: a key each.
//!
//! All keys are listed, and from the next revision on they are watched. Whenever a watch ends, all keys are listed anew, at
//! the next member: one that is begun where the last one ended misses what was deleted at a revision that is compacted
//! meanwhile, without an error. Behind a silent partition a watch just says nothing: so it is asked for progress each
//! `interval`, and given up where it does not answer. Which backends the keys are is decided by `view`.
//!
//! An empty prefix is what etcd says, and is believed. A cluster that knows less than before has lost data, by a backup
//! or a folder made anew: it is believed after [`DOUBT`] only, in which those that renew a lease come back.

mod view;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::view::View;
use super::belief::{Answer, Records};
use super::source::Source;
use crate::base::rng::Rng;
use crate::config::LISTED_MAX;
use crate::config::discover::Etcd;
use crate::etcd::client::Client;
use crate::etcd::messages::{Header, Watched};
use crate::etcd::request::EtcdError;
use crate::etcd::watch::Watch;

/// How long a watch may take to answer that it is alive.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(3);
/// No event for so long ends a row of them, which are one change.
const QUIET: Duration = Duration::from_millis(5);
/// A row of events is one change after so long in any case.
const LATEST: Duration = Duration::from_millis(100);
/// All balancers lose their watches at the same time, and list anew within this.
const LIST_SPREAD: Duration = Duration::from_secs(1);
/// How long a cluster that knows less than before is not believed.
const DOUBT: Duration = Duration::from_secs(30);

/// The keys with a prefix.
pub(super) struct AskEtcd {
    settings: Etcd,
    client: Client,
    watch: Option<Watch>,
    /// What is known of the keys.
    view: View,
    /// The view has changed since the last answer.
    is_news: bool,
    /// As of when the view is; `None` before the first list.
    as_of: Option<Header>,
    /// Since when the cluster knows less than before.
    doubted: Option<Instant>,
    rng: Rng,
}

impl AskEtcd {
    /// Which member is asked first is left to `rng`: not all balancers ask the same one.
    pub(super) fn new(settings: Etcd, mut rng: Rng) -> Self {
        Self {
            client: Client::new(settings.cluster.clone(), &mut rng),
            view: View::new(&settings.prefix),
            settings,
            watch: None,
            is_news: false,
            as_of: None,
            doubted: None,
            rng,
        }
    }

    /// Returns what the keys list. Fails with what went wrong.
    async fn take(&mut self) -> Result<Records, String> {
        let is_news = std::mem::take(&mut self.is_news);
        if self.watch.is_some() && !is_news {
            // Either it is alive, or there is none.
            self.confirm().await;
        }
        if self.watch.is_none() {
            self.list().await?;
        }
        Ok(self.view.records())
    }

    /// Drops the watch unless it answers.
    async fn confirm(&mut self) {
        let Some(mut watch) = self.watch.take() else { return };
        let progress = async {
            watch.ask_progress()?;
            loop {
                let message = watch.next().await?;
                if !self.apply(message)? {
                    return Ok::<_, String>(());
                }
            }
        };
        match timeout(PROGRESS_TIMEOUT, progress).await {
            Ok(Ok(())) => self.watch = Some(watch),
            Ok(Err(why)) => self.lost(&why),
            Err(_) => self.lost("it does not answer"),
        }
    }

    fn lost(&mut self, why: &str) {
        let (prefix, member) = (&self.settings.prefix, self.client.member());
        log::debug!(prefix, member:%, why; "a watch of etcd has ended");
        self.watch = None;
        self.client.next_member();
    }

    /// Applies a message. Returns whether it has events.
    fn apply(&mut self, message: Watched) -> Result<bool, String> {
        let has_events = !message.events.is_empty();
        self.view.apply(message.events)?;
        if let Some(as_of) = &mut self.as_of {
            as_of.revision = as_of.revision.max(message.header.revision);
        }
        Ok(has_events)
    }

    /// Lists all keys, and watches from there on.
    async fn list(&mut self) -> Result<(), String> {
        let prefix = self.settings.prefix.as_bytes();
        let keep = |kv| view::bounded(kv, prefix);
        let (header, keys) = self.client.list(prefix, LISTED_MAX, usize::MAX, keep).await?;
        let is_less = self
            .as_of
            .is_some_and(|as_of| header.cluster_id != as_of.cluster_id || header.revision < as_of.revision);
        if is_less {
            let since = *self.doubted.get_or_insert_with(Instant::now);
            if since.elapsed() < DOUBT {
                return Err(format!(
                    "{}: it has lost data, or is another cluster (revision {} after {}): believed after {} s",
                    self.client.member(),
                    header.revision,
                    self.as_of.map_or(0, |as_of| as_of.revision),
                    DOUBT.as_secs()
                ));
            }
        }
        let watch = self
            .client
            .watch(prefix, header.revision.saturating_add(1))
            .await
            .map_err(|error| self.away(&error))?;
        self.view.replace(keys);
        (self.as_of, self.doubted, self.watch) = (Some(header), None, Some(watch));
        Ok(())
    }

    /// The next member may do better.
    fn away(&mut self, error: &EtcdError) -> String {
        self.client.next_member();
        error.to_string()
    }
}

impl Source for AskEtcd {
    async fn ask(&mut self) -> Answer {
        self.take().await.map_or_else(Answer::Failure, Answer::Records)
    }

    /// Returns behind a row of events, and once the watch has ended.
    async fn changed(&mut self) {
        let mut latest: Option<Instant> = None;
        loop {
            let Some(watch) = &mut self.watch else { return std::future::pending().await };
            let message = match latest {
                None => watch.next().await,
                Some(latest) => match timeout_at(latest.min(Instant::now() + QUIET), watch.next()).await {
                    Ok(message) => message,
                    Err(_) => return,
                },
            };
            match message.and_then(|message| self.apply(message)) {
                Ok(true) => {
                    self.is_news = true;
                    latest.get_or_insert_with(|| Instant::now() + LATEST);
                }
                Ok(false) => {}
                Err(why) => {
                    self.lost(&why);
                    let spread = u64::try_from(LIST_SPREAD.as_millis()).unwrap_or(u64::MAX);
                    sleep(Duration::from_millis(self.rng.below(spread))).await;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
