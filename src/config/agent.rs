//! The agents of a pool: programs beside its backends that say what each of them should get.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::error::one_line;
use super::units::show_duration;

/// Stands for the name of the backend in what an agent is sent.
pub const BACKEND_PLACEHOLDER: &str = "{backend}";

/// The agents of a pool, one for each backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// How an agent is asked.
    pub question: AgentQuestion,
    /// The texts of the file for keys with a variable in their value, which may be secret and is not shown.
    pub written: BTreeMap<&'static str, String>,
    /// Where all agents listen; the address of the backend when `None`.
    pub address: Option<IpAddr>,
    /// The port of every agent.
    pub port: u16,
    /// Time between two questions to one agent.
    pub interval: Duration,
    /// Longest time that one exchange may take.
    pub timeout: Duration,
    /// What holds once an agent cannot be reached any more.
    pub on_lost: OnLost,
}

impl Agent {
    /// Returns whether `other` asks the same agents in the same words, however often.
    pub fn asks_as(&self, other: &Self) -> bool {
        (&self.question, self.address, self.port) == (&other.question, other.address, other.port)
    }
}

/// How an agent is asked. [`BACKEND_PLACEHOLDER`] stands for the name of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentQuestion {
    /// Connects, sends this text (it may be empty), and reads a line.
    Tcp {
        /// The text.
        send: String,
    },
    /// Sends a GET, and reads the first line of the body.
    Http {
        /// The target of the request, starts with '/'.
        path: String,
        /// The Host header; the address of the agent when `None`.
        host: Option<String>,
    },
}

/// What holds once an agent cannot be reached any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLost {
    /// What it has said.
    Keep,
    /// Nothing of it, from this time on after the last answer.
    ClearAfter(Duration),
}

impl fmt::Display for OnLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::ClearAfter(after) => write!(f, "clear after {}", show_duration(*after)),
        }
    }
}

