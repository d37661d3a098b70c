//! The file that is written: its tables are those of ours that HAProxy has too.

use std::net::SocketAddr;

use serde::Serialize;

use super::lines::Note;
use crate::config::written::{Global, Listener, Pool};
use crate::config::{is_overlap, one_line};

#[derive(Debug, Default, Serialize)]
pub(super) struct File {
    #[serde(skip_serializing_if = "Global::is_default")]
    pub(super) global: Global,
    listener: Vec<Listener>,
    pool: Vec<Pool>,
}

impl File {
    pub(super) fn add(&mut self, listener: Listener) {
        self.listener.push(listener);
    }

    pub(super) fn add_pool(&mut self, pool: Pool) {
        self.pool.push(pool);
    }

    /// Returns the listener that could not listen beside one at `bind`.
    pub(super) fn listener_beside(&mut self, bind: &str) -> Option<&mut Listener> {
        let socket: SocketAddr = bind.parse().ok()?;
        let overlaps = |other: SocketAddr| other.port() == socket.port() && is_overlap(socket, other);
        self.listener.iter_mut().find(|other| other.bind.parse().is_ok_and(overlaps))
    }

    pub(super) fn has_pool(&self, name: &str) -> bool {
        self.pool.iter().any(|pool| pool.name == name)
    }

    pub(super) fn has_no_listener(&self) -> bool {
        self.listener.is_empty()
    }

    /// Returns the text, with the lines of the configuration called `source` that are not in it as a comment on top.
    pub(super) fn write(&self, source: &str, notes: &[Note]) -> String {
        let mut text = format!("# Translated from {source} by `l4lb import`.\n");
        if !notes.is_empty() {
            text.push_str("# Not translated:\n");
        }
        for note in notes {
            text.push_str(&format!("#   {}\n", one_line(&note.to_string())));
        }
        text.push('\n');
        text.push_str(&toml::to_string(self).expect("structs of strings and numbers are tables"));
        text
    }
}
