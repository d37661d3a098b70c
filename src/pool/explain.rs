//! Explains why a session got its backend: a few bytes kept with the session, and words made from them on request.

use std::fmt;
use std::net::IpAddr;

use crate::balance::Algorithm;
use crate::base::hash::hash_ip;
use crate::config::model::HealthState;
use crate::pool::{Admin, Backend, BackendId, Pool, TierKind};

/// The reason why a backend was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// Its health checks had failed `fall` times in a row, or its agent had said so.
    Down,
    /// An operator or its agent is draining it.
    Drain,
    /// An operator or its agent has put it in maintenance.
    Maint,
    /// Its weight was 0, so that it gets no new sessions.
    Weight0,
    /// A dial of this session to it had failed.
    Tried,
    /// Its host name has no address.
    Unresolved,
}

impl SkipReason {
    /// Every reason, in the order of the bits that note them.
    pub const ALL: [Self; 6] =
        [Self::Down, Self::Drain, Self::Maint, Self::Weight0, Self::Tried, Self::Unresolved];

    /// Returns the words for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Drain => "in drain",
            Self::Maint => "in maintenance",
            Self::Weight0 => "of weight 0",
            Self::Tried => "tried before",
            Self::Unresolved => "has no address",
        }
    }

    /// Returns why `backend` gets no new sessions now, if so. The administrative state comes first: it holds whatever
    /// checks find.
    pub fn now(backend: &Backend) -> Option<Self> {
        match backend.admin() {
            Admin::Drain => Some(Self::Drain),
            Admin::Maint => Some(Self::Maint),
            Admin::Ready if backend.weight() == 0 => Some(Self::Weight0),
            Admin::Ready if !backend.is_resolved() => Some(Self::Unresolved),
            Admin::Ready => (backend.health() == HealthState::Down).then_some(Self::Down),
        }
    }

    /// Returns why `backend` may not get the session now, if so.
    pub(super) fn of(backend: &Backend, respects_health: bool, tried: &[BackendId]) -> Option<Self> {
        if !backend.is_resolved() {
            return Some(Self::Unresolved);
        }
        if respects_health && backend.health() == HealthState::Down {
            return Some(Self::Down);
        }
        match backend.admin() {
            Admin::Ready if backend.weight() == 0 => Some(Self::Weight0),
            Admin::Ready => tried.contains(&backend.id).then_some(Self::Tried),
            Admin::Drain => Some(Self::Drain),
            Admin::Maint => Some(Self::Maint),
        }
    }
}

/// A set of [`SkipReason`]s, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SkipReasons(u16);

impl SkipReasons {
    fn add(&mut self, reason: SkipReason) {
        self.0 |= 1 << reason as u8;
    }

    fn iter(self) -> impl Iterator<Item = SkipReason> {
        SkipReason::ALL.into_iter().filter(move |&reason| self.0 & 1 << reason as u8 != 0)
    }
}

const _: () = assert!(SkipReason::ALL.len() <= u16::BITS as usize, "each reason has a bit of its own");

/// The record of a choice, kept by each session: 12 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Low bits of the epoch of its tables.
    epoch: u32,
    /// Sessions on the backend, capped.
    load: u16,
    /// Why backends were passed over.
    skipped: SkipReasons,
    /// How often a backend was passed over, capped.
    passed_over: u8,
    tier: TierKind,
}

impl Choice {
    /// Returns the choice as made among backends of that kind; the chosen one had `load` sessions.
    #[must_use]
    pub fn of(self, tier: TierKind, load: u32) -> Self {
        let load = u16::try_from(load).unwrap_or(u16::MAX);
        Self { load, tier, ..self }
    }

    /// Returns the choice as made by the tables of that epoch.
    #[must_use]
    pub fn in_epoch(self, epoch: u64) -> Self {
        Self { epoch: low_bits(epoch), ..self }
    }

    /// Records a backend passed over; nothing, if it is eligible again by now.
    pub(super) fn pass_over(&mut self, refusal: Option<SkipReason>) {
        self.passed_over = self.passed_over.saturating_add(1);
        if let Some(refusal) = refusal {
            self.skipped.add(refusal);
        }
    }

    /// Returns the full epoch of a choice that was made no later than in epoch `now`.
    pub fn epoch(self, now: u64) -> u64 {
        let age = u64::from(low_bits(now).wrapping_sub(self.epoch));
        now.saturating_sub(age)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "takes the low bits")]
const fn low_bits(epoch: u64) -> u32 {
    epoch as u32
}