/// Returns the keys of the agents of a pool, in the order of the file; `None` for one that is not set.
pub(super) fn keys(agent: Option<&Agent>) -> [(&'static str, Option<String>); 9] {
    let shown = |agent: &Agent, key: &str, value: &str| {
        let value = agent.written.get(key).map_or(value, String::as_str);
        format!("\"{}\"", value.escape_default())
    };
    let of = |read: &dyn Fn(&Agent) -> Option<String>| agent.and_then(read);
    [
        (
            "agent.type",
            of(&|agent| {
                let word = match agent.question {
                    AgentQuestion::Tcp { .. } => "tcp",
                    AgentQuestion::Http { .. } => "http",
                };
                Some(word.to_owned())
            }),
        ),
        (
            "agent.send",
            of(&|agent| match &agent.question {
                AgentQuestion::Tcp { send } => (!send.is_empty()).then(|| shown(agent, "send", send)),
                AgentQuestion::Http { .. } => None,
            }),
        ),
        (
            "agent.path",
            of(&|agent| match &agent.question {
                AgentQuestion::Tcp { .. } => None,
                AgentQuestion::Http { path, .. } => Some(shown(agent, "path", path)),
            }),
        ),
        (
            "agent.host",
            of(&|agent| match &agent.question {
                AgentQuestion::Http { host: Some(host), .. } => Some(shown(agent, "host", host)),
                AgentQuestion::Tcp { .. } | AgentQuestion::Http { host: None, .. } => None,
            }),
        ),
        ("agent.address", of(&|agent| agent.address.map(|address| address.to_string()))),
        ("agent.port", of(&|agent| Some(agent.port.to_string()))),
        ("agent.interval", of(&|agent| Some(show_duration(agent.interval)))),
        ("agent.timeout", of(&|agent| Some(show_duration(agent.timeout)))),
        ("agent.on_lost", of(&|agent| Some(agent.on_lost.to_string()))),
    ]
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = keys(Some(self)).into_iter().filter_map(|(key, value)| Some((key, value?)));
        let words: Vec<String> = set
            .map(|(key, value)| {
                let key = key.trim_start_matches("agent.");
                // The other values of a line have no blanks.
                let value = if key == "on_lost" { format!("{value:?}") } else { value };
                format!("{key}={}", one_line(&value))
            })
            .collect();
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::diff::diff;
    use crate::config::{Config, Overrides, parse};

    fn with(agent: &str) -> Result<Config, Vec<String>> {
        let text = format!(
            "[[listener]]\nbind = \":9090\"\n[[pool]]\nbackend = [{{ address = \":81\" }}]\n{agent}\n"
        );
        let no_names = &mut |_: &str| Ok(Vec::new());
        let parsed = parse(&text, "l4lb.toml", &Overrides::default(), no_names);
        parsed.map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    fn shown(keys: &str) -> String {
        let config = with(&format!("[pool.agent]\n{keys}")).expect("a good config");
        config.pools[0].agent.as_ref().expect("there is one").to_string()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        assert!(with("").expect("a good config").pools[0].agent.is_none(), "no agent is asked");
        assert_eq!(shown("port = 9707"), "type=tcp port=9707 interval=2s timeout=1s on_lost=\"keep\"");
        assert_eq!(
            shown("port = 1\ntype = \"http\"\ninterval = \"500ms\""),
            "type=http path=\"/agent\" port=1 interval=500ms timeout=500ms on_lost=\"keep\""
        );
    }

    #[test]
    fn every_key_is_shown() {
        assert_eq!(
            shown(
                "port = 9707\naddress = \"10.0.0.9\"\nsend = \"{backend}\\n\"\ninterval = \"5s\"\n\
                 timeout = \"3s\"\non_lost = \"clear after 30s\""
            ),
            "type=tcp send=\"{backend}\\n\" address=10.0.0.9 port=9707 interval=5s timeout=3s \
             on_lost=\"clear after 30s\""
        );
        assert_eq!(
            shown("port = 9707\ntype = \"http\"\npath = \"/a/{backend}\"\nhost = \"agents.test\""),
            "type=http path=\"/a/{backend}\" host=\"agents.test\" port=9707 interval=2s timeout=1s \
             on_lost=\"keep\""
        );
    }

    #[test]
    fn every_mistake_is_reported_with_its_place() {
        for (keys, expected) in [
            ("", "port: missing, write port = 9707"),
            ("port = 0", "port: must be 1..=65535, got 0"),
            ("port = 1\ntype = \"udp\"", "type: must be one of tcp, http, got \"udp\""),
            ("port = 1\npath = \"/a\"", "path: belongs to type = \"http\", but type is \"tcp\""),
            (
                "port = 1\ntype = \"http\"\nsend = \"a\"",
                "send: belongs to type = \"tcp\", but type is \"http\"",
            ),
            ("port = 1\ntype = \"http\"\npath = \"a\"", "path: must start with /, got \"a\""),
            (
                "port = 1\naddress = \"agents.test\"",
                "address: must be an IP address, the port is a key of its own, got \"agents.test\"",
            ),
            (
                "port = 1\non_lost = \"clear\"",
                "on_lost: must be \"keep\" or \"clear after 30s\", got \"clear\"",
            ),
            (
                "port = 1\non_lost = \"clear after 0s\"",
                "on_lost: must clear after 1ms..=8760h, got \"clear after 0s\"",
            ),
            (
                "port = 1\ninterval = \"1s\"\ntimeout = \"2s\"",
                "timeout: must be at most the interval, which is 1s, got 2s",
            ),
            (
                "port = 1\nweight = 1",
                "unknown key, expected one of type, send, path, host, address, port, interval, timeout, on_lost",
            ),
        ] {
            let errors = with(&format!("[pool.agent]\n{keys}")).expect_err(keys);
            assert!(errors.len() == 1 && errors[0].contains(expected), "{keys:?}: {errors:?}");
            assert!(errors[0].starts_with("l4lb.toml:"), "{errors:?}");
        }
    }

    #[test]
    fn each_key_that_changes_is_reported() {
        let plain = with("[pool.agent]\nport = 1").expect("a good config");
        let lines = |old: &Config, new: &Config| -> Vec<String> {
            diff(old, new).iter().map(ToString::to_string).collect()
        };
        for (keys, expected) in [
            ("port = 2", "agent.port 1 -> 2"),
            ("port = 1\nsend = \"x\"", "agent.send (not set) -> \"x\""),
            ("port = 1\ninterval = \"3s\"", "agent.interval 2s -> 3s"),
            ("port = 1\ntimeout = \"2s\"", "agent.timeout 1s -> 2s"),
            ("port = 1\non_lost = \"clear after 1m\"", "agent.on_lost keep -> clear after 1m"),
            ("port = 1\naddress = \"::1\"", "agent.address (not set) -> ::1"),
        ] {
            let other = with(&format!("[pool.agent]\n{keys}")).expect("a good config");
            assert_eq!(lines(&plain, &other), [format!("pool \"default\": {expected}")]);
        }
        assert_eq!(lines(&plain, &with("").expect("a good config")).len(), 5, "each key of it");
    }
}
