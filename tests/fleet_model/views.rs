//! What the balancers of a fleet publish of themselves, by the code that does so.

use l4lb::fleet::record::{Balancer, Key, Part, Pool, State, Views, id_of};

use super::event_bytes;

const PREFIX: &str = "/l4lb-fleet/";
const POOL: &str = "web";
const BALANCER: &str = "lb42";
/// One of so many backends fails, and at least one.
const FAILED_OF: usize = 100;

/// What is written and sent when backends fail at the same moment.
pub(super) struct Outage {
    /// Keys that each balancer writes: parts of its view, and its record, which counts them.
    pub(super) keys: usize,
    /// Bytes of the events of these.
    pub(super) bytes: usize,
}

fn view(backends: usize, is_up: impl Fn(usize) -> bool) -> (Pool, Vec<Part>) {
    let mut views = Views::new(backends);
    let mut up = 0;
    for backend in 0..backends {
        let id = id_of(&format!("b{backend:05}"), &format!("10.0.{}.{}:8080", backend / 250, backend % 250));
        let state = if is_up(backend) { State::Up } else { State::Down };
        up += u64::from(is_up(backend));
        views.add(id, state, 1_795_000_000);
    }
    views.finish(up)
}

/// Returns the bytes of the event of a record, as it is while all backends are up.
pub(super) fn record_bytes(backends: usize) -> usize {
    event_of_record(view(backends, |_| true).0)
}

fn event_of_record(pool: Pool) -> usize {
    let record = Balancer {
        version: "0.1.0".to_owned(),
        stage: "serving".to_owned(),
        config: "0123456789abcdef".to_owned(),
        sessions: 12_345,
        rate: 1_234.5,
        listeners: [("web".to_owned(), "10.0.0.42:8080".to_owned())].into(),
        pools: [(POOL.to_owned(), pool)].into(),
        ..Balancer::default()
    };
    let value = serde_json::to_string(&record).expect("a record is JSON");
    event_bytes(&format!("{PREFIX}{}", Key::Balancer(BALANCER)), &value)
}

/// Returns what each balancer publishes when one of [`FAILED_OF`] backends fails.
pub(super) fn outage(backends: usize) -> Outage {
    let (_, before) = view(backends, |_| true);
    let (pool, after) = view(backends, |backend| backend % FAILED_OF != 0);
    let changed = (0..).zip(before.iter().zip(&after)).filter(|(_, (before, after))| before != after);
    let mut outage = Outage { keys: 1, bytes: event_of_record(pool) };
    for (part, (_, after)) in changed {
        let key = format!("{PREFIX}{}", Key::View { balancer: BALANCER, pool: POOL, part });
        let value = serde_json::to_string(after).expect("a part is JSON");
        outage.keys += 1;
        outage.bytes += event_bytes(&key, &value);
    }
    outage
}

#[test]
fn one_backend_that_fails_changes_the_record_and_one_part() {
    assert_eq!(outage(30).keys, 2);
    assert_eq!(outage(100).keys, 2);
}
