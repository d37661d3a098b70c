//! The fewest sessions per weight. Asks every member, so a pick costs time in proportion to the pool.

use std::sync::atomic::Ordering;

use super::pressure::Pressure;
use super::slots::{candidates, wrap};
use super::{Member, Members, Pick};

pub(super) struct LeastConnections(Box<[Candidate]>);

#[derive(Clone, Copy)]
struct Candidate {
    member: u32,
    weight: u16,
}

/// The best members of one pass.
struct Least {
    pressure: Pressure,
    first: usize,
    ties: usize,
}

impl LeastConnections {
    pub(super) fn build(members: &[Member]) -> Self {
        let candidate = |member: u32| Candidate { member, weight: members[member as usize].weight };
        Self(candidates(members).into_iter().map(candidate).collect())
    }

    /// The eligible member with the fewest sessions per weight; of several such members each in its turn.
    pub(super) fn pick(&self, pick: &mut Pick<'_>, members: &dyn Members) -> Option<usize> {
        let least = self.least(members)?;
        if least.ties == 1 {
            return Some(least.first);
        }
        let turn = wrap(pick.cursor.fetch_add(1, Ordering::Relaxed), least.ties);
        let mut tied =
            self.eligible(members).filter(|(_, pressure)| pressure.compare(least.pressure).is_eq());
        // Other workers change loads between the passes, so the turn may find nobody: the first was right a moment ago.
        Some(tied.nth(turn).map_or(least.first, |(member, _)| member))
    }

    fn least(&self, members: &dyn Members) -> Option<Least> {
        let mut least: Option<Least> = None;
        for (member, pressure) in self.eligible(members) {
            match &mut least {
                Some(least) if pressure.compare(least.pressure).is_gt() => {}
                Some(least) if pressure.compare(least.pressure).is_eq() => least.ties += 1,
                Some(_) | None => least = Some(Least { pressure, first: member, ties: 1 }),
            }
        }
        least
    }

    fn eligible<'a>(&'a self, members: &'a dyn Members) -> impl Iterator<Item = (usize, Pressure)> + 'a {
        let eligible = self.0.iter().filter(|candidate| members.is_eligible(candidate.member as usize));
        eligible.map(|&Candidate { member, weight }| {
            (member as usize, Pressure::with_one_more(members, member as usize, weight))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Algorithm;
    use super::super::fleet::Fleet;

    fn least_connections(weights: &[u16], loads: &[u32]) -> Fleet {
        let mut fleet = Fleet::new(Algorithm::LeastConnections, weights);
        fleet.loads = loads.to_vec();
        fleet
    }

    #[test]
    fn the_fewest_sessions_per_weight_win() {
        let cases: [(&[u16], &[u32], usize); 6] = [
            (&[1, 1, 1], &[2, 1, 3], 1),
            (&[1, 2], &[1, 2], 1),
            (&[1, 2], &[0, 2], 0),
            (&[0, 1], &[0, 100], 1),
            (&[256, 1], &[254, 0], 0),
            (&[1, 256], &[u32::MAX, u32::MAX], 1),
        ];
        for (weights, loads, expected) in cases {
            assert_eq!(least_connections(weights, loads).pick(), Some(expected), "{weights:?} {loads:?}");
        }
    }

    #[test]
    fn equal_members_alternate() {
        assert_eq!(least_connections(&[1, 1, 1], &[0; 3]).picks(6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn the_neighbour_of_a_member_that_is_down_gets_no_more_than_the_others() {
        let mut fleet = least_connections(&[1, 1, 1], &[0; 3]);
        fleet.down[1] = true;
        assert_eq!(fleet.picks(4), [0, 2, 0, 2]);
    }

    #[test]
    fn nobody_eligible_is_nobody_picked() {
        // HAProxy once looped for ever here.
        let mut fleet = least_connections(&[1, 1], &[0; 2]);
        fleet.down = vec![true; 2];
        assert_eq!(fleet.pick(), None);
    }

    #[test]
    fn sessions_that_stay_follow_weight() {
        let mut fleet = least_connections(&[1, 2, 3], &[0; 3]);
        for _ in 0..60 {
            let member = fleet.pick().expect("all are eligible");
            fleet.loads[member] += 1;
        }
        assert_eq!(fleet.loads, [10, 20, 30]);
    }
}
