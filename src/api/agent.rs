//! The agents of backends.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::state::{Admin, Health};

/// The words of a backend's agent. Each holds until the agent says another one of its kind; `null` stands for none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// A part of the configured weight, or a weight in its place, in the words of an agent.
    #[schema(example = "75%")]
    pub weight: Option<String>,
    /// The most sessions at a time. Shown only: nothing limits the sessions of a backend yet.
    pub maxconn: Option<u32>,
    /// The administrative state. The stricter one of this and the operator's holds.
    pub admin: Option<Admin>,
    /// `up` or `down`.
    pub health: Option<Health>,
    /// Its description, in quotes.
    pub note: Option<String>,
    /// The first word of its last answer that means nothing.
    pub mistake: Option<String>,
    /// Time of the last change of what it says.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Why it cannot be reached; `null` while it answers.
    pub lost: Option<String>,
    /// Time since when it cannot.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub lost_since: Option<Timestamp>,
}

impl Agent {
    /// Returns in one line what it says, or why it says nothing; `None` before its first answer.
    pub fn words(&self) -> Option<String> {
        let Self { weight, maxconn, admin, health, note, mistake, since: _, lost, lost_since: _ } = self;
        let admin = admin.map(Admin::as_str);
        let health = health.map(|health| match health {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Down => "down",
        });
        let said = [
            weight.clone(),
            maxconn.map(|maxconn| format!("maxconn:{maxconn}")),
            admin.map(str::to_owned),
            health.map(str::to_owned),
            note.clone(),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        let said = (!said.is_empty()).then(|| format!("agent says {}", said.join(" ")));
        let mistake = mistake.as_ref().map(|mistake| format!("agent: {mistake}"));
        let lost = lost.as_ref().map(|why| format!("agent lost: {why}"));
        let parts: Vec<String> = [said, mistake, lost].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_all() {
        assert_eq!(Agent::default().words(), None);
        let agent = Agent {
            weight: Some("75%".into()),
            maxconn: Some(30),
            admin: Some(Admin::Drain),
            health: Some(Health::Down),
            note: Some("\"rolling\"".into()),
            ..Agent::default()
        };
        assert_eq!(agent.words().unwrap(), "agent says 75% maxconn:30 drain down \"rolling\"");
        let lost = Agent { lost: Some("connection refused".into()), mistake: Some("x".into()), ..agent };
        assert!(lost.words().unwrap().ends_with("\"rolling\"; agent: x; agent lost: connection refused"));
    }
}
