//! What is known of the balancers of a fleet.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{self, Balancer, Key, Part, State, VALUE_LEN_MAX, Wanted, id_of, part_of, set_of_ids};

/// Balancers that are read: more are left out.
pub const BALANCERS_MAX: usize = 1_000;

/// Backends of which something may be wanted on all balancers.
const WANTED_MAX: usize = 10_000;

/// The balancers, by their names.
#[derive(Clone, Debug, Default)]
pub struct Known {
    balancers: BTreeMap<String, Member>,
    wanted: BTreeMap<(String, String), Wanted>,
}

/// Of two balancers that contradict each other either may be right.
const OTHERS_MIN: usize = 2;

/// Everything that is known of a balancer.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// Its own record; `None` where that was not read, or could not be.
    pub record: Option<Balancer>,
    /// The parts of its views, by pool and number.
    parts: BTreeMap<(String, u16), Part>,
}

/// A backend that balancers see in different states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The pool that it belongs to.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// The balancers by the state in which they see it.
    pub states: BTreeMap<State, BTreeSet<String>>,
}

/// The backends of a pool as this balancer has them, prepared for many comparisons.
#[derive(Clone, Debug)]
pub struct OwnPool {
    /// Their names, with what they are called in views.
    backends: Vec<(String, String)>,
    /// Stands for the set of them.
    set: String,
}

impl OwnPool {
    /// Returns the pool of these backends, each by name and address.
    pub fn new(backends: impl IntoIterator<Item = (String, String)>) -> Self {
        let with_id = |(name, address): (String, String)| {
            let id = id_of(&name, &address);
            (name, id)
        };
        let backends: Vec<_> = backends.into_iter().map(with_id).collect();
        let set = set_of_ids(backends.iter().map(|(_, id)| id.as_str()));
        Self { backends, set }
    }
}

impl Known {
    /// Applies the value of a key, behind the prefix of the fleet. Fails when it is none, with the reason; then the key counts
    /// as deleted.
    pub fn put(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        let put = self.try_put(key, value);
        if put.is_err() {
            self.delete(key);
        }
        put
    }

    fn try_put(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        let Some(parsed) = Key::parse(key) else { return Ok(()) };
        if value.len() > VALUE_LEN_MAX {
            return Err(format!("its value is longer than {} KiB", VALUE_LEN_MAX >> 10));
        }
        if let Key::Balancer(name) | Key::View { balancer: name, .. } = parsed
            && !self.balancers.contains_key(name)
            && self.balancers.len() >= BALANCERS_MAX
        {
            return Err(format!("there are more than {BALANCERS_MAX} balancers"));
        }
        let wrong = |error: serde_json::Error| error.to_string();
        match parsed {
            Key::Balancer(name) => {
                let record = serde_json::from_slice(value).map_err(wrong)?;
                self.balancers.entry(name.to_owned()).or_default().record = Some(record);
            }
            Key::View { balancer, pool, part } => {
                let view = serde_json::from_slice(value).map_err(wrong)?;
                let member = self.balancers.entry(balancer.to_owned()).or_default();
                member.parts.insert((pool.to_owned(), part), view);
            }
            Key::Wanted { pool, backend } => {
                let wanted: Wanted = serde_json::from_slice(value).map_err(wrong)?;
                if !matches!(wanted.admin, State::Drain | State::Maint) {
                    return Err(format!("admin: must be drain or maint, got {}", wanted.admin.as_str()));
                }
                let key = (pool.to_owned(), backend.to_owned());
                if self.wanted.len() >= WANTED_MAX && !self.wanted.contains_key(&key) {
                    return Err(format!("more than {WANTED_MAX} backends"));
                }
                self.wanted.insert(key, wanted);
            }
        }
        Ok(())
    }

    /// A key has gone.
    pub fn delete(&mut self, key: &str) {
        let Some(parsed) = Key::parse(key) else { return };
        let name = match parsed {
            Key::Balancer(name) | Key::View { balancer: name, .. } => name,
            Key::Wanted { pool, backend } => {
                self.wanted.remove(&(pool.to_owned(), backend.to_owned()));
                return;
            }
        };
        let Some(member) = self.balancers.get_mut(name) else { return };
        match parsed {
            Key::Balancer(_) => member.record = None,
            Key::View { pool, part, .. } => _ = member.parts.remove(&(pool.to_owned(), part)),
            Key::Wanted { .. } => {}
        }
        if member.record.is_none() && member.parts.is_empty() {
            self.balancers.remove(name);
        }
    }

    /// Returns the balancers that say something of themselves, by their names.
    pub fn balancers(&self) -> impl Iterator<Item = (&str, &Balancer)> {
        self.balancers.iter().filter_map(|(name, member)| Some((name.as_str(), member.record.as_ref()?)))
    }

    /// Returns what is wanted on all balancers, by pool and backend.
    pub const fn wanted(&self) -> &BTreeMap<(String, String), Wanted> {
        &self.wanted
    }

