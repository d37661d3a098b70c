//! The state that survives a restart, and the answers that wait until it is on the disk.

use std::collections::{HashMap, VecDeque};

use super::leases::Registrations;
use super::notes::Note;
use super::place_notes::note_placements;
use super::saving::{SaveProgress, StateFile};
use super::state_file::SavedAuthor;
use crate::base::time::Instant;
use crate::control::status::View;
use crate::pool::BackendId;

/// The registrations, and their file.
#[derive(Default)]
pub(crate) struct Kept {
    /// The registered backends and their leases.
    pub(crate) registrations: Registrations,
    /// The authors of the administrative states of restored backends.
    authors: HashMap<BackendId, SavedAuthor>,
    /// The state file, if any.
    pub(crate) file: Option<StateFile>,
    /// Whether the file is older than the running state.
    pub(super) changed: bool,
    /// Not written again before, unless a request waits for it.
    pub(super) next_save: Instant,
    /// The number of the write that contains the last requested change.
    pub(super) asked: u64,
    /// Requests that wait for the disk, in the order of their changes.
    pub(super) waiting: VecDeque<Waiting>,
}

/// An answer that waits until a change is on the disk, or cannot be for now.
pub(super) struct Waiting {
    /// The number of the write that contains it.
    pub(super) write: u64,
    pub(super) deadline: Instant,
    pub(super) answer: Box<dyn FnOnce(Option<String>) + Send>,
}

impl Kept {
    /// Returns the restored state; it is kept in `file` from now on.
    pub(crate) fn new(
        registrations: Registrations,
        authors: HashMap<BackendId, SavedAuthor>,
        file: Option<StateFile>,
    ) -> Self {
        // Written at once: an error should show now, and leases that have ended meanwhile should be dropped.
        Self { registrations, authors, changed: file.is_some(), file, ..Self::default() }
    }

    /// Publishes the restored state, and the state of writing.
    pub(crate) fn show(&self, view: &View) {
        if let Some(file) = &self.file {
            view.state_writes.get_or_init(|| file.writes());
        }
        let mut state = view.state();
        let registered = self.registrations.iter().map(|(id, _)| id);
        for id in registered.chain(self.registrations.discovered()) {
            state.notes.insert(id, Note { origin: self.registrations.origin_of(id), ..Note::default() });
        }
        for (id, author) in &self.authors {
            state.notes.entry(*id).or_default().admin_set = Some(author.clone().into_note());
        }
        note_placements(&self.registrations.placements, &mut state);
    }

    /// Must be called when kept state has changed.
    pub(in crate::control) fn changed(&mut self) {
        self.changed = self.file.is_some();
    }

    /// Must be called when a request has changed kept state, and its answer must wait for the disk.
    pub(in crate::control) fn changed_on_request(&mut self) {
        self.changed();
        self.asked = self.file.as_ref().map_or(0, |file| file.last() + 1);
    }

    /// Ends the wait of requests.
    #[cfg(test)]
    pub(in crate::control) fn end_waits(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.deadline = Instant::default());
    }

    /// Returns a number that differs after a request has changed kept state again, if there is a file.
    pub(in crate::control) const fn asked(&self) -> u64 {
        self.asked
    }

    /// Returns whether a request waits for a change, and the disk is idle.
    pub(super) fn is_due(&self) -> bool {
        let Some(file) = &self.file else { return false };
        self.asked > file.last() && file.progress(file.last()) == SaveProgress::Written
    }
}
