//! Whether this balancer is the one that is wrong: more than half of its backends are down for it and up for most of the
//! others, for so long that the others would have found them down too.

use std::time::Duration;

use super::own::{Judged, Own};
use crate::base::time::Instant;
use crate::config::model::{Check, Config};
use crate::fleet::known::Known;

/// How long that must last at least.
const HOLD_MIN: Duration = Duration::from_secs(5);
/// How long a finding of another balancer may take to be known here.
const NEWS_MAX: Duration = Duration::from_secs(2);

/// What is known of that.
#[derive(Default)]
pub(super) struct Alone {
    /// Since when its view is contradicted.
    since: Option<Instant>,
    is_reported: bool,
}

impl Alone {
    /// Returns what has changed: how it is alone, in words, or that it is so no more. What `known` has must be current:
    /// `None` where that is not so, and then it is not alone.
    pub(super) fn look(
        &mut self,
        name: &str,
        own: &Own,
        known: Option<&Known>,
        config: &Config,
        now: Instant,
    ) -> Option<Option<String>> {
        let Judged { down, count: judged } = &own.judged;
        let contradicted = |known: &Known| {
            if down.is_empty() { 0 } else { known.contradicted(name, down, &own.balancer.pools) }
        };
        let count = known.map_or(0, contradicted);
        if 2 * count <= *judged {
            self.since = None;
            return std::mem::take(&mut self.is_reported).then_some(None);
        }
        let since = *self.since.get_or_insert(now);
        if self.is_reported || now.since(since) < hold(config) {
            return None;
        }
        self.is_reported = true;
        Some(Some(format!(
            "{count} of {judged} backends are down here and up for most of the other balancers"
        )))
    }
}

/// Returns the time in which the others find down what is down: that of as many checks as it takes.
fn hold(config: &Config) -> Duration {
    let checked = config.pools.iter().map(|pool| &pool.health).filter(|health| health.check != Check::Off);
    let longest = checked.map(|health| health.interval * health.fall + NEWS_MAX).max();
    longest.unwrap_or_default().max(HOLD_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse, system_resolver};
    use crate::fleet::record::{Balancer, Key, State, Views, id_of};

    /// What a balancer publishes that sees "a" and "b" of the pool "web" in this state.
    fn own(state: State) -> Own {
        let mut views = Views::new(2);
        let ids = ["a", "b"].map(|name| id_of(name, "10.0.0.1:80"));
        ids.iter().for_each(|id| views.add(id.clone(), state, 0));
        let (pool, parts) = views.finish(0);
        let balancer = Balancer { pools: [("web".to_owned(), pool)].into(), ..Balancer::default() };
        let parts =
            parts.into_iter().zip(0..).map(|(part, number)| (("web".to_owned(), number), part)).collect();
        let down =
            ids.into_iter().filter(|_| state == State::Down).map(|id| ("web".to_owned(), id)).collect();
        Own { balancer, parts, judged: Judged { down, count: 2 } }
    }

    fn joins(known: &mut Known, name: &str, state: State) {
        let Own { balancer, parts, .. } = own(state);
        known.put(&Key::Balancer(name).to_string(), &serde_json::to_vec(&balancer).unwrap()).unwrap();
        for ((pool, part), value) in &parts {
            let key = Key::View { balancer: name, pool, part: *part };
            known.put(&key.to_string(), &serde_json::to_vec(value).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_balancer_is_alone_once_others_would_have_found_down_what_it_has() {
        let text = "[[listener]]\nbind = \":80\"\n[[pool]]\nhealth = { interval = \"4s\", fall = 3 }\n\
                    backend = [{ address = \"10.0.0.1:80\" }]\n";
        let config = parse(text, "test", &Overrides::default(), &mut system_resolver).unwrap();
        let mut known = Known::default();
        ["lb2", "lb3"].into_iter().for_each(|name| joins(&mut known, name, State::Up));
        let at = |seconds| Instant::default() + Duration::from_secs(seconds);
        let (down, up) = (own(State::Down), own(State::Up));
        let mut alone = Alone::default();
        let mut look = |own: &Own, known, seconds| alone.look("lb1", own, known, &config, at(seconds));
        assert_eq!(look(&down, Some(&known), 1), None);
        assert_eq!(look(&down, Some(&known), 14), None, "3 checks of 4 s, and 2 s for the news");
        assert_eq!(look(&up, Some(&known), 15), None, "that was too short");
        assert_eq!(look(&down, Some(&known), 20), None);
        let words = "2 of 2 backends are down here and up for most of the other balancers";
        assert_eq!(look(&down, Some(&known), 34), Some(Some(words.to_owned())));
        assert_eq!(look(&down, Some(&known), 35), None, "it is known");
        assert_eq!(look(&down, None, 36), Some(None), "the others cannot be read");
        assert_eq!(look(&down, Some(&known), 37), None);
        let mut other = known.clone();
        joins(&mut other, "lb3", State::Down);
        assert_eq!(look(&down, Some(&other), 60), None, "one of two agrees");
    }
}
