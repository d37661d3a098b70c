//! What a running process makes of a configuration: it takes all of it but the keys that only a restart changes.

use super::diff::{Change, Difference, Subject};
use super::model::{Admin, Config, Global};

/// `wanted`, with the values of `running` where a process cannot change them. It differs from `running` in nothing that
/// needs a restart, and from `wanted` in nothing else.
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
    /// The key that differs, behind the table that it is in: `admin.socket`. Of what comes and goes whole, what that is.
    pub fn key(&self) -> String {
        let key = match &self.difference {
            Difference::Key { key, .. } => *key,
            Difference::Added | Difference::Removed => return self.to_string(),
        };
        match &self.subject {
            Subject::Global => key.to_owned(),
            Subject::Admin => format!("admin.{key}"),
            Subject::Listener(name) => format!("listener {name:?}: {key}"),
            Subject::Pool(name) => format!("pool {name:?}: {key}"),
            Subject::Backend { pool, name } => format!("pool {pool:?}: backend {name:?}: {key}"),
        }
    }
}
