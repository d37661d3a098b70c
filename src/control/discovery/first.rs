//! What a pool has of its sources before they answer in the life of this process (`initial`).
//!
//! The first answers without which nothing starts are asked for by the thread that starts the process, before it
//! listens, and by the one that reads a configuration for a reload, which the control thread does not wait for.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::kinds;
use super::state::Followed;
use crate::config::Config;
use crate::config::discover::{Discover, Initial};
use crate::control::control_loop::ControlLoop;
use crate::messages::discovery::Listed;

/// How often a source is asked.
const TRIES: u32 = 2;
/// A file system that hangs, or many silent name servers: a start must end, and a reload within its own time.
const LIMIT: Duration = Duration::from_secs(10);
/// Until it is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Returns what the sources of `config` list that must answer first, except those that are `known`: their answers are
/// in use already. Waits for all of them at once. Fails with one line for each that has not answered.
pub(crate) fn first_answers(
    config: &Config,
    is_known: impl Fn(&str, &str) -> bool,
) -> Result<Vec<Listed>, Vec<String>> {
    let sources =
        config.pools.iter().flat_map(|pool| pool.discover.iter().map(|source| (&pool.name, source)));
    let must_answer = |(pool, source): &(&String, &Discover)| {
        source.initial == Initial::Fail && !is_known(pool, &source.label())
    };
    let wanted: Vec<(String, Discover)> =
        sources.filter(must_answer).map(|(pool, source)| (pool.clone(), source.clone())).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error: io::Error| vec![format!("cannot ask sources: {error}")])?;
    runtime.block_on(ask_all(wanted))
}

