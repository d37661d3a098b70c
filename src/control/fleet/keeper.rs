//! The thread of the fleet: it publishes what this balancer does, and follows what the others do. It ends once its owner is
//! dropped, behind one last try to withdraw its keys.

use std::convert::Infallible;
use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::alone::Alone;
use super::follow::follow;
use super::orders::{ORDERS_MAX, carry_out, put_in_force};
use super::own::Reader;
use super::publish::{LOAD_PERIOD, Publisher};
use super::seen::{FleetState, Order};
use crate::base::retries::{RENEWALS, jittered, retry_pause};
use crate::base::rng::Rng;
use crate::config::fleet::Fleet;
use crate::control::keeper::{Keeper, WITHDRAW_TIMEOUT};
use crate::control::status::View;
use crate::fleet::known::Known;
use crate::messages::report::{Report, Reports};

/// At most one write in this time.
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// Limit for the requests of one round, where the lease is short.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Starts the thread, which only a process of a fleet has.
pub(super) fn start(view: Arc<View>, reports: Reports, news: Arc<Notify>) -> io::Result<Keeper<Fleet>> {
    Keeper::start("l4lb-fleet", |settings| async move {
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let here = Here { view: &view, news: &news, reports: &reports };
        keep(settings, &here, &orders, received).await;
    })
}

/// Everything that the thread shares with others.
struct Here<'a> {
    view: &'a View,
    /// Notified when something that is published, or wanted, may have changed.
    news: &'a Notify,
    reports: &'a Reports,
}

async fn keep(
    mut settings: watch::Receiver<Option<Fleet>>,
    here: &Here<'_>,
    orders: &mpsc::Sender<Order>,
    mut received: mpsc::Receiver<Order>,
) {
    let view = here.view;
    let mut rng = Rng::new(RandomState::new().hash_one("fleet"));
    loop {
        let now = settings.borrow_and_update().clone();
        here.reports.send_waiting(Report::Alone(None));
        let Some(fleet) = now else {
            *view.fleet() = FleetState::default();
            match settings.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        let (name, orders) = (Some(fleet.name.clone()), Some(orders.clone()));
        *view.fleet() = FleetState { name, orders, ..FleetState::default() };
        let mut publisher = Publisher::new(&fleet, &mut rng);
        let [following, ordering] = [(); 2].map(|()| Rng::new(rng.below(u64::MAX)));
        let is_over = {
            let changed = pin!(settings.changed());
            let publishing = pin!(publish(&fleet, &mut publisher, here, &mut rng));
            let following = pin!(follow(&fleet, view, here.news, following));
            let ordering = pin!(async {
                carry_out(&fleet, &mut received, ordering).await;
                pending::<Infallible>().await
            });
            match select(changed, select(select(publishing, ordering), following)).await {
                Either::Left((changed, _)) => changed.is_err(),
                Either::Right((Either::Left((never, _)), _)) => match never {
                    Either::Left((never, _)) | Either::Right((never, _)) => match never {},
                },
                Either::Right((Either::Right((never, _)), _)) => match never {},
            }
        };
        let withdrawn = timeout(WITHDRAW_TIMEOUT, publisher.withdraw()).await;
        if let Ok(Err(why)) = withdrawn {
            log::warn!(why; "cannot withdraw its keys of the fleet, which end with their lease");
        }
        if is_over {
            return;
        }
    }
}

/// Publishes what this balancer does, whenever that changes.
async fn publish(settings: &Fleet, publisher: &mut Publisher, here: &Here<'_>, rng: &mut Rng) -> Infallible {
    let renewal = settings.lease / RENEWALS;
    let patience = renewal.max(PATIENCE_MIN);
    let Here { view, news, reports } = here;
    let (mut reader, mut alone) = (Reader::default(), Alone::default());
    let mut tries = 0_u32;
    loop {
        put_in_force(view, reports);
        let own = reader.read(view);
        let config = Arc::clone(&view.state().config);
        let changed = {
            let known = current(view);
            alone.look(&settings.name, &own, known.as_deref(), &config, view.clock.now())
        };
        if let Some(changed) = changed {
            reports.send_waiting(Report::Alone(changed));
        }
        let kept = timeout(patience, publisher.keep(&own)).await;
        let kept = kept.unwrap_or_else(|_| Err(publisher.late(patience)));
        match kept {
            Ok(has_more) => {
                tries = 0;
                view.fleet().kept(&view.events);
                let pause = WRITE_PAUSE.min(renewal);
                sleep(pause).await;
                if !has_more {
                    let rest = jittered(LOAD_PERIOD.min(renewal), rng).saturating_sub(pause);
                    let _nothing_new = timeout(rest, news.notified()).await;
                }
            }
            Err(why) => {
                view.fleet().fails(&why, &view.events);
                sleep(jittered(retry_pause(tries, renewal), rng)).await;
                tries = tries.saturating_add(1);
            }
        }
    }
}

/// Returns what is known of the fleet, unless that is not of now.
fn current(view: &View) -> Option<Arc<Known>> {
    let fleet = view.fleet();
    fleet.lost.is_none().then(|| Arc::clone(&fleet.known))
}
