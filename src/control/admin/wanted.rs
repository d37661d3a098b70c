//! A backend as a request asks for it: checked as far as that goes without a look at what runs, and without a resolver.

use std::time::Duration;

use crate::api;
use crate::base::address::Address;
use crate::config::{Invalid, Target, WEIGHT_MAX, check_name, units};
use crate::messages::request::{Holder, NewBackend};

/// Legal by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where to dial.
    pub target: Target,
    /// Unique within the pool.
    pub name: String,
    /// 0..=256.
    pub weight: u16,
    /// Serves only when no primary backend is eligible.
    pub backup: bool,
    /// How long its lease is; `None` is for ever.
    pub ttl: Option<Duration>,
    /// Whose lease is renewed.
    pub holder: Option<Holder>,
    /// Whether a lease may take the place of what was to stay, and the other way round.
    pub replace: bool,
}

impl Wanted {
    /// What `new` asks for, or what is wrong with it.
    pub fn check(new: api::NewBackend) -> Result<Self, String> {
        let target = Target::parse(&new.address).map_err(wrong("address"))?;
        let name = new.name.unwrap_or_else(|| target.to_string());
        check_name(&name).map_err(wrong("name"))?;
        let weight = new.weight.unwrap_or(1);
        check_weight(weight)?;
        let holder = holder_of(new.holder, new.new_holder)?;
        let ttl = new.ttl.as_deref().map(check_ttl).transpose()?;
        Ok(Self { target, name, weight, backup: new.backup, ttl, holder, replace: new.replace })
    }

    /// The same where its target is resolved.
    pub(super) fn at(self, address: Address) -> NewBackend {
        let Self { target: _, name, weight, backup, ttl, holder, replace } = self;
        NewBackend { name, address, weight, backup, ttl, holder, replace }
    }
}

pub(super) fn check_weight(weight: u16) -> Result<(), String> {
    if weight <= WEIGHT_MAX { Ok(()) } else { Err(format!("weight: must be 0..={WEIGHT_MAX}, got {weight}")) }
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
        (Some(_), Some(_)) => Err("holder: and new_holder are one too many".into()),
    }
}

fn wrong(key: &'static str) -> impl Fn(Invalid) -> String {
    move |Invalid(what)| format!("{key}: {what}")
}
