//! `[fleet]`: where this balancer publishes what it does, for the others, and reads what they do.

use std::fmt;
use std::time::Duration;

use super::cluster::Cluster;
use super::units::show_duration;

/// Which keys are written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// The cluster that has them.
    pub cluster: Cluster,
    /// What the keys of the whole fleet begin with; ends with a slash.
    pub prefix: String,
    /// What this balancer is called, as no other one.
    pub name: String,
    /// After this time without a renewal the balancer is no longer in the fleet.
    pub lease: Duration,
    /// Whether it has no records in DNS while most others see up what it sees down.
    pub leave_when_alone: bool,
}

impl Fleet {
    /// Its keys with their values; `None` where one is not set.
    pub(super) fn keys(&self) -> Vec<(&'static str, Option<String>)> {
        let Self { cluster, prefix, name, lease, leave_when_alone } = self;
        let mut keys = vec![("name", Some(name.clone())), ("prefix", Some(prefix.clone()))];
        keys.extend(cluster.keys());
        keys.push(("lease", Some(show_duration(*lease))));
        keys.push(("leave_when_alone", Some(leave_when_alone.to_string())));
        keys
    }
}

impl fmt::Display for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fleet:")?;
        for (key, value) in self.keys() {
            value.map_or(Ok(()), |value| write!(f, " {key}={value}"))?;
        }
        Ok(())
    }
}
