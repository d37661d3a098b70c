//! What the other balancers publish: all keys are listed, and watched from there on. A watch behind a silent partition says
//! nothing, so it is asked whether it is alive.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::seen::FleetState;
use crate::base::retries::{RETRY_MAX, jittered, retry_pause};
use crate::base::rng::Rng;
use crate::config::fleet::Fleet;
use crate::config::one_line;
use crate::control::status::View;
use crate::etcd::client::Client;
use crate::etcd::messages::{Change, Watched};
use crate::etcd::watch::Watch;
use crate::fleet::known::Known;
use crate::fleet::record::Key;

/// Keys of a fleet: those of 1,000 balancers with a pool of 10,000 backends.
const KEYS_MAX: usize = 20_000;
/// Keys of an answer, with values of at most some hundred KiB.
const PAGE_LEN: usize = 64;
/// A watch without a message for so long is asked whether it is alive.
const PROGRESS_PERIOD: Duration = Duration::from_secs(5);
/// How long it may take to answer that.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(3);
/// All balancers lose their watches at the same time, and list anew within this, in milliseconds.
const LIST_SPREAD_MILLIS: u64 = 1_000;

/// Follows the keys of the fleet, and keeps what is known of them in `view`.
pub(super) async fn follow(settings: &Fleet, view: &View, news: &Notify, mut rng: Rng) -> Infallible {
    let mut client = Client::new(settings.cluster.clone(), &mut rng);
    let mut tries = 0_u32;
    loop {
        let pause = match list(settings, &mut client, view).await {
            Ok(watch) => {
                tries = 0;
                news.notify_one();
                let why = events(settings, watch, view, news).await;
                log::debug!(why; "the watch of the fleet has ended");
                client.next_member();
                Duration::from_millis(rng.below(LIST_SPREAD_MILLIS))
            }
            Err(why) => {
                view.fleet().lost(&why, &view.events);
                client.next_member();
                let pause = jittered(retry_pause(tries, RETRY_MAX), &mut rng);
                tries = tries.saturating_add(1);
                pause
            }
        };
        sleep(pause).await;
    }
}

/// Lists all keys. Returns the watch of what comes behind.
async fn list(settings: &Fleet, client: &mut Client, view: &View) -> Result<Watch, String> {
    let prefix = settings.prefix.as_bytes();
    let (header, keys) = client.list(prefix, KEYS_MAX, PAGE_LEN, |kv| kv).await?;
    let watch = client.watch(prefix, header.revision.saturating_add(1)).await;
    let watch = watch.map_err(|error| error.to_string())?;
    let mut known = Known::default();
    for kv in keys {
        put(&mut known, settings, &kv.key, &kv.value);
    }
    view.fleet().listed(known, &view.events);
    Ok(watch)
}

/// Applies what happens. Returns why the watch has ended.
async fn events(settings: &Fleet, mut watch: Watch, view: &View, news: &Notify) -> String {
    loop {
        let message = match timeout(PROGRESS_PERIOD, watch.next()).await {
            Ok(message) => message,
            Err(_) => match watch.ask_progress() {
                Ok(()) => timeout(PROGRESS_TIMEOUT, watch.next())
                    .await
                    .unwrap_or_else(|_| Err("it does not answer".to_owned())),
                Err(why) => Err(why),
            },
        };
        match message {
            Ok(message) => {
                if apply(settings, message, &mut view.fleet()) {
                    news.notify_one();
                }
            }
            Err(why) => return why,
        }
    }
}

/// Returns whether something else is wanted on all balancers.
fn apply(settings: &Fleet, message: Watched, state: &mut FleetState) -> bool {
    let mut is_wanted = false;
    for event in message.events {
        let key = behind(settings, &event.kv.key).and_then(Key::parse);
        is_wanted |= matches!(key, Some(Key::Wanted { .. }));
        match event.change {
            Change::Put => put(Arc::make_mut(&mut state.known), settings, &event.kv.key, &event.kv.value),
            Change::Delete => {
                if let Some(key) = behind(settings, &event.kv.key) {
                    Arc::make_mut(&mut state.known).delete(key);
                }
            }
        }
    }
    is_wanted
}

fn put(known: &mut Known, settings: &Fleet, key: &[u8], value: &[u8]) {
    let Some(key) = behind(settings, key) else { return };
    if let Err(why) = known.put(key, value) {
        let key = one_line(key);
        log::warn!(key, why; "cannot read what a balancer of the fleet publishes");
    }
}

/// Returns a key without the prefix of the fleet.
fn behind<'k>(settings: &Fleet, key: &'k [u8]) -> Option<&'k str> {
    std::str::from_utf8(key).ok()?.strip_prefix(&settings.prefix)
}