    /// Returns how each balancer that has the pool sees a backend, if that is known. `own` is the pool as it is here.
    pub fn states_of<'k>(
        &'k self,
        pool: &str,
        own: &OwnPool,
        backend: &str,
    ) -> Vec<(&'k str, Option<State>)> {
        let id = own.backends.iter().find(|(name, _)| name == backend).map(|(_, id)| id);
        let views = self.views(pool, &own.set);
        views.map(|view| (view.balancer, id.and_then(|id| view.state_of(id)))).collect()
    }

    /// Returns how each balancer that has the pool sees it, which has the backends of `set` here.
    fn views<'k>(&'k self, pool: &str, set: &str) -> impl Iterator<Item = PoolView<'k>> {
        self.balancers.iter().filter_map(move |(name, member)| PoolView::of(name, member, pool, set))
    }

    /// Returns how many of the backends that `name` sees `down`, by pool and id, most of the others see up. Those that see it
    /// neither up nor down do not count, and of the others there must be two. `pools` are those of `name`.
    pub fn contradicted(
        &self,
        name: &str,
        down: &[(String, String)],
        pools: &BTreeMap<String, record::Pool>,
    ) -> usize {
        let mut count = 0;
        for (pool, summary) in pools {
            let ids: Vec<&str> =
                down.iter().filter(|(of, _)| of == pool).map(|(_, id)| id.as_str()).collect();
            if ids.is_empty() {
                continue;
            }
            let views: Vec<PoolView<'_>> =
                self.views(pool, &summary.set).filter(|view| view.balancer != name).collect();
            let is_contradicted = |id: &&str| {
                let states = || views.iter().filter_map(|view| view.state_of(id));
                let up = states().filter(|state| *state == State::Up).count();
                let all = up + states().filter(|state| *state == State::Down).count();
                all >= OTHERS_MIN && 2 * up > all
            };
            count += ids.into_iter().filter(is_contradicted).count();
        }
        count
    }

    /// Returns the configuration that most balancers have; of equally many, that of the first by name.
    pub fn usual_config(&self) -> Option<&str> {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for (_, balancer) in self.balancers() {
            match counts.iter_mut().find(|(config, _)| *config == balancer.config) {
                Some((_, count)) => *count += 1,
                None => counts.push((&balancer.config, 1)),
            }
        }
        let most = counts.iter().map(|(_, count)| *count).max()?;
        counts.into_iter().find(|(_, count)| *count == most).map(|(config, _)| config)
    }

    /// Returns the backends that are up for some balancers and down for others, at most `limit` of them, and how many there
    /// are. `pools` are those of this balancer: only their backends are compared.
    pub fn disagreements(
        &self,
        pools: &BTreeMap<String, OwnPool>,
        limit: usize,
    ) -> (Vec<Disagreement>, usize) {
        let (mut found, mut count) = (Vec::new(), 0);
        for (pool, own) in pools {
            let views: Vec<PoolView<'_>> = self.views(pool, &own.set).collect();
            if views.iter().all(PoolView::is_all_up) {
                continue;
            }
            for (name, id) in &own.backends {
                let mut states: BTreeMap<State, BTreeSet<String>> = BTreeMap::new();
                for view in &views {
                    if let Some(state) = view.state_of(id) {
                        states.entry(state).or_default().insert(view.balancer.to_owned());
                    }
                }
                if states.contains_key(&State::Down) && states.contains_key(&State::Up) {
                    count += 1;
                    if found.len() < limit {
                        found.push(Disagreement { pool: pool.clone(), backend: name.clone(), states });
                    }
                }
            }
        }
        (found, count)
    }
}

/// How a balancer sees a pool.
struct PoolView<'k> {
    balancer: &'k str,
    /// By their numbers; `None` where one was not read.
    parts: Vec<Option<&'k Part>>,
    /// True when it has the same backends.
    has_same: bool,
}

impl<'k> PoolView<'k> {
    /// Returns how `member` sees a pool, which has the backends of `set` here.
    fn of(name: &'k str, member: &'k Member, pool: &str, set: &str) -> Option<Self> {
        let summary = member.record.as_ref()?.pools.get(pool)?;
        let parts = (0..summary.parts).map(|part| member.parts.get(&(pool.to_owned(), part))).collect();
        Some(Self { balancer: name, parts, has_same: summary.set == set })
    }

    fn is_all_up(&self) -> bool {
        let is_up = |part: &Part| part.rest == State::Up && part.others.is_empty();
        self.parts.iter().all(|part| part.is_some_and(is_up))
    }

