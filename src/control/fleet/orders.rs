//! States of backends that are wanted on all balancers: put in etcd as operators ask for them, and put in force here.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::seen::Order;
use crate::base::rng::Rng;
use crate::config::fleet::Fleet;
use crate::control::status::View;
use crate::etcd::client::Client;
use crate::fleet::record::{Key, State, Wanted};
use crate::messages::report::{Report, Reports};
use crate::messages::request::{Ask, Named, Request};
use crate::pool::Admin;

/// Orders on their way to the thread.
pub(super) const ORDERS_MAX: usize = 16;
/// Limit for the requests of one order.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5);
/// Begins the author of a state that comes from the fleet.
const AUTHOR: &str = "fleet: ";

/// Carries orders out until no more can come.
pub(super) async fn carry_out(settings: &Fleet, orders: &mut mpsc::Receiver<Order>, mut rng: Rng) {
    let mut client = Client::new(settings.cluster.clone(), &mut rng);
    while let Some(Order { backends, wanted, reply }) = orders.recv().await {
        let put = timeout(ORDER_TIMEOUT, put(settings, &mut client, &backends, wanted.as_ref())).await;
        let put = put.unwrap_or_else(|_| Err(format!("etcd took longer than {ORDER_TIMEOUT:?}")));
        // The requester may have gone.
        let _gone = reply.send(put);
    }
}

async fn put(
    settings: &Fleet,
    client: &mut Client,
    backends: &[Named],
    wanted: Option<&Wanted>,
) -> Result<(), String> {
    let value = wanted.map(|wanted| json!(wanted).to_string());
    for Named { pool, backend } in backends {
        let key = format!("{}{}", settings.prefix, Key::Wanted { pool, backend });
        let done = match &value {
            Some(value) => client.put(key.as_bytes(), value.as_bytes()).await,
            None => client.remove(key.as_bytes()).await,
        };
        done.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Asks the control thread for what is wanted and not yet so here, and to end what is wanted no more. Nothing of that is
/// known before the fleet was read.
pub(super) fn put_in_force(view: &View, reports: &Reports) {
    let known = {
        let fleet = view.fleet();
        if !fleet.is_read {
            return;
        }
        Arc::clone(&fleet.known)
    };
    let wanted = known.wanted();
    let mut requests = Vec::new();
    let state = view.state();
    for pool in &state.snapshot.pools {
        for backend in &pool.backends {
            let now = backend.operator_admin();
            let named = || (pool.settings.name.clone(), backend.name.clone());
            let (admin, by) = match wanted.get(&named()) {
                Some(wanted) => (admin_of(wanted.admin), wanted.by.clone()),
                None if now == Admin::Ready => continue,
                None => {
                    let author = state.notes.get(&backend.id).and_then(|note| note.admin_set.as_ref());
                    let Some(by) = author.and_then(|(who, _)| who.strip_prefix(AUTHOR)) else { continue };
                    (Admin::Ready, by.to_owned())
                }
            };
            if admin != now {
                let (pool, backend) = named();
                requests.push((Named { pool, backend }, admin, by));
            }
        }
    }
    drop(state);
    for (backend, admin, by) in requests {
        // A refusal is logged there; what is not so yet is asked for again.
        let (reply, _) = oneshot::channel();
        let request = Request::Change { backend, weight: None, admin: Some(admin), reply };
        if !reports.try_send(Report::Ask(Ask { who: format!("{AUTHOR}{by}"), request })) {
            return;
        }
    }
}

const fn admin_of(state: State) -> Admin {
    match state {
        State::Maint => Admin::Maint,
        State::Drain => Admin::Drain,
        State::Up | State::Down | State::Unknown => Admin::Ready,
    }
}
