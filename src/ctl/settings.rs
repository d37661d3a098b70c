//! The words of `l4lb ctl set`: names of backends, then KEY=VALUE.

use crate::api::{BackendsChange, PlacingKey};
use crate::base::nearest::did_you_mean;
use crate::config::{Invalid, PRIORITY_MAX, Target, WEIGHT_MAX};
use crate::ctl::Failure;
use crate::ctl::args::Chosen;

/// What undoes a setting.
const DEFAULT: &str = "default";
/// The keys, as they begin a word.
pub(crate) const KEYS: [&str; 3] = ["address=", "priority=", "weight="];

/// Returns the backends that are named, and what is set of them.
pub(super) fn parse(words: &Chosen) -> Result<(Chosen, BackendsChange), Failure> {
    let mut chosen = Chosen { backends: Vec::new(), ..words.clone() };
    let mut change = BackendsChange::default();
    let mut seen: Vec<&str> = Vec::new();
    for word in &words.backends {
        // No name of a backend has such a sign.
        let Some((key, value)) = word.split_once('=') else {
            chosen.backends.push(word.clone());
            continue;
        };
        if seen.contains(&key) {
            return Err(Failure::Usage(format!("{key}: is there twice")));
        }
        seen.push(key);
        set(&mut change, key, value).map_err(|what| Failure::Usage(format!("{word}: {what}")))?;
    }
    if chosen.backends.is_empty() {
        return Err(Failure::Usage("which backend is missing: l4lb ctl set POOL/BACKEND KEY=VALUE".into()));
    }
    if seen.is_empty() {
        return Err(Failure::Usage(
            "what to set is missing: address=ADDR, priority=N or weight=N, behind the backends".into(),
        ));
    }
    Ok((chosen, change))
}

fn set(change: &mut BackendsChange, key: &str, value: &str) -> Result<(), String> {
    match key {
        "address" if value == DEFAULT => change.reset.push(PlacingKey::Address),
        "address" => {
            Target::parse(value).map_err(|Invalid(what)| what)?;
            change.address = Some(value.to_owned());
        }
        "priority" if value == DEFAULT => change.reset.push(PlacingKey::Priority),
        "priority" => change.priority = Some(whole(value, PRIORITY_MAX.into(), " or default")?),
        "weight" => change.weight = Some(whole(value, WEIGHT_MAX, "")?),
        _ => {
            let keys = KEYS.map(|key| key.trim_end_matches('='));
            return Err(format!("unknown key{}, known: {}", did_you_mean(key, keys), keys.join(", ")));
        }
    }
    Ok(())
}

fn whole(value: &str, most: u16, or: &str) -> Result<u16, String> {
    let number = value.parse().ok().filter(|&number| number <= most);
    number.ok_or_else(|| format!("must be 0..={most}{or}, got {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(Vec<String>, BackendsChange), String> {
        let backends = line.split_whitespace().map(str::to_owned).collect();
        let parsed = parse(&Chosen { backends, ..Chosen::default() });
        match parsed {
            Ok((chosen, change)) => Ok((chosen.backends, change)),
            Err(Failure::Usage(what)) => Err(what),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_and_settings_may_stand_in_any_order() {
        let (names, change) = parsed("priority=1 web/a address=10.0.0.9:80 web/b weight=0").unwrap();
        assert_eq!(names, ["web/a", "web/b"]);
        let expected = BackendsChange {
            address: Some("10.0.0.9:80".into()),
            priority: Some(1),
            weight: Some(0),
            ..BackendsChange::default()
        };
        assert_eq!(change, expected);
        let (_, change) = parsed("a address=default priority=default").unwrap();
        assert_eq!(change.reset, [PlacingKey::Address, PlacingKey::Priority]);
    }

    #[test]
    fn a_mistake_names_the_word_and_what_it_should_be() {
        for (line, expected) in [
            ("address=1.2.3.4:5", "which backend is missing: l4lb ctl set POOL/BACKEND KEY=VALUE"),
            ("a", "what to set is missing: address=ADDR, priority=N or weight=N, behind the backends"),
            ("a priority=16", "priority=16: must be 0..=15 or default, got \"16\""),
            ("a weight=257", "weight=257: must be 0..=256, got \"257\""),
            ("a weight=default", "weight=default: must be 0..=256, got \"default\""),
            (
                "a adress=:80",
                "adress=:80: unknown key, did you mean \"address\"?, known: address, priority, weight",
            ),
            ("a priority=1 priority=2", "priority: is there twice"),
            ("a address=1.2.3.4:0", "address=1.2.3.4:0: port must be 1..=65535, got \"0\""),
        ] {
            assert_eq!(parsed(line).unwrap_err(), expected, "{line}");
        }
    }
}
