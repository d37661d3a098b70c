//! The last words of a backend's agent, one of each category, as 64 bits that any thread may read.

use crate::config::WEIGHT_MAX;
use crate::config::model::HealthState;
use crate::pool::Admin;

/// A percentage is capped here. A larger one gives every weight the largest one.
pub const PERCENT_MAX: u16 = 100 * WEIGHT_MAX;

/// What the agent of a backend has said so far. A category that it has not mentioned is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// The weight.
    pub weight: Option<AgentWeight>,
    /// The most sessions at a time.
    pub maxconn: Option<u32>,
    /// The administrative state.
    pub admin: Option<Admin>,
    /// Whether the backend is well: [`HealthState::Up`] or [`HealthState::Down`].
    pub health: Option<HealthState>,
}

/// A weight in the words of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentWeight {
    /// A part of the weight that is configured, at most [`PERCENT_MAX`].
    Percent(u16),
    /// A weight in its place, at most 256.
    Absolute(u16),
}

impl AgentWeight {
    /// Returns the weight that runs where `configured` is the weight without an agent. A fraction is rounded down, but
    /// not to 0: 75% of a backend of weight 1 still serves.
    pub fn over(self, configured: u16) -> u16 {
        match self {
            Self::Absolute(weight) => weight.min(WEIGHT_MAX),
            Self::Percent(0) => 0,
            Self::Percent(percent) => {
                let least = u32::from(configured.min(1));
                let part = u32::from(configured) * u32::from(percent) / 100;
                u16::try_from(part.max(least)).unwrap_or(WEIGHT_MAX).min(WEIGHT_MAX)
            }
        }
    }
}

impl std::fmt::Display for AgentWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Absolute(weight) => write!(f, "weight:{weight}"),
        }
    }
}

impl std::fmt::Display for Advice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [
            self.weight.map(|weight| weight.to_string()),
            self.maxconn.map(|maxconn| format!("maxconn:{maxconn}")),
            self.admin.map(|admin| admin.as_str().to_owned()),
            self.health.map(|health| health.as_str().to_owned()),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<String>>().join(" "))
    }
}

// From the lowest bit: 2 of the kind of a weight, 16 of the weight, 2 of the admin state, 2 of the health, 1 that says
// whether there is a maxconn, 32 of it.
const WEIGHT_SHIFT: u32 = 2;
const ADMIN_SHIFT: u32 = 18;
const HEALTH_SHIFT: u32 = 20;
const HAS_MAXCONN: u64 = 1 << 22;
const MAXCONN_SHIFT: u32 = 23;
const TWO_BITS: u64 = 0b11;

impl Advice {
    /// Nothing was said.
    pub const NONE: Self = Self { weight: None, maxconn: None, admin: None, health: None };

    /// Returns this advice after the agent has said `next`: a category that it does not mention stays.
    #[must_use]
    pub fn followed_by(self, next: Self) -> Self {
        Self {
            weight: next.weight.or(self.weight),
            maxconn: next.maxconn.or(self.maxconn),
            admin: next.admin.or(self.admin),
            health: next.health.or(self.health),
        }
    }

    /// Returns it packed; nothing said is 0.
    pub fn pack(self) -> u64 {
        let (kind, weight) = match self.weight {
            None => (0, 0),
            Some(AgentWeight::Percent(percent)) => (1, percent),
            Some(AgentWeight::Absolute(weight)) => (2, weight),
        };
        let admin = self.admin.map_or(0, |admin| 1 + admin as u64);
        let health = match self.health {
            None | Some(HealthState::Unknown) => 0,
            Some(HealthState::Up) => 1,
            Some(HealthState::Down) => 2,
        };
        let maxconn = self.maxconn.map_or(0, |maxconn| HAS_MAXCONN | u64::from(maxconn) << MAXCONN_SHIFT);
        kind | u64::from(weight) << WEIGHT_SHIFT | admin << ADMIN_SHIFT | health << HEALTH_SHIFT | maxconn
    }

    /// Returns the advice from `bits`, which must come from [`Advice::pack`].
    #[expect(clippy::cast_possible_truncation, reason = "takes the bits apart")]
    pub fn unpack(bits: u64) -> Self {
        let weight = (bits >> WEIGHT_SHIFT) as u16;
        Self {
            weight: match bits & TWO_BITS {
                0 => None,
                1 => Some(AgentWeight::Percent(weight)),
                _ => Some(AgentWeight::Absolute(weight)),
            },
            maxconn: (bits & HAS_MAXCONN != 0).then_some((bits >> MAXCONN_SHIFT) as u32),
            admin: match bits >> ADMIN_SHIFT & TWO_BITS {
                0 => None,
                stored => Some(Admin::of(stored as u8 - 1)),
            },
            health: match bits >> HEALTH_SHIFT & TWO_BITS {
                0 => None,
                1 => Some(HealthState::Up),
                _ => Some(HealthState::Down),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn advice() -> impl Strategy<Value = Advice> {
        let weight = prop_oneof![
            (0..=PERCENT_MAX).prop_map(AgentWeight::Percent),
            (0..=WEIGHT_MAX).prop_map(AgentWeight::Absolute),
        ];
        let admin = prop::sample::select(Admin::ALL.to_vec());
        let health = prop::sample::select(vec![HealthState::Up, HealthState::Down]);
        (option::of(weight), option::of(any::<u32>()), option::of(admin), option::of(health))
            .prop_map(|(weight, maxconn, admin, health)| Advice { weight, maxconn, admin, health })
    }

    proptest! {
        #[test]
        fn every_advice_survives_packing(advice in advice()) {
            prop_assert_eq!(Advice::unpack(advice.pack()), advice);
        }

        #[test]
        fn what_is_not_mentioned_stays(before in advice(), next in advice()) {
            let after = before.followed_by(next);
            prop_assert_eq!(after.weight, next.weight.or(before.weight));
            prop_assert_eq!(before.followed_by(Advice::NONE), before);
            prop_assert_eq!(Advice::NONE.followed_by(next), next);
        }
    }

    #[test]
    fn a_percentage_is_of_the_configured_weight() {
        for (percent, configured, runs) in [
            (75, 100, 75),
            (75, 1, 1),
            (0, 100, 0),
            (1, 10, 1),
            (50, 0, 0),
            (150, 100, 150),
            (300, 100, 256),
            (PERCENT_MAX, 1, 256),
            (PERCENT_MAX, 256, 256),
        ] {
            assert_eq!(AgentWeight::Percent(percent).over(configured), runs, "{percent}% of {configured}");
        }
        assert_eq!([0, 30, 256].map(|weight| AgentWeight::Absolute(weight).over(7)), [0, 30, 256]);
    }

    #[test]
    fn nothing_said_is_all_zeros() {
        assert_eq!((Advice::NONE.pack(), Advice::unpack(0)), (0, Advice::NONE));
    }
}
