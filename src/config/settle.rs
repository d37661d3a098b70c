//! Combines a running configuration with a new one: everything is taken over but the keys that need a restart.

use super::diff::{Change, Difference, Subject};
use super::model::{Admin, Config, Global};

/// Returns `wanted`, with the values of `running` for keys that need a restart. It differs from `running` in no such
/// key, and from `wanted` in nothing else.
pub fn settle(running: &Config, wanted: &Config) -> Config {
    let mut settled = wanted.clone();
    let Global { pin, busy_poll, user, .. } = &running.global;
    let Admin { socket, state_file, .. } = &running.admin;
    settled.global.pin = *pin;
    settled.global.busy_poll = *busy_poll;
    settled.global.user.clone_from(user);
    settled.admin.socket.clone_from(socket);
    settled.admin.state_file.clone_from(state_file);
    settled
}

impl Change {
    /// Returns the key that differs, behind its table: `admin.socket`; for something added or removed as a whole, its
    /// kind.
    pub fn key(&self) -> String {
        let key = match &self.difference {
            Difference::Key { key, .. } => *key,
            Difference::Added | Difference::Removed => return self.to_string(),
        };
        match &self.subject {
            Subject::Global => key.to_owned(),
            Subject::Admin => format!("admin.{key}"),
            Subject::Announce => format!("announce.{key}"),
            Subject::Fleet => format!("fleet.{key}"),
            Subject::Listener(name) => format!("listener {name:?}: {key}"),
            Subject::Pool(name) => format!("pool {name:?}: {key}"),
            Subject::Backend { pool, name } => format!("pool {pool:?}: backend {name:?}: {key}"),
            Subject::Check(pool, name) => format!("pool {pool:?}: check {name:?}: {key}"),
            Subject::Discover(pool, source) => format!("pool {pool:?}: discover {source:?}: {key}"),
        }
    }
}