/// The explanation of a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The algorithm of the pool.
    pub algorithm: Algorithm,
    /// The epoch of the tables that were asked.
    pub epoch: u64,
    /// Whether those tables still exist; otherwise the rest describes the pool as it is now.
    pub is_exact: bool,
    /// The tier that was asked.
    pub tier: TierKind,
    /// Number of backends in the pool.
    pub backends: usize,
    /// Number of those of earlier tiers: none of them was eligible.
    pub earlier: usize,
    /// Number of backends in the table of that tier.
    pub candidates: usize,
    /// How often a backend was passed over; 255 stands for more. Algorithms that look at every member
    /// (`least_connections`) may count one twice.
    pub passed_over: u8,
    /// The reasons why those backends were passed over, each once.
    pub refusals: Vec<SkipReason>,
    /// Sessions on the backend, this one not counted.
    pub load: u16,
    /// With `source_hash`: the hash of the client, and its backends in order of preference, up to the one it got.
    pub hash: Option<(u64, Vec<String>)>,
}

impl Why {
    /// Returns the meaning of `choice` for `client`, by the pool as it was.
    pub fn of(choice: Choice, pool: &Pool, client: IpAddr, epoch: u64, is_exact: bool) -> Self {
        let tier = pool.tiers.iter().find(|tier| tier.kind == choice.tier);
        // Backends passed over in another tier are not on the way through this one.
        let is_first = pool.tiers.first().is_some_and(|first| first.kind == choice.tier);
        let hash = (pool.settings.balance == Algorithm::SourceHash && is_first).then(|| {
            let homes = tier.into_iter().flat_map(|tier| {
                tier.table
                    .homes(client)
                    .take(1 + usize::from(choice.passed_over))
                    .map(|member| pool.backends[tier.members[member]].name.clone())
            });
            (hash_ip(client), homes.collect())
        });
        Self {
            algorithm: pool.settings.balance,
            epoch,
            is_exact,
            tier: choice.tier,
            backends: pool.backends.len(),
            earlier: earlier(pool, choice.tier),
            candidates: tier.map_or(0, |tier| tier.candidates),
            passed_over: choice.passed_over,
            refusals: choice.skipped.iter().collect(),
            load: choice.load,
            hash,
        }
    }
}

/// Returns how many backends of `pool` come before `tier`.
fn earlier(pool: &Pool, tier: TierKind) -> usize {
    let TierKind::Priority(priority) = tier else { return 0 };
    pool.settings.backends.iter().filter(|backend| backend.priority < priority).count()
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { candidates, backends, earlier, epoch, load, passed_over, .. } = self;
        let algorithm = self.algorithm.as_str();
        write!(f, "{algorithm} over {candidates} of {backends} backends (")?;
        match self.tier {
            TierKind::Priority(priority) if *earlier > 0 => {
                write!(f, "priority {priority}, as none of the {earlier} of lower priorities was eligible")?;
            }
            TierKind::Priority(priority) => write!(f, "priority {priority}")?,
            TierKind::Any => f.write_str("any, as none was eligible")?,
        }
        write!(f, ") in epoch {epoch}")?;
        if !self.is_exact {
            f.write_str(", whose tables are gone")?;
        }
        write!(f, "; it had {load} sessions")?;
        if *passed_over > 0 {
            let refusals: Vec<&str> = self.refusals.iter().map(|refusal| refusal.as_str()).collect();
            write!(f, "; passed over {passed_over} times: {}", refusals.join(", "))?;
        }
        if let Some((hash, homes)) = &self.hash {
            write!(f, "; hash {hash:016x} asks for {}", homes.join(", then "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_of_a_choice_is_described_in_full() {
        let choice = |epoch| Choice::default().in_epoch(epoch);
        for (made, now) in [(0, 0), (3, 9), ((1 << 32) - 1, (1 << 32) + 1), (1 << 32, (1 << 32) + 7)] {
            assert_eq!(choice(made).epoch(now), made, "asked in {now}");
        }
    }

    #[test]
    fn a_choice_remembers_its_tier_and_every_refusal() {
        for tier in [TierKind::Priority(0), TierKind::Priority(15), TierKind::Any] {
            let mut choice = Choice::default().of(tier, 70_000);
            assert_eq!(choice.load, u16::MAX);
            for (refusal, count) in SkipReason::ALL.into_iter().zip(1..) {
                choice.pass_over(Some(refusal));
                assert_eq!((choice.tier, choice.passed_over), (tier, count));
            }
            (0..300).for_each(|_| choice.pass_over(None));
            assert_eq!((choice.tier, choice.passed_over), (tier, 255));
            assert!(choice.skipped.iter().eq(SkipReason::ALL));
        }
    }
}
