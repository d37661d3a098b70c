//! A backend as a request describes it: checked as far as possible without the running configuration and without a
//! resolver.

use std::time::Duration;

use crate::api;
use crate::base::address::Address;
use crate::config::{Invalid, PRIORITY_MAX, Target, WEIGHT_MAX, check_name, priority_of, units};
use crate::messages::request::{Holder, NewBackend};

/// A backend with fields that are valid by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The address or name to dial.
    pub target: Target,
    /// Its name, unique within the pool.
    pub name: String,
    /// Its share of new sessions, 0..=256; 0 gives it none.
    pub weight: u16,
    /// Its tier, 0..=15.
    pub priority: u8,
    /// Duration of its lease; `None` for no end.
    pub ttl: Option<Duration>,
    /// The holder of the lease.
    pub holder: Option<Holder>,
    /// Whether a lease may replace a permanent registration, and the other way round.
    pub replace: bool,
}

impl Wanted {
    /// Checks `new`. Fails with its mistake.
    pub fn check(new: api::NewBackend) -> Result<Self, String> {
        let target = Target::parse(&new.address).map_err(wrong("address"))?;
        let name = new.name.unwrap_or_else(|| target.to_string());
        check_name(&name).map_err(wrong("name"))?;
        let weight = new.weight.unwrap_or(1);
        check_weight(weight)?;
        let priority = check_priority(new.priority, new.backup)?;
        let holder = holder_of(new.holder, new.new_holder)?;
        let ttl = new.ttl.as_deref().map(check_ttl).transpose()?;
        Ok(Self { target, name, weight, priority, ttl, holder, replace: new.replace })
    }

    /// Returns it with its target resolved.
    pub(super) fn at(self, address: Address) -> NewBackend {
        let Self { target: _, name, weight, priority, ttl, holder, replace } = self;
        NewBackend { name, address, weight, priority, ttl, holder, replace }
    }
}

pub(super) fn check_weight(weight: u16) -> Result<(), String> {
    if weight <= WEIGHT_MAX { Ok(()) } else { Err(format!("weight: must be 0..={WEIGHT_MAX}, got {weight}")) }
}

pub(super) fn check_priority(priority: Option<u16>, backup: Option<bool>) -> Result<u8, String> {
    let in_range = |number: u16| {
        let priority = u8::try_from(number).ok().filter(|&priority| priority <= PRIORITY_MAX);
        priority.ok_or_else(|| format!("priority: must be 0..={PRIORITY_MAX}, got {number}"))
    };
    priority_of(priority.map(in_range).transpose()?, backup).map_err(wrong("priority"))
}

fn check_ttl(text: &str) -> Result<Duration, String> {
    let ttl = units::parse_duration(text).map_err(wrong("ttl"))?;
    let (min, max) = (units::show_duration(*api::TTL.start()), units::show_duration(*api::TTL.end()));
    if api::TTL.contains(&ttl) { Ok(ttl) } else { Err(format!("ttl: must be {min}..={max}")) }
}

fn holder_of(known: Option<String>, named: Option<String>) -> Result<Option<Holder>, String> {
    let checked =
        |key: &'static str, holder: String| check_name(&holder).map(|()| holder).map_err(wrong(key));
    match (known, named) {
        (None, None) => Ok(None),
        (Some(holder), None) => checked("holder", holder).map(Holder::Known).map(Some),
        (None, Some(holder)) => checked("new_holder", holder).map(Holder::Named).map(Some),
        (Some(_), Some(_)) => Err("holder: not together with new_holder".into()),
    }
}

fn wrong(key: &'static str) -> impl Fn(Invalid) -> String {
    move |Invalid(what)| format!("{key}: {what}")
}