async fn ask_all(wanted: Vec<(String, Discover)>) -> Result<Vec<Listed>, Vec<String>> {
    let mut asking = JoinSet::new();
    for (place, (pool, source)) in wanted.into_iter().enumerate() {
        asking.spawn(async move { (place, ask(pool, source).await) });
    }
    // In the order of the configuration, whichever answers first.
    let mut answers = asking.join_all().await;
    answers.sort_unstable_by_key(|(place, _)| *place);
    let (mut listed, mut errors) = (Vec::new(), Vec::new());
    for (_, answer) in answers {
        match answer {
            Ok(found) => listed.push(found),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(listed) } else { Err(errors) }
}

async fn ask(pool: String, source: Discover) -> Result<Listed, String> {
    let label = source.label();
    let mut tries = 1;
    loop {
        let look = tokio::time::timeout(LIMIT, kinds::look(&source));
        match look.await.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs()))) {
            Ok((list, _)) => return Ok(Listed { pool, source: label, list, age: Duration::ZERO }),
            Err(error) if tries == TRIES => {
                let initial = Initial::Fail.as_str();
                return Err(format!(
                    "pool {pool:?}: discover {label}: no first answer, which initial = {initial:?} needs: {error} \
                     (asked {TRIES} times)"
                ));
            }
            Err(error) => {
                log::warn!(pool, source = label, error; "no first answer, asked once more");
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl ControlLoop {
    /// Returns the lists of sources that must survive a restart.
    pub(in crate::control) fn listed_to_keep(&self) -> Vec<Listed> {
        let (config, now) = (&self.control.config, self.clock.now());
        let sources =
            config.pools.iter().flat_map(|pool| pool.discover.iter().map(|source| (&pool.name, source)));
        let kept = sources.filter(|(_, source)| source.initial == Initial::StateFile);
        let listed = kept.map(|(pool, source)| {
            let label = source.label();
            let is_it = |known: &&Followed| known.pool == *pool && known.label == label;
            let runs = self.sources.all.iter().find(is_it);
            let runs = runs.map(|known| (known.last.clone(), known.answered.age_at(now)));
            let first = || self.sources.listed.iter().find(|first| first.is_of(pool, &label));
            let (list, age) =
                runs.or_else(|| first().map(|first| (first.list.clone(), first.age))).unwrap_or_default();
            Listed { pool: pool.clone(), source: label, list, age }
        });
        listed.filter(|listed| !listed.list.is_empty()).collect()
    }

    /// Returns the sources that have answered in the life of this process: pool and label.
    pub(in crate::control) fn answered_sources(&self) -> HashSet<(String, String)> {
        let state = self.control.view.state();
        let answered = state.sources.iter().filter(|row| row.answered.is_some());
        answered.map(|row| (row.pool.clone(), row.source.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::config::{self, Overrides};
    use crate::control::discovery::state::Sources;
    use crate::control::membership::listed::{listed_in, saved_source};
    use crate::control::tests::control;
    use crate::messages::discovery::{Found, Outcome, SourceReport};
    use crate::pool::Snapshot;
    use crate::sys::timestamp;

    /// A source that nothing answers.
    const TEXT: &str = "[admin]\nstate_file = \"/s\"\n[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\n\
        [[pool.discover]]\ntype = \"dns\"\nname = \"web.test\"\nport = 80\nresolver = [\"127.0.0.1:1\"]\n\
        interval = \"1h\"\ninitial = \"state_file\"\n";

    fn listed(last: &[u8]) -> Listed {
        let found = |&last: &u8| {
            let address = SocketAddr::from(([10, 0, 0, last], 80));
            Found { name: address.to_string(), address: address.into(), weight: 1, priority: 0 }
        };
        Listed {
            pool: "web".into(),
            source: "dns:web.test:80".into(),
            list: last.iter().map(found).collect(),
            age: Duration::ZERO,
        }
    }

    /// What would be saved now, whatever its age.
    fn kept(work: &ControlLoop) -> Vec<Listed> {
        let kept = work.listed_to_keep().into_iter();
        kept.map(|listed| Listed { age: Duration::ZERO, ..listed }).collect()
    }

    fn reports(work: &mut ControlLoop, list: Option<Vec<Found>>, outcome: Outcome) {
        let id = work.sources.all[0].id;
        work.on_discovered(id, SourceReport { list, outcome, note: None }, Duration::from_hours(1));
        work.apply_lists();
    }

    /// A reload did not ask a source that has not answered: its backends were those of a file.
    #[test]
    fn a_saved_list_is_no_answer() {
        let no_names = &mut |_: &str| Ok(Vec::new());
        let config = config::parse(TEXT, "test", &Overrides::default(), no_names).unwrap();
        let mut work = ControlLoop::new(control(Snapshot::new(&config), &[]));
        work.control.config = Arc::new(config);
        work.sources = Sources::new(vec![listed(&[1, 2])]);
        work.follow_sources();
        assert_eq!(work.control.view.state().sources[0].backends, 2);
        assert!(work.answered_sources().is_empty());
        reports(&mut work, None, Outcome::Failed);
        assert!(work.answered_sources().is_empty());
        reports(&mut work, Some(listed(&[2]).list), Outcome::Found);
        assert_eq!(work.answered_sources().len(), 1);
    }

    /// A reload right behind another one asked again, and was refused where the source gave no second answer.
    #[test]
    fn a_first_answer_is_one() {
        let no_names = &mut |_: &str| Ok(Vec::new());
        let text = TEXT.replace("initial = \"state_file\"", "initial = \"fail\"");
        let config = config::parse(&text, "test", &Overrides::default(), no_names).unwrap();
        let mut work = ControlLoop::new(control(Snapshot::new(&config), &[]));
        work.control.config = Arc::new(config);
        work.sources = Sources::new(vec![listed(&[1, 2])]);
        work.follow_sources();
        assert_eq!(work.answered_sources().len(), 1);
    }

    /// `stale` began anew with each restart.
    #[test]
    fn the_time_of_the_last_answer_outlasts_a_restart() {
        let no_names = &mut |_: &str| Ok(Vec::new());
        let text = TEXT.replace("interval", "stale = \"1h\"\ninterval");
        let config = config::parse(&text, "test", &Overrides::default(), no_names).unwrap();
        let now = timestamp();
        let hour = Duration::from_hours(1);
        let kept = |age: Duration| {
            let saved = saved_source(Listed { age, ..listed(&[1]) }, &config, now);
            listed_in(vec![saved], &config, now + Duration::from_mins(5))
        };
        assert_eq!(kept(hour)[0].age, hour + Duration::from_mins(5));
        let mut old = saved_source(listed(&[1]), &config, now);
        old.answered = None;
        assert_eq!(listed_in(vec![old], &config, now)[0].age, Duration::ZERO, "of an older version");
        let mut work = ControlLoop::new(control(Snapshot::new(&config), &[]));
        work.control.config = Arc::new(config.clone());
        work.sources = Sources::new(kept(hour));
        work.follow_sources();
        assert!(work.listed_to_keep()[0].age > hour, "also in the file that is written next");
        reports(&mut work, Some(listed(&[1]).list), Outcome::Found);
        assert!(work.listed_to_keep()[0].age < hour);
    }

    #[test]
    fn a_saved_list_is_in_the_pool_until_the_first_answer_replaces_it() {
        let no_names = &mut |_: &str| Ok(Vec::new());
        let config = config::parse(TEXT, "test", &Overrides::default(), no_names).unwrap();
        let mut work = ControlLoop::new(control(Snapshot::new(&config), &[]));
        work.control.config = Arc::new(config);
        work.sources = Sources::new(vec![listed(&[1, 2])]);
        assert_eq!(kept(&work), [listed(&[1, 2])], "also before it runs");
        work.follow_sources();
        let backends = |work: &ControlLoop| -> Vec<String> {
            work.control.snapshot.pools[0].backends.iter().map(|backend| backend.name.clone()).collect()
        };
        assert_eq!(backends(&work), ["10.0.0.1:80", "10.0.0.2:80"]);
        reports(&mut work, None, Outcome::Failed);
        assert_eq!((backends(&work).len(), kept(&work)), (2, vec![listed(&[1, 2])]));
        reports(&mut work, Some(listed(&[2, 3]).list), Outcome::Found);
        assert_eq!(backends(&work), ["10.0.0.2:80", "10.0.0.3:80"]);
        assert_eq!(kept(&work), [listed(&[2, 3])]);
        assert!(work.sources.listed.is_empty(), "the list of the last process is of no use any more");
    }
}
