//! The thread that keeps records: it is given what should be there, and reports what has become of that.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use tokio::sync::watch;
use tokio::time::timeout;

use super::records::Records;
use crate::base::retries::{RENEWALS, RETRY_MAX, jittered, retry_pause};
use crate::base::rng::Rng;
use crate::config::announce::{Announce, Record};
use crate::control::keeper::Keeper;
use crate::messages::announce::Announced;
use crate::messages::report::{Report, Reports};

/// What should be there; without records nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) settings: Arc<Announce>,
    pub(super) records: Arc<[Record]>,
}

/// Starts the thread, which only a process that announces itself has.
pub(super) fn start(reports: Reports) -> io::Result<Keeper<Wanted>> {
    Keeper::start("l4lb-announce", |wanted| keep(wanted, reports))
}

async fn keep(mut wanted: watch::Receiver<Option<Wanted>>, reports: Reports) {
    let mut rng = Rng::new(RandomState::new().hash_one("announce"));
    let (mut held, mut last, mut tries) = (None, Announced::Withdrawn, 0);
    let mut reported = None;
    loop {
        let now = wanted.borrow_and_update().clone();
        let announced = {
            let (step, changed) = (pin!(step(&mut held, now.as_ref(), &mut rng)), pin!(wanted.changed()));
            match select(step, changed).await {
                Either::Left((announced, _)) => announced,
                // What it was about to do is wanted no more.
                Either::Right((Ok(()), _)) => continue,
                Either::Right((Err(_), _)) => break,
            }
        };
        // Another configuration may have made the last report forgotten.
        if announced != last || now != reported {
            reports.send_waiting(Report::Announced(announced.clone()));
        }
        let renewal = now.as_ref().map_or(RETRY_MAX, |now| now.settings.lease / RENEWALS);
        let pause = match announced {
            Announced::Withdrawn => None,
            Announced::Kept(_) => Some(renewal),
            Announced::Failing(_) => Some(retry_pause(tries, renewal)),
        };
        tries = if matches!(announced, Announced::Failing(_)) { tries.saturating_add(1) } else { 0 };
        (last, reported) = (announced, now);
        let pause = pause.map(|pause| jittered(pause, &mut rng));
        let changed = match pause {
            None => wanted.changed().await,
            Some(pause) => timeout(pause, wanted.changed()).await.unwrap_or(Ok(())),
        };
        if changed.is_err() {
            break;
        }
    }
    if let Some(mut held) = held
        && let Err(why) = Records::withdraw(&mut held).await
    {
        log::warn!(why; "the process ends");
    }
}

/// Makes one try. Returns what has become of it.
async fn step(held: &mut Option<Records>, wanted: Option<&Wanted>, rng: &mut Rng) -> Announced {
    let wanted = wanted.filter(|wanted| !wanted.records.is_empty());
    let is_other = |held: &Records| {
        wanted.is_none_or(|Wanted { settings, .. }| !held.is_of(&settings.cluster, settings.lease))
    };
    if let Some(other) = held.as_mut().filter(|held| is_other(held)) {
        match (other.withdraw().await, wanted) {
            (Ok(()), _) => {}
            // What is wanted now must not wait for a cluster that may never come back.
            (Err(why), Some(_)) => log::warn!(why; "the former records in DNS end with their lease"),
            (Err(_), None) if other.is_over() => {}
            (Err(why), None) => return Announced::Failing(why),
        }
        *held = None;
    }
    let Some(Wanted { settings, records }) = wanted else { return Announced::Withdrawn };
    let held = held.get_or_insert_with(|| Records::new(settings.cluster.clone(), settings.lease, rng));
    match held.keep(records).await {
        Ok(()) => Announced::Kept(records.len()),
        Err(why) => Announced::Failing(why),
    }
}