    /// Returns the state of a backend. Of a balancer with other backends only those count that it names.
    fn state_of(&self, id: &str) -> Option<State> {
        let parts = u16::try_from(self.parts.len()).ok()?;
        let part = (*self.parts.get(usize::from(part_of(id, parts)))?)?;
        let is_named = || part.others.values().any(|backends| backends.contains_key(id));
        (self.has_same || is_named()).then(|| part.state_of(id))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Views;
    use super::*;

    /// A balancer with that configuration, which sees these backends.
    fn joins(known: &mut Known, name: &str, config: &str, backends: &[(&str, State)]) {
        let mut views = Views::new(backends.len());
        for (backend, state) in backends {
            views.add(id_of(backend, "10.0.0.1:80"), *state, 0);
        }
        let (pool, parts) = views.finish(0);
        let record = Balancer {
            config: config.into(),
            pools: [("web".to_owned(), pool)].into(),
            ..Balancer::default()
        };
        known.put(&Key::Balancer(name).to_string(), &serde_json::to_vec(&record).unwrap()).unwrap();
        for (part, number) in parts.iter().zip(0..) {
            let key = Key::View { balancer: name, pool: "web", part: number };
            known.put(&key.to_string(), &serde_json::to_vec(part).unwrap()).unwrap();
        }
    }

    /// Each disagreement in words.
    fn disagreements(known: &Known, backends: &[&str]) -> Vec<String> {
        let backends = backends.iter().map(|name| ((*name).to_owned(), "10.0.0.1:80".to_owned()));
        let (found, count) = known.disagreements(&[("web".to_owned(), OwnPool::new(backends))].into(), 10);
        assert_eq!(found.len(), count);
        let words = |found: Disagreement| {
            let states = found.states.iter().map(|(state, names)| {
                format!(" {} {}", state.as_str(), names.iter().cloned().collect::<Vec<_>>().join(","))
            });
            found.backend + &states.collect::<String>()
        };
        found.into_iter().map(words).collect()
    }

    #[test]
    fn backends_that_are_up_for_some_and_down_for_others_are_named_with_them() {
        let mut known = Known::default();
        joins(&mut known, "lb1", "1", &[("a", State::Up), ("b", State::Up)]);
        assert!(disagreements(&known, &["a", "b"]).is_empty());
        joins(&mut known, "lb2", "1", &[("b", State::Down), ("a", State::Up)]);
        joins(&mut known, "lb3", "1", &[("a", State::Drain), ("b", State::Up)]);
        let expected = ["b up lb1,lb3 down lb2"];
        assert_eq!(disagreements(&known, &["a", "b"]), expected, "a drain is no view of health");
    }

    #[test]
    fn a_balancer_with_other_backends_counts_for_those_that_it_names_only() {
        let mut known = Known::default();
        joins(&mut known, "lb1", "1", &[("a", State::Up), ("b", State::Up)]);
        joins(&mut known, "lb2", "1", &[("a", State::Down), ("c", State::Down), ("d", State::Down)]);
        assert!(disagreements(&known, &["a", "b"]).is_empty(), "it names none");
        joins(&mut known, "lb2", "1", &[("a", State::Down), ("c", State::Up), ("d", State::Up)]);
        assert_eq!(disagreements(&known, &["a", "b"]), ["a up lb1 down lb2"]);
    }

    #[test]
    fn a_view_is_contradicted_by_most_of_at_least_two_others() {
        let (up, down) = (State::Up, State::Down);
        for (others, expected) in [
            (&[][..], 0),
            (&[up][..], 0),
            (&[up, up], 1),
            (&[up, down], 0),
            (&[up, up, down], 1),
            (&[up, down, down], 0),
            (&[up, State::Unknown, State::Drain], 0),
            (&[down, down], 0),
        ] {
            let mut known = Known::default();
            joins(&mut known, "lb0", "1", &[("a", down)]);
            for (state, number) in others.iter().zip(1..) {
                joins(&mut known, &format!("lb{number}"), "1", &[("a", *state)]);
            }
            let pools = known.balancers["lb0"].record.as_ref().unwrap().pools.clone();
            let seen = [("web".to_owned(), id_of("a", "10.0.0.1:80"))];
            assert_eq!(known.contradicted("lb0", &seen, &pools), expected, "{others:?}");
        }
    }

    #[test]
    fn the_usual_configuration_is_that_of_most() {
        let mut known = Known::default();
        assert_eq!(known.usual_config(), None);
        joins(&mut known, "lb1", "1", &[]);
        joins(&mut known, "lb2", "2", &[]);
        assert_eq!(known.usual_config(), Some("1"));
        joins(&mut known, "lb3", "2", &[]);
        assert_eq!(known.usual_config(), Some("2"));
    }

    #[test]
    fn what_cannot_be_read_counts_as_gone() {
        let mut known = Known::default();
        joins(&mut known, "lb1", "1", &[("a", State::Up)]);
        assert!(known.put("balancers/lb1", b"{").is_err());
        assert_eq!(known.balancers().count(), 0);
        let long = vec![b' '; VALUE_LEN_MAX + 1];
        assert!(known.put("views/lb1/web/0", &long).unwrap_err().contains("512 KiB"));
        assert!(known.balancers.is_empty());
        assert_eq!(known.put("other/lb1", b"{"), Ok(()), "none of ours");
    }
}
