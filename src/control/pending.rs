//! Keys of the latest configuration that need a restart, and since when.

use jiff::Timestamp;

use crate::config::diff::Change;

/// One key that needs a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// From the running value to the new one.
    pub(crate) change: Change,
    /// When a reload first asked for another value.
    pub(crate) since: Timestamp,
}

/// Returns the keys pending after a reload with these `changes`, where those of `before` were pending already.
pub(super) fn pending(before: &[Pending], changes: &[&Change], now: Timestamp) -> Vec<Pending> {
    let waiting = changes.iter().filter(|change| change.needs_restart.is_some());
    let since = |change: &Change| {
        let same = before.iter().find(|pending| pending.change.key() == change.key());
        same.map_or(now, |pending| pending.since)
    };
    waiting.map(|&change| Pending { since: since(change), change: change.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diff::diff;
    use crate::config::settle;
    use crate::control::tests::config;

    #[test]
    fn a_key_waits_from_the_first_reload_that_wants_it_until_one_wants_what_runs() {
        let running = config("");
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut waits = Vec::new();
        let mut reload = |pin, socket: bool, second| {
            let mut wanted = running.clone();
            wanted.global.pin = pin;
            if !socket {
                wanted.admin.socket = crate::config::model::AdminSocket::Off;
            }
            assert_eq!(settle(&running, &wanted), running);
            let changes = diff(&running, &wanted);
            waits = pending(&waits, &changes.iter().collect::<Vec<_>>(), at(second));
            waits.iter().map(|pending| (pending.change.key(), pending.since)).collect::<Vec<_>>()
        };
        assert_eq!(reload(true, true, 1), [("pin".into(), at(1))]);
        assert_eq!(reload(true, false, 2), [("pin".into(), at(1)), ("admin.socket".into(), at(2))]);
        assert_eq!(reload(false, false, 3), [("admin.socket".into(), at(2))]);
        assert_eq!(reload(false, true, 4), []);
        assert_eq!(reload(true, true, 5), [("pin".into(), at(5))]);
    }
}
